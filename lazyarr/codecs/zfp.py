"""ZFP, as HDF5's filter 32013 has it: without the header, which is with the filter's parameters.

Sources: H5Zzfp.c of H5Z-ZFP, and zfp.c of ZFP (`zfp_read_header`, `zfp_stream_maximum_size`).
"""

from __future__ import annotations

import math
from typing import Any

from lazyarr.checks import as_string
from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length
from lazyarr.codecs.by_imagecodecs import find_function, run_decoder
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.errors import FormatError
from lazyarr.values import Value

__all__ = ["Zfp"]

# A header: a magic word and the version of the codec, 32 bits; type and shape, 52 bits; the mode,
# 12 bits, or 64 for what the first 12 cannot say.  The lowest bits come first.
_HEADER_BITS, _LONG_HEADER_BITS = 96, 148
_MAGIC = b"zfp"
_META_START, _MODE_START = 32, 84
_LONG_MODE = 0xFFF
_FIXED_RATES = 2048  # lower modes are the bits of a block, less one
_TYPES = ("<i4", "<i8", "<f4", "<f8")
# Of how many bits a length is, by the number of axes.
_LENGTH_BITS = {1: 48, 2: 24, 3: 16, 4: 12}
_MOST_NBYTES = 2**31
# A stream is longer than its content where its writer has asked for large blocks of small arrays.
_MOST_GROWTH = 32


class Zfp(Value, BytesCodec):
    """ZFP of one chunk.

    Parameters
    ----------
    header : str
        The header of the stream, in hexadecimal digits.
    """

    name = "zfp"

    header: str

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Zfp:
        """Return the codec with some parameters, each of them checked."""
        header = as_string(parameters["header"], "header of codec 'zfp'")
        try:
            data = bytes.fromhex(header)
        except ValueError:
            data = b""
        codec = cls(header)
        # In words of 32 bits.
        if not data.startswith(_MAGIC) or len(data) != 4 * -(-codec.header_bits // 32):
            raise FormatError(f"header of codec 'zfp' is {header!r:.80}; it must be 12 or 20 bytes")
        nbytes, most = codec.nbytes, codec.most_nbytes
        if nbytes > _MOST_NBYTES or most > _MOST_GROWTH * nbytes + 2**16:
            raise FormatError(
                f"codec 'zfp' has elements of shape {codec.shape}, of which a chunk takes up to"
                f" {most} bytes; read it with h5py"
            )
        find_function("ZFP", "zfp_decode", cls.name)
        return codec

    @property
    def _bits(self) -> int:
        return int.from_bytes(bytes.fromhex(self.header), "little")

    @property
    def _meta(self) -> int:
        return self._bits >> _META_START & (1 << _MODE_START - _META_START) - 1

    @property
    def header_bits(self) -> int:
        """How many bits of the header mean something."""
        is_long = self._bits >> _MODE_START & _LONG_MODE == _LONG_MODE
        return _LONG_HEADER_BITS if is_long else _HEADER_BITS

    @property
    def dtype(self) -> str:
        """The elements, as NumPy writes their type."""
        return _TYPES[self._meta & 3]

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes along which there is more than one element."""
        ndim = (self._meta >> 2 & 3) + 1
        n_bits = _LENGTH_BITS[ndim]
        lengths = ((self._meta >> 4 + k * n_bits & (1 << n_bits) - 1) + 1 for k in range(ndim))
        return tuple(lengths)[::-1]

    @property
    def nbytes(self) -> int:
        """How much a chunk holds."""
        return math.prod(self.shape) * int(self.dtype[2:])

    @property
    def most_nbytes(self) -> int:
        """How many bytes a chunk takes at most."""
        mode = self._bits >> _MODE_START
        block_bits = 4 ** len(self.shape) * (8 * int(self.dtype[2:]) + 2) + 64
        if self.header_bits == _LONG_HEADER_BITS:
            # The least and the most bits of a block, less one.
            block_bits = max(block_bits, (mode >> 12 & 0x7FFF) + 1, (mode >> 27 & 0x7FFF) + 1)
        elif mode < _FIXED_RATES:
            block_bits = max(block_bits, mode + 1)
        n_blocks = math.prod(-(-n // 4) for n in self.shape)
        return int(-(-n_blocks * block_bits // 8))

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return the elements, if they are no more than a number of bytes."""
        check_length(self.name, self.nbytes, limit_nbytes)
        out = bytearray(self.nbytes)
        self.decode_into(data, memoryview(out))
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with the elements, which must be just as many."""
        import numpy as np

        if self.nbytes != len(out) or not len(as_view(data)):
            raise DamagedChunkError(
                f"zfp content expected to have {len(out)} bytes, found {self.nbytes} in"
                f" {len(as_view(data))}"
            )
        # The library does not look where a stream ends, so behind it there are zeros, up to the
        # end of the longest stream of such elements.
        view = as_view(data)[: self.most_nbytes]
        header = self._bits & (1 << self.header_bits) - 1
        joined = header | int.from_bytes(view, "little") << self.header_bits
        stream = joined.to_bytes(self.most_nbytes + 64, "little")
        elements = np.frombuffer(out, self.dtype[1:]).reshape(self.shape)
        run_decoder(find_function("ZFP", "zfp_decode", self.name), self.name, stream, out=elements)

    def encode(self, data: Buffer) -> Buffer:
        """Return a stream of the elements without a header."""
        import numpy as np

        elements = np.frombuffer(data, self.dtype[1:]).reshape(self.shape)
        stream = bytes(find_function("ZFP", "zfp_encode", self.name)(elements))
        n_header = _HEADER_BITS // 8
        if stream[:n_header].hex() != self.header:
            raise ValueError("elements are encoded in the reversible mode alone")
        return stream[n_header:]
