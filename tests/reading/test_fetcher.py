"""From units to requests on a real server."""

from __future__ import annotations

import queue
import re
from pathlib import Path

import pytest

from lazyarr.errors import ChunkError, StoreError
from lazyarr.reading.fetcher import Fetcher, Urgency
from lazyarr.store import RetryingStore, RetryPolicy, event_loop, open_store
from lazyarr.testing import Behaviour
from tests.reading.arrays import KINDS, store_array

SECONDS = 60
ROW = 100_000
# Chunks further apart than anybody would read along.
SHARDS = {"shape": (64, ROW), "chunks": (1, ROW), "shards": (16, ROW), "dtype": "u1"}
OBJECTS = {"shape": (24, 50), "chunks": (1, 50), "dtype": "u1"}
SCATTERED = (0, 1, 5, 17, 20, 21, 22, 40, 63)


class Asker:
    """Asks a fetcher for units of one source and waits for what comes."""

    def __init__(self, source, stored, connections=32, **options):
        self.source, self.stored = source, stored
        self.bugs = queue.SimpleQueue()
        self.n_retries = 0
        self.connections = connections
        self.fetcher = Fetcher(connections, failed=self.bugs.put, on_retry=self.retry, **options)
        self.results = queue.SimpleQueue()

    def retry(self):
        self.n_retries += 1

    def ask(self, *units, urgency=Urgency.REQUEST):
        for unit in units:
            self.fetcher.submit(
                self.source, unit, lambda result, unit=unit: self.results.put((unit, result)),
                urgency=urgency,
            )  # fmt: skip
        self.fetcher.flush()

    def get(self, number):
        found = dict(self.results.get(timeout=SECONDS) for _ in range(number))
        assert self.bugs.empty()
        return found

    def wait_until_idle(self):
        settled = queue.SimpleQueue()
        found = None
        while found != f"<Fetcher: 0 of {self.connections} reads under way>":
            event_loop().call_soon_threadsafe(lambda: settled.put(repr(self.fetcher)))
            found = settled.get(timeout=SECONDS)

    def is_right(self, found):
        """Return whether chunks, which are not compressed, are the units' bytes."""
        joined = {unit: b"".join(chunks) for unit, chunks in found.items()}
        return joined == {unit: self.stored.unit(unit) for unit in found}


@pytest.fixture
def make_asker(http_server):
    """Stores an array on the HTTP server and gives what asks for its units."""
    made = []

    def make(kind, connections=32, url=None, storage_options=None, retries=0, **options):
        root = Path(http_server.directory) / "bucket"
        stored = store_array(root, **{"compressors": None, **kind})

        def open_it():
            store = open_store(url or f"{http_server.url}/bucket", storage_options)
            return RetryingStore(store, RetryPolicy(retries=retries), sleep=lambda _: None)

        made.append(Asker(stored.source(open_it), stored, connections, **options))
        return made[-1]

    yield make
    for asker in made:
        asker.fetcher.close()
        assert asker.bugs.empty()


def test_scattered_chunks_take_one_request_for_each_index_and_each_neighbourhood(
    http_server, make_asker
):
    """Nothing else is asked for, and nothing twice."""
    asker = make_asker(SHARDS)
    asker.ask(*SCATTERED)
    assert asker.is_right(asker.get(len(SCATTERED)))
    ranges = [request.range for request in http_server.requests()]
    indexes = [r for r in ranges if r.startswith("bytes=-")]
    assert len(indexes) == 4
    chunks = sorted(tuple(map(int, re.findall(r"\d+", r))) for r in ranges if r not in indexes)
    expected = [(0, 2), (5, 6), (1, 2), (4, 7), (8, 9), (15, 16)]
    assert chunks == sorted((start * ROW, stop * ROW - 1) for start, stop in expected)


def test_a_scan_reads_every_byte_once(http_server, make_asker):
    """In reads of a mebibyte and more, though it was asked for chunk by chunk."""
    asker = make_asker(SHARDS)
    asker.ask(*range(64))
    assert asker.is_right(asker.get(64))
    ranges = [r.range for r in http_server.requests() if not r.range.startswith("bytes=-")]
    spans = [tuple(map(int, re.findall(r"\d+", r))) for r in ranges]
    assert sum(last + 1 - first for first, last in spans) == 64 * ROW
    assert len(spans) <= 8


def test_it_takes_two_round_trips(http_server, make_asker):
    """All indexes at once, then all chunks; the server answers only when all have come."""
    asker = make_asker(SHARDS)
    http_server.behave(Behaviour(hold=True))
    asker.ask(*SCATTERED)
    for number in (4, 6):
        assert http_server.wait_for_held(number) == number
        http_server.let_go(number)
    assert asker.is_right(asker.get(len(SCATTERED)))


def test_nested_shards_take_one_round_trip_more(http_server, make_asker):
    """An index, the indexes that it leads to, and the chunks."""
    asker = make_asker(KINDS["shards of shards"])
    http_server.behave(Behaviour(hold=True))
    asker.ask(*range(8))
    for number in (1, 2):
        assert http_server.wait_for_held(number) == number
        http_server.let_go(number)
    # The chunks, together if both indexes have come in the same moment.
    assert http_server.wait_for_held(1) > 0
    http_server.let_go(2)
    assert len(asker.get(8)) == 8


def test_what_comes_while_an_index_is_on_its_way_is_read_with_the_others(http_server, make_asker):
    """The index is not asked for again."""
    asker = make_asker(SHARDS)
    http_server.behave(Behaviour(hold=True))
    asker.ask(3)
    assert http_server.wait_for_held(1) == 1
    asker.ask(2, 4)
    for _ in range(2):
        assert http_server.wait_for_held(1) == 1
        http_server.let_go(1)
    assert asker.is_right(asker.get(3))
    assert len(http_server.requests()) == 2


@pytest.mark.parametrize("scheme", ["http", "s3"])
def test_as_many_requests_are_under_way_as_is_set(http_server, make_asker, scheme):
    """Not fewer, whatever the client library has for a limit, and not more; it can be changed."""
    url, options = None, None
    if scheme == "s3":
        url = "s3://bucket"
        options = {"key": "k", "secret": "s", "endpoint_url": http_server.url}
        options["client_kwargs"] = {"region_name": "us-east-1"}
    asker = make_asker(OBJECTS, connections=3, url=url, storage_options=options)
    http_server.behave(Behaviour(hold=True))
    asker.ask(*range(24))
    for _ in range(4):
        assert http_server.wait_for_held(3) == 3
        assert http_server.let_go(1) == 3
    asker.fetcher.resize(15)
    assert http_server.wait_for_held(15) == 15
    for _ in range(5):
        assert http_server.wait_for_held(15) == 15
        assert http_server.let_go(1) == 15
    http_server.let_go(24)
    assert asker.is_right(asker.get(24))


def test_connections_are_used_again(http_server, make_asker):
    """For many requests no more connections are opened than are under way at once."""
    asker = make_asker(OBJECTS, connections=2)
    for _ in range(3):
        asker.ask(*range(24))
        asker.get(24)
    requests = http_server.requests()
    assert len(requests) == 72
    assert len({request.port for request in requests}) == 2


def test_urgent_units_go_first(http_server, make_asker):
    """Before those that have waited longer."""
    asker = make_asker(OBJECTS, connections=1)
    http_server.behave(Behaviour(hold=True))
    asker.ask(0, 1, 2, urgency=Urgency.READAHEAD)
    assert http_server.wait_for_held(1) == 1
    asker.ask(9)
    http_server.let_go(4)
    found = asker.get(4)
    assert list(found) == [0, 9, 1, 2]
    assert asker.is_right(found)


@pytest.mark.parametrize("kind", [OBJECTS, SHARDS], ids=["objects", "shards"])
def test_a_unit_that_is_hastened_goes_first(http_server, make_asker, kind):
    """Wherever it waits, for an index or for its bytes; and it comes once."""
    asker = make_asker(kind, connections=1)
    http_server.behave(Behaviour(hold=True))
    asker.ask(0, 17, 20, 5, urgency=Urgency.READAHEAD)
    assert http_server.wait_for_held(1) == 1
    asker.fetcher.hasten(asker.source, 20)
    asker.fetcher.hasten(asker.source, 20)
    http_server.let_go(100)
    found = asker.get(4)
    # The first was under way already; in shards only its index was.
    assert list(found).index(20) <= 1
    assert asker.is_right(found)
    # The index of the shard after these is read ahead, some time.
    requests = [r for r in http_server.requests() if "/c/2/" not in r.path]
    assert len(requests) == (4 if kind is OBJECTS else 6)


def test_an_index_that_is_waited_for_overtakes_what_is_read_ahead(http_server, make_asker):
    """Also if it was queued for nobody in particular first: three indexes, four chunks."""
    asker = make_asker(SHARDS, connections=1)
    http_server.behave(Behaviour(hold=True))
    asker.ask(0, 20, 40, urgency=Urgency.READAHEAD)
    assert http_server.wait_for_held(1) == 1
    asker.ask(41)
    http_server.let_go(100)
    found = asker.get(4)
    assert next(iter(found)) == 41
    assert asker.is_right(found)
    # That of the last shard is read ahead, some time.
    assert len([r for r in http_server.requests() if "/c/3/" not in r.path]) == 7


def test_the_index_of_the_next_shard_is_read_ahead(http_server, make_asker):
    """Once, so that a scan does not wait for it; not for those who ask for what they need."""
    asker = make_asker(SHARDS)
    asker.ask(0)
    asker.get(1)
    assert len(http_server.requests()) == 2
    asker.ask(1, 2, 3, urgency=Urgency.READAHEAD)
    assert asker.is_right(asker.get(3))
    asker.ask(4, 5, urgency=Urgency.READAHEAD)
    assert asker.is_right(asker.get(2))
    asker.ask(16, 17)
    assert asker.is_right(asker.get(2))
    paths = [request.path[-5:] for request in http_server.requests()]
    assert sorted(paths) == ["c/0/0", "c/0/0", "c/1/0", "c/1/0"]


def test_an_index_that_was_foreseen_is_not_asked_for_twice(http_server, make_asker):
    """While it is queued it becomes urgent; while it is under way it is waited for."""
    asker = make_asker(SHARDS, connections=1)
    http_server.behave(Behaviour(hold=True))
    asker.ask(0, urgency=Urgency.READAHEAD)
    assert http_server.wait_for_held(1) == 1
    asker.ask(20)
    http_server.let_go(100)
    assert asker.is_right(asker.get(2))
    assert len(http_server.requests()) == 4
    asker.ask(21, urgency=Urgency.READAHEAD)
    assert asker.is_right(asker.get(1))
    asker.ask(40)
    assert asker.is_right(asker.get(1))
    assert len(http_server.requests()) == 3


def test_a_foreseen_index_that_can_not_be_had_harms_nobody(http_server, make_asker):
    """It is asked for once, and again when somebody needs it."""
    asker = make_asker(SHARDS)
    http_server.behave(Behaviour(status=403, hold=True), path="/c/1/")
    asker.ask(0, 1, urgency=Urgency.READAHEAD)
    assert http_server.wait_for_held(1) == 1
    asker.ask(2, urgency=Urgency.READAHEAD)
    http_server.let_go(1)
    assert asker.is_right(asker.get(3))
    asker.wait_until_idle()
    http_server.behave(Behaviour())
    asker.ask(16)
    assert asker.is_right(asker.get(1))
    assert len([r for r in http_server.requests() if "/c/1/" in r.path]) == 3


def test_a_stalled_read_holds_up_nothing_else(http_server, make_asker):
    """All other units come while one waits."""
    asker = make_asker(OBJECTS)
    http_server.behave(Behaviour(hold=True), path="/c/5/")
    asker.ask(*range(24))
    assert sorted(asker.get(23)) == [unit for unit in range(24) if unit != 5]
    http_server.let_go(1)
    assert asker.is_right(asker.get(1))


def test_no_more_is_fetched_than_can_be_decoded(http_server, make_asker):
    """What has come must be released before more is asked for."""
    asker = make_asker(OBJECTS, connections=1, backlog_nbytes=120)
    asker.ask(*range(6))
    found = asker.get(3)
    settled = queue.SimpleQueue()
    loop = event_loop()
    # The end of a read is dealt with one turn of the loop later than its result.
    loop.call_soon_threadsafe(loop.call_soon, lambda: settled.put(repr(asker.fetcher)))
    assert settled.get(timeout=SECONDS) == "<Fetcher: 0 of 1 reads under way>"
    assert len(http_server.requests()) == 3
    for chunks in found.values():
        asker.fetcher.release(chunks)
    assert asker.is_right(asker.get(3))


@pytest.mark.parametrize(
    ("behaviour", "n_alone"),
    [(Behaviour(status=500), 3), (Behaviour(truncate=True), 2), (Behaviour(status=416), 3)],
    ids=["500", "truncated", "416"],
)
def test_a_read_of_several_chunks_that_fails_is_done_chunk_by_chunk(
    http_server, make_asker, behaviour, n_alone
):
    """One of them may be to blame for it; what has come before is not asked for again."""
    asker = make_asker(SHARDS)
    asker.ask(9)
    asker.get(1)
    http_server.behave(behaviour, times=1)
    asker.ask(3, 4, 5)
    assert asker.is_right(asker.get(3))
    assert asker.n_retries == 1
    assert len(http_server.requests()) == 2 + 1 + n_alone


def test_an_object_that_was_cut_off_fails_only_the_chunks_that_it_lacks(http_server, make_asker):
    """Though their neighbours were asked for together with them."""
    asker = make_asker(SHARDS)
    asker.ask(0)
    asker.get(1)
    shard = asker.stored.objects()[0]
    shard.write_bytes(shard.read_bytes()[: 4 * ROW + 10])
    asker.ask(2, 3, 4, 5)
    found = asker.get(4)
    for unit in (4, 5):
        error = found.pop(unit)
        assert isinstance(error, ChunkError)
        assert (error.chunk, error.key) == ((unit, 0), "group/x/c/0/0")
        assert error.byte_range == (unit * ROW, (unit + 1) * ROW)
    assert asker.is_right(found)


def test_an_index_that_was_wrong_once_is_read_once_more(http_server, make_asker):
    """Once for all chunks that wait for it."""
    asker = make_asker(SHARDS)
    http_server.behave(Behaviour(wrong_bytes=True), times=1)
    asker.ask(0, 1, 2)
    assert asker.is_right(asker.get(3))
    assert len(http_server.requests()) == 3


def test_an_index_that_stays_wrong_fails_all_its_chunks_by_name(http_server, make_asker):
    """After two reads of it, and other shards are not touched by it."""
    asker = make_asker(SHARDS)
    http_server.behave(Behaviour(wrong_bytes=True), path="/c/0/")
    asker.ask(0, 1, 2, 20)
    found = asker.get(4)
    assert asker.is_right({20: found.pop(20)})
    assert [found[unit].chunk for unit in sorted(found)] == [(0, 0), (1, 0), (2, 0)]
    assert all("crc32c of the shard index" in error.reason for error in found.values())
    assert len([r for r in http_server.requests() if "/c/0/" in r.path]) == 2


def test_an_object_that_is_gone_after_its_index_was_read_is_no_fill_value(http_server, make_asker):
    """The index is read again, and only that may say that there is nothing."""
    asker = make_asker(SHARDS)
    asker.ask(0)
    asker.get(1)
    http_server.behave(Behaviour(status=404), times=1)
    asker.ask(1, 2)
    assert asker.is_right(asker.get(2))
    asker.stored.objects()[0].unlink()
    asker.ask(3)
    assert asker.get(1) == {3: (None,)}


def test_chunks_that_are_not_stored_are_none(http_server, make_asker):
    """Objects and shards that are missing, and empty entries of an index."""
    asker = make_asker({**SHARDS, "missing": 18})
    asker.ask(0, 16, 17, 18)
    found = asker.get(4)
    assert asker.is_right({18: found.pop(18)})
    assert found == {0: (None,), 16: (None,), 17: (None,)}


@pytest.mark.parametrize(("status", "n_requests"), [(403, 1), (500, 3)])
def test_errors_name_the_chunk_after_the_retries_of_the_store(
    http_server, make_asker, status, n_requests
):
    """A refusal at once, the others when the store has given up."""
    asker = make_asker(OBJECTS, retries=2)
    http_server.behave(Behaviour(status=status))
    asker.ask(7)
    (error,) = asker.get(1).values()
    assert isinstance(error, ChunkError)
    assert (error.chunk, error.key) == ((7, 0), "group/x/c/7/0")
    assert str(status) in error.reason
    assert isinstance(error.__cause__, StoreError)
    assert len(http_server.requests()) == n_requests


def test_a_store_that_can_not_be_opened_fails_its_units_and_is_tried_again(make_asker):
    """All that wait for it, each by its name."""
    asker = make_asker(OBJECTS)
    open_it = asker.source._open_store

    def refuse():
        raise StoreError("no such protocol", url="x", key=None, transient=False)

    asker.source._open_store = refuse
    asker.ask(1, 2)
    assert [error.chunk for _, error in sorted(asker.get(2).items())] == [(1, 0), (2, 0)]
    asker.source._open_store = open_it
    asker.ask(1)
    assert asker.is_right(asker.get(1))


def test_a_bug_is_told_and_not_swallowed(make_asker):
    """Somebody waits for what will not come: the process must not go on."""
    asker = make_asker(OBJECTS)

    def fail(_):
        raise ZeroDivisionError

    asker.fetcher.submit(asker.source, 1, fail, urgency=Urgency.REQUEST)
    asker.fetcher.flush()
    assert isinstance(asker.bugs.get(timeout=SECONDS), ZeroDivisionError)


def test_tiles_of_a_unit_are_fetched_at_once(http_server, make_asker):
    """In one round trip."""
    asker = make_asker({"shape": (8, 60), "chunks": (4, 10), "dtype": "u1"})
    http_server.behave(Behaviour(hold=True))
    asker.ask(1)
    assert http_server.wait_for_held(6) == 6
    http_server.let_go(6)
    (chunks,) = asker.get(1).values()
    assert [len(chunk) for chunk in chunks] == [40] * 6


@pytest.mark.parametrize("no_length", [False, True])
def test_an_endless_object_is_no_chunk(http_server, make_asker, no_length):
    """It is not read further than a chunk can go, and not again; others are not touched by it."""
    asker = make_asker(OBJECTS, retries=2)
    endless = Behaviour(excess_nbytes=1 << 31, no_length=no_length)
    http_server.behave(endless, path="/c/5/")
    asker.ask(4, 5)
    found = asker.get(2)
    error = found.pop(5)
    assert isinstance(error, ChunkError)
    assert re.search(r"the object has more than the \d+ bytes that may be there", error.reason)
    assert asker.is_right(found)
    assert len(http_server.requests()) == 2
