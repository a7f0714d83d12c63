"""Every exception: what it is, what it says, and that it survives a journey."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest

from lazyarr import errors
from lazyarr.errors import (
    ChunkError,
    FormatError,
    KernelError,
    KernelUnsupportedError,
    LazyarrError,
    NodeNotFoundError,
    NotStoredError,
    PagerError,
    StoreError,
)

EXAMPLES = [
    LazyarrError("it failed"),
    StoreError("cannot reach it", url="s3://bucket", key="a/zarr.json", transient=True),
    NodeNotFoundError("no array 'x'", url="file:///d", key=None, path="x"),
    FormatError("shape expected, found null", path="a/zarr.json"),
    ChunkError(
        "chunk (17, 0) of 'x' cannot be had",
        url="s3://bucket",
        array="x",
        chunk=(17, 0),
        key="x/c/0/0",
        byte_range=(81920, 131072),
        reason="crc32c expected 5d1f09aa, found 00000000",
    ),
    KernelError("ENOMEM", errno=errno.ENOMEM),
    KernelError("refused, and why is not known"),
    KernelUnsupportedError(
        "cannot open userfaultfd", missing=("userfaultfd",), remedy="run it", errno=errno.EPERM
    ),
    PagerError("the pager is gone", pid=17),
    NotStoredError("this array has no store behind it: it is a copy"),
]
BUILTINS = {
    StoreError: (OSError,),
    NodeNotFoundError: (StoreError, FileNotFoundError, KeyError),
    FormatError: (ValueError,),
    ChunkError: (OSError,),
    KernelError: (OSError,),
    KernelUnsupportedError: (KernelError,),
    PagerError: (ConnectionError,),
    NotStoredError: (AttributeError,),
}
FIELDS = (
    "url", "key", "transient", "path", "array", "chunk", "byte_range", "reason", "errno",
    "missing", "remedy", "pid",
)  # fmt: skip


def fields_of(error: LazyarrError) -> dict[str, object]:
    """Return every field that an error has."""
    return {name: getattr(error, name) for name in FIELDS if hasattr(error, name)}


@pytest.fixture(params=EXAMPLES, ids=lambda error: type(error).__name__)
def error(request):
    """An error of each kind."""
    return request.param


def test_every_exception_has_an_example():
    """A new one must be added here."""
    exceptions = {name for name in errors.__all__ if not issubclass(getattr(errors, name), Warning)}
    assert {type(error).__name__ for error in EXAMPLES} == exceptions


@pytest.mark.parametrize(("kind", "bases"), BUILTINS.items(), ids=lambda item: str(item))
def test_caller_can_catch_what_they_expect(kind, bases):
    """The base class of all, and the built-in for the occasion."""
    assert issubclass(kind, (LazyarrError, *bases))
    assert all(issubclass(kind, base) for base in bases)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_error_survives_a_pickle_with_its_fields(error, protocol):
    """An error in a worker process arrives whole."""
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert (str(again), again.message, again.args) == (str(error), error.message, error.args)
    assert fields_of(again) == fields_of(error)


def test_error_survives_a_copy(error):
    """And a copy of a copy."""
    again = copy.copy(copy.deepcopy(error))
    assert (str(again), fields_of(again)) == (str(error), fields_of(error))


def test_text_is_the_message_alone(error):
    """No errno in brackets, no quotes as a KeyError adds."""
    assert str(error) == error.message == error.args[0]


def test_fields_that_are_not_given_have_defaults():
    """Whoever catches one need not ask whether they are there."""
    assert (StoreError("x").url, StoreError("x").key, StoreError("x").transient) == (
        "",
        None,
        False,
    )
    assert NodeNotFoundError("x").path == FormatError("x").path == ""
    assert (ChunkError("x").chunk, ChunkError("x").byte_range) == ((), None)
    assert (KernelError("x").errno, KernelUnsupportedError("x").missing) == (None, ())
    assert PagerError("x").pid is None


def test_errno_is_that_of_the_refused_call():
    """As for any OSError."""
    assert KernelError("x", errno=errno.EPERM).errno == errno.EPERM
