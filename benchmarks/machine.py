"""What the figures were measured on and with."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path

__all__ = ["describe_machine", "describe_versions"]

_PACKAGES = (
    "lazyarr", "numpy", "zstandard", "zarr", "zarrs", "tensorstore", "h5py", "blosc2", "numcodecs",
    "fsspec", "aiohttp", "s3fs", "obstore", "torch", "webdataset", "datasets", "litdata",
)  # fmt: skip


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def describe_machine() -> dict[str, str]:
    """Return processor, kernel, memory, load and date."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} usable",
        "memory": f"{_memory_gib():.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load at the start": "{:.2f} {:.2f} {:.2f}".format(*os.getloadavg()),
    }


def describe_versions() -> str:
    """Return the versions of Python and of every package that took part."""
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)
