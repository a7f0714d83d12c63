"""Errors of calls to the kernel, as lazyarr's exceptions."""

from __future__ import annotations

import errno
import os

from lazyarr.errors import KernelError

__all__ = ["describe_errno", "refusal"]


def describe_errno(number: int) -> str:
    """Return an errno's name and meaning.

    Examples
    --------
    >>> describe_errno(22)
    'EINVAL (Invalid argument)'
    """
    return f"{errno.errorcode.get(number, f'errno {number}')} ({os.strerror(number)})"


def refusal(message: str, number: int) -> KernelError:
    """Return, for the caller to raise, the error of a call that the kernel refused."""
    error = KernelError(message, errno=number)
    # OSError keeps its errno in a slot of its own, which hides a field of that name.
    error.errno = number
    return error
