"""Jobs for decoders, and their results.

The worker sends a job for each unit, and each packet costs it some of the time in which it
serves all clients.  Both sides are of one pager and trust each other.  So these are plain
structures, not messages.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from lazyarr.units import Span

__all__ = ["JOB_NBYTES", "RESULT_NBYTES", "Job", "News", "Result"]

JOB_NBYTES = 128 << 10
"""The greatest size of a job's packet."""

_JOB = struct.Struct("<8Q3?B")
_RESULT = struct.Struct("<2QB2dqQ")

RESULT_NBYTES = _RESULT.size
"""The size of a result's packet."""


class News(enum.IntEnum):
    """What a result reports."""

    FAILED = 0  # the worker has to load the unit itself, or find out why that fails
    DONE = 1  # all of the unit is installed
    ARRIVED = 2  # the awaited pages are installed, and the rest follows
    READY = 3  # the decoder has started, and jobs may come


_NEWS = tuple(News)


class Job(NamedTuple):
    """A unit that is one chunk of an open file, and where in a client's memory it belongs.

    Goes with two descriptors: the client's userfaultfd, and the file.

    Attributes
    ----------
    region, unit : int
        The region, and the unit in it.
    start, nbytes : int
        Where the encoded chunk lies in the file, and its size.
    address, unit_nbytes : int
        Where the unit lies in the client's memory, and its size.
    awaited : Span or None
        The bytes of the unit that a thread waits for; None when all are wanted alike.
    in_parts : bool
        Whether to install the bytes that are decoded while others are not yet.
    is_pick : bool
        Whether to send `ARRIVED` when the awaited bytes are installed.
    copy_mode : int
        How the pages are installed: bits of `InstallMode`.
    pipeline : bytes
        How chunks are decoded, as text (see `lazyarr.layout.document`).
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
    copy_mode: int
    pipeline: bytes

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
            self.copy_mode,
        )
        return head + self.pipeline

    @classmethod
    def decode(cls, packet: bytes) -> Job:
        """Return the job in a packet.

        Examples
        --------
        >>> job = Job(1, 2, 0, 700, 1 << 40, 8192, Span(0, 4096), True, False, 0, b"{}")
        >>> Job.decode(job.encode()) == job
        True
        """
        fields = _JOB.unpack_from(packet)
        region, unit, start, nbytes, address, unit_nbytes = fields[:6]
        first, stop, is_awaited, in_parts, is_pick, copy_mode = fields[6:]
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
            copy_mode,
            packet[_JOB.size :],
        )


class Result(NamedTuple):
    """What has become of a job.

    Attributes
    ----------
    region, unit : int
        The region and the unit of the job.
    news : News
        What has become of the job.
    decode_seconds, install_seconds : float
        How long the two steps took.
    grown_nbytes : int
        By how much the decoder's workspace has grown; that counts towards the memory limit.
    nbytes : int
        Size of the encoded chunk.
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
