"""Fixtures for all tests."""

from tests.servers import http_server, s3_bucket, s3_server

__all__ = ["http_server", "s3_bucket", "s3_server"]
