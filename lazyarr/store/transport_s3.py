"""S3, where a suffix and the object's size come in one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.store.failure import Fault, UnusableAnswerError, decode_failure
from lazyarr.store.transport import Answer, FsspecTransport
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

    async def read(self, path: str, start: int, stop: int | None) -> Answer:
        """Return ``object[start:stop]``; ``(-n, None)`` are the last `n` bytes."""
        if stop is not None:
            return await self._get_object(path, f"bytes={start}-{stop - 1}", start, stop)
        if start >= 0:
            return await self._get_object(path, None, start, stop)
        try:
            return await self._get_object(path, f"bytes={start}", start, None)
        except OSError as error:
            # InvalidRange: an empty object has no last byte, every other one has.
            if decode_failure(error).fault is Fault.RANGE:
                return Answer(b"", 0)
            raise

    def _run(self, make: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        from fsspec.asyn import sync

        answer: Answer = sync(self.fs.loop, make, timeout=self._timeout_seconds)
        return answer

    async def _get_object(
        self, path: str, byte_range: str | None, start: int, stop: int | None
    ) -> Answer:
        bucket, key, version = self.fs.split_path(path)
        options = {"Range": byte_range} if byte_range else {}
        if version:
            options["VersionId"] = version
        # What fsspec's call_s3 waits for.
        get_object = self.fs._call_s3  # noqa: SLF001
        response = await get_object("get_object", Bucket=bucket, Key=key, **options)
        async with response["Body"] as body:
            data: bytes = await body.read()
        if "ContentRange" not in response:
            # The whole object: asked for, or from a server that ignores Range.
            return Answer(data[start:stop] if byte_range else data, len(data))
        given = parse_content_range(response["ContentRange"])
        total = given.total_nbytes
        expected = start if start >= 0 else max(0, (total or 0) + start)
        if given.start != expected or len(data) > given.stop - given.start:
            found = f"the server gave {len(data)} bytes as [{given.start}, {given.stop}) of {total}"
            raise UnusableAnswerError(found)
        return Answer(data, total)
