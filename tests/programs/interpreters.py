"""Programs of tests/process/test_interpreters.py.

Whether a process has imported `multiprocessing` is a difference to lazyarr: it is not at the top.
"""

from __future__ import annotations

import ast
import os
import pickle
import runpy
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import lazyarr
from lazyarr.client.session import launch


def say_engine(url):
    """Say which engine an array has, what its row holds, and which warnings came with it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        x = lazyarr.open(url)
        print(type(x).__name__, x[5].sum(), *(w.message for w in said), file=sys.stderr)


def say_error(url):
    """Say why an array cannot be opened."""
    try:
        lazyarr.open(url)
    except lazyarr.PagerError as error:
        print(error)


def leave_no_interpreter():
    sys.executable = sys._base_executable = None
    sys.exec_prefix = sys.base_exec_prefix = "/nowhere"


def with_executable(url, literal):
    sys.executable = sys._base_executable = ast.literal_eval(literal)
    say_engine(url)


def with_interpreter_set(url, way, path):
    if way == "environment":
        os.environ["LAZYARR_PYTHON"] = path
    elif way == "configure":
        lazyarr.configure(python=path)
    elif way == "search path":
        os.environ["PATH"] += os.pathsep + os.path.dirname(path)
        lazyarr.configure(python=os.path.basename(path))
    else:
        import multiprocessing

        multiprocessing.set_executable(path)
    say_engine(url)


def an_interpreter_is_sought_for_every_process_that_begins(url):
    lazyarr.configure(python=sys.executable)
    x = lazyarr.open(url)
    command = [sys.executable, "-m", "tests.programs", "interpreters:say_array"]
    print(subprocess.check_output(command, input=pickle.dumps(x)).decode())


def say_array():
    x = pickle.load(sys.stdin.buffer)
    print(lazyarr.config.python, x[5].sum())


def without_any_interpreter_arrays_copy(url):
    leave_no_interpreter()
    say_engine(url)


def what_does_not_answer_as_a_pager_is_left(url, python):
    launch._SIGN_SECONDS = 2.0
    sys.executable = python
    say_engine(url)


def who_has_chosen_gets_the_error(url, way, python):
    launch._SIGN_SECONDS = 2.0
    if way == "engine":
        sys.executable = python
        lazyarr.configure(engine="userfaultfd")
    else:
        lazyarr.configure(python=python)
    for _ in range(2):
        say_error(url)


def a_pager_that_cannot_be_renewed_is_an_error(url):
    x = lazyarr.open(url)
    assert x[5].any()
    worker = lazyarr.stats()["pid"]
    supervisor = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    leave_no_interpreter()
    os.kill(supervisor, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    while not x._region.owner._control.is_hung_up():
        os.sched_yield()
    say_error(url)


def a_program_does_not_start_itself_again_and_again(app, python):
    sys.executable = python
    runpy.run_path(app, run_name="__main__")


def a_program_that_starts_another(*command):
    print(subprocess.check_output(command, text=True))


def freeze_support_does_nothing_elsewhere(url):
    sys.argv.insert(1, "--lazyarr-pager")
    lazyarr.freeze_support()
    del sys.argv[1]
    say_engine(url)


def what_is_no_path_among_the_import_paths_is_named(url, literal):
    sys.path.append(ast.literal_eval(literal))
    say_error(url)


def import_paths_of_any_kind_reach_the_pager(url):
    sys.path += [Path("/nowhere/a"), b"/nowhere/b", "c", ""]
    x = lazyarr.open(url)
    assert x[5].any()
    worker = lazyarr.stats()["pid"]
    paths = Path(f"/proc/{worker}/cmdline").read_text().split("\0")
    assert paths[-5:-2] == ["/nowhere/a", "/nowhere/b", str(Path.cwd() / "c")], paths


def without_a_null_device_the_error_names_it(url):
    say_error(url)
