"""The one session of this process: begun when first needed, renewed after fork."""

from __future__ import annotations

import atexit
import gc
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from lazyarr import settings
from lazyarr.client.session import finalizers
from lazyarr.client.session.fork_hooks import around_fork, release_all
from lazyarr.client.session.launch import await_sign, launch_pager
from lazyarr.errors import LazyarrError, PagerError
from lazyarr.kernel import arrive, renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.client.session.launch import Launched
    from lazyarr.client.session.session import Session
    from lazyarr.wire.channel import Channel
    from lazyarr.wire.meeting import Invitation

__all__ = [
    "abandon",
    "begin",
    "current_session",
    "has_begun",
    "is_guest",
    "meet",
    "session",
    "session_at",
    "shutdown",
]

# Reentrant: a thread holds it while it forks.  A signal handler that interrupts the thread then
# may take it again.
_lock = threading.RLock()
_launched: Launched | None = None
_session: Session | None = None
# Those whose pager has died while arrays could be written to.
_retired: list[Session] = []
_is_guest = False
_has_hooks = False
_MAX_NAMES = 4
# How often a process that meets others looks whether one of them has been faster.
_MAX_TRIES = 3
# One that has waited so long for a pager does not wait for another.
_LONG_SECONDS = 10.0
_has_left = False


def begin() -> None:
    """Start the pager, if none runs, and return at once.

    Called first of all, so that the pager starts up while this process imports
    NumPy and reads metadata.
    """
    global _launched
    arrive()
    with _lock:
        # A pager that was started has no client yet, only this socket.  When it closes,
        # by a program that becomes a daemon, the pager ends by itself.
        if _launched is not None and not _launched.descriptor.is_own():
            _launched = None  # it sees that, and ends
        if _launched is None and (_session is None or not _session.is_usable()):
            _launched = launch_pager()
    # What was deferred where no thread may run is done here, at the latest.
    finalizers.start()


def abandon() -> None:
    """Let go of a pager that was started and is not needed after all."""
    global _launched
    with _lock:
        launched, _launched = _launched, None
    if launched is not None:
        launched.descriptor.close()
        finalizers.defer(launched.starter.end)


def session(invitation: Invitation | None = None) -> Session:
    """Return this process's session.

    Parameters
    ----------
    invitation : Invitation, optional
        By which others come to the pager, if it is started now; one that is new unless given.

    Raises
    ------
    KernelUnsupportedError
        When this kernel or user cannot use userfaultfd, or the pager cannot work here.
    PagerError
        When no pager can be started, or the interpreter is ending.
    """
    global _session, _is_guest
    # The channels are let go of at exit, and not closed: threads may wait in faults and
    # requests, which the pager ends only with the process.  So nothing new can be asked.
    if _has_left:
        raise PagerError(
            "cannot open an array: the interpreter is ending, and nothing more can be asked of "
            "the pager; open it earlier, or from a function that is given to atexit.register "
            "after the first lazyarr.open"
        )
    begin()
    with _lock:
        if _session is None or not _session.is_usable():
            from lazyarr.client.session.session import Session
            from lazyarr.wire.channel import Channel
            from lazyarr.wire.meeting import new_invitation

            launched = _take_pager()
            if _session is not None:
                # Its arrays stay: their memory is mapped, and where the pager lives they
                # are still filled.  Only what nobody can use any more is closed.
                _session.retire()
                if _session.written_regions():
                    _retired.append(_session)
            # Not waited for here: it ends within milliseconds, which are the opening's.
            # Until then it is a child that the user's os.wait() could find.
            finalizers.defer(launched.starter.wait)
            control = Channel.from_descriptor(launched.descriptor.detach())
            _session = Session(control, invitation or new_invitation(), is_alone=True)
            _session.starter = launched.starter
            _is_guest = False
            _install_hooks()
            _spare_worker()
        found = _session
    found.update_raise_signal()
    return found


def _take_pager() -> Launched:
    """Return the pager that was started, once it has shown that it is one."""
    global _launched
    assert _launched is not None
    try:
        await_sign(_launched)
    except LazyarrError:
        _launched = None
        raise
    launched, _launched = _launched, None
    return launched


def session_at(invitation: str) -> Session | None:
    """Return this process's session if it is with the pager that others were invited to.

    A process that has none joins that pager, if it can; one that has another one's, or
    has started one, stays with it.
    """
    from lazyarr.wire.meeting import Invitation

    arrive()
    invited = Invitation(*invitation.split(":"))
    with _lock:
        if _session is None or not _session.is_usable():
            # A process has one pager: its userfaultfd, its fork hooks and its memory limit
            # are of one.  One that has started its own opens the array anew, and
            # decompresses once more.
            joined = None if _launched is not None else _join(invited)
            if joined is None:
                return None
            _settle(joined)
        assert _session is not None
        return _session if _session.invitation == invited else None


def meet(invitation: str, begin_engine: Callable[[], bool]) -> None:
    """Have one pager with the processes of this machine that were invited to one elsewhere.

    For a process that has none and could not come to the pager of the invitation.  The first one
    takes a name that follows from the invitation, and starts a pager that listens there.  The
    others join that.  Where it fails this process goes its own way.

    Parameters
    ----------
    invitation : str
        To the pager that is elsewhere.
    begin_engine : callable
        Starts what this process opens arrays with; returns whether that is a pager.
    """
    from lazyarr.wire.meeting import Invitation, invitation_away, listen

    arrive()
    away = invitation_away(Invitation(*invitation.split(":")))
    with _lock, suppress(LazyarrError, OSError):
        if has_begun() or _launched is not None or _has_left:
            return
        for _ in range(_MAX_TRIES):
            # Who has the name may be starting the pager still.  Then this process is in the
            # queue of its socket, and is let in by the pager.
            began_at = time.monotonic()
            joined = _join(away)
            if joined is not None:
                _settle(joined)
                _make_room(joined)
                return
            if time.monotonic() - began_at > _LONG_SECONDS:
                return
            # Before anything is started: of many processes one has the name.
            listener = listen(away.name)
            if listener is not None:
                # Closed here at the end: if no pager has it by then, those who wait in its queue
                # see that at once.
                with listener:
                    if begin_engine():
                        session(away).let_in(listener)
                return


def _settle(joined: Session) -> None:
    """Make a session with another process's pager that of this process."""
    global _session, _is_guest
    _session, _is_guest = joined, True
    finalizers.start()
    _install_hooks()
    _spare_worker()


def _make_room(joined: Session) -> None:
    """Have a pager that workers of distributed share hold what each might hold by itself."""
    if "distributed.worker" in sys.modules:
        from lazyarr.integrations.distributed import worker_memory_limit

        limit = worker_memory_limit()
        if limit is not None:
            settings.raise_default(joined.statistics()["clients"] * (limit // 2))


def _join(invitation: Invitation) -> Session | None:
    """Begin a session with a pager that another process has started; None when that fails."""
    from lazyarr.client.session.joining import join_pager
    from lazyarr.client.session.session import Session

    try:
        joined = join_pager(invitation)
        if joined is None:
            return None
        settings.adopt(joined.settings)
        return Session(joined.control, invitation, is_alone=False)
    except (LazyarrError, ValueError):
        return None


def shutdown() -> None:
    """Let go of the pager, and end the thread; see `lazyarr.shutdown`."""
    global _session, _launched
    arrive()
    # An array in a reference cycle is garbage, and holds its memory as if it were in
    # use.
    gc.collect()
    # It does what was deferred first.  So arrays that have just been dropped are not
    # taken for held.
    finalizers.stop()
    with _lock:
        held = [] if _session is None else _session.held_arrays()
        if not held:
            launched, _launched = _launched, None
            ended, _session = _session, None
    if held:
        finalizers.start()
        raise LazyarrError(_still_held(held))
    if launched is not None:
        launched.descriptor.close()
        launched.starter.end()
    if ended is not None:
        ended.close()


def _still_held(held: list[str]) -> str:
    more = f" and {len(held) - _MAX_NAMES} more" if len(held) > _MAX_NAMES else ""
    return (
        f"cannot shut down: arrays are still referenced: {', '.join(held[:_MAX_NAMES])}{more}; "
        "delete them and what are views of them, and close their datasets"
    )


def has_begun() -> bool:
    """Return whether this process has ever had a pager."""
    return _session is not None


def is_guest() -> bool:
    """Return whether this process has joined a pager that another process has started."""
    return _session is not None and _is_guest


def current_session() -> Session | None:
    """Return this process's session if it has one that works."""
    arrive()
    return None if _session is None or _session.rpc.is_broken or _has_left else _session


def _current_control() -> Channel | None:
    live = current_session()
    return None if live is None else live.control


def _install_hooks() -> None:
    from lazyarr.client.session import raise_in_main_thread

    global _has_hooks
    if not _has_hooks:
        _has_hooks = True
        raise_in_main_thread.ask_on(_current_control)
        settings.subscribe(_on_settings)
        atexit.register(_on_exit)
        around_fork(_before_fork, _after_fork_in_parent)


def _spare_worker() -> None:
    """See to it that distributed does not end this process for pages that are the pager's."""
    if "distributed.worker" in sys.modules:
        from lazyarr.integrations.distributed import keep_small

        keep_small(_unmap_pages)


def _unmap_pages() -> None:
    live = current_session()
    if live is not None:
        live.unmap_pages()


def _on_exit() -> None:
    global _has_left
    sessions = [*_retired, *([] if _session is None else [_session])]
    written = [region for each in sessions for region in each.written_regions()]
    if written:
        from lazyarr.client.session.flushing import flush_at_exit

        flush_at_exit(written)
    _has_left = True
    if _session is not None:
        _session.leave()


def _on_settings(_: settings.Settings) -> None:
    live = current_session()
    if live is not None:
        live.configure()


def _before_fork() -> None:
    # Held until after the fork: no other thread is in the middle of making a session,
    # half of which the child would have.  The session does the same for its regions.
    _lock.acquire()
    if _session is not None:
        _session.before_fork()


def _after_fork_in_parent() -> None:
    try:
        if _session is not None:
            _session.after_fork_in_parent()
    finally:
        release_all(_lock)


def _begin_anew() -> None:
    """Make this process, a child, a client of its own; see `renew_in_child`."""
    global _session, _launched, _lock
    _lock = threading.RLock()
    launched, _launched = _launched, None
    if launched is not None:
        launched.descriptor.close()
    if _session is not None:
        _session = _session.join_as_child()
    finalizers.after_fork_in_child()


# Last: a new session takes locks, starts the finalizers' thread and asks the pager, for
# which other modules must have been renewed.
renew_in_child(_begin_anew, last=True)
