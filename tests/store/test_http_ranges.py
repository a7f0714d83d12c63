"""Ranges over connections of lazyarr's own: the same as through aiohttp, only cheaper."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lazyarr.errors import StoreError
from lazyarr.store import event_loop, open_store
from lazyarr.store.http_headers import UnusualAnswerError, check_ordinary, parse_head
from lazyarr.testing import Behaviour, serve_directory
from tests.store.places import OBJECTS, fill_directory

CHUNK = "images/c/0/0"
DATA = OBJECTS[CHUNK]
SIZE = len(DATA)
ORDINARY = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\nContent-Range: bytes 5-8/99"
# With these, lazyarr leaves everything to aiohttp.
AIOHTTP = {"client_kwargs": {"trust_env": False}}


@pytest.fixture
def server(http_server):
    fill_directory(Path(http_server.directory))
    return http_server


def read(store, start=5, stop=99):
    """Return a range, or what the error says that a caller acts on."""
    try:
        return bytes(store.read_range(CHUNK, start, stop))
    except StoreError as error:
        return error.transient, error.key


BEHAVIOURS = {
    "ordinary": Behaviour(),
    "no tags": Behaviour(etags=False),
    **{str(status): Behaviour(status=status) for status in (204, 401, 403, 410, 416, 429, 500)},
    "dropped": Behaviour(drop=True),
    "truncated": Behaviour(truncate=True),
    "wrong bytes": Behaviour(wrong_bytes=True),
    "whole objects": Behaviour(ignore_range=True),
    "another range": Behaviour(shift_nbytes=1),
    "no length": Behaviour(no_length=True),
    "too long": Behaviour(excess_nbytes=1 << 20),
    "too long, no length": Behaviour(excess_nbytes=1 << 20, no_length=True),
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_both_ways_come_to_the_same(server, name):
    """Bytes, or an error that passes or not, on connections that are new or used."""
    ours = open_store(server.url)
    theirs = open_store(server.url, AIOHTTP)
    for _ in range(2):
        server.behave(BEHAVIOURS[name])
        for start, stop in ((5, 99), (0, SIZE), (SIZE - 1, SIZE + 1), (SIZE + 7, SIZE + 9)):
            assert read(ours, start, stop) == read(theirs, start, stop)
        server.behave(Behaviour())
        assert read(ours) == read(theirs) == DATA[5:99]


def test_both_ways_miss_the_same(server):
    """None for an object that is not there, and the size of an empty one."""
    for options in ({}, AIOHTTP):
        store = open_store(server.url, options)
        assert store.read_range("absent", 5, 9) is None
        assert store.size("absent") is None
        assert store.size("images/empty") == 0


def test_a_connection_is_used_again(server):
    """For one read after the other it takes one, and lazyarr's name stands for it."""
    store = open_store(server.url)
    for _ in range(5):
        assert read(store) == DATA[5:99]
    assert len({request.port for request in server.requests()}) == 1


def test_a_connection_that_was_closed_while_idle_is_no_failure(server):
    """Servers may do so at any time; on a new one it is a failure, which may pass."""
    store = open_store(server.url)
    assert read(store) == DATA[5:99]
    server.behave(Behaviour(drop=True), times=1)
    assert read(store) == DATA[5:99]
    server.behave(Behaviour(drop=True))
    assert read(store) == (True, CHUNK)


def test_an_unusual_server_is_asked_twice_once(server):
    """From then on it is asked through aiohttp at once."""
    store = open_store(server.url)
    server.behave(Behaviour(ignore_range=True))
    for _ in range(3):
        assert read(store) == DATA[5:99]
    assert len(server.requests()) == 2 + 1 + 1


def test_what_has_come_is_told(server):
    """The beginning of the range, longer each time, and right: before the rest is there."""
    data = os.urandom(8 << 20)
    (Path(server.directory) / "large").write_bytes(data)
    store = open_store(server.url)
    seen = []
    fetch = store.fetch("large", 10, len(data), arrived=seen.append)
    answer = asyncio.run_coroutine_threadsafe(fetch, event_loop()).result(60)
    assert answer.data == data[10:]
    assert seen
    lengths = [len(view) for view in seen]
    assert lengths == sorted(lengths)
    assert all(view == data[10 : 10 + len(view)] for view in seen)


def test_a_read_that_is_given_up_does_not_spoil_the_next(server):
    """Its connection is closed: what comes on it later belongs to nobody."""
    store = open_store(server.url, timeout_seconds=0.3)
    server.behave(Behaviour(delay_seconds=1.0))
    fetch = store.fetch(CHUNK, 0, 9)
    with pytest.raises(StoreError, match="Timeout"):
        asyncio.run_coroutine_threadsafe(fetch, event_loop()).result(60)
    server.behave(Behaviour())
    assert read(store) == DATA[5:99]


# --- answers that servers of other makes give -------------------------------------------


@contextlib.contextmanager
def scripted(*answers):
    """Give the URL of a server that answers so, and the requests that it got."""
    requests = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                for pieces in answers:
                    client, _ = listener.accept()
                    with client:
                        requests.append(client.recv(1 << 16))
                        for piece in pieces:
                            client.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_head_may_come_byte_by_byte():
    """And its names in any case."""
    head = ORDINARY.replace(b"Content-Length", b"cONTENT-lENGTH") + b"\r\n\r\n"
    with scripted([bytes([byte]) for byte in head + b"abcd"]) as (url, requests):
        assert open_store(url).read_range("x", 5, 9) == b"abcd"
    assert requests[0].startswith(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nRange: bytes=5-8\r\n\r\n" in requests[0]


def test_the_users_header_fields_are_sent():
    """In place of those that lazyarr would send, but for those that the answer hangs on."""
    headers = {"Authorization": "Bearer hush", "User-Agent": "mine", "accept-encoding": "gzip"}
    with scripted([ORDINARY + b"\r\n\r\nabcd"]) as (url, requests):
        assert open_store(url, {"headers": headers}).read_range("x", 5, 9) == b"abcd"
    lines = requests[0].lower().split(b"\r\n")
    assert b"authorization: bearer hush" in lines
    assert [line for line in lines if line.startswith(b"user-agent")] == [b"user-agent: mine"]
    assert [line for line in lines if b"accept-enc" in line] == [b"accept-encoding: identity"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 206 OK\r\nX: " + b"x" * (32 << 10) + b"\r\n\r\n",
        b"HTTP/1.1 404 No\r\n\r\n" + b"x" * (64 << 10),
        ORDINARY + b"\r\n\r\nabcdexcess",
        ORDINARY + b"\r\n\r\nab",
        b"\r\n\r\n",
        b"",
        b"ICY 200 OK\r\n\r\n",
    ],
    ids=["long head", "long error", "excess", "short", "empty head", "nothing", "radio"],
)
def test_no_answer_is_taken_for_another(answer):
    """Whatever comes ends in nothing, an error or what was asked for, and says nothing else."""
    with scripted([answer], [answer]) as (url, _):
        store = open_store(url, timeout_seconds=5)
        try:
            found = store.read_range("x", 5, 9)
        except StoreError:
            found = None
        assert found in (None, b"abcd")


@pytest.mark.parametrize(
    "head",
    [
        ORDINARY.replace(b"206", b"200"),
        ORDINARY.replace(b"1.1", b"1.0"),
        ORDINARY.replace(b"5-8", b"5-9"),
        ORDINARY.replace(b"5-8", b"4-7"),
        ORDINARY.replace(b"5-8/99", b"5-8/7"),
        ORDINARY.replace(b"Length: 4", b"Length: 5"),
        ORDINARY.replace(b"Length: 4", b"Length: +4"),
        ORDINARY.replace(b"Content-Length: 4\r\n", b""),
        ORDINARY + b"\r\nContent-Length: 4",
        ORDINARY + b"\r\nContent-Range: bytes 5-8/99",
        ORDINARY + b"\r\nTransfer-Encoding: chunked",
        ORDINARY + b"\r\nContent-Encoding: gzip",
        ORDINARY + b"\r\n folded: 1",
        ORDINARY + b"\r\nnothing",
        ORDINARY + b"\r\n: 1",
        b"HTTP/1.1 103 Early Hints",
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_aiohttp(head):
    """Each of these could mean other bytes than those that were asked for."""
    assert check_ordinary(parse_head(ORDINARY), 5, 9) == 99
    with pytest.raises(UnusualAnswerError):
        check_ordinary(parse_head(head), 5, 9)


# --- encryption -------------------------------------------------------------------------


def make_certificate(directory: Path) -> str:
    """Return a file with a key and a certificate for 127.0.0.1 that vouches for itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lazyarr tests")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = directory / "certificate.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return str(path)


_READ_ENCRYPTED = """
import sys
from lazyarr.store import open_store
store = open_store(sys.argv[1])
for _ in range(3):
    sys.stdout.buffer.write(store.read_range("large", 10, 3000000))
"""


def test_encrypted_connections_are_used_again(tmp_path):
    """One for several reads, to a server that the system trusts."""
    certificate = make_certificate(tmp_path)
    directory = tmp_path / "served"
    directory.mkdir()
    (directory / "large").write_bytes(os.urandom(3 << 20))
    with serve_directory(directory, certificate=certificate) as server:
        assert server.url.startswith("https://")
        done = subprocess.run(
            [sys.executable, "-c", _READ_ENCRYPTED, server.url],
            env={**os.environ, "SSL_CERT_FILE": certificate},
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        )
        assert done.stdout == (directory / "large").read_bytes()[10:3000000] * 3
        assert len({request.port for request in server.requests()}) == 1


def test_a_server_that_nobody_vouches_for_is_refused(tmp_path):
    """For good, and nothing is sent to it."""
    certificate = make_certificate(tmp_path)
    directory = tmp_path / "served"
    directory.mkdir()
    with serve_directory(directory, certificate=certificate) as server:
        with pytest.raises(StoreError, match="certificate verify failed") as caught:
            open_store(server.url).read_range("large", 1, 9)
        assert not caught.value.transient
        assert server.requests() == []
