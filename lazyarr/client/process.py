"""The one session of this process: begun when first needed, renewed after fork."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING

from lazyarr import settings
from lazyarr.client import janitor
from lazyarr.client.imports import finish_imports
from lazyarr.client.launch import launch_pager
from lazyarr.errors import LazyarrError, PagerError

if TYPE_CHECKING:
    from lazyarr.client.launch import Launched
    from lazyarr.client.session import Session

__all__ = ["abandon", "begin", "current_session", "session", "session_at"]

_lock = threading.Lock()
_launched: Launched | None = None
_session: Session | None = None
_has_hooks = False
_has_left = False


def begin() -> None:
    """Start the pager, if none runs, and return at once.

    Called first of all, so that the pager starts up while this process imports
    NumPy and reads metadata.
    """
    global _launched
    janitor.start()
    with _lock:
        if _launched is None and (_session is None or not _session.questions.is_usable()):
            _launched = launch_pager()


def abandon() -> None:
    """Let go of a pager that was started and is not needed after all."""
    global _launched
    with _lock:
        launched, _launched = _launched, None
    if launched is not None:
        os.close(launched.descriptor)
        janitor.defer(launched.starter.wait)


def session() -> Session:
    """Return this process's session.

    Raises
    ------
    KernelUnsupportedError
        When this kernel or user can not use userfaultfd.
    PagerError
        When no pager can be started, or the interpreter is ending.
    """
    global _session, _launched
    if _has_left:
        raise PagerError(
            "cannot open an array: the interpreter is ending, and nothing more can be asked of "
            "the pager; open it earlier, or from a function that is given to atexit.register "
            "after the first lazyarr.open"
        )
    begin()
    with _lock:
        if _session is None or not _session.questions.is_usable():
            from lazyarr.client.session import Session
            from lazyarr.wire.channel import Channel
            from lazyarr.wire.meeting import new_name

            launched, _launched = _launched, None
            assert launched is not None
            control = Channel.from_descriptor(launched.descriptor)
            _session = Session(control, new_name(), is_alone=True)
            janitor.defer(launched.starter.wait)
            _session.starter = launched.starter
            _install_hooks()
        found = _session
    found.renew()
    return found


def session_at(name: str) -> Session | None:
    """Return this process's session if it is with the pager of a name.

    A process that has none joins that pager, if it can; one that has another one's, or
    has started one, stays with it.
    """
    global _session
    with _lock:
        if _session is None or not _session.questions.is_usable():
            joined = None if _launched is not None else _join(name)
            if joined is None:
                return None
            _session = joined
            janitor.start()
            _install_hooks()
        return _session if _session.name == name else None


def _join(name: str) -> Session | None:
    """Begin a session with a pager that another process has started; None when that fails."""
    from lazyarr.client.joining import join_pager
    from lazyarr.client.session import Session

    try:
        joined = join_pager(name)
        if joined is None:
            return None
        settings.adopt(joined.settings)
        return Session(joined.control, name, is_alone=False)
    except (LazyarrError, ValueError):
        return None


def current_session() -> Session | None:
    """Return this process's session if it has one that works."""
    return None if _session is None or _session.questions.is_broken or _has_left else _session


def _install_hooks() -> None:
    global _has_hooks
    if not _has_hooks:
        _has_hooks = True
        settings.subscribe(_on_settings)
        atexit.register(_on_exit)
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )


def _on_exit() -> None:
    global _has_left
    _has_left = True
    if _session is not None:
        _session.leave()


def _on_settings(_: settings.Settings) -> None:
    live = current_session()
    if live is not None:
        live.configure()


def _before_fork() -> None:
    finish_imports()
    _lock.acquire()
    if _session is not None:
        _session.before_fork()


def _after_fork_in_parent() -> None:
    if _session is not None:
        _session.after_fork_in_parent()
    _lock.release()


def _after_fork_in_child() -> None:
    global _session, _launched, _lock
    _lock = threading.Lock()
    _launched = None
    if _session is not None:
        _session = _session.after_fork_in_child()
    janitor.after_fork_in_child()
