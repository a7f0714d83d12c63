"""From a chunk in a store to a decoded unit: locate, read, check, decompress.

Used by whatever fills memory: the pager's worker, `verify`, and what serves where there
is no userfaultfd.
"""
