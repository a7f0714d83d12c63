"""``lazyarr convert``: arrays in other forms, written as lazyarr writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lazyarr.cli.application import failure
from lazyarr.cli.options import lengths_of, parse_lengths, quiet_option, storage_option_pair
from lazyarr.client.arrays.text import count, format_nbytes, printable
from lazyarr.formats.zarr import COMPRESSORS
from lazyarr.store.urls import local_path, without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy

    from lazyarr.cli.sources import Array, Collection
    from lazyarr.writer import ArrayWriter
    from lazyarr.writer.session import Session

__all__ = ["convert"]

_MAX_LEVEL = 22  # of zstd
_FILE_SUFFIXES = (
    *(".npy", ".npz", ".safetensors", ".zip"),
    *(".h5", ".hdf5", ".he5", ".nc", ".nc4"),
)


@click.command()
@click.argument("src")
@click.argument("dst")
@click.option(
    "--chunks",
    default="auto",
    show_default=True,
    metavar="ROWS|N,N,..",
    callback=parse_lengths,
    help="Rows in a chunk, or its length along each axis. Rows of several arrays are multiplied "
    "where a chunk would have less than 64 KiB.",
)
@click.option(
    "--shards",
    default="auto",
    show_default=True,
    metavar="ROWS|N,N,..|none",
    callback=parse_lengths,
    help="The same for shards; none makes every chunk an object.",
)
@click.option(
    "--compressor",
    default="zstd",
    show_default=True,
    type=click.Choice([*COMPRESSORS, "auto"]),
    help="blosc suits numbers of several bytes; auto tries on samples of each array.",
)
@click.option(
    "--level",
    type=click.IntRange(1, _MAX_LEVEL),
    help="How hard it tries: 3 by default with zstd; 1 with blosc, which has up to 9.",
)
@click.option("--overwrite", is_flag=True, help="Replace the store at DST.")
@click.option("--skip", is_flag=True, help="Leave out arrays that cannot be converted.")
@storage_option_pair("dst-", "DST")
@storage_option_pair("", "SRC")
@quiet_option
def convert(src: str, dst: str, *, skip: bool, **options: Any) -> None:
    """Write SRC to DST as a Zarr store.

    SRC is a .npy, .npz, .safetensors, HDF5 or NetCDF 4 file, or a Zarr store.

    Nothing is seen at DST before all of it is there.
    """
    from lazyarr.cli.sources import open_collection

    _refuse_overlap(src, dst)
    if dst.lower().endswith(_FILE_SUFFIXES):
        raise click.UsageError(
            f"DST becomes a Zarr store, a directory, and {printable(dst)} would be taken for a "
            "file; name it as in out.zarr"
        )
    try:
        collection = open_collection(src, options["storage_options"])
        if collection.unsupported and not skip:
            raise ValueError(f"{collection.unsupported[0]}; leave such arrays out with --skip")
        for left_out in collection.unsupported:
            click.echo(printable(f"left out: {left_out}"), err=True)
        nbytes = _write(collection, dst, options)
    except FileExistsError as error:
        raise failure(str(error).replace("overwrite=True", "--overwrite")) from error
    # What NumPy and the writer raise for what they cannot take.
    except (ValueError, TypeError) as error:
        raise failure(error) from error
    arrays = count(len(collection.arrays), "array")
    click.echo(
        f"wrote {printable(without_credentials(dst))}: {arrays}, {format_nbytes(nbytes)} in memory",
        err=True,
    )


def _refuse_overlap(src: str, dst: str) -> None:
    """Refuse to write to where the data comes from, unless the old store stays meanwhile."""
    if local_path(dst) is not None:
        return
    one, other = (f"{url.rstrip('/')}/" for url in (src, dst))
    if one.startswith(other) or other.startswith(one):
        raise click.UsageError("DST and SRC lie in one another; write to another place")


def _write(collection: Collection, dst: str, options: Mapping[str, Any]) -> int:
    """Write everything, and publish it at the end; return how many bytes the arrays have."""
    from tqdm import tqdm

    from lazyarr.formats.zarr import group_document
    from lazyarr.writer import Writer
    from lazyarr.writer.hierarchy import check_name
    from lazyarr.writer.stores import start_session

    # Names come from an archive or a store that anybody may have made.
    for path in (*collection.groups, *(array.path for array in collection.arrays)):
        if path:
            check_name(path)
    groups = {path: group_document(members) for path, members in collection.groups.items()}
    session = start_session(
        dst,
        groups.pop("", None),
        overwrite=options["overwrite"],
        options=options["dst_storage_options"],
    )
    is_alone = len(collection.arrays) == 1
    bar = tqdm(
        total=sum(array.nbytes for array in collection.arrays),
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        desc="convert",
        disable=options["quiet"],
    )
    with bar, Writer(session):
        for path, document in groups.items():
            session.add_group(path, document)
        for array in collection.arrays:
            data = array.open()
            # Now it is known exactly.
            bar.total += data.nbytes - array.nbytes
            writer = _add_array(session, array, data, options, is_alone=is_alone)
            writer[...] = _Reading(data, bar.update)
    return int(bar.total)


def _add_array(
    session: Session,
    array: Array,
    data: numpy.ndarray[Any, Any],
    options: Mapping[str, Any],
    *,
    is_alone: bool,
) -> ArrayWriter:
    """Return what writes an array, which may be the root as well."""
    from lazyarr.writer import ArrayWriter
    from lazyarr.writer.naming import fit_rows
    from lazyarr.writer.options import plan_array
    from lazyarr.writer.source import as_source

    chunks: Any = lengths_of(options["chunks"], data.shape, is_alone=is_alone)
    shards: Any = lengths_of(options["shards"], data.shape, is_alone=is_alone)
    if not is_alone:
        before = chunks, shards
        chunks, shards = fit_rows(data.shape, data.dtype.itemsize, chunks, shards)
        if (chunks, shards) != before:
            what = f"chunks of {chunks}" if chunks != before[0] else f"shards of {shards}"
            asked = before[0] if chunks != before[0] else before[1]
            line = f"{array.path}: {what} rows, for {asked} would have less than 64 KiB"
            click.echo(printable(line), err=True)
    document = plan_array(
        array.path,
        shape=data.shape,
        dtype=data.dtype,
        chunks=chunks,
        shards=shards,
        compressor=options["compressor"],
        level=options["level"],
        fill_value=array.fill_value,
        attributes=array.attributes,
        dimension_names=array.dimension_names,
        sample=as_source(data, name=array.path),
    )
    return ArrayWriter(session, session.add_array(array.path, document))


class _Reading:
    """An array-like that tells how much of it has been read.

    Parameters
    ----------
    data : numpy.ndarray
        What is read; a lazy array is asked for each part before it is touched, so
        that a chunk which cannot be had is an error, and not a signal.
    report : callable
        Takes the number of bytes.
    """

    def __init__(self, data: numpy.ndarray[Any, Any], report: Callable[[int], object]) -> None:
        self.shape = data.shape
        self.dtype = data.dtype
        self._data = data
        self._report = report

    def __getitem__(self, index: tuple[slice, ...]) -> numpy.ndarray[Any, Any]:
        import numpy

        prefetch = getattr(self._data, "prefetch", None)
        if prefetch is not None:
            prefetch(index)
        part = numpy.asarray(numpy.asarray(self._data)[index])
        # A copy of what is lazy: it might be evicted before it is encoded.
        block = part if prefetch is None else part.copy()
        self._report(block.nbytes)
        return block
