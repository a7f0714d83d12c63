"""What all commands have in common: the group, and what becomes of errors."""

from __future__ import annotations

import errno
import warnings
from typing import Any

import click

from lazyarr import settings
from lazyarr._version import __version__
from lazyarr.client.arrays.text import printable
from lazyarr.errors import KernelUnsupportedError, LazyarrError, StoreWarning

__all__ = ["Application", "failure", "main"]


def failure(error: BaseException | str) -> click.ClickException:
    """Return, for the caller to raise, the end of a command: one line on stderr, exit code 1."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KernelUnsupportedError) and error.remedy not in message:
        message += f"; to mend it: {error.remedy}"
    return click.ClickException(printable(message))


def _show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Show a warning on one line of stderr, without the place in lazyarr's own code."""
    kind = "Warning" if issubclass(category, StoreWarning) else category.__name__
    click.echo(printable(f"{kind}: {' '.join(str(message).split())}"), err=True)


class Application(click.Group):
    """A group of commands whose expected errors are messages, never tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", StoreWarning)
                warnings.showwarning = _show
                return super().invoke(ctx)
        except (LazyarrError, OSError) as error:
            # A reader of our output that goes away, as `head` does, is click's to handle.
            if error.__class__ is BrokenPipeError or getattr(error, "errno", None) == errno.EPIPE:
                raise
            raise failure(error) from error


@click.group(cls=Application, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="lazyarr", message="%(prog)s %(version)s")
def main() -> None:
    """Datasets, local or remote, as NumPy arrays that fill on first touch.

    URL is a path, or any URL that fsspec takes.  Begin with 'lazyarr demo'.
    """
    try:
        settings.current()
    except ValueError as error:
        raise click.UsageError(str(error)) from error
