"""Conversions that end half-way."""

from __future__ import annotations

import os
import signal
import subprocess

import numpy as np

import lazyarr
from lazyarr.cli import exporting, main
from lazyarr.formats.zarr import defaults
from lazyarr.writer import zipped
from lazyarr.writer.new_file import NewFile


def a_conversion_is_killed(src, dst, n_parts, *options):
    """End by SIGKILL when so many parts of a mebibyte of a file are written."""
    defaults.SHARD_NBYTES = exporting._KEPT_NBYTES = zipped._KEPT_NBYTES = 1 << 20
    keep, states = NewFile.keep, []

    def keep_and_end(self, state):
        keep(self, state)
        states.append(state)
        if len(states) == int(n_parts):
            os.kill(os.getpid(), signal.SIGKILL)

    NewFile.keep = keep_and_end
    main(["convert", "-q", src, dst, *options])


def a_conversion_goes_on_when_there_is_room(src, directory, suffix, *options):
    """Have a file system become full, and larger, and compare what was made on it."""
    defaults.SHARD_NBYTES = exporting._KEPT_NBYTES = 1 << 20
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", directory], check=True)
    dst = os.path.join(directory, f"x{suffix}")
    arguments = ["convert", "-q", "--no-check", src, dst, *options]
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code == 1
    subprocess.run(["mount", "-o", "remount,size=99m", directory], check=True)
    main(arguments, standalone_mode=False)
    np.testing.assert_array_equal(np.asarray(lazyarr.open(dst)), np.load(src))
    print(os.listdir(directory))
