"""Classes that are made of fields: values, which are frozen, and structs, which are not.

They do what dataclasses do, with the methods of named tuples.  A dataclass has functions
compiled for it, which takes a millisecond, and needs modules that take ten: of the time from
starting Python to an array's first row that was a fifth.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Self, dataclass_transform

__all__ = ["Struct", "Value"]


class _Fields:
    """Something whose class says what fields it has by annotating them.

    Names that begin with an underscore are fields like others, but are not shown.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        names = tuple(cls.__annotations__)
        cls._fields = (*cls._fields, *names)
        cls._defaults = {**cls._defaults, **{n: vars(cls)[n] for n in names if n in vars(cls)}}

    def __init__(self, *values: Any, **named: Any) -> None:
        given = dict(zip(self._fields, values, strict=False))
        found = {**self._defaults, **given, **named}
        if len(given) < len(values) or given.keys() & named or found.keys() != set(self._fields):
            raise TypeError(
                f"{type(self).__name__} has the fields {', '.join(self._fields)}, and was given"
                f" {len(values)} by place and {', '.join(named) or 'none'} by name"
            )
        self.__dict__.update(found)

    def __repr__(self) -> str:
        shown = (f"{n}={getattr(self, n)!r}" for n in self._fields if not n.startswith("_"))
        return f"{type(self).__name__}({', '.join(shown)})"

    def _asdict(self) -> dict[str, Any]:
        """Return the fields by name, in order."""
        return {name: getattr(self, name) for name in self._fields}


@dataclass_transform(eq_default=False)
class Struct(_Fields):
    """Something with fields that change; it is equal to itself only.

    Examples
    --------
    >>> class Tally(Struct):
    ...     name: str
    ...     count: int = 0
    >>> tally = Tally("faults")
    >>> tally.count += 1
    >>> tally
    Tally(name='faults', count=1)
    """


@dataclass_transform(frozen_default=True)
class Value(_Fields):
    """Something that is its fields: frozen, and compared by them.

    Examples
    --------
    >>> class Point(Value):
    ...     x: int
    ...     y: int = 0
    >>> Point(1), Point(1) == Point(x=1, y=0), Point(1)._replace(y=2)
    (Point(x=1, y=0), True, Point(x=1, y=2))
    """

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"cannot set {name!r} of a {type(self).__name__}: use _replace")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"cannot delete {name!r} of a {type(self).__name__}")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self._fields))

    def _replace(self, **changes: Any) -> Self:
        """Return a value with some fields changed."""
        return type(self)(**(vars(self) | changes))
