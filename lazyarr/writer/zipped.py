"""A new store in a zip archive, whose members are stored as they are."""

from __future__ import annotations

import contextlib
import os
import threading
import zipfile
from typing import TYPE_CHECKING

from lazyarr.errors import StoreError
from lazyarr.store.base import check_limit
from lazyarr.writer.new_file import NewFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazyarr.store import Buffer
    from lazyarr.writer.resuming import Plan

__all__ = ["ZipPlace"]

_FIRST_TIME = (1980, 1, 1, 0, 0, 0)  # the same store gives the same archive
_KEPT_NBYTES = 1 << 26  # as much is written again, at most


class ZipPlace:
    """A new store in an archive, which is seen when it is complete.

    An archive cannot lose a member again, so every object is put once: elements must come in
    the order of the objects.

    Parameters
    ----------
    path : str
        The archive to be.
    overwrite : bool
        Whether a file that is there is replaced.
    plan : Plan, optional
        What is going to be written: where a dead writer had the same plan, its members are kept.
    restart : bool
        Whether what a dead writer left is taken away, whatever its plan was.

    Raises
    ------
    FileExistsError
        There is something, and it is no file or must not be replaced.
    StoreError
        A dead writer had another plan.
    """

    def __init__(
        self, path: str, *, overwrite: bool, plan: Plan | None = None, restart: bool = False
    ) -> None:
        self.url = "file://" + os.path.abspath(path)
        self._file = NewFile(path, overwrite=overwrite, plan=plan, restart=restart)
        kept = self._file.kept or {"nbytes": 0, "members": []}
        self.is_resumable, self.is_resumed = plan is not None, bool(self._file.kept)
        self._lock = threading.Lock()
        self._opened = open(self._file.path, "r+b")  # noqa: SIM115 - until the end
        self._opened.truncate(kept["nbytes"])
        # At the end of what is there: it goes on, and writes the directory of all.
        self._opened.seek(kept["nbytes"])
        self._archive = zipfile.ZipFile(self._opened, "w", zipfile.ZIP_STORED)
        for each in kept["members"]:
            member = _member(*each)
            self._archive.filelist.append(member)
            self._archive.NameToInfo[member.filename] = member
        self._unkept_nbytes = 0

    def read(self, key: str, *, limit_nbytes: int | None = None) -> bytes | None:
        """Return a whole object; None when it does not exist."""
        with self._lock:
            try:
                nbytes = self._archive.getinfo(key).file_size
            except KeyError:
                return None
            check_limit(key, nbytes, limit_nbytes, self.url)
            return self._archive.read(key)

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the names of what lies directly below a prefix."""
        start = f"{prefix}/" if prefix else ""
        with self._lock:
            names = [n[len(start) :] for n in self._archive.namelist() if n.startswith(start)]
        return tuple(sorted({name.partition("/")[0] for name in names}))

    def has(self, key: str) -> bool:
        """Return whether there is such an object."""
        with self._lock:
            return key in self._archive.NameToInfo

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Put an object."""
        with self._lock, self._file.errors():
            if key in self._archive.NameToInfo:
                # A document of a writer that was stopped at its very end.
                if self.is_resumed and self._archive.read(key) == b"".join(parts):
                    return
                raise self._unchangeable(key)
            start = self._archive.start_dir
            try:
                with self._archive.open(_member(key), "w", force_zip64=True) as file:
                    for part in parts:
                        self._unkept_nbytes += file.write(part)
            except BaseException:
                # It takes what was written for all of the member, and lists it.
                self._archive.start_dir = start
                self._archive.NameToInfo.pop(key, None)
                self._archive.filelist[:] = self._archive.NameToInfo.values()
                os.ftruncate(self._opened.fileno(), start)  # room for what is kept
                raise
            if self.is_resumable and self._unkept_nbytes >= _KEPT_NBYTES:
                self._keep()

    def _keep(self) -> None:
        """Have a writer with the same plan go on after the members that are there."""
        self._opened.flush()
        self._opened.truncate(self._archive.start_dir)
        os.fdatasync(self._opened.fileno())
        members = [
            (m.filename, m.header_offset, m.file_size, m.CRC) for m in self._archive.filelist
        ]
        self._file.keep({"nbytes": self._archive.start_dir, "members": members})
        self._unkept_nbytes = 0

    def delete(self, key: str) -> None:
        """Do nothing where there is no such object."""
        if self.has(key):
            raise self._unchangeable(key)

    def delete_prefix(self, prefix: str) -> None:
        """Do nothing where there is nothing below a prefix."""
        if self.list_names(prefix):
            raise self._unchangeable(prefix)

    def sync(self) -> None:
        """Do nothing: all of it is forced to the disk before it is seen."""

    def publish(self) -> None:
        """Give the archive its name."""
        with self._file.errors():
            self._archive.close()
            self._opened.close()
            self._file.publish()

    def suspend(self) -> bool:
        """Leave what was put to a writer with the same plan; return whether there is anything."""
        if not self.is_resumable or not self._archive.filelist:
            return False
        with contextlib.suppress(OSError):  # then less is kept
            self._keep()
        self._drop()
        is_left = self._file.suspend()
        self._file.close()
        return is_left

    def abort(self) -> None:
        """Remove what was put."""
        self.close()

    def close(self) -> None:
        """Let go of the archive; without `publish` it goes."""
        if not self._file.is_closed:
            self._drop()
            self._file.close()

    def _drop(self) -> None:
        """Let go of the archive without writing its directory."""
        self._archive.fp = None
        with contextlib.suppress(OSError):  # what could not be written is not wanted any more
            self._opened.close()

    def _unchangeable(self, key: str) -> StoreError:
        message = f"cannot change {key!r} in {self.url}: an archive's members stay what they are"
        return StoreError(message, url=self.url, key=key, transient=False)


def _member(name: str, start: int = 0, nbytes: int = 0, checksum: int = 0) -> zipfile.ZipInfo:
    """Return a member of an archive; one that is to be written has no place yet."""
    member = zipfile.ZipInfo(name, _FIRST_TIME)
    member.external_attr = 0o644 << 16
    member.header_offset, member.CRC = start, checksum
    member.file_size = member.compress_size = nbytes
    member.FileHeader(zip64=True)  # which notes what reading it takes
    return member
