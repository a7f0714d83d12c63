"""What exceptions mean: one table."""

from __future__ import annotations

import re
import socket
import ssl

import aiohttp
import botocore.exceptions
import pytest
import yarl
from fsspec.exceptions import FSTimeoutError

from lazyarr.store.failure import (
    Fault,
    UnusableAnswerError,
    decode_failure,
    decode_status,
    is_forbidden,
)
from lazyarr.store.messages import failed


def raised_from(error, cause):
    error.__cause__ = cause
    return error


def raised_during(error, context):
    error.__context__ = context
    return error


def client_error(status, code="Code"):
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(response, "GetObject")


def response_error(status):
    request = aiohttp.RequestInfo(yarl.URL("http://host/key"), "GET", {})
    return aiohttp.ClientResponseError(request, (), status=status, message="message")


def dns_error(number):
    key = aiohttp.client_reqrep.ConnectionKey("host", 80, False, True, None, None, None)
    return aiohttp.ClientConnectorDNSError(key, OSError(number, "name resolution"))


def endpoint_error():
    return botocore.exceptions.EndpointConnectionError(endpoint_url="x")


MISSING, CONTAINER, DENIED = Fault.MISSING, Fault.CONTAINER, Fault.DENIED
RANGE, TRANSIENT, PERMANENT = Fault.RANGE, Fault.TRANSIENT, Fault.PERMANENT
UNREACHABLE = Fault.UNREACHABLE

TABLE = [
    # Python's own, as fsspec raises them.
    (FileNotFoundError("key"), MISSING),
    (IsADirectoryError("key"), Fault.DIRECTORY),
    (PermissionError("key"), DENIED),
    (TimeoutError(), TRANSIENT),
    (FSTimeoutError(), TRANSIENT),
    (ConnectionResetError(104, "reset"), TRANSIENT),
    (ConnectionRefusedError(111, "refused"), UNREACHABLE),
    (BrokenPipeError(), TRANSIENT),
    (EOFError(), TRANSIENT),
    (OSError(16, "busy"), TRANSIENT),
    (OSError(121, "remote i/o"), TRANSIENT),
    (OSError(22, "invalid"), PERMANENT),
    (OSError("who knows"), PERMANENT),
    (OSError("Forbidden: https://storage.googleapis.com"), DENIED),
    (ValueError("who knows"), PERMANENT),
    (KeyError("key"), PERMANENT),
    (NotImplementedError(), PERMANENT),
    (ssl.SSLCertVerificationError(1, "certificate"), PERMANENT),
    # aiohttp.
    (aiohttp.ClientPayloadError("cut"), TRANSIENT),
    (aiohttp.ServerDisconnectedError(), TRANSIENT),
    (aiohttp.ServerTimeoutError(), TRANSIENT),
    (aiohttp.ClientOSError(111, "refused"), UNREACHABLE),
    (aiohttp.InvalidURL("x"), PERMANENT),
    (dns_error(socket.EAI_AGAIN), TRANSIENT),
    (dns_error(socket.EAI_NONAME), PERMANENT),
    (response_error(401), DENIED),
    (response_error(403), DENIED),
    (response_error(408), TRANSIENT),
    (response_error(410), PERMANENT),
    (response_error(416), RANGE),
    (response_error(429), TRANSIENT),
    (response_error(500), TRANSIENT),
    (response_error(501), PERMANENT),
    (response_error(503), TRANSIENT),
    # botocore, bare and as s3fs translates it.
    (botocore.exceptions.NoCredentialsError(), DENIED),
    (endpoint_error(), TRANSIENT),
    (raised_during(endpoint_error(), aiohttp.ClientOSError(111, "refused")), UNREACHABLE),
    (raised_during(endpoint_error(), aiohttp.ClientOSError(113, "no route")), TRANSIENT),
    (raised_during(endpoint_error(), dns_error(socket.EAI_AGAIN)), TRANSIENT),
    (raised_during(endpoint_error(), dns_error(socket.EAI_NONAME)), PERMANENT),
    (
        raised_during(
            botocore.exceptions.SSLError(endpoint_url="x", error="y"),
            raised_from(aiohttp.ClientError(), ssl.SSLCertVerificationError(1, "certificate")),
        ),
        PERMANENT,
    ),
    (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), TRANSIENT),
    (botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), TRANSIENT),
    (raised_from(FileNotFoundError("x"), client_error(404, "NoSuchKey")), MISSING),
    (raised_from(FileNotFoundError("x"), client_error(404, "NoSuchBucket")), CONTAINER),
    (raised_from(PermissionError("x"), client_error(403)), DENIED),
    (raised_from(OSError(22, "x"), client_error(416)), RANGE),
    (raised_from(OSError(16, "x"), client_error(503)), TRANSIENT),
    (raised_from(OSError("x"), client_error(429)), TRANSIENT),
    # "Not found" that is not true.
    (raised_from(FileNotFoundError("x"), aiohttp.ClientPayloadError()), TRANSIENT),
    (raised_from(FileNotFoundError("x"), response_error(403)), DENIED),
    (raised_from(FileNotFoundError("x"), RuntimeError("session is closed")), PERMANENT),
    (raised_during(FileNotFoundError("x"), TimeoutError()), TRANSIENT),
    (raised_from(RuntimeError("reference"), FileNotFoundError("x")), PERMANENT),
    # "Not found" that is.
    (raised_from(FileNotFoundError("x"), KeyError("x")), MISSING),
    (raised_from(FileNotFoundError("x"), response_error(404)), MISSING),
    (raised_during(FileNotFoundError("x"), RuntimeError("unrelated")), MISSING),
    # Ours.
    (UnusableAnswerError("found"), PERMANENT),
    (UnusableAnswerError("found", Fault.TRANSIENT), TRANSIENT),
]


@pytest.mark.parametrize(("error", "fault"), TABLE, ids=lambda x: getattr(x, "value", repr(x)))
def test_exceptions_are_decoded(error, fault):
    """Each kind of exception has one meaning, and its words are kept."""
    failure = decode_failure(error)
    assert failure.fault is fault
    assert type(error).__name__ in failure.found or str(error) in failure.found


def test_a_ring_of_causes_ends():
    """An exception that is its own cause's cause is decoded."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert decode_failure(first).fault is Fault.PERMANENT


def test_only_404_means_missing():
    """No other status lets an object count as missing."""
    assert [s for s in range(400, 600) if decode_status(s) is Fault.MISSING] == [404]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (raised_from(PermissionError("x"), client_error(403, "AccessDenied")), True),
        (raised_from(PermissionError("x"), client_error(403, "403")), True),
        (raised_from(PermissionError("x"), client_error(403, "SignatureDoesNotMatch")), False),
        (raised_from(PermissionError("x"), client_error(403, "InvalidAccessKeyId")), False),
        (raised_from(PermissionError("x"), client_error(401, "AccessDenied")), False),
        (PermissionError("x"), False),
        (response_error(403), True),
    ],
)
def test_wrong_credentials_never_mean_a_missing_object(error, expected):
    """Even where it is wished that a refusal does: only the one that S3 gives for both is taken."""
    assert is_forbidden(error) == expected


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("https://host/x", r"run pip install 'lazyarr\[http\]'"),
        ("simplecache::s3://bucket/x", r"run pip install 'lazyarr\[s3\]'"),
        ("abfs://x", "run pip install with the name of that package"),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_have_it(url, remedy):
    """Once, and for this kind of URL."""
    error = failed(url, "open", None, ImportError('requires "requests" and "aiohttp"'))
    assert re.fullmatch(rf".*: a package is missing: requires .*; {remedy}", str(error))
