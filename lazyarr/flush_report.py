"""What a flush has written back."""

from __future__ import annotations

from lazyarr.values import Value

__all__ = ["FlushReport"]


class FlushReport(Value):
    """What a flush has written back to the store.

    Attributes
    ----------
    units : int
        How many units were dirty when it began, and are in the store now.
    bytes : int
        How many bytes were put into the store for that, compressed.
    seconds : float
        How long it took.

    Examples
    --------
    >>> FlushReport(units=12, bytes=6 << 20, seconds=0.25)
    <FlushReport: 12 units, 6,291,456 bytes in 0.25 s>
    """

    units: int
    bytes: int
    seconds: float

    def __repr__(self) -> str:
        noun = "unit" if self.units == 1 else "units"
        return f"<FlushReport: {self.units:,} {noun}, {self.bytes:,} bytes in {self.seconds:.3g} s>"
