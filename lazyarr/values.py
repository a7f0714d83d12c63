"""Classes that are made of fields: values and tuples, which are frozen, and structs.

They do what dataclasses do, with the methods of named tuples.  A dataclass has functions
compiled for it, which takes a millisecond, and needs modules that take ten: of the time from
starting Python to an array's first row that was a fifth.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, ClassVar, NoReturn, Self, dataclass_transform

__all__ = ["FieldTuple", "Struct", "Value"]


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


@dataclass_transform(frozen_default=True)
class FieldTuple(tuple[Any, ...]):
    """A tuple with names for its items, as of `typing.NamedTuple`, but faster to define.

    To define a `NamedTuple` takes a quarter of a millisecond, for a function is compiled.  The
    pager has thirty kinds of events and commands, and whoever opens a first array waits for the
    pager to start.

    Examples
    --------
    >>> class Move(FieldTuple):
    ...     steps: int
    ...     is_forward: bool = True
    >>> Move(3), Move(3, is_forward=False)[1], Move(3)._replace(steps=4).steps
    (Move(steps=3, is_forward=True), False, 4)
    """

    __slots__ = ()

    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}
    # By how many values are given by place: the defaults of the others, where all of them have one.
    _tails: ClassVar[dict[int, tuple[Any, ...]]] = {}

    def __init_subclass__(cls) -> None:
        names = tuple(cls.__annotations__)
        cls._defaults = {name: vars(cls)[name] for name in names if name in vars(cls)}
        tail = tuple(cls._defaults.values())
        n_required = len(names) - len(tail)
        cls._tails = {n_required + n: tail[n:] for n in range(len(tail) + 1)}
        cls._fields = names
        for place, name in enumerate(names):
            setattr(cls, name, property(itemgetter(place)))

    def __new__(cls, *values: Any, **named: Any) -> Self:  # noqa: D102 - the class says it
        if named:
            values = cls._in_order(values, named)
        tail = cls._tails.get(len(values))
        if tail is None:
            raise cls._wrong(values, named)
        return tuple.__new__(cls, values + tail)

    @classmethod
    def _in_order(cls, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """Return the values of all fields, some of which are given by name."""
        names = cls._fields[len(values) :]
        given = {**cls._defaults, **named}
        if named.keys() - set(names) or set(names) - given.keys():
            raise cls._wrong(values, named)
        return (*values, *[given[name] for name in names])

    @classmethod
    def _wrong(cls, values: tuple[Any, ...], named: dict[str, Any]) -> TypeError:
        return TypeError(
            f"{cls.__name__} has the fields {', '.join(cls._fields)}, and was given"
            f" {len(values)} by place and {', '.join(named) or 'none'} by name"
        )

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({', '.join(shown)})"

    def _replace(self, **changes: Any) -> Self:
        """Return a tuple with some fields changed."""
        return type(self)(**(dict(zip(self._fields, self, strict=True)) | changes))
