"""What a new worker must know: every client, every region, and where each client has mapped it."""

from __future__ import annotations

import os
from typing import Any

from lazyarr.errors import PagerError
from lazyarr.memory_kind import MemoryKind
from lazyarr.values import Struct
from lazyarr.wire.channel import Received, close_all
from lazyarr.wire.messages import (
    AttachRegion,
    CloseRegion,
    Configure,
    Forgotten,
    Hello,
    Join,
    Listen,
    Message,
    OpenRegion,
    Record,
    Reserve,
    Retire,
)
from lazyarr.wire.packets import document_of, message_of

__all__ = ["ClientRecord", "Ledger", "Objects", "RegionRecord", "record_of"]


class Objects(Struct):
    """The memory objects of a client, in which its regions lie; they may outlive the client.

    Attributes
    ----------
    memfd, map_memfd : int
        Descriptors of the memory objects of arrays and of residency maps; closed with the last
        region.
    n_regions : int
        How many regions lie in them.
    """

    memfd: int
    map_memfd: int
    n_regions: int = 0


class ClientRecord(Struct):
    """A process that is, or wants to be, a client.

    Attributes
    ----------
    control : int
        The pager's end of the client's first channel.
    hello : Hello or None
        The client's first message, with the settings that it sent last; None until it has sent
        one.
    descriptors : tuple of int
        The descriptors that came with `Hello`.
    objects : Objects or None
        The ledger's own copies of the client's memory objects, for its regions.
    """

    control: int
    hello: Hello | None = None
    descriptors: tuple[int, ...] = ()
    objects: Objects | None = None


class RegionRecord(Struct):
    """A region that a client has mapped, or will map.

    Attributes
    ----------
    message : OpenRegion
        The message by which the first client opened the region.
    objects : Objects
        The memory objects in which the region lies: the first client's.
    descriptors : tuple of int
        The descriptors of its store; behind them the claim on it, of a region that is written
        back.
    addresses : dict of int to (int or None)
        Where each client has mapped it; None for a client that has not mapped it yet.
    is_retired : bool
        Whether nobody may write to it any more.
    """

    message: OpenRegion
    objects: Objects
    descriptors: tuple[int, ...]
    addresses: dict[int, int | None]
    is_retired: bool = False


class Ledger:
    """The supervisor's copy of what clients have told the worker.

    The ledger owns the descriptors in it.

    Attributes
    ----------
    clients : dict of int to ClientRecord
        Every client, by its number.
    regions : dict of int to RegionRecord
        Every region, by its number.
    listener : int or None
        The socket to which invited processes connect.
    secret : str
        The word by which they show that they were invited.
    settings : dict
        The settings that a client set last.
    """

    def __init__(self) -> None:
        self.clients: dict[int, ClientRecord] = {}
        self.regions: dict[int, RegionRecord] = {}
        self.listener: int | None = None
        self.secret = ""
        self.settings: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Ledger: {len(self.clients)} clients, {len(self.regions)} regions>"

    def enter(self, received: Received) -> None:
        """Enter a record that the worker has sent; entering a record twice does no harm.

        Raises
        ------
        PagerError
            When the message is no record; its descriptors are closed then.
        """
        # The supervisor has to survive, so a record is not believed either: a worker sends on
        # what a client has sent.
        record = received.message
        is_kept = False
        try:
            if not isinstance(record, Record):
                raise PagerError(f"expected Record, found {record!r:.80}")
            message = message_of(record.body) if record.body else None
            if message is not None and len(received.descriptors) not in message.carries:
                raise ValueError(f"{len(received.descriptors)} descriptors")
            is_kept = self._enter(record.client, message, received.descriptors)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise PagerError(f"cannot enter {record!r:.80}: {error!r}") from error
        finally:
            if not is_kept:
                close_all(received.descriptors)

    def _enter(self, client: int, message: Message | None, descriptors: tuple[int, ...]) -> bool:
        """Enter a client's message; return whether the ledger has taken over the descriptors."""
        match message:
            case None:
                self._remove(client)
            case Join() if client not in self.clients:
                self.clients[client] = ClientRecord(descriptors[0])
                for number in message.regions:
                    if number in self.regions:
                        self.regions[number].addresses[client] = None
                return True
            case Join():
                return False  # the worker before this one has entered it
            case Listen() if self.listener is None:
                (self.listener,), self.secret = descriptors, message.secret
                return True
            case Listen():
                return False
            case Configure():
                self.settings = message.settings
                known = self.clients.get(client)
                if known is not None and known.hello is not None:
                    known.hello = known.hello._replace(settings=message.settings)
            case Forgotten():
                self._take_out(message.region)
            case _ if client not in self.clients:
                # The client has ended.  Another thread of the worker has entered that before this
                # message.  Regions that were entered now would never be let go.
                return False
            case Hello() if self.clients[client].hello is None:
                self.clients[client].hello = message
                self.clients[client].descriptors = descriptors
                # The first client's settings hold.  A later client brings its own, which may be
                # older than what was configured meanwhile.
                self.settings = self.settings or message.settings
                return True
            case OpenRegion() if message.region not in self.regions:
                self.regions[message.region] = self._region(client, message, descriptors)
                return True
            case AttachRegion() if message.region in self.regions:
                self.regions[message.region].addresses[client] = message.address
            case Reserve() if message.region in self.regions:
                self.regions[message.region].addresses.setdefault(client, None)
            case CloseRegion():
                self._detach(message.region, client)
            case Retire() if message.region in self.regions:
                self.regions[message.region].is_retired = True
            case Retire():
                return False  # all who had it have ended meanwhile
            case Hello() | OpenRegion():
                return False
            case _:
                raise PagerError(f"a ledger holds no {type(message).__name__}")
        return False

    def _region(
        self, client: int, message: OpenRegion, descriptors: tuple[int, ...]
    ) -> RegionRecord:
        """Return the record of a region that a client has opened."""
        # Two descriptors for the memory of each client, not for each array: ten thousand arrays
        # may be open.  Copies, because regions may outlive the client.
        record = self.clients[client]
        if record.objects is None or not record.objects.n_regions:
            memfd, map_memfd = record.descriptors[1:3]
            record.objects = Objects(os.dup(memfd), os.dup(map_memfd))
        record.objects.n_regions += 1
        return RegionRecord(message, record.objects, descriptors, {client: message.address})

    def _remove(self, client: int) -> None:
        """Take out a client that is gone."""
        record = self.clients.pop(client, None)
        if record is not None:
            close_all((record.control, *record.descriptors))
        for region in tuple(self.regions):
            self._detach(region, client)

    def _detach(self, region: int, client: int) -> None:
        """Take a client off a region; the last one takes the region out.

        A region that is written back stays, for what its clients have written may not be in the
        store yet.  The worker says when it may go (`Forgotten`).
        """
        record = self.regions.get(region)
        if record is not None:
            record.addresses.pop(client, None)
            if not record.addresses and not _is_written_back(record.message):
                self._take_out(region)

    def _take_out(self, region: int) -> None:
        """Take out a region that nobody needs, and close its descriptors."""
        record = self.regions.pop(region, None)
        if record is not None:
            close_all(record.descriptors)
            objects = record.objects
            objects.n_regions -= 1
            if not objects.n_regions:
                close_all((objects.memfd, objects.map_memfd))


def _is_written_back(message: OpenRegion) -> bool:
    """Return whether the memory of a region is written back to its store."""
    # The message is a client's, and may say anything.
    kind = MemoryKind.__members__.get(message.kind)
    return kind is not None and kind.writes_back


def record_of(client: int, message: Message | None) -> Record:
    """Return the record of a client's message, or of the client's end for None."""
    body: dict[str, Any] = {} if message is None else document_of(message)
    return Record(client, body)
