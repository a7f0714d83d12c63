"""lazyarr's arrays and groups as objects of other libraries, a module for each library.

Public: the functions that methods such as `Dataset.to_xarray` call.  The modules know arrays and
groups by their public attributes, so that these methods, which lie above, can import them.
Not here: imports of lazyarr's own but errors and settings; what entry points name (`plugins`).
"""
