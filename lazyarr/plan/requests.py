"""Requests under way: for how many units each waits, and what failed."""

from __future__ import annotations

from lazyarr.plan import messages as m

__all__ = ["Requests", "Ticket"]

Ticket = tuple[int, int]
"""A client, and its number for a request."""


class _Request:
    """How many units it waits for, how long all of them are, what failed."""

    __slots__ = ("failures", "nbytes", "remaining")

    def __init__(self) -> None:
        self.remaining = 1
        self.nbytes = 0
        self.failures: dict[int, m.Failure] = {}


class Requests:
    """Counts what each request still waits for.

    Attributes
    ----------
    asked_nbytes : int
        How long all units are that requests under way have asked for and did not find.
    """

    def __init__(self) -> None:
        self.asked_nbytes = 0
        self._requests: dict[Ticket, _Request] = {}

    def __repr__(self) -> str:
        return f"<Requests: {len(self._requests)} under way for {self.asked_nbytes} bytes>"

    def begin(self, ticket: Ticket) -> None:
        """Take down a request, which waits for one step: that all of its units are known."""
        self._requests[ticket] = _Request()

    def wait(self, ticket: Ticket, nbytes: int) -> None:
        """Let a request wait for one more unit."""
        request = self._requests[ticket]
        request.remaining += 1
        request.nbytes += nbytes
        self.asked_nbytes += nbytes

    def advance(
        self, ticket: Ticket, failure: m.Failure | None = None, unit: int = 0
    ) -> list[m.Command]:
        """Take one step off a request; after the last, return its answer, failures in order."""
        request = self._requests.get(ticket)
        if request is None:
            return []
        request.remaining -= 1
        if failure is not None:
            request.failures[unit] = failure
        if request.remaining:
            return []
        self._drop(ticket)
        failures = tuple(request.failures[unit] for unit in sorted(request.failures))
        return [m.Answer(*ticket, failures)]

    def forget(self, client: int) -> None:
        """Forget what a client has asked for."""
        for ticket in [ticket for ticket in self._requests if ticket[0] == client]:
            self._drop(ticket)

    def _drop(self, ticket: Ticket) -> None:
        self.asked_nbytes -= self._requests.pop(ticket).nbytes
