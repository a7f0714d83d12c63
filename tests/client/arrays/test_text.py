"""Values as text."""

from __future__ import annotations

import pytest

from lazyarr.client.arrays.text import columns, count, format_nbytes, one_line, printable, reason
from lazyarr.errors import FormatError


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (999 * 1024, "999 KiB"),
        (1000 * 1024, "0.977 MiB"),
        (2**30 - 1, "1 GiB"),
        (402_653_184, "384 MiB"),
        (2**40 * 7, "7 TiB"),
        (2**62, "4 EiB"),
    ],
)
def test_sizes_have_three_digits(nbytes, text):
    """A size has a binary unit and never more than three significant digits above a KiB."""
    assert format_nbytes(nbytes) == text


def test_numbers_agree_with_their_nouns():
    """One is singular; thousands are separated."""
    assert [count(n, "fault") for n in (0, 1, 12345)] == ["0 faults", "1 fault", "12,345 faults"]


@pytest.mark.parametrize("evil", ["\x1b[31m", "\x9b2J", "\r", "\n", "\u202e", "\ud800", "\x00"])
def test_control_characters_are_spelled_out(evil):
    """What a terminal would obey is shown as an escape, everything else as it is."""
    shown = printable(f"naïve 名 {evil}")
    assert shown.startswith("naïve 名 \\")
    assert shown.isprintable()


def test_a_long_value_is_cut():
    """Attributes of any size stay on a line of readable length."""
    assert one_line({"a": 1}) == '{"a": 1}'
    assert len(one_line({"a": "x" * 10_000})) < 500


def test_columns_are_as_wide_as_their_widest_cell():
    """The last cell of a row widens no column."""
    rows = [("a", "bb", "c"), ("long", "a remark that is no cell of a column"), ("ab", "b", "c")]
    assert list(columns(rows)) == [
        "a     bb  c",
        "long  a remark that is no cell of a column",
        "ab    b   c",
    ]


def test_a_reason_does_not_repeat_the_path():
    """Where the node is named already, only the rest of the message is said."""
    error = FormatError("cannot read the metadata of '/a/b': no shape", path="a/b")
    assert reason("a/b", error) == "no shape"
    assert reason("a", error) == error.message
