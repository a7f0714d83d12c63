"""``lazyarr doctor``: what this kernel allows this user, and what mends it."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING, Any

import click

from lazyarr.cli.options import json_option
from lazyarr.cli.output import print_json, print_text
from lazyarr.client.arrays.text import columns

if TYPE_CHECKING:
    from lazyarr.kernel import KernelSupport
    from lazyarr.kernel.diagnosis import Attempt

__all__ = ["doctor"]

_ABILITIES = {
    "missing_shmem": "memory that fills on touch",
    "minor_shmem": "one copy for all worker processes",
    "poison": "a chunk that cannot be read stops its reader",
    "wp_shmem": "writes are noticed",
    "write_back": "arrays can be written to (mode 'r+')",
    "thread_id": "faults name their thread",
}


@click.command()
@json_option
def doctor(*, as_json: bool) -> None:
    """Say whether memory can fill on touch here, and what to do if not.

    The exit code is 1 when it cannot: then arrays copy what is read.
    """
    from lazyarr.memory import doctor as examine

    support = examine()
    if as_json:
        print_json(_document(support))
    else:
        print_text("\n".join(_lines(support)))
    sys.exit(0 if support.usable else 1)


def _lines(support: KernelSupport) -> list[str]:
    rows = [
        ("verdict", _verdict(support)),
        ("kernel", f"Linux {support.release} {support.machine}, {support.page_nbytes}-byte pages"),
        *((f"  {_way(attempt)}", _outcome(attempt)) for attempt in support.attempts),
        *((f"  {name}", _ability(support, name)) for name in _ABILITIES),
        ("surroundings", _surroundings(support)),
        ("missing", ", ".join(support.missing) or "nothing"),
        ("what to do", support.remedy or "nothing: all is well"),
    ]
    return list(columns(rows))


def _verdict(support: KernelSupport) -> str:
    if not support.usable:
        return "arrays CANNOT be memory here, they copy what is read: no userfaultfd opens"
    if support.full_rights:
        return "lazyarr works here"
    return (
        "lazyarr works here, with one limit: system calls on memory that is not loaded yet "
        "(write, send) give EFAULT; call prefetch() on it first"
    )


def _ability(support: KernelSupport, name: str) -> str:
    return f"{'yes' if getattr(support, name) else 'no'}: {_ABILITIES[name]}"


def _way(attempt: Attempt) -> str:
    name = "/dev/userfaultfd" if attempt.way.source == "dev" else "userfaultfd()"
    return f"{name} user-mode-only" if attempt.way.user_mode_only else name


def _outcome(attempt: Attempt) -> str:
    return "opens" if attempt.errno is None else f"refused: {_errno_name(attempt.errno)}"


def _errno_name(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def _surroundings(support: KernelSupport) -> str:
    seccomp = {0: "no system call filter", None: "system call filter unknown"}
    filtered = seccomp.get(support.surroundings.seccomp, "a system call filter, as in containers")
    return f"{filtered}, gVisor" if support.surroundings.gvisor else filtered


def _document(support: KernelSupport) -> dict[str, Any]:
    from lazyarr.kernel.diagnosis import feature_names

    return {
        "usable": support.usable,
        "full_rights": support.full_rights,
        "release": support.release,
        "machine": support.machine,
        "page_nbytes": support.page_nbytes,
        "attempts": [
            {
                "source": attempt.way.source,
                "user_mode_only": attempt.way.user_mode_only,
                "errno": None if attempt.errno is None else _errno_name(attempt.errno),
            }
            for attempt in support.attempts
        ],
        "features": feature_names(support.features),
        **{name: getattr(support, name) for name in _ABILITIES},
        "seccomp": support.surroundings.seccomp,
        "gvisor": support.surroundings.gvisor,
        "missing": support.missing,
        "remedy": support.remedy,
    }
