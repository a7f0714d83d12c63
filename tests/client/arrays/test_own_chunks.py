"""What can be read though a neighbour, on the same page or in the same unit, cannot be."""

from __future__ import annotations

import numpy as np
import pytest

import lazyarr
from tests.engines import memory_only
from tests.stores import images, write_zarr

pytestmark = pytest.mark.usefixtures("engine")

# Shape and chunks: rows that share pages; small ones that are loaded together; tiles, which are
# a unit by the row; tiles in units that share pages.
ARRAYS = {
    "rows": ((40, 1000), (4, 1000)),
    "many": ((300, 16), (1, 16)),
    "tiles": ((64, 64, 64), (16, 16, 64)),
    "uneven": ((30, 50, 30), (7, 13, 30)),
}


@pytest.fixture(params=ARRAYS)
def damaged(request, tmp_path):
    """Numbers, the URL of a store of them with one damaged chunk, and which elements it holds."""
    shape, chunks = ARRAYS[request.param]
    data = images(shape)
    url = write_zarr(tmp_path / "x.zarr", data, chunks=chunks)
    place = tuple(-(-n // c) // 2 for n, c in zip(shape, chunks, strict=True))
    file = tmp_path / "x.zarr/c" / "/".join(map(str, place))
    file.write_bytes(file.read_bytes()[:-5])
    lost = np.zeros(shape, bool)
    lost[tuple(slice(p * c, (p + 1) * c) for p, c in zip(place, chunks, strict=True))] = True
    return data, url, lost


def check(x, data, lost, pick):
    """Check that a pick gives the data, or ChunkError if any of it is lost."""
    if pick(lost).any():
        with pytest.raises(lazyarr.ChunkError, match="c/"):
            pick(x)
    else:
        found = pick(x)
        assert type(found) is type(pick(data))
        np.testing.assert_array_equal(found, pick(data))


def test_picks_of_whole_chunks(damaged):
    """Rows, elements, index arrays, masks: those of the damaged chunk alone are errors."""
    data, url, lost = damaged
    x = lazyarr.open(url)
    n = len(data)
    row = int(np.flatnonzero(lost.reshape(n, -1).any(axis=1))[0])
    for i in {*range(0, n, 1 + n // 16), *range(row - 2, row + 3)}:
        check(x, data, lost, lambda a, i=i: a[i])
        check(x, data, lost, lambda a, i=i: a[i, 3:9])
        check(x, data, lost, lambda a, i=i: a[i, -5:])
        check(x, data, lost, lambda a, i=i: a[(i, *(0,) * (a.ndim - 1))])
        check(x, data, lost, lambda a, i=i: a[[i, -1 - i]])
        check(x, data, lost, lambda a, i=i: a[i, [2, 5]])
    check(x, data, lost, lambda a: a[~lost.reshape(n, -1).any(axis=1)])
    check(x, data, lost, lambda a: a[~lost])
    check(x, data, lost, lambda a: a.take(np.flatnonzero(~lost.reshape(n, -1).any(axis=1)), 0))


@pytest.mark.parametrize("share", [8, 1])
def test_operations_on_views_of_whole_chunks(damaged, share):
    """In one request or in passes."""
    data, url, lost = damaged
    x = lazyarr.open(url)
    rows = np.flatnonzero(lost.reshape(len(data), -1).any(axis=1))
    views = (slice(None, rows[0]), slice(rows[-1] + 1, None), slice(rows[0] - 1, rows[0] + 1))
    with lazyarr.configure(memory_limit=max(data.nbytes * share, 1 << 18)):
        for view in views:
            for operation in (np.max, np.sort, lambda a: a + 1, lambda a: a.sum(axis=0)):
                check(
                    x, data, lost, lambda a, v=view, f=operation: f(a[v]) if a is not lost else a[v]
                )


def test_the_chunk_is_read_again_when_it_is_mended(damaged, tmp_path):
    """Nothing of it was kept, and the others are as they were."""
    data, url, lost = damaged
    x = lazyarr.open(url)
    for i in range(0, len(data), 5):
        check(x, data, lost, lambda a, i=i: a[i])
    write_zarr(tmp_path / "again.zarr", data, chunks=x.chunks)
    for file in (tmp_path / "again.zarr/c").rglob("*"):
        if file.is_file():
            (tmp_path / "x.zarr" / file.relative_to(tmp_path / "again.zarr")).write_bytes(
                file.read_bytes()
            )
    np.testing.assert_array_equal(x[...].copy(), data)


@memory_only
def test_what_may_have_been_written_is_not_read_from_the_store(tmp_path):
    """In mode "c" the error stays, and says why; what was written is never lost from sight."""
    data = images((40, 1000))
    url = write_zarr(tmp_path / "x.zarr", data, chunks=(4, 1000))
    x = lazyarr.open(url, "c")
    file = tmp_path / "x.zarr/c/5/0"
    x[12] = 7  # pages of the fourth chunk, and what of the third and fifth is on them
    file.write_bytes(file.read_bytes()[:-5])
    assert (x[12] == 7).all()
    with pytest.raises(lazyarr.ChunkError) as caught:
        x[19]
    assert "mode 'c'" in caught.value.__notes__[-1]
