"""How the pager's processes begin.

Started as ``python -I -S .../pager/__main__.py CHANNEL PATH...``: without the
site module, which saves a third of the interpreter's start, and with the
client's own import path behind the standard library, so that nothing that lies
in the user's working directory can stand in for a standard module.
"""

import gc
import os
import resource
import sys

# Each client takes about ten descriptors; of 1024, the usual soft limit, a hundred
# children would leave none.  More than this is not needed, and may be very many.
_MAX_DESCRIPTORS = 1 << 16


def _become_orphan() -> None:
    """Leave the client's children, so that its os.wait() never sees this process."""
    if os.fork():
        os._exit(0)
    os.chdir("/")


def _close_others(channel: int) -> None:
    """Close what the client's C code left inheritable."""
    os.closerange(3, channel)
    os.closerange(channel + 1, os.sysconf("SC_OPEN_MAX"))


def _allow_descriptors() -> None:
    """Raise the soft limit on descriptors, which may be as low as select() needs it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _spare_what_is_there() -> None:
    """Collect garbage from now on, but never look for it in what was imported so far."""
    gc.freeze()
    gc.enable()


def _work(channel, ledger, board, doomed):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Serve until the last client is gone."""
    gc.disable()
    from lazyarr.pager.server import Pager

    pager = Pager(channel, ledger, board, doomed)
    _spare_what_is_there()
    pager.run()


def _decode(channel, jobs, board, n_threads):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Do what the worker says."""
    from lazyarr.pager.decoder import decode_for_worker

    decode_for_worker(channel, jobs, board, n_threads)


def main() -> None:
    """Supervise workers until the last client is gone."""
    channel, *paths = sys.argv[1:]
    gc.disable()
    _become_orphan()
    _close_others(int(channel))
    _allow_descriptors()
    sys.path.extend(path for path in paths if path not in sys.path)

    # What worker and sentinel both need is imported before they are forked, and only that.
    from lazyarr.pager.sentinel import keep_watch
    from lazyarr.pager.supervisor import Supervisor

    _spare_what_is_there()
    Supervisor(int(channel), work=_work, keep_watch=keep_watch, decode=_decode).run()


if __name__ == "__main__":
    main()
