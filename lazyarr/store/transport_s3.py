"""S3, where a suffix and the object's size come in one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from lazyarr.store.base import UNCHANGED, Answer
from lazyarr.store.bodies import read_end, read_part, read_range, read_whole
from lazyarr.store.failure import (
    Fault,
    UnusableAnswerError,
    decode_failure,
    status_of,
    too_long,
)
from lazyarr.store.http_headers import check_given, parse_content_range
from lazyarr.store.transport import FsspecTransport, OtherVersionError, UnconditionalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from lazyarr.store.base import Arrived

__all__ = ["S3Transport"]

_PIECE_NBYTES = 1 << 18
_MAX_PUT_NBYTES = 5 << 30
_CONFLICT, _PRECONDITION_FAILED, _NOT_IMPLEMENTED = 409, 412, 501

_Result = TypeVar("_Result")


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

    def version(self, path: str) -> str:
        """Return the tag that the server has given the object, as `read` returns it."""
        with self._turn:
            self.fs.invalidate_cache(path)
            info = self.fs.info(path, **self._limit)
        if info.get("type") == "directory":
            raise UnusableAnswerError("it is a directory", Fault.DIRECTORY)
        return str(info["ETag"])

    def put(self, path: str, data: bytes) -> str | None:
        """Put a whole object; return its tag where the server gave it in one answer."""
        with self._turn:
            answer = self.fs.pipe_file(path, data, **self._limit)
        return answer.get("ETag") if isinstance(answer, dict) else None

    def put_if(self, path: str, data: bytes, expected: str | None) -> str | None:
        """Put an object in place of a version, or where there is none; return its tag."""
        if len(data) > _MAX_PUT_NBYTES:  # in parts alone, to which s3fs gives no condition
            raise UnconditionalError
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        try:
            answer = self._run(lambda: self._put_object(path, data, condition))
        except Exception as error:
            status = status_of(error)
            is_gone = expected is not None and decode_failure(error).fault is Fault.MISSING
            if status == _PRECONDITION_FAILED or is_gone:
                raise OtherVersionError from error
            if status == _NOT_IMPLEMENTED:
                raise UnconditionalError from error
            if status == _CONFLICT:  # somebody else was putting it at the same time
                found = "the server asks to try again, since two put the object at once"
                raise UnusableAnswerError(found, Fault.TRANSIENT) from error
            raise
        finally:
            self.fs.invalidate_cache(path)
        return cast("str | None", answer.get("ETag"))

    async def _put_object(self, path: str, data: bytes, condition: dict[str, str]) -> Any:
        bucket, key, _ = self.fs.split_path(path)
        put_object = self.fs._call_s3  # noqa: SLF001 - as in `_get_object`
        return await put_object("put_object", Bucket=bucket, Key=key, Body=data, **condition)

    def _run(self, make: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        from fsspec.asyn import sync

        result: _Result = sync(self.fs.loop, make, timeout=self._timeout_seconds)
        return result

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
                cut, came_nbytes = await read_part(_pieces(body), start, stop)
                return Answer(cut, total, tag, came_nbytes)
            if start < 0:
                return Answer(*await read_end(_pieces(body), -start), tag)
            if limit_nbytes is not None and total is not None and total > limit_nbytes:
                raise too_long(limit_nbytes)
            data = await read_whole(_pieces(body), limit_nbytes)
            return Answer(data, len(data), tag)


async def _pieces(body: Any) -> AsyncIterator[bytes]:
    while piece := await body.read(_PIECE_NBYTES):
        yield piece
