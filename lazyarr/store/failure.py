"""What an exception from fsspec, or from what is below it, means.

fsspec has no error type of its own: each file system lets through what its
HTTP client or SDK raised, or translates it.  This is the one place that tells them
apart.  They are known by status code, errno and class *name*, so that none of
those libraries is imported for it.
"""

from __future__ import annotations

import enum
import errno
import socket
from typing import NamedTuple

from lazyarr.shortage import is_shortage

__all__ = [
    "REMEDIES",
    "Failure",
    "Fault",
    "UnusableAnswerError",
    "decode_failure",
    "decode_status",
    "is_forbidden",
    "status_of",
    "too_long",
]


class Fault(enum.Enum):
    """Why a call to a remote store failed."""

    MISSING = "missing"  # the store says that there is no such object
    DIRECTORY = "directory"  # there is something, and it is no object
    PAGE = "page"  # a page for people in place of a document
    CONTAINER = "container"  # the bucket itself does not exist: no object is known to be missing
    DENIED = "denied"  # credentials are missing, wrong or insufficient
    RANGE = "range"  # the object ends before the range begins
    LENGTH = "length"  # the object is longer than anything that may be there
    UNREACHABLE = "unreachable"  # nobody takes connections where the server should be
    TRANSIENT = "transient"  # time-out, dropped connection, throttling, server error
    PERMANENT = "permanent"  # anything else; trying again gives the same


class UnusableAnswerError(Exception):
    """A store answered something else than it was asked for; becomes a StoreError."""

    def __init__(self, found: str, fault: Fault = Fault.PERMANENT) -> None:
        super().__init__(found)
        self.fault = fault


def too_long(limit_nbytes: int) -> UnusableAnswerError:
    """Return the error for an object of which no more is read."""
    found = f"the object has more than the {limit_nbytes} bytes that may be there"
    return UnusableAnswerError(found, Fault.LENGTH)


class Failure(NamedTuple):
    """A decoded exception: what it means, and what was found, in words."""

    fault: Fault
    found: str


REMEDIES = {
    Fault.DIRECTORY: "remove it",
    Fault.PAGE: "the URL is probably not that of a store, or the server wants a login",
    Fault.CONTAINER: "check the URL",
    Fault.DENIED: (
        "check credentials and storage_options; S3 also refuses what does not exist to those "
        "who may not list the bucket, for which there is the option 'denied_is_missing'"
    ),
    Fault.RANGE: "the object is truncated, or its index is of another version",
    Fault.LENGTH: "it is damaged, or something else than its name says",
    Fault.UNREACHABLE: "check the URL, or endpoint_url, and whether the server runs",
    Fault.TRANSIENT: "try again, or raise timeout and retries",
    Fault.PERMANENT: "check the URL and storage_options",
}
"""What to do about each, for the end of a message."""

_STATUS = {
    401: Fault.DENIED,
    403: Fault.DENIED,
    404: Fault.MISSING,
    407: Fault.DENIED,
    408: Fault.TRANSIENT,
    416: Fault.RANGE,
    425: Fault.TRANSIENT,
    429: Fault.TRANSIENT,
    # These two say that the server cannot do it, not that it cannot do it now.
    501: Fault.PERMANENT,
    505: Fault.PERMANENT,
}

_ERRNO = {
    # getaddrinfo's numbers are negative: a name that does not exist will not exist later.
    socket.EAI_NONAME: Fault.PERMANENT,
    errno.ECONNREFUSED: Fault.UNREACHABLE,
    **dict.fromkeys(
        (
            *(errno.EBUSY, errno.EAGAIN, errno.EIO, errno.ETIMEDOUT),
            *(errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE),
            *(errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN),
            getattr(errno, "EREMOTEIO", errno.EIO),  # not on macOS
            *(errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM),
            socket.EAI_AGAIN,
        ),
        Fault.TRANSIENT,
    ),
}

# Looked up along the class's ancestors, nearest first.
_NAME = {
    **dict.fromkeys(
        # KeyError: what file systems that keep a dict raise FileNotFoundError from.
        ("FileNotFoundError", "NotADirectoryError", "KeyError"),
        Fault.MISSING,
    ),
    "IsADirectoryError": Fault.DIRECTORY,
    **dict.fromkeys(
        (
            *("PermissionError", "NoCredentialsError", "PartialCredentialsError"),
            *("CredentialRetrievalError", "TokenRetrievalError"),
            *("GoogleAuthError", "ClientAuthenticationError"),
        ),
        Fault.DENIED,
    ),
    **dict.fromkeys(
        (
            *("TimeoutError", "ConnectionError", "EOFError"),
            # aiohttp, botocore, urllib3, azure.core.
            *("ClientConnectionError", "ClientPayloadError", "HTTPClientError"),
            *("IncompleteReadError", "HTTPError", "ServiceRequestError", "ServiceResponseError"),
        ),
        Fault.TRANSIENT,
    ),
    **dict.fromkeys(
        # Kinds of connection errors that stay.
        ("InvalidURL", "SSLCertVerificationError", "ClientConnectorCertificateError"),
        Fault.PERMANENT,
    ),
}

# What botocore raises while it handles the exception that says why.
_NO_CONNECTION = frozenset({"EndpointConnectionError", "SSLError"})


def decode_status(status: int) -> Fault:
    """Return what an HTTP status that is not a success means.

    Examples
    --------
    >>> decode_status(404), decode_status(503), decode_status(403)
    (<Fault.MISSING: 'missing'>, <Fault.TRANSIENT: 'transient'>, <Fault.DENIED: 'denied'>)
    """
    return _STATUS.get(status, Fault.TRANSIENT if status >= 500 else Fault.PERMANENT)


def decode_failure(error: BaseException) -> Failure:
    """Return what an exception means; an unknown one is permanent.

    Parameters
    ----------
    error : BaseException
        As it came from fsspec.

    Notes
    -----
    A FileNotFoundError alone is no proof that the object is missing: fsspec's HTTP
    `info` raises it *from* whatever went wrong, dropped connections too
    (fsspec 2026.9, `HTTPFileSystem._info`), and a missing chunk would be read
    as its fill value.  So everything that it was raised from must say the same.
    Conversely, something else raised from a FileNotFoundError does not say
    that *this* object is missing.
    """
    if isinstance(error, UnusableAnswerError):
        return Failure(error.fault, str(error))
    causes = _causes(error)
    meanings = [_meaning(e) for e in (error, *causes)]
    worse = [m for m in meanings[1:] if m not in (None, Fault.MISSING)]
    fault = meanings[0] or Fault.PERMANENT
    is_vague = type(error).__name__ in _NO_CONNECTION
    if worse and (is_vague or fault in (Fault.MISSING, Fault.PERMANENT)):
        fault = worse[0] or fault
    elif fault is Fault.MISSING:
        if not isinstance(error, OSError) or _is_unclear(error.__cause__):
            fault = Fault.PERMANENT
        elif any(_code(e) == "NoSuchBucket" for e in causes):
            fault = Fault.CONTAINER
    return Failure(
        fault, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    )


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an exception, or what it was raised from, tells of."""
    for each in (error, *_causes(error)):
        status = _any_status(each)
        if status is not None:
            return status
    return None


def is_forbidden(error: BaseException) -> bool:
    """Return whether a server refused an object in the way that also means that there is none.

    Status 403; of S3 also in words, which it says of wrong keys and signatures, too.
    """
    codes = {_code(each) for each in (error, *_causes(error))} - {None}
    return status_of(error) == 403 and codes <= {"403", "AccessDenied", "Forbidden"}


def _causes(error: BaseException) -> list[BaseException]:
    # At most eight: a chain can be a ring.
    causes: list[BaseException] = []
    current = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while current is not None and len(causes) < 8:
        causes.append(current)
        current = current.__cause__
    return causes


def _is_unclear(cause: BaseException | None) -> bool:
    return cause is not None and _meaning(cause) is None


def _meaning(error: BaseException) -> Fault | None:
    if is_shortage(error):
        return Fault.TRANSIENT
    status = _status(error)
    if status is not None:
        return decode_status(status)
    if isinstance(error, OSError) and error.errno in _ERRNO:
        return _ERRNO[error.errno]
    for cls in type(error).__mro__:
        if cls.__name__ in _NAME:
            return _NAME[cls.__name__]
    # gcsfs gives a refused permission as a bare OSError.
    return Fault.DENIED if str(error).startswith(("Forbidden", "Unauthorized")) else None


def _status(error: BaseException) -> int | None:
    status = _any_status(error)
    return status if status is not None and status >= 400 else None


def _any_status(error: BaseException) -> int | None:
    # botocore: a dict.  requests, azure: an object.  aiohttp: status.  gcsfs, urllib: code.
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None)
    for name in ("status", "code", "status_code"):
        status = status if status is not None else getattr(error, name, None)
    return status if isinstance(status, int) and 300 <= status <= 599 else None


def _code(error: BaseException) -> object:
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None
