"""Packages whose parts are imported when a name of theirs is first used (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["import_integration", "import_on_use"]


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


def import_integration(name: str) -> Any:
    """Return the module that brings lazyarr's arrays to a library.

    By name, since integrations use what is public, and lie above the methods that lead to them.

    Raises
    ------
    ImportError
        When the library is not installed.
    """
    try:
        return importlib.import_module(f"{__name__.partition('.')[0]}.integrations.{name}")
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(
            f"cannot give arrays to {name}: it is not installed; pip install 'lazyarr[{name}]'"
        ) from error
