"""``lazyarr convert``: arrays in other forms, written as lazyarr writes them."""

from __future__ import annotations

from typing import Any

import click

from lazyarr.cli.application import failure
from lazyarr.cli.options import (
    format_option,
    parse_lengths,
    quiet_option,
    storage_option_pair,
)
from lazyarr.client.arrays.text import count, format_nbytes, printable
from lazyarr.errors import StoreError
from lazyarr.formats.registry import file_suffixes
from lazyarr.formats.zarr import COMPRESSORS
from lazyarr.store.urls import local_path, without_credentials

__all__ = ["convert"]

_MAX_LEVEL = 22  # of zstd
_REFERENCES = (".json", ".parq", ".parquet")
_LAYOUT = ("chunks", "shards", "compressor", "level")


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
@click.option(
    "--check/--no-check",
    default=True,
    show_default=True,
    help="Read everything back, and compare it with SRC, before DST is seen.",
)
@click.option(
    "--restart", is_flag=True, help="Begin anew where a conversion to DST was stopped half-way."
)
@click.option(
    "--skip", is_flag=True, help="Leave out arrays that cannot be read, or that DST cannot hold."
)
@storage_option_pair("dst-", "DST")
@storage_option_pair("", "SRC")
@format_option
@quiet_option
def convert(src: str, dst: str, **options: Any) -> None:
    """Write SRC to DST, a Zarr store unless its name is that of a file.

    SRC is whatever lazyarr.open opens: a Zarr store, or a file of another format.  DST may end
    with .zip (a Zarr store in an archive), .npy, .npz, .safetensors, .h5, .hdf5, .he5, .nc, .nc4,
    .tif, .tiff or .btf.

    Nothing is seen at DST before all of it is there.  The same command goes on where it was
    stopped, in whatever way, as long as SRC has not changed.
    """
    from lazyarr.cli.converting import convert_to_store
    from lazyarr.cli.exporting import convert_to_file, file_format_of
    from lazyarr.cli.sources import open_collection

    _refuse_overlap(src, dst)
    is_file = file_format_of(dst) is not None
    _refuse_wrong_file(dst, is_file=is_file)
    try:
        collection = open_collection(src, options["storage_options"], options["file_format"])
        if collection.unsupported and not options["skip"]:
            found = collection.unsupported[0]
            joint = ", or" if "; " in found else ";"
            raise ValueError(f"{found}{joint} leave such arrays out with --skip")
        for left_out in collection.unsupported:
            click.echo(printable(f"left out: {left_out}"), err=True)
        if options["check"]:
            collection.check()
        (convert_to_file if is_file else convert_to_store)(collection, dst, options)
    except FileExistsError as error:
        raise failure(str(error).replace("overwrite=True", "--overwrite")) from error
    except StoreError as error:
        raise failure(str(error).replace("restart=True", "--restart")) from error
    except KeyboardInterrupt as error:
        # A conversion that can be gone on with has said so, and raised click's own exception.
        click.echo("stopped, and nothing new is kept; give the same command again", err=True)
        raise click.Abort from error
    # What NumPy and the writer raise for what they cannot take.
    except (ValueError, TypeError) as error:
        raise failure(error) from error
    arrays = count(len(collection.arrays), "array")
    line = (
        f"wrote {without_credentials(dst)}: {arrays}, {format_nbytes(collection.nbytes)} in memory"
    )
    click.echo(printable(line), err=True)


def _refuse_wrong_file(dst: str, *, is_file: bool) -> None:
    """Refuse names of files that cannot be written, and options that mean nothing to one."""
    if dst.lower().endswith(_REFERENCES):
        raise click.UsageError(
            f"{printable(dst)} is the name of references, which say where elements are and hold "
            "none; kerchunk and VirtualiZarr write them; name a store as in out.zarr, or a file"
        )
    if not is_file and dst.lower().endswith(file_suffixes()):
        raise click.UsageError(
            f"{printable(dst)} is the name of a file of a format that lazyarr reads and does not "
            "write; name a store as in out.zarr, or a file of another format"
        )
    if not is_file and not dst.lower().endswith(".zip"):
        return
    if local_path(dst) is None:
        raise click.UsageError(
            f"{printable(dst)} is the name of a file, and files are written to local places; "
            "name a store as in out.zarr"
        )
    context = click.get_current_context()
    for name in _LAYOUT if is_file else ():
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} means nothing to {printable(dst)}; leave it out")


def _refuse_overlap(src: str, dst: str) -> None:
    """Refuse to write to where the data comes from, unless the old store stays meanwhile."""
    if local_path(dst) is not None:
        return
    one, other = (f"{url.rstrip('/')}/" for url in (src, dst))
    if one.startswith(other) or other.startswith(one):
        raise click.UsageError("DST and SRC lie in one another; write to another place")
