"""Opening a userfaultfd by the best way that this user has, and probing for one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lazyarr.kernel.descriptor import WAYS, Offer, Way, open_descriptor, shake_hands
from lazyarr.kernel.diagnosis import (
    Attempt,
    Surroundings,
    parse_surroundings,
    unopenable,
    unsupported_features,
)
from lazyarr.kernel.refusal import refusal
from lazyarr.kernel.uapi import Features
from lazyarr.shortage import describe_shortage, is_shortage

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["attempt_way", "open_shaken", "read_surroundings"]


def read_surroundings() -> Surroundings:
    """Return what /proc tells of seccomp and gVisor."""
    return parse_surroundings(_read_text("/proc/self/status"), _read_text("/proc/version"))


def attempt_way(way: Way) -> tuple[Attempt, Offer | None]:
    """Return whether one way opens, and what the kernel offers then; keeps nothing open.

    Raises
    ------
    KernelError
        EMFILE, ENFILE, ENOMEM: that says nothing of the way.
    """
    # Opened, asked and closed: the handshake of a descriptor that will be used must
    # name its features, and they are known only after one.
    try:
        fd = open_descriptor(way)
    except OSError as error:
        # Arrays would copy for the rest of the process, with a warning that names the
        # wrong cause, if a full table of descriptors were taken for a kernel without
        # userfaultfd.
        _refuse_shortage(error)
        return Attempt(way, error.errno), None
    try:
        return Attempt(way, None), shake_hands(fd, Features(0))
    except OSError as error:
        return Attempt(way, error.errno), None
    finally:
        os.close(fd)


def open_shaken(features: Features, ways: Sequence[Way] = WAYS) -> tuple[int, Way]:
    """Return a descriptor with features on, and the way that opened it.

    Raises
    ------
    KernelUnsupportedError
        No way opens, or the kernel lacks a feature.
    KernelError
        EMFILE, ENFILE, ENOMEM.
    """
    attempts = []
    for way in ways:
        try:
            fd = open_descriptor(way)
        except OSError as error:
            _refuse_shortage(error)
            attempts.append(Attempt(way, error.errno))
            continue
        _shake_or_close(fd, way, features)
        return fd, way
    raise unopenable(attempts, read_surroundings())


def _refuse_shortage(error: OSError) -> None:
    """Raise an error of which it cannot be concluded that userfaultfd is not to be had."""
    if is_shortage(error):
        message = f"cannot open userfaultfd: {describe_shortage(error)}"
        raise refusal(message, error.errno or 0) from error


def _shake_or_close(fd: int, way: Way, features: Features) -> None:
    try:
        shake_hands(fd, features)
    except OSError as error:
        os.close(fd)
        # A refused handshake does not say which bit it was: a second one asks for none.
        _, offer = attempt_way(way)
        offered = offer.features if offer else Features(0)
        raise unsupported_features(features, offered, error.errno or 0) from None


def _read_text(path: str) -> str:
    try:
        # Not pathlib: it takes 7 ms to import, in every process that lazyarr starts.
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
