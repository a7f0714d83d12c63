"""What the pager's worker and the processes that decode for it tell each other.

Both are of one pager, and each packet costs the worker some of the time in which it
serves everybody: so these are plain structures, not messages.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from lazyarr.units import Span

__all__ = ["JOB_NBYTES", "RESULT_NBYTES", "Job", "News", "Result"]

JOB_NBYTES = 128 << 10
"""How long the packet of a job may be."""

_JOB = struct.Struct("<8Q3?B")
_RESULT = struct.Struct("<2QB2dqQ")

RESULT_NBYTES = _RESULT.size
"""How long the packet of a result is."""


class News(enum.IntEnum):
    """What a result says."""

    FAILED = 0  # the worker has to load the unit, or find out why it can not be
    DONE = 1  # all of the unit is installed
    ARRIVED = 2  # the pages that are waited for are; the rest follows
    READY = 3  # jobs may come


_NEWS = tuple(News)


class Job(NamedTuple):
    """A unit that is one chunk of an open file, and where in a client's memory it belongs.

    Goes with two descriptors: the client's userfaultfd, and the file.

    Attributes
    ----------
    region, unit : int
        Which one.
    start, nbytes : int
        Where the encoded chunk lies in the file.
    address, unit_nbytes : int
        Where its bytes go, and how many there are.
    awaited : Span or None
        Which of them somebody waits for.
    in_parts : bool
        Whether to install what is decoded while the rest is not.
    is_pick : bool
        Whether to tell when those are there that are waited for.
    zarr_format : int
        The version of the array's document.
    document : bytes
        The document, which says how chunks are decoded.
    """

    region: int
    unit: int
    start: int
    nbytes: int
    address: int
    unit_nbytes: int
    awaited: Span | None
    in_parts: bool
    is_pick: bool
    zarr_format: int
    document: bytes

    def encode(self) -> bytes:
        """Return the job as a packet."""
        head = _JOB.pack(
            self.region,
            self.unit,
            self.start,
            self.nbytes,
            self.address,
            self.unit_nbytes,
            *(self.awaited or (0, 0)),
            self.awaited is not None,
            self.in_parts,
            self.is_pick,
            self.zarr_format,
        )
        return head + self.document

    @classmethod
    def decode(cls, packet: bytes) -> Job:
        """Return the job in a packet.

        Examples
        --------
        >>> job = Job(1, 2, 0, 700, 1 << 40, 8192, Span(0, 4096), True, False, 3, b"{}")
        >>> Job.decode(job.encode()) == job
        True
        """
        fields = _JOB.unpack_from(packet)
        region, unit, start, nbytes, address, unit_nbytes = fields[:6]
        first, stop, is_awaited, in_parts, is_pick, zarr_format = fields[6:]
        return cls(
            region,
            unit,
            start,
            nbytes,
            address,
            unit_nbytes,
            Span(first, stop) if is_awaited else None,
            in_parts,
            is_pick,
            zarr_format,
            packet[_JOB.size :],
        )


class Result(NamedTuple):
    """What has become of a job.

    Attributes
    ----------
    region, unit : int
        Which one.
    news : News
        What has become of it.
    decode_seconds, install_seconds : float
        What it took.
    grown_nbytes : int
        By how much the memory has grown that is decoded in.
    nbytes : int
        How long the encoded chunk was.
    """

    region: int
    unit: int
    news: News
    decode_seconds: float = 0.0
    install_seconds: float = 0.0
    grown_nbytes: int = 0
    nbytes: int = 0

    def encode(self) -> bytes:
        """Return the result as a packet."""
        return _RESULT.pack(*self)

    @classmethod
    def decode(cls, packet: bytes) -> Result:
        """Return the result in a packet.

        Examples
        --------
        >>> Result.decode(Result(1, 2, News.DONE, 0.5).encode()).decode_seconds
        0.5
        """
        region, unit, news, decode, install, grown_nbytes, nbytes = _RESULT.unpack(packet)
        return cls(region, unit, _NEWS[news], decode, install, grown_nbytes, nbytes)
