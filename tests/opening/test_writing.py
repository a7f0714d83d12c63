"""Opening stores in mode "r+": what can be opened so, and who may."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest
import zarr

import lazyarr
from lazyarr.errors import FormatError, NodeNotFoundError, StoreError
from lazyarr.opening import writing
from lazyarr.writer import open_writer

OPENS = """
import lazyarr, sys
lazyarr.configure(engine="copy")
lazyarr.open(sys.argv[1], "r+")
print("opened")
"""


@pytest.fixture(autouse=True)
def copies():
    """Have arrays copied: which engine fills them does not matter here."""
    with lazyarr.configure(engine="copy"):
        yield


@pytest.fixture
def store(tmp_path):
    path = str(tmp_path / "s.zarr")
    lazyarr.save(path, {"x": np.arange(6), "g/y": np.ones(3)})
    return path


def open_elsewhere(path):
    """Open a store in another process; return what it says."""
    found = subprocess.run(
        [sys.executable, "-c", OPENS, path], capture_output=True, text=True, check=False
    )
    return found.stdout + found.stderr


def test_there_is_one_writer_of_a_store(store):
    with lazyarr.open(store, "r+") as ds:
        assert ds["x"].tolist() == [*range(6)]
        assert f"process {os.getpid()} is writing to it" in open_elsewhere(store)
        with pytest.raises(StoreError, match="this process has a writer of it open"):
            open_writer(store)
        assert lazyarr.open(store)["x"].tolist() == [*range(6)]  # readers come and go
    assert open_elsewhere(store) == "opened\n"
    open_writer(store).close()


def test_a_node_in_the_store_claims_all_of_it(store):
    with lazyarr.open(f"{store}/g", "r+") as group:
        assert group["y"].tolist() == [1, 1, 1]
        assert "is writing to it" in open_elsewhere(store)
        assert group._opening.writing.path("y") == "g/y"
        assert group._opening.writing.store.url.endswith("s.zarr/g")


def test_openings_of_one_process_share_the_claim(store):
    first, second = lazyarr.open(store, "r+"), lazyarr.open(f"file://{store}/g", "r+")
    assert first._opening.writing.claimed is second._opening.writing.claimed
    first.close()
    assert "is writing to it" in open_elsewhere(store)
    second.close()
    assert open_elsewhere(store) == "opened\n"


def test_an_array_keeps_the_claim(store):
    with lazyarr.open(store, "r+") as ds:
        x = ds["x"]
    assert "is writing to it" in open_elsewhere(store)
    del x
    claimed = writing._held
    for _ in range(500):
        if not claimed:
            break
        threading.Event().wait(0.01)
    assert open_elsewhere(store) == "opened\n"


def test_two_engines_do_not_write_to_one_store(store):
    with (
        lazyarr.open(store, "r+"),
        lazyarr.configure(engine="userfaultfd"),
        pytest.raises(StoreError, match=r"engine='copy', which does not know what"),
    ):
        lazyarr.open(store, "r+")


def test_a_forked_child_opens_it_anew_and_is_refused(store):
    with lazyarr.open(store, "r+"):
        pid = os.fork()
        if not pid:
            try:
                lazyarr.open(store, "r+")
            except StoreError as error:
                os._exit(0 if f"process {os.getppid()}" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert "is writing to it" in open_elsewhere(store)


def test_objects_in_memory_are_claimed_in_this_process_alone():
    lazyarr.save("memory://writing/a.zarr", {"x": np.arange(3)})
    first = lazyarr.open("memory://writing/a.zarr", "r+")
    second = lazyarr.open("memory://writing/a.zarr", "r+")
    assert first._opening.writing.claimed is second._opening.writing.claimed
    assert first._opening.writing.claim is None
    with (
        lazyarr.configure(engine="userfaultfd"),
        pytest.raises(StoreError, match=r"in the memory of this process.*engine='copy'"),
    ):
        lazyarr.open("memory://writing/a.zarr", "r+")


def test_a_store_of_version_2_can_be_opened(tmp_path):
    group = zarr.open_group(str(tmp_path / "v2"), mode="w", zarr_format=2)
    group.create_array("x", data=np.arange(4), chunks=2)
    with lazyarr.open(tmp_path / "v2", "r+") as ds:
        assert ds["x"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["npy", "npz", "h5", "zip", "json"])
def test_what_cannot_be_changed_says_what_to_do(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "npy":
        np.save(path, np.arange(3))
    elif kind == "npz":
        np.savez(path, x=np.arange(3))
    elif kind == "h5":
        with h5py.File(path, "w") as file:
            file["x"] = np.arange(3)
    elif kind == "zip":
        with zarr.storage.ZipStore(path, mode="w") as archive:
            zarr.create_array(archive, data=np.arange(3))
    else:
        path.write_text('{"version": 1, "refs": {"zarr.json": "{}"}}')
    with pytest.raises(FormatError, match=r"cannot write to .*: it is .*; (make|unpack)"):
        lazyarr.open(path, "r+")


def test_what_does_not_exist_is_not_made(tmp_path):
    with pytest.raises(NodeNotFoundError, match=r"lazyarr\.create, mode 'r\+' changes one"):
        lazyarr.open(tmp_path / "no.zarr", "r+")
    assert not (tmp_path / "no.zarr").exists()


def test_http_and_private_memory_are_refused(store):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=store)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        with pytest.raises(FormatError, match="HTTP, which is for reading only"):
            lazyarr.open(f"http://127.0.0.1:{server.server_port}", "r+")
        server.shutdown()
    with pytest.raises(ValueError, match=r"does not go with mode 'r\+'"):
        lazyarr.open(store, "r+", memory="private")


def test_a_directory_that_this_user_may_not_write_to(store, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # root may write anywhere
    with pytest.raises(StoreError, match="change its rights"):
        lazyarr.open(store, "r+")
