"""From a URL to the nodes of a store, and from a node to an array.

Public: `open_array`, `hierarchy`, `engines`, `survey`.
Above both engines, `lazyarr.client` and `lazyarr.copying`, of which it chooses one.
Not here: memory and messages (`lazyarr.client.session`).
"""
