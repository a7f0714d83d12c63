"""Options that several commands take."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from lazyarr.cli.options import lengths_of, parse_lengths, storage_option_pair


@click.command()
@storage_option_pair("dst-", "DST")
@storage_option_pair()
def show(**arguments):
    print(arguments)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], None),
        (["--storage-options", "{}"], None),
        (["--storage-options", '{"a": {"b": 1}}'], {"a": {"b": 1}}),
        (["-o", "anon=true", "-o", "port=9000"], {"anon": True, "port": 9000}),
        (["-o", "key=AK/x=", "-o", "empty="], {"key": "AK/x=", "empty": ""}),
        (["-o", 'key="123"'], {"key": "123"}),
        (["--storage-options", '{"a": 1, "b": 2}', "--storage-option", "b=3"], {"a": 1, "b": 3}),
    ],
)
def test_storage_options_come_in_two_ways(given, expected):
    """An object, single values that are JSON where they can be, or both."""
    result = CliRunner().invoke(show, given)
    assert eval(result.output) == {"dst_storage_options": None, "storage_options": expected}


def test_storage_options_of_two_stores_are_apart():
    """A prefix makes a second pair."""
    result = CliRunner().invoke(show, ["-o", "a=1", "--dst-storage-option", "a=2"])
    assert eval(result.output) == {"dst_storage_options": {"a": 2}, "storage_options": {"a": 1}}


@pytest.mark.parametrize(
    ("text", "lengths"),
    [("auto", "auto"), ("none", "none"), ("64", (64,)), ("64, 32,3", (64, 32, 3))],
)
def test_lengths_are_words_or_numbers(text, lengths):
    """One number means rows; several, a length for each axis."""
    option = click.Option(["--shards"])
    assert parse_lengths(click.Context(show), option, text) == lengths


@pytest.mark.parametrize("text", ["", "0", "-3", "3,", "3,,4", "1.5", "many", "٣"])
def test_other_lengths_are_refused(text):
    """What is not a positive whole number is wrong usage."""
    with pytest.raises(click.BadParameter):
        parse_lengths(click.Context(show), click.Option(["--shards"]), text)


@pytest.mark.parametrize(
    ("asked", "shape", "is_alone", "lengths"),
    [
        ("auto", (10, 4), True, "auto"),
        ("none", (10, 4), True, None),
        ((5,), (10, 4, 3), False, 5),
        ((5,), (10, 0), True, 5),
        ((5,), (10,), True, 5),
        ((5,), (), False, "auto"),
        ((5, 2), (10, 4), False, (5, 2)),
        ((5, 2), (10,), False, "auto"),
        ((5, 2), (10,), True, (5, 2)),
    ],
)
def test_lengths_are_fitted_to_arrays(asked, shape, is_alone, lengths):
    """Rows fit any array; lengths of other arrays are left aside, unless there is none."""
    assert lengths_of(asked, shape, is_alone=is_alone) == lengths
