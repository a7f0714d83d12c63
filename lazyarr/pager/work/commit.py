"""Commits to a store that is opened for that alone; imported when something is written."""

from __future__ import annotations

from lazyarr.committing import Committer

__all__ = ["Commit"]


class Commit(Committer):
    """A committer that owns its store."""

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()
