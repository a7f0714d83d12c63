"""Arguments and options that several commands take."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from lazyarr.formats.registry import FORMAT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "format_option",
    "json_option",
    "lengths_of",
    "parse_lengths",
    "quiet_option",
    "storage_option_pair",
]

_Command = TypeVar("_Command", bound="Callable[..., Any]")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")

format_option = click.option(
    "--format",
    "file_format",
    type=click.Choice(FORMAT_NAMES),
    help="What it is; by default its name tells, or its first bytes.",
)

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")


def _parse_object(_: click.Context, __: click.Parameter, value: str | None) -> dict[str, Any]:
    """Return the members of a JSON object; none without one."""
    try:
        members = {} if value is None else json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}") from error
    if not isinstance(members, dict):
        raise click.BadParameter('not a JSON object; give one as {"anon": true}')
    return members


def _parse_pairs(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> dict[str, Any]:
    """Return members from ``key=value``; a value is JSON where it can be read as that."""
    members: dict[str, Any] = {}
    for pair in value:
        key, separator, text = pair.partition("=")
        if not key or not separator:
            raise click.BadParameter(f"{pair!r} is not key=value")
        try:
            members[key] = json.loads(text)
        except (ValueError, RecursionError):
            members[key] = text
    return members


def parse_lengths(
    _: click.Context, parameter: click.Parameter, value: str
) -> str | tuple[int, ...]:
    """Return what is asked for as the shape of chunks or shards: a word, or lengths.

    Raises
    ------
    click.BadParameter
        It is neither.
    """
    words = ("auto", "none") if parameter.name == "shards" else ("auto",)
    if value in words:
        return value
    parts = [part.strip() for part in value.split(",")]
    lengths = tuple(int(part) for part in parts if part.isascii() and part.isdecimal())
    if len(lengths) != len(parts) or 0 in lengths:
        raise click.BadParameter(
            f"{value!r} is not {' or '.join(words)}, and no lengths such as 64,128,128"
        )
    return lengths


def lengths_of(
    asked: str | tuple[int, ...], shape: tuple[int, ...], *, is_alone: bool
) -> Literal["auto"] | int | tuple[int, ...] | None:
    """Return what was asked for as it applies to one array: a number alone is one of rows.

    Parameters
    ----------
    asked : str or tuple of int
        A word, rows, or a length for each axis.
    shape : tuple of int
        The array's.
    is_alone : bool
        Whether it is the only one; otherwise lengths for another number of axes are
        meant for others.

    Examples
    --------
    >>> lengths_of((64,), (1000, 32, 32), is_alone=True)
    64
    >>> lengths_of((8, 16, 16), (1000,), is_alone=False)
    'auto'
    """
    if isinstance(asked, str):
        return None if asked == "none" else "auto"
    if len(asked) == 1 and shape:
        return asked[0]
    return asked if is_alone or len(asked) == len(shape) else "auto"


def storage_option_pair(
    prefix: str = "", what: str = "the store"
) -> Callable[[_Command], _Command]:
    """Return what gives a command the argument ``storage_options``, from two options.

    Parameters
    ----------
    prefix : str
        Goes in front of the options' and of the argument's name, as in ``dst-``; without
        one, there is the short option ``-o`` too.
    what : str
        What they are for, in the help.
    """
    whole, single = f"--{prefix}storage-options", f"--{prefix}storage-option"
    names = [name.lstrip("-").replace("-", "_") for name in (whole, single)]

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def with_options(**arguments: Any) -> Any:
            given, one_by_one = (arguments.pop(name) for name in names)
            return command(**arguments, **{names[0]: {**given, **one_by_one} or None})

        add_single = click.option(
            *(() if prefix else ("-o",)),
            single,
            names[1],
            multiple=True,
            metavar="KEY=VALUE",
            callback=_parse_pairs,
            help=f"One option of fsspec for {what}; may be repeated.",
        )
        add_whole = click.option(
            whole,
            names[0],
            metavar="JSON",
            callback=_parse_object,
            help=f"Options of fsspec for {what}, as a JSON object.",
        )
        return add_single(add_whole(with_options))  # type: ignore[return-value]

    return decorate
