"""OME-Zarr: images in several resolutions, labels and plates are groups and arrays like others."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import lazyarr
from lazyarr.client.arrays.multiscales import find_multiscales
from tests.engines import engine  # noqa: F401 - a fixture

IMAGE = np.random.default_rng(0).integers(0, 999, (2, 3, 64, 80)).astype("u2")
AXES = [
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]


def multiscales(version):
    """Return the metadata of an image of two levels, by the specification."""
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [1, 2, 0.5 * n, 0.5 * n]}],
        }
        for level, n in enumerate((1, 2))
    ]
    found = {"name": "cells", "axes": AXES, "datasets": datasets}
    return [{"version": version, **found}] if version == "0.4" else [found]


def write(path, version):
    """Write an image of two levels, with labels beside it, by zarr-python alone."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    for level in (0, 1):
        data = IMAGE[..., :: 1 + level, :: 1 + level]
        group.create_array(str(level), data=data, chunks=(1, 1, 16, 16))
    labels = group.create_group("labels/cells")
    labels.create_array("0", data=(IMAGE[0] > 500).astype("i4"))
    said = {"multiscales": multiscales(version)}
    group.attrs.update(said if version == "0.4" else {"ome": {"version": version, **said}})
    return group


def assert_same(ds, group):
    """Compare all arrays of a group with what zarr-python reads."""
    names = sorted(name for name, _ in group.members(max_depth=None))
    for name in names:
        found = group[name]
        if isinstance(found, zarr.Array):
            np.testing.assert_array_equal(np.asarray(ds[name]), found[...])
        else:
            assert isinstance(ds[name], lazyarr.Dataset)
            assert set(ds[name]) == set(found)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_say_what_they_are(tmp_path, engine, version):  # noqa: F811
    """Axes and levels in one line; shape and scale of each level in `info`."""
    path = tmp_path / "x.ome.zarr"
    group = write(path, version)
    ds = lazyarr.open(path)
    assert_same(ds, group)
    axes = "c, z (micrometer), y (micrometer), x (micrometer)"
    assert repr(ds).endswith(f"x.ome.zarr, mode 'r': image 'cells': axes {axes}; 2 levels>")
    assert f"\n  image        'cells': axes {axes}; 2 levels\n" in ds.info
    assert "    level 1    (2, 3, 32, 40) uint16, 15 KiB, scale 1 x 2 x 1 x 1\n" in ds.info
    assert "image &#x27;cells&#x27;" in ds._repr_html_()
    above = zarr.open_group(tmp_path, mode="a", zarr_format=group.metadata.zarr_format)
    assert "x.ome.zarr" in above
    (line,) = (line for line in lazyarr.open(tmp_path).tree().splitlines() if "x.ome" in line)
    assert line.split(maxsplit=2)[1:] == ["x.ome.zarr", f"image 'cells': axes {axes}; 2 levels"]


def test_what_ome_zarr_writes(tmp_path, engine):  # noqa: F811
    """By its newest version of the format: an image with labels, and a plate with wells."""
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it says of its own future
        from ome_zarr import writer

        writer.write_image(IMAGE, group, axes="czyx")
        writer.write_labels((IMAGE[0] > 500).astype("i4"), group, name="cells", axes="zyx")
        plate = zarr.open_group(tmp_path / "plate.zarr", mode="w")
        writer.write_plate_metadata(plate, ["A"], ["1"], ["A/1"])
        well = plate.require_group("A/1")
        writer.write_well_metadata(well, ["0"])
        writer.write_image(IMAGE, well.require_group("0"), axes="czyx")
    ds = lazyarr.open(tmp_path / "x.zarr")
    assert_same(ds, group)
    (image,) = find_multiscales(group.attrs.asdict())
    assert len(image.levels) > 1
    assert [axis[0] for axis in image.axes] == ["c", "z", "y", "x"]
    assert image.summary in repr(ds)
    assert all(f"level {path}" in ds.info for path, _ in image.levels)
    assert "image" in repr(ds["labels/cells"])
    there = lazyarr.open(tmp_path / "plate.zarr")
    assert_same(there, plate)
    assert "image" in repr(there["A/1/0"])
    assert "image" not in repr(there["A/1"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("ome", "multiscales", "datasets", "path", "axes", "name", "unit"),
                    *("coordinateTransformations", "type", "scale"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
DATASETS = st.fixed_dictionaries({"path": JSON, "coordinateTransformations": st.lists(JSON)})
IMAGES = st.fixed_dictionaries({"name": JSON, "axes": JSON, "datasets": st.lists(DATASETS) | JSON})


@given(st.fixed_dictionaries({"multiscales": st.lists(IMAGES, max_size=2) | JSON}) | JSON)
def test_whatever_is_in_the_attributes_breaks_nothing(attributes):
    """What is no such description is left aside."""
    for image in find_multiscales(attributes):
        assert isinstance(image.summary, str)
        assert all(isinstance(text, str) for level in image.levels for text in level)


@pytest.mark.parametrize(
    "said",
    [
        {"multiscales": 5},
        {"multiscales": [{"datasets": [{"path": "../x"}, {"path": "\x1b[31m"}, {"path": ""}]}]},
        {"multiscales": [{"datasets": [{"path": "0"}], "name": "\n" * 500, "axes": ["y", 5]}]},
        {"ome": {"multiscales": [{"datasets": {"path": "0"}}]}},
        {"ome": "text"},
        {
            "multiscales": [
                {
                    "datasets": [
                        {"path": "0", "coordinateTransformations": [{"scale": [10**400, True]}]}
                    ]
                }
            ]
        },
    ],
)
def test_malformed_descriptions_are_shown_as_attributes(tmp_path, said):
    """The group opens, and its texts have no control characters."""
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    group.create_array("0", data=np.arange(3))
    group.attrs.update(said)
    ds = lazyarr.open(tmp_path / "x.zarr")
    assert ds["0"].tolist() == [0, 1, 2]
    texts = [repr(ds), ds.info, ds.tree(), ds._repr_html_()]
    assert all(text.replace("\n", "").isprintable() for text in texts)
