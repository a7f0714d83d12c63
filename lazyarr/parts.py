"""Packages whose parts are imported when a name of theirs is first used (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["import_on_use", "needing"]


def import_on_use(package: dict[str, Any], names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package, which starting must not wait for as a whole.

    Parameters
    ----------
    package : dict
        What the package's ``globals()`` returns.
    names : mapping of str to str
        By module in the package, the names that are found there, with blanks between them.
    """
    homes = {name: home for home, found in names.items() for name in found.split()}

    def find(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package['__name__']}.{home}"), name)
        package[name] = value
        return value

    return find


@contextmanager
def needing(library: str) -> Iterator[None]:
    """Say how to install a library when the imports in here lack it.

    Raises
    ------
    ImportError
        When the library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise ImportError(
            f"cannot give arrays to {library}: it is not installed; "
            f"pip install 'lazyarr[{library}]'"
        ) from error
