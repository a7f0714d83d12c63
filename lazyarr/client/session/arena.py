"""A memory object of this process, handed out piece by piece."""

from __future__ import annotations

from lazyarr.errors import PagerError
from lazyarr.kernel import PAGE_NBYTES, create_memfd, resize_memfd
from lazyarr.known import CLOSED_BY_OTHERS, KnownDescriptor

__all__ = ["Arena"]


class Arena:
    """Holes in a memory object; one descriptor serves any number of arrays.

    Pieces are never handed out twice: offsets are 63 bits long, and what nobody
    has filled takes no memory.

    Parameters
    ----------
    name : str
        What ``/proc/PID/maps`` shows.
    """

    def __init__(self, name: str) -> None:
        # One object for all arrays.  A descriptor for each would run into the limit of
        # the client, of the worker and of the supervisor after some hundred arrays; ten
        # thousand can be open.
        self._object = KnownDescriptor(create_memfd(name))
        self._nbytes = 0

    def __repr__(self) -> str:
        return f"<Arena: descriptor {self.memfd}, {self._nbytes} bytes handed out>"

    def close(self) -> None:
        """Close the descriptor; what is mapped of it stays."""
        self._object.close()

    @property
    def memfd(self) -> int:
        """The descriptor; -1 once closed."""
        return self._object.fileno()

    def is_own(self) -> bool:
        """Return whether nobody else has closed the descriptor."""
        return self._object.is_own()

    def hand_out(self, nbytes: int) -> int:
        """Make the memory object larger by a piece, and return the offset of the piece in bytes.

        Parameters
        ----------
        nbytes : int
            How much is needed; the piece is as many whole pages as that takes.

        Raises
        ------
        KernelError
            When the memory object may not be as large.
        PagerError
            When the descriptor is another file's by now.
        """
        # A program that becomes a daemon closes all descriptors.  To resize what has the
        # number now would truncate a file of the user's.
        if not self.is_own():
            raise PagerError(CLOSED_BY_OTHERS)
        # A piece that was given back could be handed out again only when the pager and
        # every child were known to be done with it.  Addresses in the object are 63
        # bits, and a hole takes no memory, so none is ever used twice.
        offset = self._nbytes
        stop = offset + -(-nbytes // PAGE_NBYTES) * PAGE_NBYTES
        resize_memfd(self.memfd, stop)
        self._nbytes = stop
        return offset
