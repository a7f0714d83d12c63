"""Pickled arrays: where their pages are, and what was written to them.

Public: `references`, `shared_reference`, `changes`, `unreachable`.
Not here: reopening a store (`lazyarr.opening`).
"""
