"""Programs of tests/process/test_forks.py."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import faulthandler
import gc
import os
import pickle
import resource
import signal
import sys
import threading
import time
import traceback
import warnings

import numpy as np

import lazyarr
from lazyarr.client.session import finalizers, process
from tests.programs.support import (
    exit_code,
    in_child,
    join_all,
    keep,
    read_all,
    run_threads,
    start_all,
)

LIBC = ctypes.PyDLL(None)  # holds the GIL, as an embedded interpreter does that forks
HOOKS = ("lazyarr.client.session.fork_hooks", "lazyarr.kernel.birth")


def begin(url, copy):
    """Return an array, and what is in it, in a process that can be forked past Python's hooks."""
    # A thread that asked for the GIL would be waited for in the child, which does not have it: what
    # Python's own hooks put right (Python/ceval_gil.c, drop_gil).
    sys.setswitchinterval(1000)
    # A child that maps memory before its first call of lazyarr may get the place of an array, and
    # then a raw touch there is no SIGSEGV (docs/design/fork.md).  So Python has room left for its
    # small objects: kept is one in a thousand, and the arenas of the others with it.
    small = [bytes(400) for _ in range(5000)]
    keep(small[::1000])
    return lazyarr.open(url), np.load(copy)


def unseen_fork():
    """Fork past Python's hooks."""
    return LIBC.fork()


def in_unseen_child(function):
    """Return how a child ended that was forked past Python's hooks, and ran a function."""
    return in_child(function, unseen_fork)


def check(url, x, data, i):
    """Read a row by asking, some by touching, all by computing, and open the array anew."""
    assert (x[i] == data[i]).all()
    assert read_all(x[i : i + 8]) == data[i : i + 8].tobytes()
    assert x.sum() == data.sum()
    assert (lazyarr.open(url)[i + 1] == data[i + 1]).all()


def a_child_of_c_code_joins_at_its_first_call(url, copy, row):
    x, data = begin(url, copy)
    x[5]
    assert in_unseen_child(lambda: check(url, x, data, int(row))) == 0
    check(url, x, data, 9)
    stats = lazyarr.stats()
    assert stats["units_loaded"] == 16, stats  # its pages are the parent's


def any_call_will_do(url, copy):
    x, data = begin(url, copy)
    x[5]
    view, raw = x[3:40], np.asarray(x)
    part = lazyarr.open(url)
    CALLS = [
        lambda: lazyarr.stats(),
        lambda: x.residency(),
        lambda: repr(x),
        lambda: x.prefetch(slice(8)),
        lambda: view.mean(),
        lambda: x[[1, 7]],
        lambda: x[data[:, 0, 0] > 3],
        lambda: x.evict(),
        lambda: lazyarr.open(url),
        lambda: lazyarr.evict(raw),
        lambda: list(zip(view, data, strict=False)),
        lambda: np.add(view, 1),
        lambda: x.tobytes(),
        lambda: lazyarr.configure(readahead=0),
        lambda: pickle.dumps(x),
        lambda: x.advise("random"),
        lambda: x.take([5, 1], 0),
    ]
    for call in CALLS:

        def use(call=call):
            call()
            assert read_all(raw) == data.tobytes()
            assert (part[50] == data[50]).all()

        assert in_unseen_child(use) == 0, call.__code__.co_firstlineno


def generations_of_either_kind(url, copy):
    x, data = begin(url, copy)
    x[5]

    def live(generation):
        fork = in_unseen_child if generation % 2 else in_child
        if generation < 5:
            assert fork(lambda: live(generation + 1)) == 0
        check(url, x, data, generation * 8)
        if generation < 4:
            assert fork(lambda: check(url, x, data, generation)) == 0

    live(0)


def a_touch_before_the_first_call_dies(url, copy):
    x, data = begin(url, copy)
    raw = np.asarray(x)
    x[5]

    def touch():
        faulthandler.disable()
        print(raw[5, 0, 1])

    assert in_unseen_child(touch) == -signal.SIGSEGV
    check(url, x, data, 7)


def what_was_written_stays_in_the_parent(url, copy):
    x, data = begin(url, copy)
    mine = lazyarr.open(url, "c")
    mine[3] = 9

    def use():
        assert (x[3] == data[3]).all()
        for way in (lambda: mine[3], lambda: mine.sum(), lambda: mine[[3]], lambda: mine.copy()):
            try:
                way()
            except lazyarr.PagerError as error:
                assert "mode 'c'" in str(error)
            else:
                raise AssertionError
        mine2 = lazyarr.open(url, "c")
        mine2[4] = 1
        assert (mine2[3] == data[3]).all() and (mine2[4] == 1).all()

    def touch():
        lazyarr.stats()
        faulthandler.disable()
        print(np.asarray(mine)[3, 0, 0])

    assert in_unseen_child(use) == 0
    ended = in_unseen_child(touch)
    assert ended == -signal.SIGSEGV, ended
    assert (mine[3] == 9).all()


def something_else_has_taken_the_place(url, copy):
    x, data = begin(url, copy)
    arrays = [x]
    _other = lazyarr.open(url, memory="private")
    x[5]
    mmap = ctypes.CDLL(None).mmap
    mmap.restype, mmap.argtypes = (
        ctypes.c_void_p,
        (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long),
    )
    address = np.asarray(x).ctypes.data
    del x

    def use():
        flags = 0x100022  # MAP_FIXED_NOREPLACE
        assert mmap(address + 4096, 4096, 3, flags, -1, 0) == address + 4096
        ctypes.memset(address + 4096, 7, 4096)
        for way in (lambda: arrays[0][5], lambda: arrays[0][40], lambda: arrays[0].sum()):
            try:
                way()
            except lazyarr.PagerError as error:
                assert "open the array here again" in str(error)
            else:
                raise AssertionError
        again = lazyarr.open(url)
        assert read_all(again) == data.tobytes()
        arrays.clear()
        assert (again[9] == data[9]).all()
        assert ctypes.string_at(address + 4096, 4096) == bytes([7]) * 4096

    assert in_unseen_child(use) == 0
    check(url, arrays[0], data, 7)


def the_parent_has_let_go(url, copy):
    x, data = begin(url, copy)
    y = lazyarr.open(url)
    x[5], y[9]
    gate, barrier = os.pipe()
    pid = unseen_fork()
    if pid == 0:
        os.close(barrier)
        os.read(gate, 1)
        assert (x[5] == data[5]).all()
        check(url, x, data, 30)
        os._exit(0)
    del x, y
    while lazyarr.stats()["regions"]:
        os.sched_yield()
    os.close(barrier)
    assert exit_code(pid) == 0


def the_pager_is_gone(url, copy):
    x, data = begin(url, copy)
    x[5]
    worker = lazyarr.stats()["pid"]

    def use():
        os.close(barrier)
        os.read(gate, 1)
        while os.path.exists(f"/proc/{worker}"):
            os.sched_yield()
        try:
            x[5]
        except lazyarr.PagerError as error:
            assert "open the dataset again" in str(error)
        else:
            raise AssertionError
        assert read_all(lazyarr.open(url)) == data.tobytes()
        os.write(1, b"right")

    gate, barrier = os.pipe()
    pid = unseen_fork()
    if pid == 0:
        try:
            use()
        finally:
            os._exit(0)
    os.close(1)  # the child alone has it


def locks_that_other_threads_hold(url, copy):
    x, data = begin(url, copy)
    x[5]
    session = process.current_session()
    held = [process._lock, session._lock, session._sharing, session.rpc._channels._lock]
    gate, barrier = os.pipe()

    def hold():
        for lock in held:
            lock.acquire()
        finalizers._lock.acquire()
        ready.set()
        os.read(gate, 1)
        for lock in (finalizers._lock, *held):
            lock.release()

    ready = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    assert in_unseen_child(lambda: check(url, x, data, 20)) == 0
    os.close(barrier)
    thread.join()
    check(url, x, data, 30)


def it_ends_without_ever_calling(url, copy):
    x, data = begin(url, copy)
    x[5]
    keep(x)
    faulthandler.cancel_dump_traceback_later()  # it would be waited for
    pid = unseen_fork()
    if pid == 0:
        sys.exit(3)
    assert exit_code(pid) == 3
    check(url, x, data, 20)


def is_hooks(frame):
    """Return whether a frame is in a hook, but for looks at each of all modules and signals."""
    if frame.f_globals.get("__name__") in ("signal", "enum"):
        return False
    if frame.f_code.co_name in ("_is_being_imported", "<genexpr>"):
        return False
    while frame is not None:
        if frame.f_globals.get("__name__") in HOOKS:
            return True
        frame = frame.f_back
    return False


class Fault:
    """Raises at the n-th call, or return from one, of the hooks of a fork."""

    def __init__(self, error, n):
        self.error, self.n, self.n_seen = error, n, 0

    def __call__(self, frame, event, argument):
        if is_hooks(frame):
            self.n_seen += 1
            if self.n_seen == self.n:
                raise self.error


def in_faulty_child(function, fault):
    """Fork with one fault; return how the child ended."""
    sys.setprofile(fault)
    try:
        pid = os.fork()
    finally:
        sys.setprofile(None)
    if pid == 0:
        signal.alarm(20)
        faulthandler.disable()
        try:
            os._exit(function())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return exit_code(pid)


def any_call_of_a_hook_fails(url, copy, error):
    x, data = begin(url, copy)
    gc.disable()  # finalizers would be called at any moment
    raw = np.asarray(x)
    hooks_went_wrong = []
    sys.unraisablehook = lambda unraisable: hooks_went_wrong.append(unraisable.exc_type)
    ended = set()

    def child():
        try:
            assert (x[9] == data[9]).all()
            assert read_all(x[40:44]) == data[40:44].tobytes()
        except lazyarr.PagerError:
            assert (lazyarr.open(url)[9] == data[9]).all()
            return 7
        return 0

    def touch():
        return 0 if raw[50, 3, 4] == data[50, 3, 4] else 1

    def fail_at(n):
        for what in (child, touch):
            code = in_faulty_child(what, Fault(eval(error), n))
            ended.add(code)
            # Data, an exception, or for a touch before it the end.
            assert code in (0, 7, -signal.SIGSEGV), (n, what, code)
        assert (x[n % 60] == data[n % 60]).all()

    x[5]
    reader, writer = os.pipe()
    sys.setprofile(fault := Fault(None, 0))
    pid = os.fork()
    sys.setprofile(None)
    if pid == 0:
        os.write(writer, b"%d" % fault.n_seen)
        os._exit(0)
    os.waitpid(pid, 0)
    n_parent, n_child = fault.n_seen, int(os.read(reader, 9))
    assert 80 < n_parent < n_child < 3000, (n_parent, n_child)
    first = 1 + 2 * isinstance(eval(error), OSError)
    for n in (*range(first, n_parent + 4, 5), *range(n_parent + first, n_child + 4, 40)):
        fail_at(n)
        if n % 8 < 2:
            x.evict()
            assert in_child(lambda n=n: check(url, x, data, n % 50)) == 0, n
    assert 0 in ended and 7 in ended, ended
    assert hooks_went_wrong
    check(url, x, data, 20)


def no_descriptor_is_free(url, copy, n_freed):
    x, data = begin(url, copy)
    x[5]
    raw = np.asarray(x)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))

    def fork(function):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            faulthandler.disable()
            for fd in taken[: int(n_freed)]:
                os.close(fd)
            function()
            sys.stdout.flush()
            os._exit(0) if function is touch else sys.exit(0)
        return exit_code(pid)

    def use():
        with contextlib.suppress(lazyarr.PagerError):
            assert (x[9] == data[9]).all() and (raw[40] == data[40]).all()

    def touch():
        assert raw[50, 3, 4] == data[50, 3, 4]

    def end():
        pass

    faulthandler.cancel_dump_traceback_later()
    for _ in range(3):
        assert fork(use) == 0
        assert fork(touch) in (0, -signal.SIGSEGV)
        assert fork(end) == 0
    assert (x[20] == data[20]).all()
    while taken:
        os.close(taken.pop())
    assert fork(lambda: check(url, x, data, 30)) == 0
    check(url, x, data, 40)


def threads_that_fork_at_once(url, copy):
    x, data = begin(url, copy)
    warnings.simplefilter("ignore")  # Python 3.12 and later: forks beside threads may deadlock
    sys.setswitchinterval(0.0001)
    x[5]
    codes = []

    def fork():
        for i in range(60):
            pid = os.fork()
            if pid == 0:
                try:
                    check(url, x, data, i % 50)
                except BaseException:
                    os._exit(1)
                os._exit(0)
            codes.append(os.waitpid(pid, 0)[1])

    threads = [threading.Thread(target=fork) for _ in range(4)]
    run_threads(threads)
    assert codes == [0] * 240, codes
    check(url, x, data, 20)


def a_storm_of_signals(url, copy, n_threads):
    x, data = begin(url, copy)

    class Struck(Exception):
        pass

    def strike(*_):
        nonlocal n_struck
        if is_armed:
            n_struck += 1
            raise Struck

    n_struck, is_armed = 0, False
    sys.unraisablehook = collections.deque(maxlen=0).append  # no Python to interrupt
    stop = []

    def spin():
        while not stop:
            time.sleep(0.0001)  # is given signals in place of the main thread

    threads = [threading.Thread(target=spin, daemon=True) for _ in range(int(n_threads))]
    start_all(threads)
    x[5]

    def child():
        with contextlib.suppress(lazyarr.PagerError):
            assert (x[9] == data[9]).all() and read_all(x) == data.tobytes()
        return 0

    def fork_under_fire():
        """Fork while a signal comes every moment; return the child's number."""
        nonlocal is_armed
        parent, is_armed = os.getpid(), True
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        # Not `contextlib.suppress`, which could be struck itself.
        try:  # noqa: SIM105
            os.fork()
        except Struck:
            pass
        while is_armed:
            try:  # noqa: SIM105
                is_armed = False
            except Struck:
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        if os.getpid() != parent:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            try:
                os._exit(child())
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)

    signal.signal(signal.SIGALRM, strike)
    for i in range(100):
        try:
            fork_under_fire()
        except Struck:
            is_armed = False
        if i % 10 == 9:
            assert (x[i % 60] == data[i % 60]).all()
            x.evict()
    codes = []
    with contextlib.suppress(ChildProcessError):
        while True:
            codes.append(os.waitstatus_to_exitcode(os.wait()[1]))
    stop.append(1)
    join_all(threads)
    assert set(codes) == {0} and len(codes) > 50 and n_struck > 50, (codes, n_struck)
    # Puts right what was left where every hook was struck.
    assert in_child(lambda: check(url, x, data, 30)) == 0
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    check(url, x, data, 40)
