"""A process that reads, decodes and installs what the worker tells it to.

One interpreter can plan for many more cores than it can decode for: a chunk costs it
thrice as much time when the load itself is its own too.  So on machines of many cores
units are loaded in processes beside the worker.  They decide nothing and know nobody:
each job brings the descriptors it needs.  The supervisor starts them, watches them as it
does the worker, and lets none of them outlive it, for what is installed late could
be older than what the next worker has.
"""

from __future__ import annotations

import array
import functools
import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from lazyarr.errors import PagerError
from lazyarr.kernel import Features, Userfaultfd
from lazyarr.loading.chunks import ChunkReader
from lazyarr.loading.workspace import Workspace
from lazyarr.pager.front import Front
from lazyarr.pager.journal import answer_supervisor
from lazyarr.pager.log import report
from lazyarr.pager.opening import parse_array
from lazyarr.store import OpenFile
from lazyarr.wire.channel import close_all, descriptors_in
from lazyarr.wire.jobs import JOB_NBYTES, Job, News, Result
from lazyarr.wire.messages import Pong

if TYPE_CHECKING:
    from lazyarr.pager.board import Board
    from lazyarr.wire.channel import Channel

__all__ = ["decode_for_worker"]

_EX_SOFTWARE = 70
_N_DESCRIPTORS = 2
_MAX_READERS = 1024


def decode_for_worker(
    supervisor: Channel, jobs: socket.socket, board: Board, n_threads: int
) -> None:
    """Do jobs until the worker has hung up; answer the supervisor meanwhile.

    Parameters
    ----------
    supervisor : Channel
        To the process that watches this one.
    jobs : socket.socket
        Jobs come and results go, a packet each.
    board : Board
        Where it is written down what is on its way.
    n_threads : int
        How many jobs are done at once.
    """
    import google_crc32c  # noqa: F401 - not while somebody waits for the first chunk
    import zstandard  # noqa: F401

    board.prepare()
    decoder = _Decoder(jobs, board)
    threads = [
        threading.Thread(target=decoder.work, name=f"decoder-{n}", daemon=True)
        for n in range(n_threads)
    ]
    for thread in threads:
        thread.start()
    with suppress(OSError, PagerError):  # either may be gone already, which is seen next
        supervisor.send(Pong())
        jobs.send(Result(0, 0, News.READY).encode(), socket.MSG_NOSIGNAL)
    while answer_supervisor(supervisor):
        pass
    for thread in threads:  # the worker goes on without a supervisor
        thread.join()


class _Decoder:
    """What the threads of this process have in common."""

    def __init__(self, jobs: socket.socket, board: Board) -> None:
        self._jobs = jobs
        self._board = board

    def work(self) -> None:
        """Do jobs until there can be no more, then end the process."""
        workspace = Workspace()
        packet = memoryview(bytearray(JOB_NBYTES))
        space = socket.CMSG_SPACE(_N_DESCRIPTORS * array.array("i").itemsize)
        flags = int(socket.MSG_CMSG_CLOEXEC)
        try:
            while True:
                nbytes, ancillary, _, _ = self._jobs.recvmsg_into((packet,), space, flags)
                if not nbytes:
                    break
                job = Job.decode(packet[:nbytes].tobytes())
                self._board.begin(job.region, job.unit)
                result = self._do(job, descriptors_in(ancillary), workspace)
                self._board.end()
                self._tell(result)
        except OSError:
            pass  # the worker is gone
        except BaseException as error:  # noqa: BLE001 - whoever waits for the job must not go on
            report(f"a process that decodes ends: {type(error).__name__}: {error}")
            os._exit(_EX_SOFTWARE)
        os._exit(0)

    def _do(self, job: Job, descriptors: list[int], workspace: Workspace) -> Result:
        """Do a job, and close what came with it."""
        if len(descriptors) < _N_DESCRIPTORS:
            # This process may have no more of them (recvmsg(2)): the worker can do it.
            close_all(descriptors)
            return Result(job.region, job.unit, News.FAILED)
        uffd, file = descriptors
        client = Userfaultfd.from_fd(uffd, Features(0))
        try:
            return self._load(job, client, OpenFile(file), workspace)
        finally:
            client.close()
            os.close(file)

    def _tell(self, result: Result) -> None:
        self._jobs.send(result.encode(), socket.MSG_NOSIGNAL)

    def _load(self, job: Job, client: Userfaultfd, file: OpenFile, workspace: Workspace) -> Result:
        had_nbytes = workspace.nbytes
        begin = time.perf_counter()
        decoded = begin
        news = News.FAILED
        try:
            front = self._front(job, client, workspace)
            reader = _reader(job.document, job.zarr_format)
            progress = front if job.in_parts else None
            is_decoded = reader.load(
                file, job.start, job.nbytes, workspace, may_wait=True, progress=progress
            )
            decoded = time.perf_counter()
            if is_decoded and front.finish():
                news = News.DONE
        except Exception:  # noqa: BLE001 - the worker comes upon it again, and tells
            news = News.FAILED
        installed = time.perf_counter()
        grown_nbytes = workspace.nbytes - had_nbytes
        return Result(
            job.region,
            job.unit,
            news,
            decoded - begin,
            installed - decoded,
            grown_nbytes,
            job.nbytes,
        )

    def _front(self, job: Job, client: Userfaultfd, workspace: Workspace) -> Front:
        def copy(start: int, stop: int) -> bool:
            source = workspace.unit.address + start
            return client.copy_at_once(job.address + start, source, stop - start)

        def arrived() -> None:
            self._tell(Result(job.region, job.unit, News.ARRIVED))

        return Front(copy, job.unit_nbytes, job.awaited, arrived if job.is_pick else None)


@functools.lru_cache(_MAX_READERS)
def _reader(document: bytes, zarr_format: int) -> ChunkReader:
    return ChunkReader(parse_array(document, zarr_format, "").layout())
