"""Zarr v3 and v2: documents, the layouts that they describe, and the documents that lazyarr writes.

Public: the names below.  Everything that comes out of a store is untrusted here: what is wrong
with it raises `FormatError`.
Not here: reading from stores, and what is common to all formats (`lazyarr.layout`).
"""

from typing import TYPE_CHECKING

from lazyarr.parts import import_on_use

if TYPE_CHECKING:
    from lazyarr.formats.zarr.compressors import COMPRESSORS, Compressor
    from lazyarr.formats.zarr.datatype_v2 import data_type_from_numpy, parse_v2_data_type
    from lazyarr.formats.zarr.datatype_v3 import parse_data_type
    from lazyarr.formats.zarr.defaults import (
        CHUNK_NBYTES,
        SHARD_NBYTES,
        default_chunks,
        default_shards,
    )
    from lazyarr.formats.zarr.document_v2 import (
        parse_v2_array,
        parse_v2_consolidated,
        parse_v2_group,
    )
    from lazyarr.formats.zarr.document_v3 import parse_node
    from lazyarr.formats.zarr.metadata import ArrayMetadata, GroupMetadata, Node
    from lazyarr.formats.zarr.written_documents import (
        array_document,
        attributes_document,
        group_document,
        plain_attribute,
        resized_document,
    )

__all__ = [
    "ArrayMetadata",
    "CHUNK_NBYTES",
    "COMPRESSORS",
    "Compressor",
    "GroupMetadata",
    "Node",
    "SHARD_NBYTES",
    "array_document",
    "attributes_document",
    "data_type_from_numpy",
    "default_chunks",
    "default_shards",
    "group_document",
    "parse_data_type",
    "parse_node",
    "parse_v2_array",
    "parse_v2_consolidated",
    "parse_v2_data_type",
    "parse_v2_group",
    "plain_attribute",
    "resized_document",
]

__getattr__ = import_on_use(
    globals(),
    {
        "compressors": "COMPRESSORS Compressor",
        "datatype_v2": "data_type_from_numpy parse_v2_data_type",
        "datatype_v3": "parse_data_type",
        "defaults": "CHUNK_NBYTES SHARD_NBYTES default_chunks default_shards",
        "document_v2": "parse_v2_array parse_v2_consolidated parse_v2_group",
        "document_v3": "parse_node",
        "metadata": "ArrayMetadata GroupMetadata Node",
        "written_documents": "array_document attributes_document group_document plain_attribute"
        " resized_document",
    },
)
