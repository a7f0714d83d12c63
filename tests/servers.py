"""Real servers on the loopback interface, as fixtures.

They are processes of their own: a thread that touches lazy memory holds the GIL
until the pager has the data, and the pager would wait for a server thread in this process.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from lazyarr.testing import HttpServer, ServerProcess, serve_commands, serve_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["S3Server", "http_server", "s3_bucket", "s3_server", "serve_s3"]

_ACCESS = {"key": "testing", "secret": "testing"}
_REGION = "us-east-1"
_bucket_numbers = itertools.count()


class S3Server:
    """A handle on a moto server."""

    def __init__(self, process: ServerProcess) -> None:
        self._process = process
        self.endpoint_url = f"http://127.0.0.1:{process.ready}"

    @property
    def storage_options(self) -> dict[str, Any]:
        """What fsspec needs to reach it; plain values, fixed dummy credentials."""
        client = {"region_name": _REGION}
        return {**_ACCESS, "endpoint_url": self.endpoint_url, "client_kwargs": client}

    def make_bucket(self) -> str:
        """Return the name of a new, empty bucket."""
        name = f"bucket-{next(_bucket_numbers)}"
        self._process.ask({"bucket": name})
        return name


@pytest.fixture
def http_server(tmp_path: Path) -> Iterator[HttpServer]:
    """Serve an empty directory, `http_server.directory`, over HTTP."""
    directory = tmp_path / "http"
    directory.mkdir()
    with serve_directory(directory) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Run one S3 server for all tests."""
    program = "from tests.servers import serve_s3; serve_s3()"
    with ServerProcess(["-c", program]) as process:
        yield S3Server(process)


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> str:
    """Make an empty bucket and return its URL; options are `s3_server.storage_options`."""
    return f"s3://{s3_server.make_bucket()}"


def serve_s3() -> None:
    """Be the server process."""
    import logging

    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name=_REGION,
        aws_access_key_id=_ACCESS["key"],
        aws_secret_access_key=_ACCESS["secret"],
    )

    def make_bucket(command: dict[str, Any]) -> None:
        client.create_bucket(Bucket=command["bucket"])

    serve_commands(port, make_bucket)
