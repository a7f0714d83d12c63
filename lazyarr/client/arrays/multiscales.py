"""Images in several resolutions, as attributes of OME-Zarr's groups describe them.

Source: https://ngff.openmicroscopy.org, 0.1 to 0.5.  They are the attribute ``multiscales``, which
is in ``ome`` since 0.5.  Attributes are whatever somebody has put there: what is no such
description is left aside, and none of it is an error.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Multiscale", "find_multiscales"]


class Multiscale(NamedTuple):
    """An image in several resolutions.

    Attributes
    ----------
    name : str
        What it is called; "" where it is not.
    axes : tuple of str
        Their names, each with its unit where it has one.
    levels : tuple of (str, str)
        The path of each level's array below the group, and its scale as text; "" without one.
    """

    name: str
    axes: tuple[str, ...]
    levels: tuple[tuple[str, str], ...]

    @property
    def summary(self) -> str:
        """The image on one line, without its levels."""
        n_levels = f"{len(self.levels)} level{'' if len(self.levels) == 1 else 's'}"
        axes = f"axes {', '.join(self.axes)}; " if self.axes else ""
        return f"image{f' {self.name!r}' if self.name else ''}: {axes}{n_levels}"


def find_multiscales(attributes: object) -> list[Multiscale]:
    """Return the images that the attributes of a group describe.

    Examples
    --------
    >>> scale = [{"type": "scale", "scale": [1, 0.5]}]
    >>> datasets = [{"path": "0", "coordinateTransformations": scale}]
    >>> axes = [{"name": "z"}, {"name": "x", "unit": "micrometer"}]
    >>> find_multiscales({"multiscales": [{"axes": axes, "datasets": datasets}]})[0].summary
    'image: axes z, x (micrometer); 1 level'
    >>> find_multiscales({"multiscales": 5})
    []
    """
    given = _member(attributes, "multiscales")
    if given is None:
        given = _member(_member(attributes, "ome"), "multiscales")
    found = []
    for each in _as_list(given):
        datasets = _as_list(_member(each, "datasets"))
        whole = _scale(each)
        levels = [
            (path, _scale_text(_scale(dataset), whole))
            for dataset in datasets
            if isinstance(path := _member(dataset, "path"), str)
        ]
        if levels:
            name = _member(each, "name")
            axes = tuple(_axis(axis) for axis in _as_list(_member(each, "axes")))
            found.append(Multiscale(name if isinstance(name, str) else "", axes, tuple(levels)))
    return found


def _member(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _axis(axis: object) -> str:
    """Return an axis as people read it: 0.3 has names alone."""
    if isinstance(axis, str):
        return axis
    name, unit = _member(axis, "name"), _member(axis, "unit")
    shown = name if isinstance(name, str) and name else "-"
    return f"{shown} ({unit})" if isinstance(unit, str) and unit else shown


def _scale(described: object) -> list[float]:
    """Return by what the indices of an image are multiplied; empty where nothing says so."""
    for each in _as_list(_member(described, "coordinateTransformations")):
        scale = _member(each, "scale")
        if isinstance(scale, list) and all(isinstance(n, int | float) for n in scale):
            try:
                return [float(n) for n in scale]
            except OverflowError:  # a whole number of hundreds of digits
                return []
    return []


def _scale_text(scale: list[float], whole: list[float]) -> str:
    """Return the scale of a level, that of all levels included."""
    if scale and len(scale) == len(whole):
        scale = [a * b for a, b in zip(scale, whole, strict=True)]
    return " x ".join(f"{n:g}" for n in scale)
