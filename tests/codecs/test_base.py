from __future__ import annotations

import numpy as np
import pytest

from lazyarr.codecs.base import as_view


@pytest.mark.parametrize(
    "data", [b"abcdefgh", bytearray(8), memoryview(b"abcdefgh"), np.arange(2, dtype="<i4").data]
)
def test_length_is_in_bytes(data):
    """A view has one byte an element, whatever it is over, and shares the memory."""
    view = as_view(data)
    assert (view.format, view.ndim, len(view)) == ("B", 1, 8)
    assert view.tobytes() == bytes(data)


def test_memory_with_gaps_is_refused():
    """What is not contiguous has no bytes to give."""
    with pytest.raises(TypeError, match="contiguous"):
        as_view(np.arange(8, dtype="<i4")[::2].data)
