"""Programs of tests/cli and of tests/test_verification.py that say what something has taken."""

import resource
import sys

import lazyarr


def opening_imports_no_command_line(url):
    x = lazyarr.open(url)
    x[5], x.sum(), x.info
    print([name for name in ("click", "tqdm", "lazyarr.cli") if name in sys.modules])


def verifying_takes(path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lazyarr.verify(path, progress=False)
    lazyarr.verify(path, progress=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
