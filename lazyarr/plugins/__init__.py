"""What other libraries find of lazyarr by its entry points (`pyproject.toml`).

A module for each library, which it imports when it is asked for lazyarr.  Nothing of lazyarr
imports them.
"""
