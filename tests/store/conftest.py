"""Each kind of store as a fixture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.store.places import KINDS, WRITABLE_KINDS, make_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.store import Store, WritableStore


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Give each kind of store, holding `OBJECTS`."""
    store = make_store(request.param, request)
    yield store
    store.close()


@pytest.fixture(params=WRITABLE_KINDS)
def writable_store(request: pytest.FixtureRequest) -> Iterator[WritableStore]:
    """Give each kind of store that can be written, holding `OBJECTS`."""
    store = make_store(request.param, request)
    yield store
    store.close()
