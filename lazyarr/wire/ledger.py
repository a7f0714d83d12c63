"""What a new worker must know: every client, every region, and who has mapped it where."""

from __future__ import annotations

import os
from typing import Any

from lazyarr.errors import PagerError
from lazyarr.values import Struct
from lazyarr.wire.channel import Received, close_all
from lazyarr.wire.messages import (
    AttachRegion,
    CloseRegion,
    Configure,
    Hello,
    Join,
    Listen,
    Message,
    OpenRegion,
    Record,
    Reserve,
)
from lazyarr.wire.packets import document_of, message_of

__all__ = ["ClientRecord", "Ledger", "Objects", "RegionRecord", "record_of"]


class Objects(Struct):
    """The memory objects of a client, in which its regions lie; they may outlive it.

    Attributes
    ----------
    memfd, map_memfd : int
        Of arrays and of residency maps; closed with the last region.
    n_regions : int
        How many there are.
    """

    memfd: int
    map_memfd: int
    n_regions: int = 0


class ClientRecord(Struct):
    """A process that is, or wants to be, a client.

    Attributes
    ----------
    control : int
        The pager's end of the channel that it came on.
    hello : Hello or None
        What it said first, with the settings that it said last; None when it has not
        said anything yet.
    descriptors : tuple of int
        What came with that.
    objects : Objects or None
        The ledger's own copies of its memory objects, for its regions.
    """

    control: int
    hello: Hello | None = None
    descriptors: tuple[int, ...] = ()
    objects: Objects | None = None


class RegionRecord(Struct):
    """A region that somebody has mapped.

    Attributes
    ----------
    message : OpenRegion
        What its first client said of it.
    objects : Objects
        What it lies in: the first client's.
    descriptors : tuple of int
        Those of its store.
    addresses : dict of int to (int or None)
        Where each client has mapped it; None for one that will.
    """

    message: OpenRegion
    objects: Objects
    descriptors: tuple[int, ...]
    addresses: dict[int, int | None]


class Ledger:
    """The supervisor's copy of what the worker has been told.

    It owns the descriptors in it.

    Attributes
    ----------
    clients : dict of int to ClientRecord
        Every client, by its number.
    regions : dict of int to RegionRecord
        Every region, by its number.
    listener : int or None
        The socket at which other processes come.
    settings : dict
        What was set last, by whomever.
    """

    def __init__(self) -> None:
        self.clients: dict[int, ClientRecord] = {}
        self.regions: dict[int, RegionRecord] = {}
        self.listener: int | None = None
        self.settings: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Ledger: {len(self.clients)} clients, {len(self.regions)} regions>"

    def enter(self, received: Received) -> None:
        """Enter a record that the worker has sent; entering it twice does no harm.

        Raises
        ------
        PagerError
            When it is none; its descriptors are closed then.
        """
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
        """Return whether the descriptors are the ledger's now."""
        match message:
            case None:
                self._remove(client)
            case Join() if client not in self.clients:
                self.clients[client] = ClientRecord(descriptors[0])
                for number in message.regions:
                    if number in self.regions:
                        self.regions[number].addresses[client] = None
                return True
            case Hello() if self.clients[client].hello is None:
                self.clients[client].hello = message
                self.clients[client].descriptors = descriptors
                # Who comes later may not have heard of what was configured meanwhile.
                self.settings = self.settings or message.settings
                return True
            case Listen() if self.listener is None:
                (self.listener,) = descriptors
                return True
            case Configure():
                self.settings = message.settings
                known = self.clients[client].hello
                if known is not None:
                    self.clients[client].hello = known._replace(settings=message.settings)
            case OpenRegion() if message.region not in self.regions:
                self.regions[message.region] = self._region(client, message, descriptors)
                return True
            case AttachRegion() if message.region in self.regions:
                self.regions[message.region].addresses[client] = message.address
            case Reserve() if message.region in self.regions:
                self.regions[message.region].addresses.setdefault(client, None)
            case CloseRegion():
                self._detach(message.region, client)
            case Join() | Hello() | Listen() | OpenRegion():
                return False  # what the worker before this one has entered
            case _:
                raise PagerError(f"a ledger holds no {type(message).__name__}")
        return False

    def _region(
        self, client: int, message: OpenRegion, descriptors: tuple[int, ...]
    ) -> RegionRecord:
        record = self.clients[client]
        if record.objects is None or not record.objects.n_regions:
            _, memfd, map_memfd, _ = record.descriptors
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
        record = self.regions.get(region)
        if record is not None:
            record.addresses.pop(client, None)
            if not record.addresses:
                del self.regions[region]
                close_all(record.descriptors)
                objects = record.objects
                objects.n_regions -= 1
                if not objects.n_regions:
                    close_all((objects.memfd, objects.map_memfd))


def record_of(client: int, message: Message | None) -> Record:
    """Return the record of something that a client said; None for its end."""
    body: dict[str, Any] = {} if message is None else document_of(message)
    return Record(client, body)
