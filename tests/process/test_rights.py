"""What works for users without rights, and what is said where nothing works."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.process.running import run_program
from tests.stores import images, write_zarr

DATA = images()
# Another user, with no rights but to read the files of whatever Python this is.
AS_NOBODY = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rights")
    for parent in (directory, directory.parent, directory.parent.parent):
        parent.chmod(0o755)
    return write_zarr(directory / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory, url):
    path = tmp_path_factory.mktemp("rights") / "x.npy"
    np.save(path, DATA)
    path.parent.chmod(0o755)
    return path


@needs_root
@pytest.mark.parametrize("brought", ["another process", "readahead"])
def test_system_calls_find_what_others_have_brought(url, copy, brought):
    """In user-mode-only, where a page that is not mapped here would be refused."""
    program = """
    import tempfile
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    assert not lazyarr.doctor().full_rights
    def bring():
        x.evict()
        if sys.argv[3] == "another process":
            assert in_child(lambda: None if read_all(x) == data.tobytes() else sys.exit(1)) == 0
        else:
            for row in range(20): assert int(np.asarray(x)[row, 1, 2]) == data[row, 1, 2]
        settled()
    def write(write):
        bring()
        with tempfile.TemporaryFile(buffering=0) as file:
            write(file)
            file.seek(0)
            return file.read()
    def write_prefetched(file):
        x.prefetch()
        os.write(file.fileno(), np.asarray(x))
    assert write(x.tofile) == data.tobytes()
    assert write(lambda file: np.save(file, x))[128:] == data.tobytes()
    assert write(write_prefetched) == data.tobytes()
    if sys.version_info >= (3, 12):
        assert write(lambda file: os.write(file.fileno(), x)) == data.tobytes()
    """
    ended = run_program(program, url, copy, brought, wrapper=AS_NOBODY)
    assert (ended.returncode, ended.stderr) == (0, "")


@needs_root
def test_a_user_without_rights_reads_everything(url, copy):
    """In user-mode-only picks, raw touches, children and writing to files work."""
    program = """
    import tempfile
    assert os.geteuid() == 65534
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
    assert not lazyarr.doctor().full_rights
    assert (x[[5, 60]] == data[[5, 60]]).all()
    assert int(np.asarray(x)[30, 1, 2]) == data[30, 1, 2]
    assert in_child(lambda: None if read_all(x) == data.tobytes() else sys.exit(1)) == 0
    x.evict()
    with tempfile.TemporaryFile() as file:
        x.tofile(file)
        np.save(file, x)
        assert file.tell() == 2 * x.nbytes + 128
    x.evict()
    import socket
    if sys.version_info < (3, 12):
        x.prefetch(slice(9, 12))  # nobody asks an array of Python 3.11 before it is sent
    here, there = socket.socketpair()
    with here, there:
        here.sendall(x[9:12])
        received = there.recv(x[9:12].nbytes, socket.MSG_WAITALL)
    assert received == data[9:12].tobytes()
    x.evict()
    with tempfile.TemporaryFile(buffering=0) as file:
        try:
            os.write(file.fileno(), np.asarray(x)[9:12])
        except OSError as error:
            print(error.errno)
    """
    ended = run_program(program, url, copy, wrapper=AS_NOBODY)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "14\n")


REFUSE_USERFAULTFD = """
    import struct
    number = {"x86_64": 323, "aarch64": 282}[os.uname().machine]
    # load the call's number; equal: return EPERM; else allow (seccomp(2), BPF).
    code = b"".join(struct.pack("HBBI", *op) for op in [
        (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)])
    buffer = ctypes.create_string_buffer(code)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    program = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
    assert libc.prctl(22, 2, ctypes.create_string_buffer(program)) == 0, ctypes.get_errno()
"""


@needs_root
def test_a_kernel_that_refuses_is_explained(url):
    """Where an engine is wanted that can not be had, the error names what is missing, and why."""
    program = f"""
    {REFUSE_USERFAULTFD}
    lazyarr.configure(engine="userfaultfd")
    try:
        lazyarr.open(sys.argv[1])
    except lazyarr.KernelUnsupportedError as error:
        assert error.remedy and error.missing, vars(error)
        print(error)
    """
    ended = run_program(program, url, wrapper=AS_NOBODY)
    assert ended.returncode == 0, ended.stderr
    assert "cannot open userfaultfd" in ended.stdout
    assert "lazyarr doctor" in ended.stdout


@needs_root
def test_where_the_kernel_refuses_arrays_copy(url, copy):
    """Everything can be read, after one warning that says why and what to do; no pager stays."""
    program = f"""
    {REFUSE_USERFAULTFD}
    import pickle, warnings
    data = np.load(sys.argv[2])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x = lazyarr.open(sys.argv[1])
        y = lazyarr.open(sys.argv[1])
        z = pickle.loads(pickle.dumps(x[3:9]))
    assert [type(a) for a in (x, y, z)] == [lazyarr.CopyArray] * 3
    (warning,) = caught
    assert warning.category is lazyarr.EngineWarning
    assert warning.filename == "<string>", warning
    assert (x[[5, 60]] == data[[5, 60]]).all() and (z[2] == data[5]).all()
    assert (np.asarray(y) == data).all()
    assert in_child(lambda: None if (lazyarr.open(sys.argv[1])[7] == data[7]).all() else 1 / 0) == 0
    assert lazyarr.stats()["units_loaded"] > 0
    assert not lazyarr.doctor().usable
    try:
        print(os.wait())
    except ChildProcessError:
        print("no children")
    print(warning.message)
    """
    ended = run_program(program, url, copy, wrapper=AS_NOBODY)
    assert (ended.returncode, ended.stderr) == (0, "")
    children, message = ended.stdout.splitlines()
    assert children == "no children"
    for words in ("cannot open userfaultfd", "lazyarr doctor", "LAZYARR_ENGINE=copy", "--device"):
        assert words in message
