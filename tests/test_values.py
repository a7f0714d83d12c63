"""Values are frozen and compared by their fields, structs are neither."""

import copy
import pickle
from typing import Any

import pytest

from lazyarr.values import FieldTuple, Struct, Value


class Point(Value):
    """Something with a default and a field that is not shown."""

    x: int
    y: int = 0
    _note: str = ""


def test_fields_are_given_by_place_by_name_or_by_default() -> None:
    """Every way of making the same value makes the same value."""
    point = Point(1, 0)
    assert point == Point(1) == Point(x=1) == Point(y=0, x=1)
    assert (point.x, point.y) == (1, 0)
    assert point._asdict() == {"x": 1, "y": 0, "_note": ""}
    assert hash(point) == hash(Point(1))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), {}),
        ((), {"y": 1}),
        ((1, 2, "", 4), {}),
        ((1,), {"x": 1}),
        ((1,), {"z": 1}),
    ],
)
def test_wrong_fields_are_refused(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    """A field that is missing, given twice, or not there is a TypeError that names the fields."""
    with pytest.raises(TypeError, match="Point has the fields x, y, _note, and was given"):
        Point(*values, **named)


def test_nothing_changes_a_value() -> None:
    """Fields are neither set nor deleted; _replace makes another value."""
    point = Point(1)
    with pytest.raises(AttributeError, match="cannot set 'x' of a Point"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="cannot delete 'x' of a Point"):
        del point.x
    assert point._replace(x=2) == Point(2)
    assert point == Point(1)
    with pytest.raises(TypeError):
        point._replace(z=2)


def test_a_value_of_another_class_is_another_value() -> None:
    """Classes with the same fields make values that differ."""

    class Other(Value):
        x: int
        y: int = 0
        _note: str = ""

    assert Point(1) != Other(1)
    assert Point(1) != (1, 0, "")


def test_a_class_adds_fields_to_those_of_its_base() -> None:
    """Fields of the base come first."""

    class Spot(Point):
        colour: str = "red"

    assert Spot(1, 2, "", "blue")._asdict() == {"x": 1, "y": 2, "_note": "", "colour": "blue"}
    assert Point._fields == ("x", "y", "_note")


def test_values_are_shown_without_what_begins_with_an_underscore() -> None:
    """The text is how the value is made."""
    assert repr(Point(1, 2, "secret")) == "Point(x=1, y=2)"


def test_values_travel() -> None:
    """Pickling and copying give the same value."""
    point = Point(1, 2, "x")
    assert pickle.loads(pickle.dumps(point)) == point
    assert copy.deepcopy(point) == point == copy.copy(point)


class Tally(Struct):
    """Something that changes."""

    name: str
    count: int = 0


def test_a_struct_changes() -> None:
    """Its fields can be set, and do not change what others begin with."""
    tally = Tally("faults")
    tally.count += 2
    assert repr(tally) == "Tally(name='faults', count=2)"
    assert Tally("faults").count == 0


def test_a_struct_is_equal_to_itself_only() -> None:
    """Two that hold the same are still two."""
    tally = Tally("faults")
    assert tally == tally
    assert tally != Tally("faults")
    assert len({tally, Tally("faults")}) == 2


class Load(FieldTuple):
    """A tuple with two fields that must be given."""

    region: int
    unit: int
    urgent: bool = False
    mark: bool = False


def test_a_field_tuple_is_the_tuple_of_its_fields() -> None:
    """Given by place, by name or by default; compared, copied and pickled as a tuple."""
    load = Load(1, 2, mark=True)
    assert (
        load == (1, 2, False, True) == Load(unit=2, mark=True, region=1) == Load(1, 2, False, True)
    )
    assert (load.region, load.unit, load.urgent, load.mark) == (1, 2, False, True)
    assert Load(3, 4) == (3, 4, False, False)
    assert Load(3, 4, True)[2:] == (True, False)
    for other in (copy.copy(load), copy.deepcopy(load), pickle.loads(pickle.dumps(load))):
        assert (type(other), other) == (Load, load)
    assert load._replace(unit=5, urgent=True) == (1, 5, True, True)
    assert repr(load) == "Load(region=1, unit=2, urgent=False, mark=True)"
    with pytest.raises(AttributeError):
        load.unit = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1,), {}), ((1,), {"urgent": True}), ((1, 2, 3, 4, 5), {}), ((1, 2), {"unit": 2}),
     ((1, 2), {"z": 1})],
)  # fmt: skip
def test_wrong_fields_of_a_tuple_are_refused(
    values: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """A field that is missing, given twice, or not there is a TypeError that names the fields."""
    with pytest.raises(TypeError, match="Load has the fields region, unit, urgent, mark, and was"):
        Load(*values, **named)
