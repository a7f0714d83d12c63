"""Every stored chunk of a store, read and checked without mapping any of it.

Public: the names below.
Not here: reading and decoding a chunk (`lazyarr.reading`).  No pager is needed.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.errors import FormatError, NodeNotFoundError
from lazyarr.opening.nodes import open_nodes
from lazyarr.store.repositories import place_of_session
from lazyarr.verification.checking import Tally, check_all
from lazyarr.verification.report import Report, Skipped
from lazyarr.verification.survey import survey_store

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from lazyarr.layout import Layout

__all__ = ["Report", "Skipped", "verify"]

# Threads for a store behind a network, which wait more than they compute.
_N_REMOTE_THREADS = 32

# Buffers of a thread: a chunk encoded, decoded, and what its codec needs beside.
_BUFFERS_PER_THREAD = 3


def verify(
    url: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    format: str | None = None,  # noqa: A002 - as in `lazyarr.open`
    progress: bool = True,
) -> Report:
    """Return a report on every stored chunk: each is read, checked and decoded.

    Consolidated metadata is compared with each node's own document; where they differ, the
    node's own document counts.  Below each array it looks for objects whose keys are not those
    of chunks.  It works on all processors, needs neither a pager nor userfaultfd, and stays
    within the memory limit.  A chunk that fails is read a second time before it counts as
    damaged.

    Parameters
    ----------
    url : str or os.PathLike
        A store, or a group or array in it, as for `lazyarr.open`.
    storage_options : mapping, optional
        What fsspec needs for this URL.
    format : str, optional
        What the URL means, as for `lazyarr.open`.
    progress : bool
        Whether to show a progress bar on stderr.

    Raises
    ------
    NodeNotFoundError
        When there is nothing to verify.
    StoreError
        When the store cannot be reached, also half-way: a chunk that could not be read is not
        known to be damaged.
    FormatError
        When the node at `url` itself is not what Zarr allows, or cannot be mapped.

    Examples
    --------
    >>> import lazyarr, numpy
    >>> lazyarr.save("memory://doc-verify", numpy.arange(6.0), overwrite=True)
    >>> report = verify("memory://doc-verify", progress=False)
    >>> report.ok, report.chunks_checked
    (True, 1)
    """
    url, storage_options = place_of_session(url, storage_options)
    hierarchy = open_nodes(url, storage_options, file_format=format, compares=False)
    with ExitStack() as opened:
        opened.callback(lambda: hierarchy.store.close())
        with suppress(NodeNotFoundError, FormatError):
            hierarchy.node("")  # so that it is known what the URL means
        # Of the same version of the store.
        options = hierarchy.store.pinned or storage_options
        documents = open_nodes(url, options, file_format=format, use_consolidated=False)
        opened.callback(lambda: documents.store.close())
        survey = survey_store(hierarchy, documents)
        layouts = [checker.layout for checker in survey.checkers]
        n_chunks = sum(math.prod(layout.grid_shape) for layout in layouts)
        tally = Tally(n_chunks, survey.damaged, progress=progress)
        check_all(survey.checkers, tally, _n_threads(hierarchy.url, layouts))
    return tally.report(hierarchy.url, survey)


def _n_threads(url: str, layouts: Sequence[Layout]) -> int:
    """Return how many threads are of use and have room for their buffers."""
    limits = settings.current()
    wanted = limits.threads if url.startswith("file://") else _N_REMOTE_THREADS
    largest_nbytes = max((layout.chunk_nbytes for layout in layouts), default=1)
    room = limits.memory_limit // (_BUFFERS_PER_THREAD * max(1, largest_nbytes))
    return max(1, min(wanted, room))
