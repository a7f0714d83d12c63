"""How much must be on its way so that a network is never idle."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["Link"]

# The greatest of so many rates: long enough for a pause of the reader not to count as a
# slow network, short enough to follow one that has become slower.
_N_RATES = 64
# A read that takes twice as long as the shortest has waited for others: there is no
# more bandwidth to be had by asking for more at once.
_FULL_LATENCIES = 2
_PART_OF_UNIT_MEAN = 1 / 8
# What arrives is decoded and read in between; and requests are few where there is no latency.
_SLACK_SECONDS = 0.05


class Link:
    """Bandwidth and latency of the way to a store, by what was read of it.

    Attributes
    ----------
    latency_seconds : float
        The shortest that a read has taken.
    is_full : bool
        Whether the last read took so much longer that the way was full; else there may be
        more bandwidth than was seen.

    Notes
    -----
    As in BBR (draft-ietf-ccwg-bbr, section 4.5), the bandwidth is the greatest rate at which
    bytes came of late while a read was under way, those of the other reads included.  Who
    asks for too little sees less than there is, and is told to ask for up to twice as much.

    Examples
    --------
    >>> link = Link()
    >>> reads = [link.begin(now=0.0) for _ in range(3)]
    >>> for read in reads:
    ...     link.end(read, 10_000_000, now=0.1)
    >>> link.add_unit(1_000_000)
    >>> round(link.bandwidth), link.pipe_units
    (300000000, 75)
    """

    def __init__(self) -> None:
        self.latency_seconds = math.inf
        self.is_full = False
        self._arrived_nbytes = 0
        self._rates: deque[float] = deque(maxlen=_N_RATES)
        self._unit_nbytes = 0.0

    def __repr__(self) -> str:
        return f"<Link: {self.bandwidth / 1e6:.1f} MB/s, {self.latency_seconds * 1e3:.1f} ms>"

    @property
    def bandwidth(self) -> float:
        """Bytes that come in a second; 0 before any came."""
        return max(self._rates, default=0.0)

    @property
    def pipe_units(self) -> int:
        """How many units should be on their way, or wait to be read; 0 when it is not known."""
        if not self._rates or not self._unit_nbytes:
            return 0
        # Twice the latency: one batch is on its way while the one before it waits to be
        # read.
        pipe_nbytes = self.bandwidth * (2 * self.latency_seconds + _SLACK_SECONDS)
        return math.ceil(pipe_nbytes / self._unit_nbytes)

    def differs(self, n_units: int, *, is_full: bool) -> bool:
        """Return whether what is known is another thing, by more than a quarter, than that."""
        return self.is_full != is_full or abs(self.pipe_units - n_units) > n_units // 4

    def begin(self, now: float) -> tuple[float, int]:
        """Take down that a read begins, at a time in seconds; return what `end` wants."""
        return now, self._arrived_nbytes

    def end(self, begun: tuple[float, int], nbytes: int, now: float) -> None:
        """Take down that the bytes of a read are there."""
        start, arrived_nbytes = begun
        seconds = max(now - start, 1e-6)
        # Bytes of all reads, not of this one alone: several share the way, and the rate
        # of each would be a part of what it carries.
        self._arrived_nbytes += nbytes
        # The shortest: any other has waited for something.  It never grows
        # again, so a network that is now farther away gets too small a window, until
        # the array is opened anew.
        self.latency_seconds = min(self.latency_seconds, seconds)
        self.is_full = seconds > _FULL_LATENCIES * self.latency_seconds
        self._rates.append((self._arrived_nbytes - arrived_nbytes) / seconds)

    def add_unit(self, nbytes: int) -> None:
        """Take down how long a unit was on the way: encoded."""
        if not self._unit_nbytes:
            self._unit_nbytes = float(nbytes)
        self._unit_nbytes += (nbytes - self._unit_nbytes) * _PART_OF_UNIT_MEAN
