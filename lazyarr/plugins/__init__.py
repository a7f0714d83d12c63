"""What other libraries find of lazyarr by its entry points, a module for each library.

Public: the names in `pyproject.toml`.  A library imports its module when it is asked for lazyarr.
Not here: how arrays become objects of that library (`integrations`).
"""
