"""S3, where a suffix and the object's size come in one request."""

from __future__ import annotations

from typing import Any

from lazyarr.store.failure import UnusableAnswerError
from lazyarr.store.transport import Answer, FsspecTransport
from lazyarr.store.transport_http import parse_content_range

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
        if start is None or stop is None:
            return self._get_object(path, None, start, stop)
        return self._get_object(path, f"bytes={start}-{stop - 1}", start, stop)

    def fetch_suffix(self, path: str, nbytes: int) -> Answer:
        """Return the last bytes of an object and its size."""
        try:
            return self._get_object(path, f"bytes=-{nbytes}", -nbytes, None)
        except OSError as error:
            # InvalidRange: an empty object has no last byte.
            if not isinstance(error, FileNotFoundError) and self.size(path) == 0:
                return Answer(b"", 0)
            raise

    def _get_object(
        self, path: str, byte_range: str | None, start: int | None, stop: int | None
    ) -> Answer:
        from fsspec.asyn import sync

        bucket, key, version = self.fs.split_path(path)
        options = {"Range": byte_range} if byte_range else {}
        if version:
            options["VersionId"] = version
        limit = {"timeout": self._timeout_seconds}
        response = self.fs.call_s3("get_object", Bucket=bucket, Key=key, **options, **limit)
        body = response["Body"]
        try:
            data: bytes = sync(self.fs.loop, body.read, **limit)
        finally:
            body.close()
        if "ContentRange" not in response:
            # The whole object: asked for, or from a server that ignores Range.
            return Answer(data[start:stop] if byte_range else data, len(data))
        given = parse_content_range(response["ContentRange"])
        total = given.total_nbytes
        expected = start if start is None or start >= 0 else max(0, (total or 0) + start)
        if given.start != expected or len(data) > given.stop - given.start:
            found = f"the server gave {len(data)} bytes as [{given.start}, {given.stop}) of {total}"
            raise UnusableAnswerError(found)
        return Answer(data, total)
