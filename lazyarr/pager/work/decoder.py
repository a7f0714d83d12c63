"""A decoder: a process that reads, decodes and installs units as the worker tells it to.

One interpreter runs one thread at a time.  It can plan for many more cores than it can decode
for: a chunk that the worker loads itself takes three times as much of its time.  So on machines
of many cores units are loaded in processes beside the worker.

A decoder decides nothing and knows no client: each job brings the descriptors that it needs.
The supervisor starts the decoders and watches them as it does the worker.  None of them outlives
the worker, for a late install could be older than what the next worker has.
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
from lazyarr.layout.document import parse_pipeline
from lazyarr.pager.lifecycle.ledger_client import answer_supervisor
from lazyarr.pager.log import report
from lazyarr.pager.work.loader import ProgressiveInstall
from lazyarr.reading.open_shards import FileChunkReader
from lazyarr.reading.workspace import Workspace
from lazyarr.store import OpenFile
from lazyarr.wire.channel import close_all, descriptors_in
from lazyarr.wire.jobs import JOB_NBYTES, Job, News, Result
from lazyarr.wire.messages import Pong

if TYPE_CHECKING:
    from lazyarr.pager.lifecycle.inflight_record import InflightRecord
    from lazyarr.wire.channel import Channel

__all__ = ["decode_for_worker"]

_EX_SOFTWARE = 70
# The client's userfaultfd and the file.
_N_DESCRIPTORS = 2
# A reader for each pipeline, of which many arrays have the same.
_MAX_READERS = 1024


def decode_for_worker(
    supervisor: Channel, jobs: socket.socket, inflight: InflightRecord, n_threads: int
) -> None:
    """Do jobs until the worker has hung up; answer the supervisor meanwhile.

    Parameters
    ----------
    supervisor : Channel
        The channel to the process that watches this one.
    jobs : socket.socket
        Brings jobs and takes results, a packet each.
    inflight : InflightRecord
        Where each thread writes down which unit it loads.
    n_threads : int
        How many jobs are done at once.
    """
    # Before the first job, so that no client waits for the imports.
    import google_crc32c  # noqa: F401
    import zstandard  # noqa: F401

    inflight.prepare()
    decoder = _Decoder(jobs, inflight)
    threads = [
        threading.Thread(target=decoder.work, name=f"decoder-{n}", daemon=True)
        for n in range(n_threads)
    ]
    for thread in threads:
        thread.start()
    # Either side may have ended already.  The loop below, or a thread, sees that next.
    with suppress(OSError, PagerError):
        supervisor.send(Pong())
        jobs.send(Result(0, 0, News.READY).encode(), socket.MSG_NOSIGNAL)
    # In the main thread, which does no jobs: a slow disk must not look like a process
    # that is stuck.
    while answer_supervisor(supervisor):
        pass
    # The worker goes on without a supervisor, and so do its decoders.
    for thread in threads:
        thread.join()


class _Decoder:
    """The socket and the in-flight record that the threads of this process share."""

    def __init__(self, jobs: socket.socket, inflight: InflightRecord) -> None:
        self._jobs = jobs
        self._inflight = inflight

    def work(self) -> None:
        """Do jobs until the worker hangs up, then end the process."""
        # All threads read from one socket.  A packet is one job and goes to one of them, so no
        # thread hands out work.
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
                self._inflight.begin(job.region, job.unit)
                result = self._do(job, descriptors_in(ancillary), workspace)
                self._inflight.end()
                self._tell(result)
        except OSError:
            pass  # the worker has ended
        except BaseException as error:  # noqa: BLE001 - a client waits for the job
            # The process ends with an error, and its worker with it.  Nobody knows what this job
            # has installed, so another worker begins anew.
            report(f"a process that decodes ends: {type(error).__name__}: {error}")
            os._exit(_EX_SOFTWARE)
        os._exit(0)

    def _do(self, job: Job, descriptors: list[int], workspace: Workspace) -> Result:
        """Do a job, and close the descriptors that came with it."""
        if len(descriptors) < _N_DESCRIPTORS:
            # The kernel drops descriptors for which this process has no room (recvmsg(2)).  The
            # worker can do the job itself.
            close_all(descriptors)
            return Result(job.region, job.unit, News.FAILED)
        uffd, file = descriptors
        # No features: a decoder only copies pages, and the worker does whatever needs more.
        client = Userfaultfd.from_fd(uffd, Features(0))
        try:
            return self._load(job, client, OpenFile(file), workspace)
        finally:
            client.close()
            os.close(file)

    def _tell(self, result: Result) -> None:
        """Send a result to the worker."""
        self._jobs.send(result.encode(), socket.MSG_NOSIGNAL)

    def _load(self, job: Job, client: Userfaultfd, file: OpenFile, workspace: Workspace) -> Result:
        """Read, decode and install the unit of a job; return how that ended."""
        begin = time.perf_counter()
        decoded = begin
        news = News.FAILED
        try:
            install = self._make_install(job, client, workspace)
            reader = _reader(job.pipeline)
            progress = install if job.in_parts else None
            is_decoded = reader.load(
                file, job.start, job.nbytes, workspace, may_wait=True, progress=progress
            )
            decoded = time.perf_counter()
            if is_decoded and install.finish():
                news = News.DONE
        except Exception:  # noqa: BLE001 - the worker meets the error again, and reports it
            # The worker loads the unit itself.  It has the retries and the error texts.
            news = News.FAILED
        installed = time.perf_counter()
        # The memory limit counts what is decoded in, also in this process, and the
        # worker keeps it.
        grown_nbytes = workspace.take_growth()
        return Result(
            job.region,
            job.unit,
            news,
            decoded - begin,
            installed - decoded,
            grown_nbytes,
            job.nbytes,
        )

    def _make_install(
        self, job: Job, client: Userfaultfd, workspace: Workspace
    ) -> ProgressiveInstall:
        """Return what installs the unit of a job from the workspace."""

        def copy(start: int, stop: int) -> bool:
            source = workspace.unit.address + start
            return client.copy_at_once(job.address + start, source, stop - start, job.copy_mode)

        def arrived() -> None:
            self._tell(Result(job.region, job.unit, News.ARRIVED))

        return ProgressiveInstall(
            copy, job.unit_nbytes, job.awaited, arrived if job.is_pick else None
        )


@functools.lru_cache(_MAX_READERS)
def _reader(pipeline: bytes) -> FileChunkReader:
    """Return a reader of chunks that are decoded by a pipeline."""
    return FileChunkReader(parse_pipeline(pipeline))
