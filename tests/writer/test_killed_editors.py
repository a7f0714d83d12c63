"""Editors that are killed: the store is as it was before, or as it is after."""

from __future__ import annotations

import itertools
import os
import signal

import numpy as np
import pytest

from lazyarr.errors import StoreError
from lazyarr.store import files, open_store
from lazyarr.store.local import LocalStore
from lazyarr.writer.editing import Editor
from tests.writer.edited import find, make
from tests.writer.stores import new_url


class _DyingStore(LocalStore):
    """Kills its process before the change of a store that has a number."""

    def __init__(self, path, number):
        super().__init__(path, writable=True)
        self.left = number

    def count(self):
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def _counted(name):
    change = getattr(LocalStore, name)

    def method(self, *args):
        self.count()
        return change(self, *args)

    return method


for _name in ("write", "delete", "delete_prefix", "rename", "discard", "sync"):
    setattr(_DyingStore, _name, _counted(_name))

KILLED = {
    "append": lambda editor: editor.append("x", [11, 12, 13, 14, 15]),
    "shrink": lambda editor: editor.resize("g/y", (1, 3)),
    "grow": lambda editor: editor.resize("x", (20,)),
    "both": lambda editor: editor.resize("g/y", (9, 1)),
    "rename": lambda editor: editor.rename("g", "h"),
    "delete": lambda editor: editor.delete("g"),
    "create": lambda editor: editor.create_array("k", shape=3, dtype="i4"),
    "attributes": lambda editor: editor.set_attributes({"g/y": {"a": 1}}),
}


def text(found):
    """Return what was found as something that can be compared."""
    root = found.pop("")
    nodes = {path: (attrs, np.asarray(values).tolist()) for path, (attrs, values) in found.items()}
    return {"": root, **nodes}


def edit_and_die(url, kind, number):
    """Edit a store in a child process that is killed before a change; return how it ended."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    store, remove = _DyingStore(url, number), files.remove_tree

    def remove_tree(*args, **named):  # in the middle of a discarded directory as well
        store.count()
        remove(*args, **named)

    files.remove_tree = remove_tree
    KILLED[kind](Editor(store))
    os._exit(0)


# zarr-python lists the hidden directory of a group that was being removed, and says it is none.
@pytest.mark.filterwarnings("ignore:Object at .lazyarr-tmp-")
@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.parametrize("kind", KILLED)
def test_a_writer_that_is_killed_leaves_the_store_as_before_or_as_after(
    tmp_path, kind, consolidated
):
    states, ended = [], None
    while ended != 0:
        url = str(tmp_path / f"{len(states)}.zarr")
        make(url, shards=False, consolidated=consolidated).close()
        before = text(find(url, consolidated=None))
        ended = edit_and_die(url, kind, len(states))
        assert ended in (0, -signal.SIGKILL)
        # By the copies, where there are some, and without them: they may differ for a moment.
        states.append([text(find(url, consolidated=used)) for used in (None, False)])
        LocalStore(url, writable=True).remove_discarded()
        assert not [name for name in os.listdir(url) if name.startswith(files.TEMPORARY_PREFIX)]
    after = states[-1][0]
    assert states[-1] == [after, after] != [before, before]
    for seen in zip(*states, strict=True):
        n_before = seen.count(before)
        assert list(seen) == [before] * n_before + [after] * (len(seen) - n_before)


class _DyingRemote:
    """A store without renaming, which nobody reaches any more after a number of changes."""

    def __init__(self, url, number):
        self._store, self._left = open_store(url, writable=True), number

    def __getattr__(self, name):
        found = getattr(self._store, name)
        return self._counted(found) if name in ("write", "delete") else found

    def delete_prefix(self, prefix):
        for key in self._store.list_keys(prefix):
            self.delete(key)

    def _counted(self, change):
        def method(*args):
            if self._left <= 0:
                raise StoreError("gone", url="", key=None, transient=False)
            self._left -= 1
            return change(*args)

        return method


# zarr-python lists prefixes whose documents are not there, and says that they are none.
@pytest.mark.filterwarnings("ignore:Object at [gh] is not recognized")
@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.parametrize("kind", ["append", "both", "rename", "delete"])
def test_where_nothing_can_be_renamed_no_array_is_seen_in_part(kind, consolidated):
    after = text(find(edited(kind, consolidated), consolidated=None))
    for number in itertools.count():
        url = new_url()
        make(url, shards=False, consolidated=consolidated)
        before = text(find(url, consolidated=None))
        is_over = True
        try:
            KILLED[kind](Editor(_DyingRemote(url, number)))
        except StoreError:
            is_over = False
        for used in (None, False):
            seen = text(find(url, consolidated=used))
            if kind in ("rename", "delete"):  # maybe at both places, or some of a group, but whole
                for path, node in seen.items():
                    assert node == before[path.replace("h", "g")]
                assert seen["x"] == before["x"]
                assert kind == "delete" or {"g/y", "h/y"} & {*seen}
            else:
                assert seen in (before, after)
        if is_over:
            break
    assert number


def edited(kind, consolidated):
    """Return a store as it is after an edit."""
    url = new_url()
    KILLED[kind](Editor(make(url, shards=False, consolidated=consolidated)))
    return url
