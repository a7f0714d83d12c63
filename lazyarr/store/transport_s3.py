"""S3, where a suffix and the object's size come in one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.store.base import UNCHANGED, Answer
from lazyarr.store.failure import Fault, UnusableAnswerError, decode_failure, status_of
from lazyarr.store.transport import FsspecTransport
from lazyarr.store.transport_http import parse_content_range

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["S3Transport"]


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

    def fetch(self, path: str, start: int | None = None, stop: int | None = None) -> Answer:
        """Return a range of an object, or all of it."""
        return self._run(lambda: self.read(path, start or 0, stop))

    def fetch_suffix(self, path: str, nbytes: int) -> Answer:
        """Return the last bytes of an object and its size."""
        return self._run(lambda: self.read(path, -nbytes, None))

    async def read(
        self, path: str, start: int, stop: int | None, unless: str | None = None
    ) -> Answer:
        """Return ``object[start:stop]``; ``(-n, None)`` are the last `n` bytes."""
        if stop is not None:
            options = {"Range": f"bytes={start}-{stop - 1}"}
        elif start < 0:
            options = {"Range": f"bytes={start}"}
        else:
            options = {"IfNoneMatch": unless} if unless is not None else {}
        try:
            return await self._get_object(path, start, stop, options)
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
        self, path: str, start: int, stop: int | None, options: dict[str, str]
    ) -> Answer:
        bucket, key, version = self.fs.split_path(path)
        if version:
            options["VersionId"] = version
        # What fsspec's call_s3 waits for.
        get_object = self.fs._call_s3  # noqa: SLF001
        response = await get_object("get_object", Bucket=bucket, Key=key, **options)
        async with response["Body"] as body:
            data: bytes = await body.read()
        tag = response.get("ETag")
        if "ContentRange" not in response:
            # The whole object: asked for, or from a server that ignores Range.
            return Answer(data[start:stop], len(data), tag)
        given = parse_content_range(response["ContentRange"])
        total = given.total_nbytes
        expected = start if start >= 0 else max(0, (total or 0) + start)
        if given.start != expected or len(data) > given.stop - given.start:
            found = f"the server gave {len(data)} bytes as [{given.start}, {given.stop}) of {total}"
            raise UnusableAnswerError(found)
        return Answer(data, total, tag)
