"""A disk as a power failure may leave it, from the real calls that a writer makes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

DIRECTORY = "directory"


class File:
    """A file's bytes, and what of them is forced to the disk."""

    def __init__(self, data=b"", *, is_forced=False):
        self.data = data
        self.forced = data if is_forced else None

    def after_failure(self, rng):
        """Return what may be left: what was not forced may be missing, short, or zeros."""
        if self.forced == self.data:
            return self.data
        length = int(rng.integers(0, len(self.data) + 1))
        zeros = bytes(len(self.data))
        kinds = [self.data[:length], self.data[:length] + zeros[length:], zeros, self.data, b""]
        return kinds[rng.integers(len(kinds))]


class Disk:
    """Looks at the calls of this process below a directory, which are made all the same.

    A name that was given, taken away or moved is on the disk when its directory was forced;
    until then each name alone may still mean what it meant at any time since.
    """

    def __init__(self, root, monkeypatch):
        self.root = str(root)
        self.happened = lambda: None
        self.forced = {self.root: DIRECTORY}
        for path in Path(root).rglob("*"):
            found = DIRECTORY if path.is_dir() else File(path.read_bytes(), is_forced=True)
            self.forced[str(path)] = found
        self.live = dict(self.forced)
        self.pending = {}
        self._files = {}
        for name in ("open", "write", "fsync", "replace", "unlink", "mkdir", "close"):
            call = getattr(os, name)
            monkeypatch.setattr(os, name, self._looking(call, getattr(self, f"_{name}")))

    @staticmethod
    def _looking(call, look):
        def call_and_look(*arguments, **options):
            found = call(*arguments, **options)
            look(found, *arguments, **options)
            return found

        return call_and_look

    def state(self, rng):
        """Return what a failure now may leave: the bytes of each file by its path."""
        names = dict(self.forced)
        for path, meanings in self.pending.items():
            meaning = [self.forced.get(path), *meanings][rng.integers(len(meanings) + 1)]
            names[path] = meaning
        return {
            os.path.relpath(path, self.root): found.after_failure(rng)
            for path, found in names.items()
            if isinstance(found, File) and self._has_parents(path, names)
        }

    def _has_parents(self, path, names):
        while path != self.root:
            path = os.path.dirname(path)
            if names.get(path) != DIRECTORY:
                return False
        return True

    def _path(self, path, dir_fd):
        base = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else os.getcwd()
        return os.path.normpath(os.path.join(base, os.fspath(path)))

    def _name(self, path, found):
        if path.startswith(self.root + "/"):
            self.live[path] = found
            self.pending.setdefault(path, []).append(found)
            self.happened()

    def _open(self, fd, path, flags, mode=0o777, *, dir_fd=None):
        if flags & os.O_CREAT and (place := self._path(path, dir_fd)).startswith(self.root):
            self._files[fd] = File()
            self._name(place, self._files[fd])

    def _write(self, n_written, fd, data):
        if fd in self._files:
            self._files[fd].data += bytes(data[:n_written])
            self.happened()

    def _close(self, _, fd):
        self._files.pop(fd, None)

    def _fsync(self, _, fd):
        if fd in self._files:
            self._files[fd].forced = self._files[fd].data
        elif stat.S_ISDIR(os.fstat(fd).st_mode):
            directory = os.readlink(f"/proc/self/fd/{fd}")
            for path in [p for p in self.pending if os.path.dirname(p) == directory]:
                self.forced[path] = self.pending.pop(path)[-1]
        self.happened()

    def _replace(self, _, source, target, *, src_dir_fd=None, dst_dir_fd=None):
        place = self._path(source, src_dir_fd)
        if place in self.live:
            found = self.live[place]
            self._name(self._path(target, dst_dir_fd), found)
            self._name(place, None)

    def _unlink(self, _, path, *, dir_fd=None):
        self._name(self._path(path, dir_fd), None)

    def _mkdir(self, _, path, mode=0o777, *, dir_fd=None):
        self._name(self._path(path, dir_fd), DIRECTORY)
