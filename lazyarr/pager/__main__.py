"""How the pager's processes begin.

Started as ``python -I -S .../pager/__main__.py CHANNEL PATH...``: without the
site module, which saves a third of the interpreter's start, and with the
client's own import path behind the standard library, so that nothing that lies
in the user's working directory can stand in for a standard module.  A frozen program has
no interpreter to start: it is started again itself, and `lazyarr.freeze_support` comes here.
"""

import gc
import os
import resource
import sys

# Each client takes about ten descriptors.  The usual soft limit is 1024, so a hundred
# children would leave none.  A hard limit may be in the millions, and no pager needs that.
_MAX_DESCRIPTORS = 1 << 16

# A pager without clients takes some, one client takes ten, and files take the rest.
_MIN_DESCRIPTORS = 64

# The supervisor keeps so many for itself: see `_leave_descriptors`.
_N_LEFT_DESCRIPTORS = 16

# Memory objects count as files (setrlimit(2), RLIMIT_FSIZE): the in-flight record is
# one, and so are large messages.
_MIN_FILE_NBYTES = 1 << 20

# lazyarr.client.session.launch reads this word, the lack behind it, and the remedy on the
# second line.
_REFUSED = "refused: "


def _give_sign(channel: int) -> None:
    """Show the client that this program is a pager.

    The sign is the interpreter's cache tag.  Client and pager import the same compiled
    modules, so both must be of the version that the tag names.
    """
    missing = _find_missing()
    sign = _REFUSED + missing if missing else sys.implementation.cache_tag
    # The client's first array waits for the sign, so it is written before anything is
    # imported.  Memory whose program was no pager would never return from its first
    # touch.
    os.write(channel, sign.encode())
    if missing:
        # Nothing has been opened or started yet, so there is nothing to finalise.
        os._exit(1)


def _find_missing() -> str:
    """Return what the pager lacks and how to mend it, or nothing when it lacks nothing."""
    # Told in place of the sign: later the client would see a channel that ends, and no
    # reason.  `check_hello` reads in /proc of what kind each descriptor of a client is.
    if not os.path.exists("/proc/self/fd"):
        return "there is no /proc\nmount it: mount -t proc proc /proc"
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and limit < _MIN_DESCRIPTORS:
        return (
            f"RLIMIT_NOFILE allows {limit} descriptors and {_MIN_DESCRIPTORS} are needed\n"
            f"raise the hard limit, as with 'ulimit -Hn {_MIN_DESCRIPTORS}'"
        )
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and limit < _MIN_FILE_NBYTES:
        return (
            f"RLIMIT_FSIZE allows files of {limit} bytes and {_MIN_FILE_NBYTES} are needed\n"
            f"raise the hard limit, as with 'ulimit -Hf {_MIN_FILE_NBYTES >> 10}'"
        )
    return ""


def _become_orphan() -> None:
    """Leave the client's children, so that its os.wait() never sees this process."""
    # The client's os.wait() returns any child, and would find the pager.  A child of a
    # process that has ended is adopted by init.  So the pager forks once more, and the
    # process that the client has started ends here.  Therefore no client can wait for
    # the pager, and the pager watches a pidfd of each client.
    if os.fork():
        os._exit(0)
    # A process keeps the file system of its working directory from being unmounted.
    os.chdir("/")


def _close_others(channel: int) -> None:
    """Close the descriptors that the client's C code left inheritable.

    The pager would keep them open when the client has closed them.  A pipe whose writing end
    stays open here never shows its reader an end.
    """
    os.closerange(3, channel)
    os.closerange(channel + 1, os.sysconf("SC_OPEN_MAX"))


def _raise_limits() -> None:
    """Raise the soft limits as far as the hard limits allow, within reason.

    A client may have lowered its soft limit of descriptors for the sake of select().
    """
    infinity = resource.RLIM_INFINITY
    for kind, most in (
        (resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS),
        (resource.RLIMIT_FSIZE, infinity),
    ):
        # RLIM_INFINITY is -1, so it must not take part in a comparison of sizes.
        soft, hard = resource.getrlimit(kind)
        wanted = min({most, hard} - {infinity}, default=infinity)
        if soft != infinity and (wanted == infinity or soft < wanted):
            resource.setrlimit(kind, (wanted, hard))


def _leave_descriptors() -> None:
    """Lower the worker's limit of descriptors below the supervisor's.

    The supervisor keeps the ledger, and so holds about as many descriptors for each client as the
    worker does.  But it can refuse no client.  Where it runs short it waits, and then it does not
    hear that another client has ended, which would free some.  So the worker runs short first.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - _N_LEFT_DESCRIPTORS, hard))


def _spare_what_is_there() -> None:
    """Collect garbage from now on, but never among the modules that are imported so far."""
    # A collection writes to each object that it looks at.  After a fork each such write copies
    # a page of the parent's.
    gc.freeze()
    gc.enable()


def _work(channel, ledger, inflight, doomed):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Serve until the last client is gone."""
    # Imports make objects that live on, so each collection during them finds nothing.
    gc.disable()
    _leave_descriptors()
    # Imported in the worker alone.  The supervisor must not load what decodes: it has to
    # survive whatever a chunk does to a codec.
    from lazyarr.pager.service.server import Pager

    pager = Pager(channel, ledger, inflight, doomed)
    _spare_what_is_there()
    pager.run()


def _decode(channel, jobs, inflight, n_threads):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Do the jobs that the worker gives out, in a process beside it."""
    from lazyarr.pager.work.decoder import decode_for_worker

    decode_for_worker(channel, jobs, inflight, n_threads)


def main(arguments: list[str]) -> None:
    """Supervise workers until the last client is gone."""
    channel, *paths = arguments
    gc.disable()
    _close_others(int(channel))
    _raise_limits()
    _give_sign(int(channel))
    _become_orphan()
    # `-I -S` has left the standard library alone on the path.  The client's paths go
    # behind it: no file of the user's can stand in for a standard module.
    sys.path.extend(path for path in paths if path not in sys.path)

    # Worker and sentinel are forked from here.  Modules that both need are imported once,
    # before the forks, and no others are.
    from lazyarr.pager.lifecycle.sentinel import keep_watch
    from lazyarr.pager.lifecycle.supervisor import Supervisor

    _spare_what_is_there()
    Supervisor(int(channel), work=_work, keep_watch=keep_watch, decode=_decode).run()


if __name__ == "__main__":
    main(sys.argv[1:])
