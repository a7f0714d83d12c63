"""The memory of clients as the worker sees it: descriptors, and the calls that install pages.

Public: `clients`, `main_thread`, `installer`.
Not here: deciding which pages are installed.
"""
