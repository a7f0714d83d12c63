"""How the nodes of a hierarchy are told: by their metadata documents."""

from __future__ import annotations

__all__ = ["NODE_DOCUMENTS"]

NODE_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup")
"""The metadata documents, of which each node has one."""
