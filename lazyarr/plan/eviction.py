"""Which unit goes when memory is short: second chance, over all arrays."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["SecondChance"]


class Statistics(NamedTuple):
    """What a policy holds."""

    n_units: int
    resident_nbytes: int


class SecondChance:
    """Units in the order in which they came, each with a mark for having been used since.

    The oldest goes; one that is marked loses its mark and goes to the end instead
    (the clock algorithm: Corbato, A Paging Experiment with the Multics System, 1968).
    """

    def __init__(self) -> None:
        self._units: OrderedDict[tuple[int, int], tuple[int, bool]] = OrderedDict()
        self._resident_nbytes = 0

    def __repr__(self) -> str:
        return f"<SecondChance: {len(self._units)} units, {self._resident_nbytes} bytes>"

    def __contains__(self, key: object) -> bool:
        return key in self._units

    def statistics(self) -> Statistics:
        """Return how much is held."""
        return Statistics(len(self._units), self._resident_nbytes)

    @property
    def resident_nbytes(self) -> int:
        """Bytes of all units held."""
        return self._resident_nbytes

    def add(self, key: tuple[int, int], nbytes: int) -> None:
        """Take down that a unit has become resident."""
        if key not in self._units:
            self._units[key] = (nbytes, False)
            self._resident_nbytes += nbytes

    def touch(self, key: tuple[int, int]) -> None:
        """Mark a unit as used."""
        held = self._units.get(key)
        if held is not None and not held[1]:
            self._units[key] = (held[0], True)

    def remove(self, key: tuple[int, int]) -> None:
        """Take down that a unit is out; unknown ones are ignored."""
        nbytes, _ = self._units.pop(key, (0, False))
        self._resident_nbytes -= nbytes

    def victim(self, must_stay: Callable[[tuple[int, int]], bool]) -> tuple[int, int] | None:
        """Return the unit to take out next, without removing it; None when all must stay."""
        for _ in range(2 * len(self._units)):
            key, (nbytes, used) = next(iter(self._units.items()))
            if not used and not must_stay(key):
                return key
            self._units[key] = (nbytes, False)
            self._units.move_to_end(key)
        return None
