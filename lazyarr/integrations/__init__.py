"""lazyarr's arrays and groups as objects of other libraries, a module for each library.

They know arrays and groups by their public attributes alone, and import nothing of lazyarr but
errors and settings: so methods of arrays and groups can lead to them.  `plugins` is the other way.
"""
