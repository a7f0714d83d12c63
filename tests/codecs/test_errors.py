from __future__ import annotations

import pickle

from lazyarr.codecs import DamagedChunkError
from lazyarr.errors import FormatError


def test_damage_keeps_its_reason():
    """The reason is a field that survives pickling, and is the message."""
    error = pickle.loads(pickle.dumps(DamagedChunkError("expected 4, found 3", path="a/x")))
    assert isinstance(error, FormatError)
    assert (error.reason, error.path, str(error)) == ("expected 4, found 3", "a/x", error.reason)
