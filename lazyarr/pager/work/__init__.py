"""Loading units: threads, decoding processes, and the order in which pages are installed.

Public: `executor`, `loads`, `decoder`.
Not here: deciding what is loaded or evicted (`lazyarr.plan`).
"""
