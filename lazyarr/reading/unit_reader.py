"""From a unit of an array to its decoded bytes."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

from lazyarr.errors import ChunkError, KernelError, StoreError
from lazyarr.plan.link import Link
from lazyarr.reading.chunk_groups import GroupReader
from lazyarr.reading.chunk_reader import UNREAD, ChunkReader
from lazyarr.reading.locator import Locator
from lazyarr.reading.open_shards import OpenShard, OpenShards, units_per_shard
from lazyarr.store import is_unchanged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np

    from lazyarr.layout import Layout
    from lazyarr.layout.geometry import Geometry
    from lazyarr.reading.open_shards import Progress
    from lazyarr.reading.rotation import Rotation
    from lazyarr.reading.workspace import Fetched, Share, Workspace
    from lazyarr.store import Store
    from lazyarr.store.cache import StoreCache

__all__ = ["UnitReader"]


class UnitReader:
    """The stored chunks of one array.

    Safe to use from several threads.

    Parameters
    ----------
    open_store : callable
        Opens the store, when it is first needed.
    layout : Layout
        Which chunk lies where, and how it is decoded.
    geometry : Geometry
        Which chunks make a unit.
    url, path : str
        The store and the array in it, for messages.
    count_fetched : callable, optional
        Told of how many bytes were read from the store.
    share : callable, optional
        Does the parts of a load, by several threads where it can.
    cache : StoreCache, optional
        Keeps what was fetched of the store from one run to the next.
    rotation : Rotation, optional
        Says when to let go of descriptors.
    is_written : bool
        Whether objects of the array are replaced meanwhile, by who calls `forget` then.

    Attributes
    ----------
    finder : Locator
        Where chunks lie.
    link : Link
        What the network carries, as seen by those who fetch from it.
    stored : ChunkReader
        Reads and decodes one.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        layout: Layout,
        geometry: Geometry,
        *,
        url: str,
        path: str,
        count_fetched: Callable[[int], None] = lambda _: None,
        share: Share | None = None,
        cache: StoreCache | None = None,
        rotation: Rotation | None = None,
        is_written: bool = False,
    ) -> None:
        self.cache = cache
        self._rotation = rotation
        self._is_entered = False
        self.count_fetched = count_fetched
        self._share = share or _do_alone
        self._open_store = open_store
        self._opened: Store | None = None
        self._is_used = False
        self._opening = threading.Lock()
        self._layout = layout
        self._geometry = geometry
        self._url = url
        self._path = path
        # An index that is read before anybody asks for its chunks could come when its shard has
        # been replaced, and would be believed.
        self.finder = Locator(layout, path, foresees=not is_written)
        self.link = Link()
        n_units = units_per_shard(layout, geometry)
        self._held = OpenShards(layout, n_units, self._hold) if n_units else None
        self.stored = ChunkReader(
            layout,
            self.finder,
            lambda: self.store,
            url=url,
            path=path,
            cache=cache,
            count_fetched=count_fetched,
            distrusted=self._held.release if self._held is not None else lambda: None,
        )
        self._group: GroupReader | None = None
        if GroupReader.is_for(layout, geometry):
            self._group = GroupReader(layout, geometry, self.stored, self._share)

    def __repr__(self) -> str:
        return f"<UnitReader: array {self._path!r} in {self._url}>"

    def close(self) -> None:
        """Let go of the store."""
        if self._rotation is not None:
            self._rotation.leave(self)
        if self._held is not None:
            self._held.release()
        if self._opened is not None:
            self._opened.close()

    @property
    def store(self) -> Store:
        """The store, opened when it is first needed, which may take its time."""
        self._is_used = True
        if self._rotation is not None and not self._is_entered:
            self._is_entered = True
            self._rotation.enter(self)
        return self.open()

    def rest(self) -> None:
        """Let go of descriptors until they are needed again."""
        self._is_entered = False
        if self._held is not None:
            self._held.release()
        if self._opened is not None:
            self._opened.rest()

    def open(self) -> Store:
        """Return the store, of which nothing is read."""
        if self._opened is None:
            with self._opening:
                if self._opened is None:
                    self._opened = self._open_store()
        return self._opened

    @property
    def is_open(self) -> bool:
        """Whether the store is open, so that to ask for it takes no time."""
        return self._opened is not None

    def is_unchanged(self) -> bool:
        """Return whether a source that is opened now would certainly give the same.

        It would as long as nothing has been read, and where the store can tell that what was
        read is still what it has.

        Raises
        ------
        OSError
            When the store cannot be asked.
        """
        return not self._is_used or (self._opened is not None and is_unchanged(self._opened))

    def chunks_of(self, unit: int) -> list[tuple[int, ...]]:
        """Return the places in the grid of the chunks of a unit."""
        if self._geometry.is_one_chunk:
            return [self._geometry.first_chunk(unit)]
        return [piece.chunk for piece in self._geometry.pieces(unit)]

    def shards_of(self, unit: int) -> tuple[str, ...]:
        """Return the keys of the shards in which the chunks of a unit lie; none without shards."""
        geometry = self._geometry
        return self.finder.shards_of(geometry.first_chunk(unit), geometry.chunk_counts(unit))

    def forget(self, units: Iterable[int]) -> None:
        """Forget what is kept of the objects of units: this process has replaced them.

        Nobody may be about to read from these objects, so that no index is used with another
        version of its shard.
        """
        keys: set[str] = set()
        for unit in units:
            if self._held is not None:
                self._held.forget(unit)
            keys.update(self.shards_of(unit) or map(self.finder.key, self.chunks_of(unit)))
        for key in keys:
            self.finder.forget_shard(key)
            if self._opened is not None:
                self._opened.forget(key)

    def load(self, unit: int, workspace: Workspace, fetched: Fetched | None = None) -> bool:
        """Decode a unit into ``workspace.unit``; return False when it is all zero bits.

        Parameters
        ----------
        unit : int
            Which one.
        workspace : Workspace
            This thread's buffers; behind the unit's bytes there are zeros up to
            the end of a page.
        fetched : tuple of memoryview or None, optional
            Its encoded chunks; read from the store when not given.

        Raises
        ------
        ChunkError
            When a chunk cannot be had or is not what it should be.
        """
        nbytes = self._geometry.unit_bytes(unit).size
        page_nbytes = self._geometry.page_nbytes
        try:
            workspace.unit.grow(max(nbytes, self._layout.chunk_nbytes) + page_nbytes)
        except KernelError as error:
            raise self.stored.chunk_error(self._geometry.first_chunk(unit), error) from error
        if self._geometry.is_one_chunk:
            load = self._load_whole
        else:
            load = self._load_tiles if self._group is None else self._load_group
        if not load(unit, nbytes, fetched, workspace):
            return False
        if self._geometry.unit_bytes(unit).stop % page_nbytes:
            workspace.unit.view[nbytes : nbytes + page_nbytes] = bytes(page_nbytes)
        return True

    def load_quickly(
        self,
        unit: int,
        workspace: Workspace,
        *,
        may_wait: bool,
        progress: Progress | None = None,
    ) -> bool | None:
        """Decode a unit as `load` does, if it is one chunk of a shard; else None.

        What is out of the ordinary is left to `load`: a damaged chunk, a missing one that is not
        zeros, and, unless it may wait, a shard that is not open and bytes that are not in the page
        cache.  `progress` is told how many bytes are decoded, now and then, if they are
        certainly right before all are.
        """
        if self._held is None:
            return None
        nbytes = self._held.load(unit, workspace, may_wait=may_wait, progress=progress)
        if nbytes is None and may_wait and self._open_shard(unit):
            nbytes = self._held.load(unit, workspace, may_wait=may_wait, progress=progress)
        if nbytes:
            self.count_fetched(nbytes)
        return None if nbytes is None else nbytes > 0

    def _open_shard(self, unit: int) -> bool:
        """Read the index of a unit's shard; return whether that was still to be done, and is."""
        chunk = self._geometry.first_chunk(unit)
        if self.finder.known_index(chunk)[0]:
            return False
        try:
            self.stored.find(chunk)
        except Exception:  # noqa: BLE001 - the long way comes upon it again, and tells
            return False
        return True

    def lend(self, unit: int, use: Callable[[int, int, int], bool]) -> bool:
        """Have a unit read elsewhere, if it is one chunk of a shard that is open.

        See `OpenShards.lend`.
        """
        return self._held is not None and self._held.lend(unit, use)

    @property
    def can_lend(self) -> bool:
        """Whether units are chunks of shards, so that they can be read elsewhere."""
        return self._held is not None

    def _hold(self, unit: int) -> OpenShard | None:
        """Return the shard of a unit when a load has opened it and read its index."""
        chunk = self._geometry.first_chunk(unit)
        is_known, index = self.finder.known_index(chunk)
        if index is None:
            return OpenShard(None, None) if is_known else None
        file = self.store.borrow(self.finder.key(chunk))
        return None if file is None else OpenShard(file, index)

    def _load_whole(
        self, unit: int, nbytes: int, fetched: Fetched | None, workspace: Workspace
    ) -> bool:
        """Decode the one chunk of a unit in place: the unit is how it begins."""
        out = workspace.unit.view[: self._layout.chunk_nbytes]
        data = fetched[0] if fetched else UNREAD
        if self.stored.decode(self._geometry.first_chunk(unit), data, out, workspace):
            return True
        if self._layout.fill_is_zero:
            return False
        self._fill(workspace.unit.view[:nbytes])
        return True

    def _load_group(
        self, unit: int, nbytes: int, fetched: Fetched | None, workspace: Workspace
    ) -> bool:
        """Decode the many small chunks of a unit; then put each in its place, if it is not."""
        assert self._group is not None
        geometry, layout = self._geometry, self._layout
        counts = geometry.chunk_counts(unit)
        buffer = workspace.unit if geometry.is_flat else workspace.tile
        flat_nbytes = math.prod(counts) * layout.chunk_nbytes
        buffer.grow(flat_nbytes + geometry.page_nbytes)
        flat = buffer.view[:flat_nbytes]
        self._fill(flat)
        if not self._group.decode(unit, flat, fetched, workspace) and layout.fill_is_zero:
            return False
        if not geometry.is_flat:
            _put_together(geometry, layout, unit, flat, workspace.unit.view[:nbytes])
        return True

    def load_pieces(self, unit: int, places: Sequence[int], workspace: Workspace) -> None:
        """Decode some of the chunks of a unit into ``workspace.unit``, as `load` does.

        Parameters
        ----------
        unit : int
            Which one.
        places : sequence of int
            Which of its pieces; the others are the fill value.
        workspace : Workspace
            This thread's buffers.

        Raises
        ------
        ChunkError
            When one of them cannot be had.
        """
        nbytes = self._geometry.unit_bytes(unit).size
        workspace.unit.grow(nbytes + self._geometry.page_nbytes)
        self._load_tiles(unit, nbytes, None, workspace, places)

    def _load_tiles(
        self,
        unit: int,
        nbytes: int,
        fetched: Fetched | None,
        workspace: Workspace,
        places: Sequence[int] | None = None,
    ) -> bool:
        """Decode the tiles of a unit, or some of them, and put each in its place."""
        import numpy as np

        layout = self._layout
        view = workspace.unit.view[:nbytes]
        item = _item_of(layout)
        target = np.frombuffer(view, item).reshape(self._geometry.unit_box(unit)[1])
        self._fill(view)
        pieces = list(self._geometry.pieces(unit))
        wanted = range(len(pieces)) if places is None else places
        there: list[int] = []

        def put(part: int, workspace: Workspace) -> None:
            place = wanted[part]
            piece = pieces[place]
            workspace.tile.grow(layout.chunk_nbytes)
            out = workspace.tile.view[: layout.chunk_nbytes]
            data = fetched[place] if fetched else UNREAD
            if self.stored.decode(piece.chunk, data, out, workspace):
                there.append(place)
                tile = np.frombuffer(out, item).reshape(layout.chunk_shape)
                sides = list(zip(piece.start, piece.stop, strict=True))
                box = tuple(slice(a, b) for a, b in sides)
                target[box] = tile[tuple(slice(b - a) for a, b in sides)]

        self._share(len(wanted), put, workspace)
        return bool(there) or not layout.fill_is_zero

    def _fill(self, view: memoryview) -> None:
        """Write the fill value all over a view."""
        view[:] = self._layout.fill * (len(view) // self._layout.itemsize)

    def unit_error(self, unit: int, reason: str) -> ChunkError:
        """Return the error for a unit that cannot be loaded for another reason than its bytes."""
        return self.stored.chunk_error(self._geometry.first_chunk(unit), StoreError(reason))


def _put_together(
    geometry: Geometry, layout: Layout, unit: int, flat: memoryview, view: memoryview
) -> None:
    """Put the chunks of a unit, which lie one after the other, each in its place."""
    import numpy as np

    item = _item_of(layout)
    counts, chunk_shape = geometry.chunk_counts(unit), layout.chunk_shape
    _, extent = geometry.unit_box(unit)
    ndim = len(counts)
    axes = [axis for k in range(ndim) for axis in (k, ndim + k)]
    sides = [n * c for n, c in zip(counts, chunk_shape, strict=True)]
    whole = np.frombuffer(flat, item).reshape(*counts, *chunk_shape).transpose(axes).reshape(sides)
    np.frombuffer(view, item).reshape(extent)[...] = whole[tuple(slice(n) for n in extent)]


def _item_of(layout: Layout) -> np.dtype[Any]:
    """Return a data type of NumPy's for elements that are only copied."""
    import numpy as np

    kind = "u" if layout.itemsize in (1, 2, 4, 8) else "V"
    return np.dtype(f"{kind}{layout.itemsize}")


def _do_alone(n_parts: int, work: Callable[[int, Workspace], None], workspace: Workspace) -> None:
    for part in range(n_parts):
        work(part, workspace)
