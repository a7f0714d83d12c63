"""Fixtures for all tests."""

from tests.engines import engine
from tests.servers import http_server, s3_bucket, s3_server

__all__ = ["engine", "http_server", "s3_bucket", "s3_server"]
