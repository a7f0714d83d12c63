"""xarray's own tests of its engines, of what the engine "lazyarr" reads.

Collected by a pytest of its own: importing them changes what holds for warnings, and takes a while.
"""

from __future__ import annotations

import contextlib

import pytest
import xarray
import zarr
from xarray.tests.conftest import *  # noqa: F403 - their fixtures
from xarray.tests.test_backends import CFEncodedBase, NetCDF4Base, ZarrBase, create_tmp_file

import lazyarr

WRITING = "xarray writes that, and nothing of it is read by an engine"
OTHER = "it opens by another engine, or the store itself"

# Tests by the beginnings of their names, and why they are left out.
LEFT_OUT = {
    "test_load_async": "it needs pytest-asyncio; tests/integrations/test_xarray.py has one",
    "test_write_store": "the engine writes no store",
    "test_write_": WRITING,
    "test_append_": WRITING,
    "test_region": WRITING,
    "test_to_zarr_": WRITING,
    "test_chunk_": WRITING,
    "test_shard_": WRITING,
    "test_warning_on_bad_chunks": WRITING,
    "test_check_encoding_is_consistent_after_append": WRITING,
    "test_encoding_kwarg": WRITING,
    "test_invalid_dataarray_names": WRITING,
    "test_multiindex_not_implemented": WRITING,
    "test_string_object_warning": WRITING,
    "test_zarr_mode_w": WRITING,
    "test_compressor_encoding": "codecs are given as documents: zarr need not be installed",
    "test_hidden_zarr_keys": OTHER,
    "test_dimension_names": OTHER,
    "test_cache_members": OTHER,
    "test_open_zarr": OTHER,
    "test_read_non_consolidated_warning": OTHER,
    "test_non_existent_store": OTHER,
    "test_deprecate_auto_chunk": OTHER,
    "test_chunked_": "tests/integrations/test_xarray.py has it, and it takes seconds",
    "test_manual_chunk": "it takes seconds, and is about xarray's chunks",
    "test_zarr_fill_value": "its settings are of version 3 alone",
    # Of NetCDF:
    "test_byte_attrs": "its attributes are for netCDF4 to write",
    "test_encoding_unlimited_dims": "which dimensions can grow is no part of the encoding",
    "test_dump_encodings": "compression is no part of the encoding",
    "test_compression_encoding": "compression is no part of the encoding",
    "test_encoding_enum": "names of numbers (enum) are no part of the data type",
}


class Reading:
    """Datasets are written by xarray, and opened by lazyarr."""

    lazyarr_engine = "userfaultfd"
    left_out = tuple(LEFT_OUT)

    def __init_subclass__(cls):
        super().__init_subclass__()
        for name in dir(cls):
            if name.startswith(cls.left_out):
                setattr(cls, name, None)

    @pytest.fixture(autouse=True)
    def chosen_engine(self):
        with lazyarr.configure(engine=self.lazyarr_engine):
            yield

    @contextlib.contextmanager
    def open(self, path, **options):
        with xarray.open_dataset(path, engine="lazyarr", **options) as ds:
            yield ds


class TestZarr(Reading, ZarrBase):
    """Zarr v3, and what xarray's tests say of Zarr alone."""

    @pytest.fixture(autouse=True)
    def default_zarr_format(self):
        with zarr.config.set(default_zarr_format=3):
            yield

    @contextlib.contextmanager
    def create_zarr_target(self):
        with create_tmp_file(suffix=".zarr") as path:
            yield path


class TestZarrVersion2(Reading, CFEncodedBase):
    """Zarr v2, by the engine that copies."""

    lazyarr_engine = "copy"
    left_out = (
        *LEFT_OUT,
        # They hold too.  In version 3 they are tested, and they take seconds.
        "test_explicitly_omit", "test_grid_mapping", "test_coordinate", "test_encoding",
        "test_roundtrip_coordinates", "test_roundtrip_timedelta",
    )  # fmt: skip
    test_roundtrip_bytes_with_fill_value = None  # zarr-python has no such fill value
    test_roundtrip_mask_and_scale = None  # for JSON has no float32

    def save(self, dataset, path, **options):
        return dataset.to_zarr(path, zarr_format=2, **options)


class TestNetCDF(Reading, NetCDF4Base):
    """NetCDF 4."""

    engine = "h5netcdf"
