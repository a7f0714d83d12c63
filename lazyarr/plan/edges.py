"""Pages that several units fill, collected until every byte is there."""

from __future__ import annotations

from lazyarr.layout.geometry import Geometry
from lazyarr.plan.messages import Fragment

__all__ = ["EdgePages"]


class EdgePages:
    """The shared pages of one array.

    A page is *installed* once all of its units have given their share, and stays
    so until all of them are evicted.  Until then it is *partial*: the shares of
    the units that are resident are kept here, so that nothing is decoded twice.

    Parameters
    ----------
    geometry : Geometry
        The array's arithmetic.

    Attributes
    ----------
    held_nbytes : int
        Bytes of the pages that are installed and of the shares that are kept.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.held_nbytes = 0
        self._geometry = geometry
        # Kept here and not in the client's memory: a page cannot be installed in part,
        # for its first touch would show the rest as zeros.  Of a page with two units,
        # the one that comes first waits here for the other.
        self._partial: dict[int, dict[int, Fragment]] = {}
        self._installed: set[int] = set()

    def __repr__(self) -> str:
        return f"<EdgePages: {len(self._partial)} partial, {len(self._installed)} installed>"

    def add(self, unit: int, fragment: Fragment) -> bytes | None:
        """Return the whole page when this was the last share that it lacked."""
        page = fragment.page
        # Its unit was evicted and has come back while a neighbour kept the page in
        # memory.  The bytes are those that are there.
        if page in self._installed:
            return None
        shares = self._partial.setdefault(page, {})
        shares[unit] = fragment
        self.held_nbytes += len(fragment.data)
        if len(shares) < self._geometry.units_of_page(page).size:
            return None
        del self._partial[page]
        self._installed.add(page)
        # Zeros behind the end of the array: the last page has no unit for them.
        data = bytearray(self._geometry.page_nbytes)
        self.held_nbytes += len(data)
        for share in shares.values():
            self.held_nbytes -= len(share.data)
            data[share.start : share.start + len(share.data)] = share.data
        return bytes(data)

    def is_installed(self, page: int) -> bool:
        """Return whether a shared page has been given out whole."""
        return page in self._installed

    def restore(self, page: int) -> None:
        """Take down that a shared page is in memory whole, which nothing was known of."""
        for share in self._partial.pop(page, {}).values():
            self.held_nbytes -= len(share.data)
        if page not in self._installed:
            self._installed.add(page)
            self.held_nbytes += self._geometry.page_nbytes

    def discard(self, unit: int, pages: tuple[int, ...]) -> None:
        """Forget the shares of a unit that is evicted."""
        for page in pages:
            shares = self._partial.get(page)
            if shares is not None:
                # Only while it is partial.  Of a page that is installed the share cannot be
                # taken back, and it goes when no unit of it is resident any more.
                share = shares.pop(unit, None)
                self.held_nbytes -= len(share.data) if share is not None else 0
                if not shares:
                    del self._partial[page]

    def uninstall(self, page: int) -> None:
        """Take down that a shared page is out again."""
        self._installed.discard(page)
        self.held_nbytes -= self._geometry.page_nbytes
