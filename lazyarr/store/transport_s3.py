"""S3, where a suffix and the object's size come in one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.store.base import UNCHANGED, Answer
from lazyarr.store.bodies import read_end, read_part, read_range, read_whole
from lazyarr.store.failure import Fault, decode_failure, status_of, too_long
from lazyarr.store.http_headers import check_given, parse_content_range
from lazyarr.store.transport import FsspecTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from lazyarr.store.base import Arrived

__all__ = ["S3Transport"]

_PIECE_NBYTES = 1 << 18


class S3Transport(FsspecTransport):
    """GetObject through s3fs, whose `cat_file` asks for the size first.

    Parameters
    ----------
    fs : s3fs.S3FileSystem
        Whose client, credentials and retries are used.
    timeout_seconds : float
        How long one call may take.
    """

    def __init__(self, fs: Any, timeout_seconds: float) -> None:
        super().__init__(fs, timeout_seconds)
        self._timeout_seconds = timeout_seconds

    def fetch(
        self,
        path: str,
        start: int | None = None,
        stop: int | None = None,
        *,
        limit_nbytes: int | None = None,
    ) -> Answer:
        """Return a range of an object, or all of it."""
        return self._run(lambda: self.read(path, start or 0, stop, limit_nbytes=limit_nbytes))

    def fetch_suffix(self, path: str, nbytes: int) -> Answer:
        """Return the last bytes of an object and its size."""
        return self._run(lambda: self.read(path, -nbytes, None))

    async def read(
        self,
        path: str,
        start: int,
        stop: int | None,
        *,
        unless: str | None = None,
        limit_nbytes: int | None = None,
        arrived: Arrived | None = None,
    ) -> Answer:
        """Return ``object[start:stop]``; ``(-n, None)`` are the last `n` bytes."""
        if stop is not None:
            options = {"Range": f"bytes={start}-{stop - 1}"}
        elif start < 0:
            options = {"Range": f"bytes={start}"}
        else:
            options = {"IfNoneMatch": unless} if unless is not None else {}
        try:
            return await self._get_object(path, start, stop, options, limit_nbytes, arrived)
        except Exception as error:
            if unless is not None and status_of(error) == 304:
                return UNCHANGED
            # InvalidRange: an empty object has no last byte, every other one has.
            if start < 0 and decode_failure(error).fault is Fault.RANGE:
                return Answer(b"", 0)
            raise

    def _run(self, make: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        from fsspec.asyn import sync

        answer: Answer = sync(self.fs.loop, make, timeout=self._timeout_seconds)
        return answer

    async def _get_object(
        self,
        path: str,
        start: int,
        stop: int | None,
        options: dict[str, str],
        limit_nbytes: int | None,
        arrived: Arrived | None,
    ) -> Answer:
        bucket, key, version = self.fs.split_path(path)
        if version:
            options["VersionId"] = version
        # What fsspec's call_s3 waits for.
        get_object = self.fs._call_s3  # noqa: SLF001
        response = await get_object("get_object", Bucket=bucket, Key=key, **options)
        tag, total = response.get("ETag"), response.get("ContentLength")
        async with response["Body"] as body:
            if "ContentRange" in response:
                given = parse_content_range(response["ContentRange"])
                expected = start if start >= 0 else max(0, (given.total_nbytes or 0) + start)
                nbytes = stop - start if stop is not None else -start
                check_given(given, expected, expected + nbytes)
                part = await read_range(_pieces(body), given.stop - given.start, arrived)
                return Answer(part, given.total_nbytes, tag)
            # The whole object: asked for, or from a server that ignores Range.
            if stop is not None:
                return Answer(await read_part(_pieces(body), start, stop), total, tag)
            if start < 0:
                return Answer(*await read_end(_pieces(body), -start), tag)
            if limit_nbytes is not None and total is not None and total > limit_nbytes:
                raise too_long(limit_nbytes)
            data = await read_whole(_pieces(body), limit_nbytes)
            return Answer(data, len(data), tag)


async def _pieces(body: Any) -> AsyncIterator[bytes]:
    while piece := await body.read(_PIECE_NBYTES):
        yield piece
