"""``lazyarr verify``: every stored chunk read and checked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from lazyarr.cli.options import format_option, json_option, quiet_option, storage_option_pair
from lazyarr.cli.output import print_json, print_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazyarr.errors import ChunkError
    from lazyarr.verification import Report

__all__ = ["verify"]


@click.command()
@click.argument("url")
@storage_option_pair()
@format_option
@json_option
@quiet_option
def verify(
    url: str,
    storage_options: Mapping[str, Any] | None,
    *,
    file_format: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Read and check every stored chunk.

    The exit code is 1 when one is damaged, when objects are there that no chunk is named
    after, or when there was nothing to check.
    """
    from lazyarr.verification import verify as read_and_check

    report = read_and_check(
        url, storage_options=storage_options, format=file_format, progress=not quiet
    )
    if as_json:
        print_json(_document(report))
    else:
        print_text(str(report))
    sys.exit(0 if report.ok else 1)


def _document(report: Report) -> dict[str, Any]:
    return {
        "url": report.url,
        "ok": report.ok,
        "arrays": report.arrays,
        "chunks_checked": report.chunks_checked,
        "chunks_missing": report.chunks_missing,
        "stored_nbytes": report.stored_nbytes,
        "decoded_nbytes": report.decoded_nbytes,
        "damaged": [_damage(error) for error in report.damaged],
        "skipped": [skipped._asdict() for skipped in report.skipped],
        "unguarded": report.unguarded,
        "strays": [strays._asdict() for strays in report.strays],
        "stale": report.stale,
    }


def _damage(error: ChunkError) -> dict[str, Any]:
    return {
        "array": error.array,
        "chunk": error.chunk,
        "key": error.key,
        "byte_range": error.byte_range,
        "reason": error.reason,
    }
