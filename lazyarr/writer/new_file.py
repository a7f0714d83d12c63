"""A new file that is seen when it is complete."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from lazyarr.errors import LazyarrError
from lazyarr.store import files
from lazyarr.store.claim import claim_name, release_name
from lazyarr.store.directory import raise_store_error
from lazyarr.writer.partial import STORE, start
from lazyarr.writer.resuming import wanted_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from lazyarr.writer.resuming import Plan

__all__ = ["NewFile"]

_NAME, _KEPT = "file", "kept"


class NewFile:
    """A file that is written in a hidden directory beside its place.

    What dead writers of this user left there is removed, unless it is gone on with.

    Parameters
    ----------
    target : str
        Where it is to be.  Directories above it are made.
    overwrite : bool
        Whether a file that is there is replaced.
    plan : Plan, optional
        What is going to be written: where a dead writer had the same plan, its file is kept.
    restart : bool
        Whether what a dead writer left is taken away, whatever its plan was.

    Attributes
    ----------
    path : str
        Where it is until it is published; the file is there, and empty unless something is kept.
    kept : dict
        What `keep` was last given, by a dead writer too; empty without that.

    Raises
    ------
    FileExistsError
        There is something, and it is no file or must not be replaced.
    StoreError
        Another writer is writing to the same name, or a dead one had another plan.
    """

    def __init__(
        self, target: str, *, overwrite: bool, plan: Plan | None = None, restart: bool = False
    ) -> None:
        self._target = os.path.abspath(target)
        self._overwrite = overwrite
        self.is_closed = False
        self._refuse_existing()
        above, self._name = os.path.split(self._target)
        files.make_directories(above, sync=True)
        self._parent = os.open(above, files.DIRECTORY_FLAGS)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._parent)
            url = f"file://{self._target}"
            self._claim = claim_name(self._parent, self._name, url)
            undo.callback(lambda: release_name(self._claim, self._parent, self._name))
            self._refuse_existing()  # another writer may have published it before the claim
            self._partial, is_left = start(
                self._parent, self._name, is_wanted=wanted_by(plan, url, restart=restart)
            )
            undo.callback(self._partial.leave if is_left else self._partial.remove)
            if is_left:
                self._partial.open_store()
            else:
                self._partial.make_store()
                os.close(os.open(_NAME, files.CREATE_FLAGS, 0o666, dir_fd=self._partial.store))
                if plan is not None:
                    self._partial.keep_plan(plan.encode())
            self.path = os.path.join(above, self._partial.name, STORE, _NAME)
            self.kept: dict[str, Any] = self._read_kept()
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Raise what the file system says in here as a StoreError."""
        try:
            yield
        except (FileExistsError, LazyarrError):
            raise
        except OSError as error:
            raise_store_error(error, "write", None, f"file://{self._target}")

    def keep(self, state: Mapping[str, Any]) -> None:
        """Have a writer with the same plan know something of the file, if this one dies.

        The file must be so on the disk already: a power failure may leave an older state.
        """
        data = json.dumps(state).encode()
        files.write_and_rename(f"{_KEPT}.new", _KEPT, data, dir_fd=self._partial.store)
        self.kept = dict(state)

    def publish(self) -> None:
        """Force the file to the disk, and give it its name."""
        with open(self.path, "rb+") as file:
            os.fsync(file.fileno())
        self._refuse_existing()
        os.replace(self.path, self._target)
        files.sync_names(self._parent)

    def suspend(self) -> bool:
        """Leave the file to a writer with the same plan; return whether anything of it is kept."""
        if self.kept:
            self._partial.leave()
        return bool(self.kept)

    def close(self) -> None:
        """Remove the hidden directory; without `publish` the file goes with it."""
        if not self.is_closed:
            self.is_closed = True
            self._partial.remove()
            release_name(self._claim, self._parent, self._name)
            os.close(self._parent)

    def _read_kept(self) -> dict[str, Any]:
        try:
            kept = os.open(_KEPT, files.READ_FLAGS | os.O_NOFOLLOW, dir_fd=self._partial.store)
        except FileNotFoundError:
            return {}
        with open(kept, "rb") as file:
            found: dict[str, Any] = json.load(file)
        return found

    def _refuse_existing(self) -> None:
        is_directory = os.path.isdir(self._target)
        if is_directory or (os.path.lexists(self._target) and not self._overwrite):
            remedy = "choose another place"
            if not is_directory:
                remedy += ", or pass overwrite=True"
            raise FileExistsError(
                f"cannot write {self._target}: there is something already; {remedy}"
            )
