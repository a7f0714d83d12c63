"""Results on stdout."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import click

__all__ = ["print_json", "print_text"]


def print_text(text: str) -> None:
    """Print text, also where the terminal does not have all of its characters."""
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(text.encode(encoding, "replace").decode(encoding))


def print_json(document: Any) -> None:
    """Print a document that every reader of JSON takes."""
    try:
        text = json.dumps(_finite(document), indent=2)
    except RecursionError as error:
        message = "cannot print as JSON: attributes are nested too deeply; leave out --json"
        raise click.ClickException(message) from error
    click.echo(text)


def _finite(value: Any) -> Any:
    """Return a value with the floats that JSON does not have spelled as Zarr spells them."""
    if isinstance(value, dict):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
