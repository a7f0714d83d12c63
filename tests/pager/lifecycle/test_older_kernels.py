"""What older kernels refuse, played by a userfaultfd that refuses it (`validate_range`)."""

from __future__ import annotations

import errno

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel import PAGE_NBYTES, Outcome, Stop
from lazyarr.pager.lifecycle import sentinel
from lazyarr.pager.lifecycle.ledger_client import LedgerClient
from lazyarr.pager.memory import clients, installer
from lazyarr.wire.channel import channel_pair
from lazyarr.wire.ledger import Ledger
from lazyarr.wire.messages import Join

MIN_ADDRESS = 65536  # vm.mmap_min_addr of most distributions


class StrictUserfaultfd:
    """Refuses ranges as kernels before Linux 6.18 do.

    Source: fs/userfaultfd.c, validate_range; security/Kconfig, DEFAULT_MMAP_MIN_ADDR.
    """

    def __init__(self, bits: int = 47, *, is_alive: bool = True) -> None:
        self._stop = 1 << bits
        self._is_alive = is_alive
        self.woken: list[tuple[int, int]] = []

    def _check(self, address: int, nbytes: int) -> None:
        if address < MIN_ADDRESS or address + nbytes > self._stop:
            raise KernelError("invalid argument", errno=errno.EINVAL)

    def zeropage(self, address: int, nbytes: int) -> Outcome:
        self._check(address, nbytes)
        return Outcome(Stop.UNMAPPED if self._is_alive else Stop.EXITED, 0)

    def wake(self, address: int, nbytes: int) -> None:
        self._check(address, nbytes)
        self.woken.append((address, address + nbytes))


@pytest.mark.parametrize("is_alive", [True, False])
def test_whether_a_client_lives_is_asked_at_an_address_that_is_not_refused(is_alive):
    """The refusal would end the worker whenever a client hangs up."""
    uffd = StrictUserfaultfd(is_alive=is_alive)
    client = clients.Client(1, 1, -1, uffd, None, -1, [], None, [])
    assert client.is_alive() is is_alive


@pytest.mark.parametrize("bits", [47, 42, 39])
def test_all_waiting_threads_are_woken_however_long_addresses_are(bits):
    """Where the sentinel was refused it would end, and its clients would be killed."""
    uffd = StrictUserfaultfd(bits)
    sentinel._wake_all(uffd)
    ((start, stop),) = uffd.woken
    # Programs lie at 4 MiB at the earliest, and memory is mapped from the end down.
    assert MIN_ADDRESS <= start <= 4 << 20
    assert stop == (1 << bits) - PAGE_NBYTES


def test_a_worker_begins_where_the_last_client_has_just_gone():
    """The worker before it was killed between the entry of that and its own end."""
    ours, theirs = channel_pair()
    client = LedgerClient(ours, Ledger())
    client.enter_join(Join([]), theirs.fileno())
    assert client.number_of(theirs.fileno()) == 0
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("overall", "by_size", "expected"),
    [
        (None, None, False),
        ("never", None, False),
        ("advise", "inherit", False),
        ("never", "always", True),
        ("never", "within_size", True),
        ("always", None, True),
        ("force", "never", True),
        ("deny", "always", False),
    ],
)
def test_memory_is_not_filled_where_a_write_could_make_a_huge_page(
    tmp_path, monkeypatch, overall, by_size, expected
):
    """By the switch for all sizes, or by that of one of them."""
    values = "always within_size advise inherit never deny force"
    for directory, chosen in ((tmp_path, overall), (tmp_path / "hugepages-64kB", by_size)):
        if chosen is not None:
            directory.mkdir(exist_ok=True)
            (directory / "shmem_enabled").write_text(values.replace(chosen, f"[{chosen}]"))
    monkeypatch.setattr(installer, "_HUGE_PAGES", str(tmp_path))
    assert installer._has_huge_pages.__wrapped__() is expected
