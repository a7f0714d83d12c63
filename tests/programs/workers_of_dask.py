"""Programs of tests/integrations/test_distributed.py."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import numpy as np

import lazyarr
from lazyarr.client.session import process


def results_are_sent_without_rights(path):
    # First, as in a worker.
    from distributed.protocol import dumps, to_serialize

    # What distributed could compress it would read, and so have mapped.
    data = np.random.default_rng(0).integers(0, 2**63, (8, 4096))
    lazyarr.save(path, data, chunks=(2, 4096))
    x = lazyarr.open(path)
    session = process.current_session()
    assert session.is_user_mode_only
    view = np.asarray(x)[2:6]
    for result in (view, [view], SimpleNamespace(rows=view.reshape(-1))):
        x.prefetch()
        session.unmap_pages()
        frames = dumps({"result": to_serialize(result)})
        sent = b"".join(bytes(frame) for frame in map(_send, frames))
        assert data[2:6].tobytes() in sent
    print("sent")


def _send(frame):
    """Return what arrives of a frame that is sent through a socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours.sendall(frame)
        ours.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: theirs.recv(1 << 20), b""))
