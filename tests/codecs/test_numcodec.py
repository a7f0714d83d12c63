from __future__ import annotations

import numpy as np
import pytest

from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.codecs.numcodec import Numcodec
from lazyarr.errors import FormatError


@pytest.mark.parametrize(
    "config",
    [
        *[{}, {"id": 3}, {"id": "nothing like it"}, {"id": "shuffle", "other": 1}],
        *[{"id": name} for name in ("pickle", "json2", "msgpack2", "vlen-utf8", "categorize")],
        *[
            {"id": "delta", "dtype": dtype}
            for dtype in ("O", "V2000000000", "U9", "(2,)f4", "x", 3)
        ],
        {"id": "delta", "dtype": "(" * 40},
        {"id": "astype", "encode_dtype": "f4", "decode_dtype": "S1000"},
    ],
    ids=str,
)
def test_what_is_refused(config):
    """Unknown codecs, codecs of objects and types that are no numbers are errors at once."""
    with pytest.raises(FormatError, match="codec"):
        Numcodec.from_config(config)


def test_filters_see_elements():
    """A filter works on elements of the array's type, and decodes to their bytes."""
    codec = Numcodec.from_config({"id": "delta", "dtype": "<i4"}, dtype="<i4")
    elements = np.array([5, 7, 4, 4], "<i4")
    stored = codec.encode(elements.tobytes())
    assert np.frombuffer(stored, "<i4").tolist() == [5, 2, -3, 0]
    assert bytes(codec.decode(stored, 16)) == elements.tobytes()


@pytest.mark.parametrize("name", ["crc32", "adler32", "fletcher32", "jenkins_lookup3"])
def test_checksums_are_checked(name):
    """A checksum that does not fit is damage, and so are bytes that are too few."""
    codec = Numcodec.from_config({"id": name})
    stored = bytearray(codec.encode(b"abcdefgh"))
    assert bytes(codec.decode(stored, 8)) == b"abcdefgh"
    stored[5] ^= 1
    with pytest.raises(DamagedChunkError, match=name):
        codec.decode(stored, 8)
    with pytest.raises(DamagedChunkError):
        codec.decode(b"", 8)


def test_limit_holds():
    """More content than the limit is damage, whatever the codec."""
    codec = Numcodec.from_config({"id": "packbits"}, dtype="|b1")
    stored = codec.encode(b"\1" * 64)
    assert bytes(codec.decode(stored, 64)) == b"\1" * 64
    with pytest.raises(DamagedChunkError, match="up to 63 bytes, found 64"):
        codec.decode(stored, 63)


def test_is_a_value():
    """Equal configurations are equal codecs, in any order of parameters."""
    one = Numcodec.from_config({"id": "shuffle", "elementsize": 4})
    assert one == Numcodec.from_config({"elementsize": 4, "id": "shuffle"})
