"""Programs of tests/process/test_sharing.py."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

import lazyarr
from lazyarr.client.session import joining
from lazyarr.wire.meeting import Invitation
from lazyarr.wire.messages import VERSION
from tests.programs.support import in_child, join_all, keep, read_all, settled, stop

# --- readers: programs that get a pickle through a pipe, check it, and say whose pages they have


def receive(copy):
    """Return the array of a pickle, and what is in it, after a look at all and a pick."""
    x = pickle.load(sys.stdin.buffer)
    data = np.load(copy)
    assert read_all(x) == data.tobytes()
    assert (x[[60, 2]] == data[[60, 2]]).all()
    return x, data


def say_pager():
    print(lazyarr.stats()["pid"])


def reads(copy, parent):
    keep(receive(copy))
    say_pager()


def reads_and_forks(copy, parent):
    x, data = receive(copy)

    def child():
        x.evict()
        assert (np.asarray(x) == data).all()
        assert pickle.loads(pickle.dumps(x)) is not x

    assert in_child(child) == 0
    say_pager()


def reads_and_sets(copy, parent):
    keep(receive(copy))
    assert lazyarr.config.memory_limit == 1 << 20 == lazyarr.stats()["memory_limit"]
    lazyarr.configure(memory_limit=2 << 20)
    say_pager()


def reads_beside_its_own(copy, parent, url):
    mine = lazyarr.open(url)
    assert mine[5].any()
    reads(copy, parent)


def reads_without_waiting(copy, parent):
    begin = time.monotonic()
    reads(copy, parent)
    # A pager that hangs up without a word is taken for a worker that has died, and waited for.
    assert time.monotonic() - begin < joining._PATIENCE_SECONDS


def reads_when_its_parent_has_ended(copy, parent, ready, result):
    x, data = receive(copy)
    Path(ready).touch()
    while os.getppid() == int(parent) or lazyarr.stats()["clients"] > 1:
        os.sched_yield()
    x.evict()
    assert (np.asarray(x) == data).all()
    Path(result).write_text(str(settled()["units_loaded"]))
    say_pager()


def reads_and_opens_again_and_again(copy, parent, url):
    expected = np.load(copy)[33]

    def open_too():
        for _ in range(20):
            y = lazyarr.open(url)
            if not (y[33] == expected).all():
                os._exit(9)

    x, data = receive(copy)
    again = threading.Thread(target=open_too)
    again.start()
    for _ in range(20):
        y = pickle.loads(pickle.dumps(x))
        assert (y[33] == data[33]).all()
    again.join()
    say_pager()


def reads_and_gives_back(copy, parent):
    def mapped():
        return Path("/proc/self/maps").read_text().count("memfd:lazyarr")

    x, data = receive(copy)
    assert mapped() == 2
    pickled = pickle.dumps(x)
    for _ in range(50):
        y = pickle.loads(pickled)
        assert y._region is x._region
    del x, y
    while mapped():
        os.sched_yield()
    x = pickle.loads(pickled)
    assert (np.asarray(x) == data).all()
    say_pager()


# --- what sends to them


def start_function(function, *arguments, wrapper=()):
    """Start a program of this module that is sent something, and answers."""
    command = ["-W", "error", "-m", "tests.programs", f"sharing:{function.__name__}"]
    return subprocess.Popen(
        [*wrapper, sys.executable, *command, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def start(reader, copy, *arguments, wrapper=()):
    return start_function(reader, copy, str(os.getpid()), *arguments, wrapper=wrapper)


def send(child, x):
    child.stdin.write(x if type(x) is bytes else pickle.dumps(x))
    child.stdin.close()
    return child


def finish(child):
    """Return the pager that a reader has, or less than 0."""
    with child:
        return int(child.stdout.read() or -1)


def ask(x, reader, copy, *arguments, wrapper=()):
    return finish(send(start(reader, copy, *arguments, wrapper=wrapper), x))


def wait_for_regions(n_regions):
    while lazyarr.stats()["regions"] > n_regions:
        os.sched_yield()


# --- whose pages


def an_unrelated_process_shares(url, copy):
    x = lazyarr.open(url)
    pager = ask(x, reads_and_forks, copy)
    stats = settled()
    assert pager == stats["pid"]
    print(stats["units_loaded"], stats["regions"], stats["evictions"])
    assert (np.asarray(x) == np.load(copy)).all()
    assert settled()["units_loaded"] == 32


def many_processes_at_once(url, copy):
    x = lazyarr.open(url)
    readers = [start(reads, copy) for _ in range(8)]
    for each in readers:
        send(each, x)
    assert {finish(each) for each in readers} == {lazyarr.stats()["pid"]}
    print(settled()["units_loaded"])


def views_and_what_they_say_of_themselves(path, copy):
    import zarr  # which would hold up readers

    lazyarr.save(path, {"a/b": np.load(copy)}, chunks=(4, 32, 128))
    zarr.open(path)["a/b"].attrs["unit"] = "m"
    attributes = {"unit": "s", "_ARRAY_DIMENSIONS": ["t", "y", "x"]}
    zarr.create_array(path + "2", data=np.load(copy), zarr_format=2, attributes=attributes)
    arrays = [lazyarr.open(path)["a/b"], lazyarr.open(path + "2")]
    views = [v for x in arrays for v in (x, x[3:50:2], x.T[5:9], x[::-1, 3], x.view("u1"))]
    models = [(*described(v), np.array(v)) for v in views]
    arrays[0].evict(), arrays[1].evict()
    child = start_function(compares_views)
    found, _ = child.communicate(pickle.dumps(list(zip(views, models, strict=True))))
    print(found)


def compares_views():
    for y, (*description, view) in pickle.load(sys.stdin.buffer):
        assert described(y) == tuple(description), y
        assert (np.asarray(y) == view).all()
    print(lazyarr.stats()["regions"], lazyarr.stats()["clients"])


def described(v):
    return v.attrs, v.dimension_names, v.chunks, v.path, v.url, v.info.partition("memory")[0]


def an_array_in_the_memory_of_one_process(copy):
    lazyarr.save("memory://x", np.load(copy), chunks=(4, 32, 128))
    x = lazyarr.open("memory://x")
    assert ask(x, reads, copy) == lazyarr.stats()["pid"]


def a_joined_process_goes_by_the_pagers_settings(url, copy):
    lazyarr.configure(memory_limit=1 << 20)
    x = lazyarr.open(url)
    assert ask(x, reads_and_sets, copy) == lazyarr.stats()["pid"]
    print(lazyarr.stats()["memory_limit"])


def an_array_that_was_dropped_is_opened_in_the_same_pager(url, copy):
    x, _other = lazyarr.open(url), lazyarr.open(url, mode="c")
    assert x[5].any()
    pickled = pickle.dumps(x)
    del x
    wait_for_regions(1)
    assert ask(pickled, reads, copy) == lazyarr.stats()["pid"]


def the_pages_are_those_that_were_pickled(path, copy):
    data = np.load(copy)
    lazyarr.save(path, data, chunks=(4, 32, 128))
    x = lazyarr.open(path)
    assert (np.asarray(x) == data).all()
    lazyarr.save(path, np.zeros((5, 5)), overwrite=True)
    assert ask(x, reads, copy) == lazyarr.stats()["pid"]


def an_array_that_has_become_another_one(path):
    data = np.arange(60).reshape(10, 6)
    lazyarr.save(path, data)
    x, _other = lazyarr.open(path)[2:4], lazyarr.open(path, mode="c")
    pickled = pickle.dumps(x)
    del x
    wait_for_regions(1)
    with lazyarr.writer.open_writer(path) as writer:
        writer[""].append(data)
    assert (np.asarray(pickle.loads(pickled)) == data[2:4]).all()
    wait_for_regions(1)
    for other in (data.reshape(6, 10), data.astype("f8"), data[:3]):
        lazyarr.save(path, other, overwrite=True)
        try:
            print(pickle.loads(pickled))
        except lazyarr.FormatError as error:
            print(str(error).partition("in file")[0])


# --- when it cannot be


def pickles(url):
    sys.stdout.buffer.write(pickle.dumps(lazyarr.open(url)))


def the_pager_is_gone(url, copy):
    pickled, _ = start_function(pickles, url).communicate()
    ask(pickled, reads, copy)
    x = pickle.loads(pickled)
    assert (np.asarray(x) == np.load(copy)).all()


def a_process_that_has_a_pager_keeps_it(url, copy):
    x = lazyarr.open(url)
    assert ask(x, reads_beside_its_own, copy, url) != lazyarr.stats()["pid"]


def a_process_that_must_not_share_opens_its_own(url, copy, *wrapper):
    x = lazyarr.open(url)
    assert ask(x, reads_without_waiting, copy, wrapper=wrapper) != lazyarr.stats()["pid"]
    assert lazyarr.stats()["clients"] == 1


def another_user_is_turned_away(url):
    x = lazyarr.open(url)
    name, secret = x._region.owner.invite().split(":")

    def come(packet=b"", uid=0):
        os.seteuid(uid)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(f"\0lazyarr-{name}")
            os.seteuid(0)
            if packet:
                socket.send_fds(sock, [packet], [sock.fileno()] * (b"Knock" in packet))
            try:
                return sock.recv(1000)
            except ConnectionResetError:
                return b""

    def knock(**fields):
        return come(json.dumps({"is": "Knock", **fields}).encode())

    print(come(uid=65534), come(b"nonsense"))
    print(knock(version=VERSION, secret=secret[::-1]), knock(version=VERSION, secret="\u00e4"))
    print(knock(version=0, secret=secret))
    print(knock(version=0, namespace=0))
    assert x[5].any()


def a_reference_of_another_version_is_refused(url, path, made):
    lazyarr.save(path, {"x": np.arange(3)})
    x = lazyarr.open(url if made == "array" else path)
    reopen, (version, *reference) = x.__reduce__()[:2]
    for other in ((version + 1, *reference), reference, (None, *reference)):
        try:
            reopen(*other)
        except lazyarr.FormatError as error:
            print(error)
    assert reopen(version, *reference) is not None


def a_crowd_of_another_user_does_not_disturb(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    name = x._region.owner.invite().split(":")[0]
    pid = os.fork()
    if pid == 0:
        os.setgid(65534)
        os.setuid(65534)
        n_come, refusals, begin = 0, set(), time.monotonic()
        while time.monotonic() < begin + 3:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.setblocking(False)
            try:
                sock.connect(f"\0lazyarr-{name}")
                n_come += 1
            except OSError as error:
                refusals.add(error.errno)
            sock.close()
        # What the queue holds, and some hundred a second; many more would have liked to.
        os._exit(0 if n_come < 1024 + 3 * 1000 and refusals == {errno.EAGAIN} else n_come % 99 + 1)
    n_read = 0
    while not (ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)):
        x.evict()
        assert (np.asarray(x)[n_read % 64] == data[n_read % 64]).all()
        n_read += 1
    assert ended.si_status == 0, ended
    assert n_read > 50, n_read
    assert ask(x, reads, copy) == lazyarr.stats()["pid"]


def a_name_that_another_user_has_taken(name):
    assert joining.join_pager(Invitation(name, "secret")) is None


# --- who dies

ENDINGS = {
    "os._exit(0)": lambda: os._exit(0),
    "os.kill(os.getpid(), signal.SIGKILL)": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def the_parent_ends_first(url, copy, ready, result, ending):
    x = lazyarr.open(url)
    assert x[9].any()
    send(start(reads_when_its_parent_has_ended, copy, ready, result), x)
    while not os.path.exists(ready):
        os.sched_yield()
    ENDINGS[ending]()


def the_worker_dies_while_a_process_comes(url, copy):
    x = lazyarr.open(url)
    assert x[9].any()
    pickled = pickle.dumps(x)
    worker = lazyarr.stats()["pid"]
    stop(worker)
    child = send(start(reads, copy), pickled)
    # One line for the socket that listens, one for each that has come to it.
    name = x._region.owner.invitation.name
    while Path("/proc/net/unix").read_text().count(name) < 2:
        os.sched_yield()
    os.kill(worker, signal.SIGKILL)
    assert finish(child) == lazyarr.stats()["pid"] != worker


def workers_die_all_the_time(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    readers = [start(reads_and_opens_again_and_again, copy, url) for _ in range(12)]
    threads = [
        threading.Thread(target=lambda each=each: each.communicate(pickle.dumps(x)))
        for each in readers
    ]
    for thread in threads:
        thread.start()
    for i in range(40):
        os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
        assert (x[i] == data[i]).all()
    join_all(threads)
    assert [each.returncode for each in readers] == [0] * 12, readers
    assert (np.asarray(x) == data).all()
    while lazyarr.stats()["clients"] > 1:
        os.sched_yield()
    print(lazyarr.stats()["regions"])


def everything_of_the_pager_dies(url, copy):
    x = lazyarr.open(url)
    print(lazyarr.stats()["pid"], flush=True)
    pickled = pickle.dumps(x)
    sys.stdin.readline()
    ask(pickled, reads, copy)
    y = pickle.loads(pickled)
    assert (np.asarray(y) == np.load(copy)).all()


# --- nothing stays


def nothing_is_left_of_those_who_came_and_went(url, copy):
    x = lazyarr.open(url)
    name = x._region.owner.invitation.name
    assert name not in Path("/proc/net/unix").read_text()
    worker = lazyarr.stats()["pid"]
    supervisor = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])

    def count():
        while lazyarr.stats()["clients"] > 1:
            time.sleep(0.01)
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (worker, supervisor, os.getpid())]

    ask(x, reads, copy)
    assert name in Path("/proc/net/unix").read_text()
    counts = [count()]
    while len(counts) < 20 or counts[-20:] != [counts[-1]] * 20:  # the supervisor forgets later
        time.sleep(0.01)
        counts.append(count())
    before = counts[-1]
    for _ in range(4):
        ask(x, reads, copy)
        assert pickle.loads(pickle.dumps(x))._region is x._region
        assert lazyarr.open(url)._region is x._region
    deadline = time.monotonic() + 30
    while any(now > then for now, then in zip(count(), before, strict=True)):
        assert time.monotonic() < deadline, (count(), before)
        time.sleep(0.01)
    print(name)


def region_of_another_process_is_given_back(url, copy):
    x = lazyarr.open(url)
    assert ask(x, reads_and_gives_back, copy) == lazyarr.stats()["pid"]
    print(settled()["units_loaded"])
