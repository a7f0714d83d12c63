"""Zarr v3 and v2 as values: documents, chunks and shards, without any input or output.

`parse_node` and its siblings read documents; `ArrayMetadata.layout` says how an
array lies in memory, where each chunk is stored, and decodes it; `array_document`
and `group_document` write what `parse_node` reads.  Everything that comes out of
a store is untrusted here: what is wrong with it raises `FormatError`.
"""

from typing import TYPE_CHECKING

from lazyarr.parts import import_on_use

if TYPE_CHECKING:
    from lazyarr.format.buffers import Buffer
    from lazyarr.format.compressors import COMPRESSORS, Compressor
    from lazyarr.format.datatype import DataType
    from lazyarr.format.datatype_v2 import data_type_from_numpy, parse_v2_data_type
    from lazyarr.format.datatype_v3 import parse_data_type
    from lazyarr.format.defaults import CHUNK_NBYTES, SHARD_NBYTES, default_chunks, default_shards
    from lazyarr.format.document_v2 import parse_v2_array, parse_v2_consolidated, parse_v2_group
    from lazyarr.format.document_v3 import parse_node
    from lazyarr.format.documents import array_document, group_document, resized_document
    from lazyarr.format.errors import DamagedChunkError
    from lazyarr.format.grid import KeyEncoding
    from lazyarr.format.layout import ChunkAddress, Layout
    from lazyarr.format.metadata import ArrayMetadata, GroupMetadata, Node
    from lazyarr.format.shard import ShardIndex, ShardLevel

__all__ = [
    "ArrayMetadata",
    "GroupMetadata",
    "Node",
    "parse_node",
    "parse_v2_array",
    "parse_v2_group",
    "parse_v2_consolidated",
    "DataType",
    "parse_data_type",
    "parse_v2_data_type",
    "data_type_from_numpy",
    "Layout",
    "ChunkAddress",
    "ShardLevel",
    "ShardIndex",
    "KeyEncoding",
    "Buffer",
    "DamagedChunkError",
    "array_document",
    "group_document",
    "resized_document",
    "Compressor",
    "COMPRESSORS",
    "default_chunks",
    "default_shards",
    "CHUNK_NBYTES",
    "SHARD_NBYTES",
]

__getattr__ = import_on_use(
    globals(),
    {
        "buffers": "Buffer",
        "compressors": "COMPRESSORS Compressor",
        "datatype": "DataType",
        "datatype_v2": "data_type_from_numpy parse_v2_data_type",
        "datatype_v3": "parse_data_type",
        "defaults": "CHUNK_NBYTES SHARD_NBYTES default_chunks default_shards",
        "document_v2": "parse_v2_array parse_v2_consolidated parse_v2_group",
        "document_v3": "parse_node",
        "documents": "array_document group_document resized_document",
        "errors": "DamagedChunkError",
        "grid": "KeyEncoding",
        "layout": "ChunkAddress Layout",
        "metadata": "ArrayMetadata GroupMetadata Node",
        "shard": "ShardIndex ShardLevel",
    },
)
