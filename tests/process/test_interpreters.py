"""Which program becomes the pager, and what is done where none does."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process.running import end_program, ended_by, pagers, run_program, start_program
from tests.process.test_rights import needs_root
from tests.programs import interpreters as programs
from tests.stores import images, write_zarr

DATA = images()
FIFTH = f"{DATA[5].sum()}\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("pythons") / "x.zarr", DATA, chunks=(4, 32, 128))


def write_program(path: Path, text: str) -> Path:
    """Write a program that can be run by its path; return that."""
    path.write_text(textwrap.dedent(text))
    path.chmod(0o755)
    return path


def engine_of(program: Callable[..., object], *arguments: object) -> tuple[str, str]:
    """Run a program that opens and reads; return the array's class, and what was said."""
    ended = run_program(program, *arguments)
    assert ended.returncode == 0, ended.stderr
    kind, total, said = (*ended.stderr.strip().split(" ", 2), "")[:3]
    assert int(total) == DATA[5].sum()
    return kind, said


# --- an interpreter is found ------------------------------------------------------------


@pytest.mark.parametrize("found", ["''", "None", "'/usr/sbin/uwsgi'", "'/nowhere/python3'", "b''"])
def test_another_interpreter_is_found_where_sys_executable_is_none(url, found):
    """Empty, missing, or the program that Python is embedded in: that is not run."""
    assert engine_of(programs.with_executable, url, found) == ("LazyArray", "")


def test_a_program_that_is_not_called_python_is_not_run(url, tmp_path):
    """It would be a web server, or whatever it is, with arguments that are not its own."""
    trap = write_program(tmp_path / "uwsgi", f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    kind, said = engine_of(programs.with_executable, url, repr(str(trap)))
    assert (kind, said) == ("LazyArray", "")
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("way", ["environment", "configure", "search path", "multiprocessing"])
def test_the_interpreter_can_be_set(url, tmp_path, way):
    """By a setting, or as for multiprocessing."""
    named = "python" if way == "multiprocessing" else "mine"
    log = tmp_path / "log"
    mine = write_program(
        tmp_path / named, f'#!/bin/sh\necho run >>"{log}"\nexec "{sys.executable}" "$@"\n'
    )
    assert engine_of(programs.with_interpreter_set, url, way, mine) == ("LazyArray", "")
    assert log.read_text() == "run\n"


def test_an_interpreter_is_sought_for_every_process_that_begins(url, tmp_path):
    """Who joins a pager with an interpreter of its own keeps to its own setting."""
    ended = run_program(programs.an_interpreter_is_sought_for_every_process_that_begins, url)
    assert (ended.returncode, ended.stdout.split()) == (0, ["None", FIFTH.strip()]), ended.stderr


# --- none is ------------------------------------------------------------------------------

IMPOSTORS = {
    "ends at once": "#!/bin/false\n",
    "does not answer": '#!/bin/sh\necho $$ >"$0.pid"\nexec sleep 1000\n',
    "is no program": "",
    "is another Python": f"#!{sys.executable}\nimport os; os.write(3, b'cpython-27')\n",
}


def test_without_any_interpreter_arrays_copy(url):
    """After the warning that says what mends it."""
    kind, said = engine_of(programs.without_any_interpreter_arrays_copy, url)
    assert kind == "CopyArray"
    assert "cannot start the pager: sys.executable is None, and no Python interpreter" in said
    assert "LAZYARR_PYTHON" in said


@pytest.mark.parametrize("what", IMPOSTORS)
def test_what_does_not_answer_as_a_pager_is_left(url, tmp_path, what):
    """It is found out before anything can be touched, and what was started is ended."""
    python = write_program(tmp_path / "python", IMPOSTORS[what])
    kind, said = engine_of(programs.what_does_not_answer_as_a_pager_is_left, url, python)
    assert kind == "CopyArray"
    assert str(python) in said
    assert "LAZYARR_PYTHON" in said
    if what == "does not answer":
        pid = int(Path(f"{python}.pid").read_text())
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("what", IMPOSTORS)
@pytest.mark.parametrize("way", ["engine", "python"])
def test_who_has_chosen_gets_the_error(url, tmp_path, what, way):
    """The engine that fills memory, or the interpreter: nothing else is taken for it."""
    python = write_program(tmp_path / "python", IMPOSTORS[what])
    ended = run_program(programs.who_has_chosen_gets_the_error, url, way, python)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.count(f"cannot start the pager: {python}") == 2


def test_a_pager_that_cannot_be_renewed_is_an_error(url, tmp_path):
    """Arrays that copy do not come between those that are memory."""
    ended = run_program(programs.a_pager_that_cannot_be_renewed_is_an_error, url)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("cannot start the pager: sys.executable is None")


# It is started without arguments, as its own interpreter: its paths are in its text.
APP = """
import sys, warnings, lazyarr
with open({log!r}, "a") as log:
    log.write("run\\n")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    x = lazyarr.open({url!r})
    print(type(x).__name__, x[5].sum(), *(w.message for w in said), file=sys.stderr)
"""


def test_a_program_does_not_start_itself_again_and_again(url, tmp_path):
    """Where the interpreter turns out to be the program, it runs once more and no more."""
    log, app, python = (tmp_path / name for name in ("log", "app.py", "python"))
    app.write_text(APP.format(log=str(log), url=str(url)))
    write_program(python, f'#!/bin/sh\nexec "{sys.executable}" "{app}"\n')
    process, mark = start_program(
        programs.a_program_does_not_start_itself_again_and_again, app, python
    )
    try:
        _, stderr = process.communicate(timeout=60)
    finally:
        end_program(process)
    assert process.returncode == 0, stderr
    assert log.read_text() == "run\n" * 2
    assert stderr.count("CopyArray") == 2
    assert not pagers(mark)


# --- frozen programs ------------------------------------------------------------------------

# As PyInstaller's are: sys.executable is the program, which runs its main module whatever
# its arguments are.  A text that is written, for the file itself is what is run.
FROZEN = """#!{python}
import os, sys
sys.frozen, sys.executable = True, os.path.abspath(__file__)
with open({log!r}, "a") as log: log.write(" ".join(sys.argv[1:2]) + "\\n")
import lazyarr
{support}
if sys.argv[1:2] == ["--multiprocessing-fork"] or len(sys.argv) > 2:
    sys.exit(3)
import warnings
warnings.simplefilter("ignore")
x = lazyarr.open(sys.argv[1])
print(type(x).__name__, x[5].sum())
"""


@pytest.mark.parametrize("support", ["lazyarr.freeze_support()", ""])
def test_a_frozen_program_becomes_its_own_pager_where_it_is_prepared_for_that(
    url, tmp_path, support
):
    """Elsewhere it is not started, not even once."""
    log = tmp_path / "log"
    text = FROZEN.format(python=sys.executable, log=str(log), support=support)
    app = write_program(tmp_path / "app", text)
    ended = run_program(programs.a_program_that_starts_another, app, url)
    assert ended.returncode == 0, ended.stderr
    kind, total = ended.stdout.split()
    assert (kind, int(total)) == ("LazyArray" if support else "CopyArray", DATA[5].sum())
    starts = [str(url), *(["--lazyarr-pager"] if support else [])]
    assert sorted(log.read_text().split()) == sorted(starts)


def test_freeze_support_does_nothing_elsewhere(url):
    """Also where an argument of the program happens to be the pager's."""
    assert engine_of(programs.freeze_support_does_nothing_elsewhere, url) == ("LazyArray", "")


# --- what else a start needs ------------------------------------------------------------------


@pytest.mark.parametrize("strange", ["None", "5", "[]"])
def test_what_is_no_path_among_the_import_paths_is_named(url, strange):
    """Importing passes over it without a word."""
    ended = run_program(programs.what_is_no_path_among_the_import_paths_is_named, url, strange)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "sys.path has entries that name no directory" in ended.stdout
    assert ended.stdout.count(strange) == 1


def test_import_paths_of_any_kind_reach_the_pager(url):
    """Paths that are no str, and those that begin at the working directory, of which "" is none."""
    ended = run_program(programs.import_paths_of_any_kind_reach_the_pager, url)
    assert ended.returncode == 0, ended.stderr


@needs_root
def test_without_a_null_device_the_error_names_it(url):
    """The kernel's error is one that could be any file's."""
    wrapper = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh")
    ended = run_program(programs.without_a_null_device_the_error_names_it, url, wrapper=wrapper)
    assert ended_by(ended) == "0", ended.stderr
    assert "there is no /dev/null" in ended.stdout
