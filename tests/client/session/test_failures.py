"""Failures that the pager tells of become exceptions."""

from __future__ import annotations

import gc
import weakref

import pytest

from lazyarr.client.session.failures import do_each, raise_first, raise_together
from lazyarr.errors import ChunkError


def failure(number: int) -> dict[str, object]:
    """Return a failure as JSON gives it: with lists."""
    return {
        "message": f"chunk {number} cannot be had",
        "url": "u",
        "array": "a",
        "chunk": [number, 0],
        "key": f"c/{number}",
        "byte_range": [0, 7],
        "reason": "its checksum is wrong",
    }


def test_nothing_that_failed_is_no_error():
    """Nearly always."""
    assert raise_first([]) is None
    assert raise_together([]) is None


def test_the_error_has_the_fields_that_the_pager_knew():
    """As tuples, which they were before they were sent."""
    with pytest.raises(ChunkError, match=r"^chunk 3 cannot be had$") as caught:
        raise_first([failure(3)])
    error = caught.value
    assert (error.url, error.array, error.key) == ("u", "a", "c/3")
    assert (error.chunk, error.byte_range) == ((3, 0), (0, 7))
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("n_failures", [2, 8, 9, 5000])
def test_the_others_are_a_few_notes_of_the_first(n_failures):
    """A server that is away fails thousands of chunks."""
    with pytest.raises(ChunkError, match="chunk 0") as caught:
        raise_first([failure(number) for number in range(n_failures)])
    notes = caught.value.__notes__
    n_told = min(n_failures, 8) - 1
    assert notes[:n_told] == [f"also: chunk {n} cannot be had" for n in range(1, n_told + 1)]
    assert notes[n_told:] == ([f"and {n_failures - 8} more"] if n_failures > 8 else [])


def test_each_is_called_though_others_fail():
    """And the notes of all that failed are there."""

    def fail(number):
        error = ChunkError(f"chunk {number} cannot be had")
        error.add_note(f"note {number}")
        raise error

    called = []
    assert do_each(lambda: 1, lambda: 2) == [1, 2]
    with pytest.raises(ChunkError, match="chunk 0") as caught:
        do_each(lambda: fail(0), lambda: called.append(1), lambda: fail(2))
    assert called == [1]
    assert caught.value.__notes__ == ["note 0", "also: chunk 2 cannot be had", "note 2"]


def test_one_error_of_several_units_is_raised_again_and_again():
    """Nothing is noted twice, nor of the error itself."""
    first, other = ChunkError("chunk 0 cannot be had"), ChunkError("chunk 1 cannot be had")
    for _ in range(3):
        with pytest.raises(ChunkError, match="chunk 0") as caught:
            raise_together([first, first, other, first, other])
        assert caught.value.__notes__ == ["also: chunk 1 cannot be had"]


def test_an_error_is_freed_with_the_last_reference_to_it():
    """In a ring with its own traceback it would keep an array until the next collection."""
    gc.disable()
    try:
        try:
            raise_first([failure(0)])
        except ChunkError as error:
            known = weakref.ref(error)
        assert known() is None
    finally:
        gc.enable()
