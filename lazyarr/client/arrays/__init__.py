"""The array that users hold, and what NumPy does with it.

Public: `lazyarray`, `attributes`, `describe`, `text`.
Not here: messages to the pager (`session`), and finding arrays in a store (`lazyarr.opening`).
"""
