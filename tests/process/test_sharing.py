"""One copy per machine: processes that were not forked have the pages of who pickled an array."""

from __future__ import annotations

import os
import signal
import socket
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tests.process.running import family, pagers, run_program, start_program, wait_until
from tests.process.test_rights import AS_NOBODY, needs_root
from tests.stores import images, write_zarr

DATA = images()

# A pick and a raw touch, once so many workers are at it; and whose pages they are.
WORKER = """
import os, pickle, subprocess, sys, time
import numpy as np, lazyarr
def meet(n_workers):
    here = os.environ["MEETING"]
    open(os.path.join(here, str(os.getpid())), "w").close()
    deadline = time.monotonic() + 60
    while len(os.listdir(here)) < n_workers and time.monotonic() < deadline: os.sched_yield()
def read(x, i):
    meet(2)
    raw = np.asarray(x)
    return os.getpid(), lazyarr.stats()["pid"], int(x[i].sum()) + int(raw[i - 9, 3, 4])
def read_pair(pair):
    return read(*pair)
"""

MAIN = """
x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
def check(found):
    expected = [int(data[i].sum()) + int(data[i - 9, 3, 4]) for i in range(64)]
    assert [total for _, _, total in found] == expected
    assert len({pid for pid, _, _ in found}) == 2, found
    assert {pager for _, pager, _ in found} == {lazyarr.stats()["pid"]}
    while (stats := lazyarr.stats())["units_loading"]: os.sched_yield()
    assert (stats["units_loaded"], stats["regions"]) == (16, 1), stats
    print("shared")
"""

WAYS = {
    **{
        method: f"""
import multiprocessing
with multiprocessing.get_context({method!r}).Pool(2) as pool:
    check(pool.map(read_pair, [(x, i) for i in range(64)], chunksize=1))
"""
        for method in ("fork", "spawn", "forkserver")
    },
    "concurrent.futures": """
import concurrent.futures, multiprocessing
context = multiprocessing.get_context("spawn")
with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
    check(list(pool.map(read, [x] * 64, range(64))))
""",
    "loky": """
import joblib
tasks = ((x[8:], i - 8) if i > 20 else (x, i) for i in range(64))
check(joblib.Parallel(2, backend="loky", batch_size=1)(joblib.delayed(read)(*t) for t in tasks))
""",
}

# Another program that gets a pickle through a pipe; `ask` sends it, and returns what it says.
READER = """
import faulthandler; faulthandler.enable(); faulthandler.dump_traceback_later(60, exit=True)
import ctypes, os, pickle, sys
import numpy as np, lazyarr
{before}
x = pickle.load(sys.stdin.buffer)
data = np.load(sys.argv[1])
raw = np.asarray(x)
assert ctypes.string_at(raw.ctypes.data, raw.nbytes) == data.tobytes()
assert (x[[60, 2]] == data[[60, 2]]).all()
{after}
print(lazyarr.stats()["pid"])
"""
ASK = """
import pickle, subprocess
from pathlib import Path
def start(script, wrapper=()):
    arguments = [sys.executable, "-W", "error", script, sys.argv[2], str(os.getpid())]
    return subprocess.Popen([*wrapper, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def send(child, x):
    child.stdin.write(x if type(x) is bytes else pickle.dumps(x)); child.stdin.close()
    return child
def finish(child):
    with child:
        return int(child.stdout.read() or -1)
def ask(script, x, wrapper=()):
    return finish(send(start(script, wrapper), x))
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sharing")
    for parent in (directory, directory.parent, directory.parent.parent):
        parent.chmod(0o755)
    return write_zarr(directory / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory, url):
    path = tmp_path_factory.mktemp("sharing") / "x.npy"
    np.save(path, DATA)
    path.parent.chmod(0o755)
    return path


@pytest.fixture
def reader(tmp_path):
    """Write another program; return its path."""

    def write(before="", after=""):
        path = tmp_path / "reader.py"
        path.write_text(READER.format(before=before, after=after))
        tmp_path.chmod(0o755)
        return path

    return write


def run_right(program, *arguments, **options):
    """Run a program that must end well; return what it has said."""
    program = ASK + textwrap.dedent(program)
    ended = run_program(program, *arguments, **options)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    return ended.stdout


# --- whose pages ------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_each_chunk_is_decompressed_once(url, copy, tmp_path, way):
    """However workers are started, they have the pages of the process that pickled the array."""
    (tmp_path / "meeting").mkdir()
    script = tmp_path / "main.py"
    body = textwrap.indent(MAIN + WAYS[way], "    ")
    script.write_text(f"{WORKER}\nif __name__ == '__main__':\n{body}")
    program = """
    import subprocess
    os.environ["MEETING"] = sys.argv[1]
    sys.exit(subprocess.call([sys.executable, *sys.argv[2:]]))
    """
    ended = run_program(program, tmp_path / "meeting", script, url, copy)
    assert (ended.returncode, ended.stdout) == (0, "shared\n"), ended.stderr


def test_an_unrelated_process_shares(url, copy, reader):
    """Whoever gets a pickle through a pipe has the same pages, and so have its own children."""
    after = """
pid = os.fork()
if pid == 0:
    x.evict()
    os._exit(0 if (np.asarray(x) == data).all() and (pickle.loads(pickle.dumps(x)) is not x) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    program = """
    x = lazyarr.open(sys.argv[1])
    pager = ask(sys.argv[3], x)
    stats = settled()
    assert pager == stats["pid"]
    print(stats["units_loaded"], stats["regions"], stats["evictions"])
    assert (np.asarray(x) == np.load(sys.argv[2])).all()
    assert settled()["units_loaded"] == 32
    """
    assert run_right(program, url, copy, reader(after=after)) == "32 1 16\n"


def test_many_processes_at_once(url, copy, reader):
    """They read at once and each unit is loaded once."""
    program = """
    x = lazyarr.open(sys.argv[1])
    readers = [start(sys.argv[3]) for _ in range(8)]
    for each in readers: send(each, x)
    assert {finish(each) for each in readers} == {lazyarr.stats()["pid"]}
    print(settled()["units_loaded"])
    """
    assert run_right(program, url, copy, reader()) == "16\n"


def test_views_and_what_they_say_of_themselves(tmp_path, copy):
    """A view of any shape arrives as it was, with the array's attributes and names."""
    program = """
    lazyarr.save(sys.argv[1], {"a/b": np.load(sys.argv[2])}, chunks=(4, 32, 128))
    import zarr
    zarr.open(sys.argv[1])["a/b"].attrs["unit"] = "m"
    zarr.create_array(sys.argv[1] + "2", data=np.load(sys.argv[2]), zarr_format=2,
                      attributes={"unit": "s", "_ARRAY_DIMENSIONS": ["t", "y", "x"]})
    arrays = [lazyarr.open(sys.argv[1])["a/b"], lazyarr.open(sys.argv[1] + "2")]
    code = '''if True:
        import pickle, sys
        import numpy as np
        for y, model in pickle.load(sys.stdin.buffer):
            attributes, names, chunks, path, url, info, view = model
            assert y.attrs == attributes, y.attrs
            assert (y.dimension_names, y.chunks, y.path, y.url) == (names, chunks, path, url)
            assert y.info.partition("memory")[0] == info
            assert (np.asarray(y) == view).all()
        import lazyarr
        print(lazyarr.stats()["regions"], lazyarr.stats()["clients"])
    '''
    views = [v for x in arrays for v in (x, x[3:50:2], x.T[5:9], x[::-1, 3], x.view("u1"))]
    models = [(v.attrs, v.dimension_names, v.chunks, v.path, v.url, v.info.partition("memory")[0],
               np.array(v)) for v in views]
    arrays[0].evict(), arrays[1].evict()
    found = subprocess.run([sys.executable, "-c", code], capture_output=True,
                           input=pickle.dumps(list(zip(views, models))))
    print(found.stdout, found.stderr)
    """
    assert run_right(program, tmp_path / "x.zarr", copy) == "b'2 2\\n' b''\n"


def test_an_array_in_the_memory_of_one_process(copy, reader):
    """Another process, which can not open it, has it through the pager."""
    program = """
    lazyarr.save("memory://x", np.load(sys.argv[2]), chunks=(4, 32, 128))
    x = lazyarr.open("memory://x")
    assert ask(sys.argv[3], x) == lazyarr.stats()["pid"]
    """
    run_right(program, "", copy, reader())


def test_a_joined_process_goes_by_the_pagers_settings(url, copy, reader):
    """It must not undo the limit that the first one has set, and can change it for all."""
    after = """
assert lazyarr.config.memory_limit == 1 << 20 == lazyarr.stats()["memory_limit"]
lazyarr.configure(memory_limit=2 << 20)
"""
    program = """
    lazyarr.configure(memory_limit=1 << 20)
    x = lazyarr.open(sys.argv[1])
    assert ask(sys.argv[3], x) == lazyarr.stats()["pid"]
    print(lazyarr.stats()["memory_limit"])
    """
    assert run_right(program, url, copy, reader(after=after)) == f"{2 << 20}\n"


def test_an_array_that_was_dropped_is_opened_in_the_same_pager(url, copy, reader):
    """Whoever comes late finds the pager, and no pages."""
    program = """
    x, keep = lazyarr.open(sys.argv[1]), lazyarr.open(sys.argv[1], mode="c")
    assert x[5].any()
    pickled = pickle.dumps(x)
    del x
    while lazyarr.stats()["regions"] > 1: os.sched_yield()
    assert ask(sys.argv[3], pickled) == lazyarr.stats()["pid"]
    """
    run_right(program, url, copy, reader())


def test_the_pages_are_those_that_were_pickled(tmp_path, copy, reader):
    """A store that is replaced meanwhile does not matter to who shares memory."""
    program = """
    data = np.load(sys.argv[2])
    lazyarr.save(sys.argv[1], data, chunks=(4, 32, 128))
    x = lazyarr.open(sys.argv[1])
    assert (np.asarray(x) == data).all()
    lazyarr.save(sys.argv[1], np.zeros((5, 5)), overwrite=True)
    assert ask(sys.argv[3], x) == lazyarr.stats()["pid"]
    """
    run_right(program, tmp_path / "x.zarr", copy, reader())


def test_an_array_that_has_become_another_one(tmp_path):
    """A place in its memory would show other elements; more rows do no harm."""
    program = """
    from lazyarr.errors import FormatError
    data = np.arange(60).reshape(10, 6)
    lazyarr.save(sys.argv[1], data)
    x, keep = lazyarr.open(sys.argv[1])[2:4], lazyarr.open(sys.argv[1], mode="c")
    pickled = pickle.dumps(x)
    del x
    while lazyarr.stats()["regions"] > 1: os.sched_yield()
    with lazyarr.writer.open_writer(sys.argv[1]) as writer: writer[""].append(data)
    assert (np.asarray(pickle.loads(pickled)) == data[2:4]).all()
    while lazyarr.stats()["regions"] > 1: os.sched_yield()
    for other in (data.reshape(6, 10), data.astype("f8"), data[:3]):
        lazyarr.save(sys.argv[1], other, overwrite=True)
        try:
            print(pickle.loads(pickled))
        except FormatError as error:
            print(str(error).partition("in file")[0])
    """
    told = "cannot open what was pickled of array '' \n"
    assert run_right(program, tmp_path / "x.zarr") == told * 3


# --- when it can not be -------------------------------------------------------------------


def test_the_pager_is_gone(url, copy, reader):
    """The array is opened anew; the name in the pickle leads nowhere."""
    program = """
    if len(sys.argv) > 4:
        sys.stdout.buffer.write(pickle.dumps(lazyarr.open(sys.argv[1])))
        sys.exit()
    pickled = subprocess.check_output(
        [sys.executable, "-c", "from lazyarr import *; import sys, pickle;"
         "sys.stdout.buffer.write(pickle.dumps(open(sys.argv[1])))", sys.argv[1]])
    ask(sys.argv[3], pickled)
    x = pickle.loads(pickled)
    assert (np.asarray(x) == np.load(sys.argv[2])).all()
    """
    run_right(program, url, copy, reader())


def test_a_process_that_has_a_pager_keeps_it(url, copy, reader):
    """One process has one pager: it opens what it is given there."""
    before = f"""
mine = lazyarr.open({str(url)!r})
assert mine[5].any()
"""
    program = """
    x = lazyarr.open(sys.argv[1])
    assert ask(sys.argv[3], x) != lazyarr.stats()["pid"]
    """
    run_right(program, url, copy, reader(before=before))


@needs_root
@pytest.mark.parametrize(
    "wrapper",
    [AS_NOBODY, ("unshare", "--net"), ("unshare", "--pid", "--fork")],
    ids=["another user", "another network", "other process ids"],
)
def test_a_process_that_must_not_share_opens_its_own(url, copy, reader, wrapper):
    """Another user's, or one in another container, can neither reach nor be watched."""
    program = f"""
    x = lazyarr.open(sys.argv[1])
    assert ask(sys.argv[3], x, {wrapper!r}) != lazyarr.stats()["pid"]
    assert lazyarr.stats()["clients"] == 1
    """
    run_right(program, url, copy, reader())


@needs_root
def test_another_user_is_turned_away(url):
    """Whoever knows the name gets nothing; what this user's process says is checked too."""
    program = """
    import socket
    x = lazyarr.open(sys.argv[1])
    name = x._region.owner.invite()
    def come(packet=b"", uid=0):
        os.seteuid(uid)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(f"\\0lazyarr-{name}")
            os.seteuid(0)
            if packet: socket.send_fds(sock, [packet], [sock.fileno()] * (b"Knock" in packet))
            try: return sock.recv(1000)
            except ConnectionResetError: return b""
    print(come(uid=65534), come(b"nonsense"))
    print(come(b'{"is": "Knock", "version": 0, "namespace": 0}'))
    assert x[5].any()
    """
    ended = run_program(program, url)
    assert ended.returncode == 0, ended.stderr
    first, second = ended.stdout.splitlines()
    assert first == "b'' b''"
    assert "Refused" in second
    assert "cannot take on a process that was not forked" in ended.stderr


def test_a_name_that_another_user_has_taken(url):
    """A socket of another user's gets no descriptors: it is not even spoken to."""
    if os.geteuid():
        pytest.skip("listening as another user needs root")
    name = "0" * 32
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.seteuid(65534)
    try:
        listener.bind(f"\0lazyarr-{name}")
        listener.listen()
    finally:
        os.seteuid(0)
    program = f"""
    from lazyarr.client.joining import join_pager
    assert join_pager({name!r}) is None
    """
    with listener:
        run_right(program)
        listener.settimeout(5)
        came, _ = listener.accept()
        with came:
            assert came.recv(100) == b""


# --- who dies -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_parent_ends_first(url, copy, reader, tmp_path, ending):
    """Who joined reads on in the same pager, and that ends with the last of them."""
    result = tmp_path / "result"
    after = f"""
open({str(tmp_path / "ready")!r}, "w").close()
while os.getppid() == int(sys.argv[2]) or lazyarr.stats()["clients"] > 1: os.sched_yield()
x.evict()
assert (np.asarray(x) == data).all()
while (stats := lazyarr.stats())["units_loading"]: os.sched_yield()
open({str(result)!r}, "w").write(str(stats["units_loaded"]))
"""
    program = f"""
    x = lazyarr.open(sys.argv[1])
    assert x[9].any()
    child = start(sys.argv[3])
    send(child, x)
    while not os.path.exists({str(tmp_path / "ready")!r}): os.sched_yield()
    {ending}
    """
    process, mark = start_program(ASK + textwrap.dedent(program), url, copy, reader(after=after))
    process.communicate(timeout=60)
    assert wait_until(lambda: result.exists() and result.read_text(), 30)
    assert result.read_text() == "32"
    assert wait_until(lambda: not pagers(mark), 5)


def test_the_worker_dies_while_a_process_comes(url, copy, reader):
    """Who waits to be let in is let in by the next worker."""
    program = """
    x = lazyarr.open(sys.argv[1])
    assert x[9].any()
    pickled = pickle.dumps(x)
    worker = lazyarr.stats()["pid"]
    stop(worker)
    child = send(start(sys.argv[3]), pickled)
    # One line for the socket that listens, one for each that has come to it.
    name = x._region.owner.name
    while Path("/proc/net/unix").read_text().count(name) < 2: os.sched_yield()
    os.kill(worker, signal.SIGKILL)
    assert finish(child) == lazyarr.stats()["pid"] != worker
    """
    ended = run_program(ASK + textwrap.dedent(program), url, copy, reader())
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "lazyarr: the pager's worker died of SIGKILL; another takes over\n"


def test_workers_die_all_the_time(url, copy, reader):
    """At whatever moment of its coming a process meets a dead worker, it reads right."""
    before = f"""
import threading
def open_too():
    for _ in range(20):
        y = lazyarr.open({str(url)!r})
        if not (y[33] == np.load(sys.argv[1])[33]).all(): os._exit(9)
"""
    after = """
again = threading.Thread(target=open_too); again.start()
for _ in range(20):
    y = pickle.loads(pickle.dumps(x))
    assert (y[33] == data[33]).all()
again.join()
"""
    program = """
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    readers = []
    def look(each): each.out = each.communicate(pickle.dumps(x))[0]
    for _ in range(12):
        each = start(sys.argv[3])
        readers.append((each, threading.Thread(target=look, args=(each,))))
        readers[-1][1].start()
    for i in range(40):
        os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
        assert (x[i] == data[i]).all()
    for _, thread in readers: thread.join()
    assert [each.returncode for each, _ in readers] == [0] * 12, readers
    assert (np.asarray(x) == data).all()
    while lazyarr.stats()["clients"] > 1: os.sched_yield()
    print(lazyarr.stats()["regions"])
    """
    script = reader(before=before, after=after)
    ended = run_program(ASK + textwrap.dedent(program), url, copy, script, seconds=150)
    assert (ended.returncode, ended.stdout) == (0, "1\n"), ended.stderr
    said = "lazyarr: the pager's worker died of SIGKILL; another takes over"
    assert set(ended.stderr.splitlines()) == {said}


def test_everything_of_the_pager_dies(url, copy, reader):
    """Whoever comes after that opens the array in a pager of its own."""
    program = """
    x = lazyarr.open(sys.argv[1])
    print(lazyarr.stats()["pid"], flush=True)
    pickled = pickle.dumps(x)
    sys.stdin.readline()
    ask(sys.argv[3], pickled)
    y = pickle.loads(pickled)
    assert (np.asarray(y) == np.load(sys.argv[2])).all()
    """
    process, mark = start_program(ASK + textwrap.dedent(program), url, copy, reader())
    worker = int(process.stdout.readline())
    for pid in (family(mark, worker)[0], worker):
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: len(pagers(mark)) == 1)
    _, stderr = process.communicate("go\n", timeout=60)
    said = "lazyarr: the pager was killed; touching what is not loaded gives SIGBUS from now on\n"
    assert (process.returncode, stderr) == (0, said)
    assert wait_until(lambda: not pagers(mark), 5)


# --- nothing stays ---------------------------------------------------------------------------


def test_nothing_is_left_of_those_who_came_and_went(url, copy, reader):
    """Descriptors and clients of pager and process are what they were; so are names of sockets."""
    program = """
    x = lazyarr.open(sys.argv[1])
    name = x._region.owner.name
    assert name not in Path("/proc/net/unix").read_text()
    worker = lazyarr.stats()["pid"]
    supervisor = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    def count():
        while lazyarr.stats()["clients"] > 1: time.sleep(0.01)
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (worker, supervisor, os.getpid())]
    ask(sys.argv[3], x)
    assert name in Path("/proc/net/unix").read_text()
    counts = [count()]
    while len(counts) < 20 or counts[-20:] != [counts[-1]] * 20:  # the supervisor forgets later
        time.sleep(0.01)
        counts.append(count())
    before = counts[-1]
    for _ in range(4):
        ask(sys.argv[3], x)
        assert pickle.loads(pickle.dumps(x))._region is x._region
        assert lazyarr.open(sys.argv[1])._region is x._region
    deadline = time.monotonic() + 30
    while any(now > then for now, then in zip(count(), before, strict=True)):
        assert time.monotonic() < deadline, (count(), before)
        time.sleep(0.01)
    print(name)
    """
    name = run_right(program, url, copy, reader()).strip()
    assert name not in Path("/proc/net/unix").read_text()


def test_region_of_another_process_is_given_back(url, copy, reader):
    """A process that joined lets go of what it drops, and of the mappings."""
    after = """
from pathlib import Path
def mapped(): return Path("/proc/self/maps").read_text().count("memfd:lazyarr")
assert mapped() == 2
pickled = pickle.dumps(x)
for _ in range(50):
    y = pickle.loads(pickled)
    assert y._region is x._region
address = x._region.address
del x, y, raw
while mapped(): os.sched_yield()
x = pickle.loads(pickled)
assert (np.asarray(x) == data).all()
"""
    program = """
    x = lazyarr.open(sys.argv[1])
    assert ask(sys.argv[3], x) == lazyarr.stats()["pid"]
    print(settled()["units_loaded"])
    """
    assert run_right(program, url, copy, reader(after=after)) == "16\n"
