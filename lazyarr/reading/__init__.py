"""From a chunk in a store to a decoded unit: locate, read, check, decompress.

Public: `unit_reader`, `fetcher`, `workspace`, `open_shards`.  Used by whatever fills memory: the
pager's worker, `verify`, and the engine that copies.
Not here: bytes by key (`lazyarr.store`), and deciding what is read.
"""
