"""A local store that is written beside its place, and put there in one step.

The directory ``.name.partial-...`` beside the store ``name``, which nobody but its user may
enter, is a `PartialDirectory`.  Others may be able to write to the directory that both lie
in, so everything is reached from that open directory, by names that are no links.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from typing import TYPE_CHECKING

from lazyarr.errors import KernelUnsupportedError, StoreError
from lazyarr.kernel import exchange_paths
from lazyarr.store import files
from lazyarr.store.base import METADATA_NAMES
from lazyarr.store.claim import claim_directory, claim_name, release_name
from lazyarr.store.directory import raise_store_error
from lazyarr.store.local import LocalStore
from lazyarr.writer.partial import OLD, STORE, start
from lazyarr.writer.place import StorePlace, refuse_existing
from lazyarr.writer.resuming import wanted_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    from lazyarr.store import Buffer
    from lazyarr.store.claim import Claim
    from lazyarr.writer.resuming import Plan

    class Exchange(Protocol):
        """Gives each of two names the other's directory."""

        def __call__(
            self, first: str, second: str, /, *, src_dir_fd: int, dst_dir_fd: int
        ) -> None: ...


__all__ = ["StagedDirectory"]

_PUT_PREFIX = "put-"
_MAX_LINKS = 40  # as the kernel follows (path_resolution(7))


class StagedDirectory(StorePlace):
    """A new store, or one to take the place of another, on a local file system.

    Parameters
    ----------
    path : str
        Where the store is to be.  Directories above it are made.
    overwrite : bool
        Whether a store that is there may be replaced.  Nothing but a store, or an
        empty directory, ever is.
    durable : bool
        Whether every file and directory is forced to the disk before the store is seen, and the
        store's name before an old one is removed.
    plan : Plan, optional
        What is going to be written: where a dead writer had the same plan, its objects are kept.
    restart : bool
        Whether what a dead writer left is taken away, whatever its plan was.

    Attributes
    ----------
    is_resumed : bool
        Whether there are objects of a dead writer.

    Raises
    ------
    FileExistsError
        There is something, and it is no store or must not be replaced.
    StoreError
        The directory cannot be made, somebody is writing to the store that is to be replaced, or
        a dead writer had another plan.

    Notes
    -----
    What dead writers of this user left beside the same place is removed.
    """

    def __init__(
        self,
        path: str,
        *,
        overwrite: bool,
        durable: bool = True,
        plan: Plan | None = None,
        restart: bool = False,
    ) -> None:
        self._overwrite = overwrite
        self._durable = durable
        self._plan = plan
        self._counter = itertools.count()  # asking for the next one is atomic
        self._pid = os.getpid()
        self._claim: Claim | None = None  # of the store that is to be replaced
        self._name_claim: Claim | None = None
        self.url = "file://" + os.path.abspath(path)
        with contextlib.ExitStack() as undo, self._errors("write"):
            above, self._name = _resolve(path, sync=durable)
            self._parent = os.open(above, files.DIRECTORY_FLAGS)
            undo.callback(os.close, self._parent)
            undo.callback(self._give_up_claims)
            # What must not be replaced is refused before anything is written, where nothing can be.
            old = _open_old(self._parent, self._name, self.url, overwrite=overwrite)
            if old is not None:
                os.close(old)
            # The name first: who is refused has then not been in the way of its writer.
            self._name_claim = claim_name(self._parent, self._name, self.url)
            self._claim_old()
            self._partial, is_left = start(
                self._parent, self._name, is_wanted=wanted_by(plan, self.url, restart=restart)
            )
            # What was there before this writer stays there.
            undo.callback(self._partial.leave if is_left else self._partial.remove)
            for name in os.listdir(self._partial.fd):
                if name.startswith(_PUT_PREFIX):  # an object that was not whole
                    os.unlink(name, dir_fd=self._partial.fd)
            # An old store may have been put back, or a new one published before the claim.
            self._claim_old()
            identity = self._partial.open_store() if is_left else self._partial.make_store()
            if plan is not None and not is_left:
                self._partial.keep_plan(plan.encode())
            undo.pop_all()
        self.is_resumable, self.is_resumed = plan is not None, is_left
        url = self.url
        self._above = os.path.realpath(above)
        # Its path is looked up again, and has to lead to the same directory.
        staged = os.path.join(self._above, self._partial.name, STORE)
        super().__init__(LocalStore(staged, writable=True, identity=identity))
        self.url = url

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Put an object.  Nobody looks yet, so it is written where it stays.

        With a plan it gets its name when it is whole: an object is then there, or not.
        """
        if self._plan is not None:
            self._put_whole(key, parts)
            return
        with (
            self._errors("write", key),
            files.parent_directory(key, dir_fd=self._partial.store, make=True) as place,
        ):
            directory, name = place
            # One that is put again was not whole.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            self._write(name, directory, parts)

    def _put_whole(self, key: str, parts: Sequence[Buffer]) -> None:
        # Beside the store, not in it: what a dead writer has begun goes with the rest.
        temporary = f"{_PUT_PREFIX}{os.getpid()}-{next(self._counter)}-{os.urandom(4).hex()}"
        with (
            self._errors("write", key),
            files.parent_directory(key, dir_fd=self._partial.store, make=True) as place,
        ):
            directory, name = place
            self._write(temporary, self._partial.fd, parts)
            os.replace(temporary, name, src_dir_fd=self._partial.fd, dst_dir_fd=directory)

    def _write(self, name: str, directory: int, parts: Sequence[Buffer]) -> None:
        fd = os.open(name, files.CREATE_FLAGS, 0o666, dir_fd=directory)
        try:
            files.write_parts(fd, parts)
            if self._durable:
                # By those who put, of which there are several, while others compress.  One
                # syncfs(2) at the end was no faster, and waits for what others write.
                os.fsync(fd)
        finally:
            os.close(fd)

    def publish(self, *, exchange: Exchange = exchange_paths) -> None:
        """Put the store in its place; what was there is gone then, or still there on an error.

        What was put is then kept beside its place, and the error says where, unless the same
        writer can go on with it.

        Parameters
        ----------
        exchange : callable, optional
            Gives each of two names the other's directory, or raises `KernelUnsupportedError`.
        """
        with self._errors("publish"):
            if self._durable:
                files.sync_directories(self._partial.store)
            try:
                self._move_into_place(exchange)
            except OSError as error:
                if self._plan is None or isinstance(error, FileExistsError):
                    self._keep_and_tell(error)
                raise
            if self._durable:
                files.sync_names(self._parent)
        self._remove()

    def abort(self) -> None:
        """Remove what was put and not published."""
        self._remove()

    def suspend(self) -> bool:
        """Leave what was put to a writer with the same plan; return whether there is anything."""
        if self._plan is None or self._parent == -1 or not os.listdir(self._partial.store):
            return False
        self._partial.leave()
        self._remove()
        return True

    def close(self) -> None:
        """Let go of descriptors, and of the store that was to be replaced."""
        super().close()
        self._remove()

    def _move_into_place(self, exchange: Exchange) -> None:
        fds = {"src_dir_fd": self._partial.fd, "dst_dir_fd": self._parent}
        self._claim_old()
        if self._claim is None:
            # 1. no store was there; 2. another writer has put one there since: rename(2)
            # replaces no directory that holds something, so this one is refused.
            try:
                os.rename(STORE, self._name, **fds)
            except OSError:
                _open_old(self._parent, self._name, self.url, overwrite=False)
                raise
            return
        try:
            exchange(STORE, self._name, **fds)
        except KernelUnsupportedError:
            # A reader that comes between the two finds no store; it is never half of one.
            os.rename(self._name, OLD, src_dir_fd=self._parent, dst_dir_fd=self._partial.fd)
            os.rename(STORE, self._name, **fds)
            return
        replaced = os.stat(STORE, dir_fd=self._partial.fd, follow_symlinks=False)
        if (replaced.st_dev, replaced.st_ino) != self._claim.identity:
            # Something else came in between, and was taken away in place of the old store.
            exchange(STORE, self._name, **fds)
            raise refuse_existing(self.url, is_store=False)

    def _keep_and_tell(self, error: OSError) -> None:
        """Keep the store, which is complete, under another name, and raise an error that says so.

        Other libraries know of no claim, so something can have come in between.  Rows may be
        nowhere else, and the next writer takes away whatever a writer leaves in its own directory.
        """
        kept = f"{self._name}.unpublished-{os.urandom(4).hex()}"
        try:
            os.rename(STORE, kept, src_dir_fd=self._partial.fd, dst_dir_fd=self._parent)
        except OSError:
            return  # the error itself says what is wrong
        self._remove()
        where = os.path.join(self._above, kept)
        remedy = f"what was written is complete, and kept as {where}"
        if isinstance(error, FileExistsError):
            raise FileExistsError(f"{error}; {remedy}") from error
        if isinstance(error, StoreError):
            message = f"{error}; {remedy}"
            raise StoreError(message, url=self.url, key=None, transient=False) from error
        raise OSError(error.errno, f"{error.strerror}; {remedy}") from error

    def _claim_old(self) -> None:
        """Refuse what is there, or be the only writer of the store that is to be replaced."""
        old = _open_old(self._parent, self._name, self.url, overwrite=self._overwrite)
        if old is None:
            self._give_up_claim()
            return
        try:
            status = os.fstat(old)
            if self._claim is None or self._claim.identity != (status.st_dev, status.st_ino):
                self._give_up_claim()
                self._claim = claim_directory(old, self.url)
        finally:
            os.close(old)

    def _give_up_claim(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.close()

    def _give_up_claims(self) -> None:
        self._give_up_claim()
        claim, self._name_claim = self._name_claim, None
        if claim is not None:
            release_name(claim, self._parent, self._name)

    def _remove(self) -> None:
        # A forked child has a copy of this object, but the directory is its parent's.
        if self._parent == -1 or self._pid != os.getpid():
            return
        self._partial.remove()
        self._give_up_claims()
        os.close(self._parent)
        self._parent = -1

    @contextlib.contextmanager
    def _errors(self, action: str, key: str | None = None) -> Iterator[None]:
        """Raise what the file system says as a StoreError."""
        try:
            yield
        except (FileExistsError, StoreError):
            raise
        except OSError as error:
            raise_store_error(error, action, key, self.url)


def _resolve(path: str, *, sync: bool) -> tuple[str, str]:
    """Return the directory that a store is to be in, which is made, and the store's name there.

    A link that lies where the store is to be is followed if this user, root, or the owner of
    the directory has put it there, as the kernel does in directories such as /tmp
    (proc_sys_fs(5), protected_symlinks): otherwise others could choose what is replaced.
    """
    for _ in range(_MAX_LINKS):
        above, name = os.path.split(path.rstrip("/"))
        if name in ("", ".", ".."):
            above, name = os.path.split(os.path.realpath(path))
        above = above or "."
        files.make_directories(above, sync=sync)
        path = os.path.join(above, name)
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return above, name
        if not stat.S_ISLNK(status.st_mode):
            return above, name
        around = os.stat(above)
        is_shared = around.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if is_shared and status.st_uid not in (0, os.geteuid(), around.st_uid):
            raise PermissionError(errno.EACCES, f"{path} is a link that another user put there")
        path = os.path.join(above, os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _open_old(parent: int, name: str, url: str, *, overwrite: bool) -> int | None:
    """Return the store that is to be replaced, open; None where nothing is, or an empty directory.

    Raises
    ------
    FileExistsError
        There is something else, or it must not be replaced.
    """
    try:
        old = os.open(name, files.LINKLESS_FLAGS, dir_fd=parent)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise refuse_existing(url, is_store=False) from None
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, old)
        names = os.listdir(old)
        if not names:
            return None
        is_store = any(name in METADATA_NAMES for name in names)
        if not (is_store and overwrite):
            raise refuse_existing(url, is_store=is_store)
        undo.pop_all()
    return old
