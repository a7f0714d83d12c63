"""`lazyarr convert`, stopped half-way in any way, and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import zarr

import lazyarr
from lazyarr.writer.place import NewPrefix
from lazyarr.writer.staging import StagedDirectory
from tests.cli.running import run, run_command
from tests.process.running import run_program
from tests.process.test_rights import needs_root
from tests.programs import conversions as programs
from tests.stores import images

DATA = images((256, 64, 256))  # 8 MiB
OPTIONS = ("--chunks", 4, "--shards", "none")  # 64 objects


@pytest.fixture
def src(tmp_path):
    np.save(tmp_path / "x.npy", DATA)
    return tmp_path / "x.npy"


@pytest.fixture
def dst(tmp_path):
    return tmp_path / "out.zarr"


def objects(directory):
    """Return the inodes of the objects below a directory, by their keys."""
    found = {}
    for path in directory.rglob("*"):
        if path.is_file() and "c" in path.relative_to(directory).parts:
            found[str(path.relative_to(directory))] = path.stat().st_ino
    return found


def staging(dst):
    """Return the hidden directory in which a store is written, None where there is none."""
    # Beside it one without a plan is for a moment that of a writer which looks for this one.
    found = [path.parent for path in dst.parent.glob(f".{dst.name}.partial-*/plan")]
    assert len(found) <= 1
    return found[0] if found else None


def stop(src, dst, n_objects, sent=signal.SIGKILL, *options):
    """Stop a conversion as soon as there are so many objects; return how it ended, and those."""
    command = [sys.executable, "-m", "lazyarr", "convert", str(src), str(dst), *map(str, options)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            beside = staging(dst) if not dst.exists() else None
            if beside is not None and len(objects(beside / "store")) >= n_objects:
                process.send_signal(sent)
                break
            time.sleep(0.002)
        _, stderr = process.communicate(timeout=60)
    beside = staging(dst)
    return process.returncode, stderr, objects(beside / "store") if beside else None


def assert_is_data(dst, data=DATA):
    """Compare a store with what zarr-python reads of it, and with nothing left beside it."""
    np.testing.assert_array_equal(zarr.open_array(str(dst), mode="r")[...], data)
    assert not [*dst.parent.glob(f".{dst.name}.partial-*")]


def test_a_conversion_that_is_killed_again_and_again_goes_on_where_it_was(src, dst):
    """What was written is not written again: each object that was there is the same file."""
    kept = {}
    for n_objects in (1, 20, 45):
        code, _, left = stop(src, dst, n_objects, signal.SIGKILL, *OPTIONS)
        assert code == -signal.SIGKILL
        assert not dst.exists()
        assert len(left) >= n_objects
        assert kept.items() <= left.items()
        kept = left
    result = run("convert", "-q", src, dst, *OPTIONS)
    assert result.exit_code == 0, result.stderr
    assert f"kept {len(kept)} objects that had been written" in result.stderr
    assert kept.items() <= objects(dst).items()
    assert_is_data(dst)


def test_a_conversion_goes_on_after_ctrl_c(src, dst):
    """Which says so, and how many bytes are done counts what was there."""
    code, stderr, left = stop(src, dst, 10, signal.SIGINT, *OPTIONS)
    assert code == 1
    assert "the same command goes on from here" in stderr
    assert "nothing new is kept" not in stderr
    done = run_command("convert", src, dst, *OPTIONS)
    assert done.returncode == 0
    assert "8.00M/8.00M" in done.stderr
    assert left.items() <= objects(dst).items()
    assert_is_data(dst)


def test_objects_larger_than_what_is_read_at_once_are_whole_or_not_there(src, dst, monkeypatch):
    """Shards are put when their last part has come; one that was put is skipped in all parts."""
    monkeypatch.setattr("lazyarr.writer.boxes.SHARD_NBYTES", 1 << 20)
    options = ("--chunks", 4, "--shards", 128)  # 4 MiB each, in four parts

    def stop_at_the_second(self, key, parts):
        if key == "c/1/0/0":
            raise KeyboardInterrupt
        put(self, key, parts)

    put = StagedDirectory.put
    with monkeypatch.context() as context:
        context.setattr(StagedDirectory, "put", stop_at_the_second)
        assert run("convert", "-q", src, dst, *options).exit_code == 1
    left = objects(staging(dst) / "store")
    assert left.keys() == {"c/0/0/0"}
    result = run("convert", "-q", src, dst, *options)
    assert "kept 1 object that" in result.stderr
    assert left.items() <= objects(dst).items()
    assert_is_data(dst)


def test_it_does_not_go_on_with_something_else(src, dst):
    """Other options and a source that has changed are refused, until it is to begin anew."""
    _, _, left = stop(src, dst, 3, signal.SIGKILL, *OPTIONS)
    other = run("convert", "-q", src, dst, *OPTIONS, "--compressor", "blosc")
    np.save(src, DATA[::-1])
    changed = run("convert", "-q", src, dst, *OPTIONS)
    for result, why in ((other, "with other options"), (changed, "its source has changed")):
        assert result.exit_code == 1
        assert why in result.stderr
        assert "pass --restart" in result.stderr
    assert left.items() <= objects(staging(dst) / "store").items()
    result = run("convert", "-q", "--restart", src, dst, *OPTIONS)
    assert result.exit_code == 0
    assert "kept" not in result.stderr
    assert_is_data(dst, DATA[::-1])


@pytest.mark.parametrize("name", ["out.zarr", "out.npz"])
def test_a_source_that_changes_while_it_is_read_is_an_error(src, tmp_path, monkeypatch, name):
    """Of what was written nobody knows what it is."""
    from lazyarr.cli import converting, exporting

    def touch(*_):
        os.utime(src, ns=(0, 1))

    monkeypatch.setattr(converting, "_check", touch)
    monkeypatch.setattr(exporting, "_check", touch)
    result = run("convert", "-q", src, tmp_path / name)
    assert result.exit_code == 1
    assert "has changed while it was read" in result.stderr
    assert "goes on" not in result.stderr
    assert not (tmp_path / name).exists()


def test_every_chunk_of_a_directory_counts_as_its_source(tmp_path, dst):
    """Whichever of its files has changed."""
    src = tmp_path / "s.zarr"
    lazyarr.save(src, {"x": DATA, "y": np.arange(5)}, shards={"x": 64})
    stop(src, dst, 3, signal.SIGKILL, "--shards", "none")
    (src / "y" / "c" / "loop").symlink_to(src)
    path = src / "y" / "c" / "0"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    result = run("convert", "-q", src, dst, "--shards", "none")
    assert result.exit_code == 1
    assert "its source has changed" in result.stderr


def test_what_was_written_is_compared_before_it_is_seen(src, dst):
    """An object that another one has come in place of is intact, and still found out."""
    stop(src, dst, 8, signal.SIGKILL, *OPTIONS)
    store = staging(dst) / "store"
    first, second, *_ = sorted(objects(store))
    (store / second).write_bytes((store / first).read_bytes())
    result = run("convert", "-q", src, dst, *OPTIONS)
    assert result.exit_code == 1
    assert "is not what was read of it, in [" in result.stderr
    os.truncate(store / second, 20)
    result = run("convert", "-q", src, dst, *OPTIONS)
    assert result.exit_code == 1
    assert "does not come back: chunk (" in result.stderr
    assert "begin anew with --restart" in result.stderr
    assert not dst.exists()
    # Damaged objects are found by those who read them then.
    assert run("convert", "-q", "--no-check", src, dst, *OPTIONS).exit_code == 0
    assert [error.key for error in lazyarr.verify(dst, progress=False).damaged] == [second]


def test_an_old_store_stays_until_the_conversion_that_was_stopped_is_done(src, dst):
    """With --overwrite, from the first attempt to the last."""
    lazyarr.save(dst, np.arange(7))
    command = [sys.executable, "-m", "lazyarr", "convert", "--overwrite", str(src), str(dst)]
    with subprocess.Popen([*command, *map(str, OPTIONS)]) as process:
        while process.poll() is None:
            beside = staging(dst)
            if beside is not None and len(objects(beside / "store")) >= 5:
                process.kill()
            time.sleep(0.002)
    left = objects(staging(dst) / "store")
    assert lazyarr.open(dst).tolist() == list(range(7))
    assert run("convert", "-q", "--overwrite", src, dst, *OPTIONS).exit_code == 0
    assert left.items() <= objects(dst).items()
    assert_is_data(dst)


def test_a_conversion_to_an_object_store_goes_on_too(src, s3_bucket, s3_server, monkeypatch):
    """Objects that were put are put no second time."""
    import s3fs

    options = ["--dst-storage-options", json.dumps(s3_server.storage_options)]
    where = f"{s3_bucket}/resumed.zarr"
    files = s3fs.S3FileSystem(**s3_server.storage_options, use_listings_cache=False)

    def keys():
        return {name.partition("resumed.zarr/")[2] for name in files.find(where) if "/c/" in name}

    command = ["convert", "-q", src, where, "--chunks", 8, "--shards", "none", *options]
    with subprocess.Popen([sys.executable, "-m", "lazyarr", *map(str, command)]) as process:
        while process.poll() is None and len(keys()) < 3:
            time.sleep(0.01)
        process.kill()
    left = keys()
    assert 3 <= len(left) < 32
    other = run("convert", "-q", src, where, "--chunks", 4, *options)
    assert (other.exit_code, "other options" in other.stderr) == (1, True)

    puts = []
    put = NewPrefix.put
    monkeypatch.setattr(
        NewPrefix, "put", lambda self, key, parts: puts.append(key) or put(self, key, parts)
    )
    done = run(*command)
    assert done.exit_code == 0, done.stderr
    assert f"kept {len(left)} objects that" in done.stderr
    assert sorted(puts) == sorted((keys() - left) | {"zarr.json"})
    found = lazyarr.open(where, storage_options=s3_server.storage_options)
    np.testing.assert_array_equal(np.asarray(found), DATA)
    assert not files.exists(f"{where}/.lazyarr-partial")


# --- files ------------------------------------------------------------------------------


ARRAYS = {
    "a": DATA[:80, :, :250],
    "empty": np.zeros((0, 3), "i2"),
    "g/b": np.arange(1 << 19, dtype="f8").reshape(1 << 9, 1 << 10),
}


@pytest.fixture
def written(monkeypatch):
    """Return what notes how much is written to files, a mebibyte at a time."""
    from lazyarr.cli import exporting

    found = []
    write = exporting._write
    monkeypatch.setattr("lazyarr.formats.zarr.defaults.SHARD_NBYTES", 1 << 20)
    monkeypatch.setattr(exporting, "_KEPT_NBYTES", 1 << 20)
    monkeypatch.setattr(
        exporting, "_write", lambda fd, data, at: found.append(data.nbytes) or write(fd, data, at)
    )
    return found


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".h5", ".nc", ".tif"])
def test_a_file_goes_on_where_it_was_stopped(tmp_path, written, suffix):
    """After `kill -9`, twice; what was written is not written again."""
    arrays = {name: data for name, data in ARRAYS.items() if suffix != ".tif" or data.size}
    if suffix == ".npy":
        arrays = {"": arrays["g/b"]}
    lazyarr.save(tmp_path / "s.zarr", arrays.get("", arrays))
    dst = tmp_path / "new" / f"x{suffix}"
    for _ in range(2):
        ended = run_program(programs.a_conversion_is_killed, tmp_path / "s.zarr", dst, 1)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert not dst.exists()
    result = run("convert", "-q", tmp_path / "s.zarr", dst)
    assert result.exit_code == 0, result.stderr
    assert "going on where a conversion was stopped: " in result.stderr
    # Each of the two has written a mebibyte, and noted that.
    assert 0 < sum(written) <= sum(data.nbytes for data in arrays.values()) - (2 << 20)
    assert os.listdir(dst.parent) == [dst.name]
    places = {"a": "0", "g/b": "1"} if suffix == ".tif" else {}
    for name, data in arrays.items():
        np.testing.assert_array_equal(lazyarr.open(dst, path=places.get(name, name)), data)
    if suffix == ".npz":
        with np.load(dst) as archive:
            np.testing.assert_array_equal(archive["g/b"], arrays["g/b"])
        assert lazyarr.verify(dst, progress=False).ok


def test_an_archive_goes_on_where_it_was_stopped(src, tmp_path):
    """After `kill -9` and Ctrl-C, twice; what is there is not put again."""
    from lazyarr.writer.zipped import ZipPlace

    options = ("--chunks", 8, "--shards", "none", "--compressor", "none")
    dst = tmp_path / "new" / "x.zip"
    for n_kept in (2, 5):
        ended = run_program(programs.a_conversion_is_killed, src, dst, 2, *options)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        put = ZipPlace.put

        def stop(self, key, parts, n_kept=n_kept, put=put):
            if len(self._archive.filelist) > 4 * n_kept:
                raise KeyboardInterrupt
            put(self, key, parts)

        with pytest.MonkeyPatch.context() as context:
            context.setattr(ZipPlace, "put", stop)
            result = run("convert", "-q", src, dst, *options)
        assert (result.exit_code, "goes on from here" in result.stderr) == (1, True)
        assert not dst.exists()
    changed = run("convert", "-q", src, dst, *options[:-1], "zstd")
    assert (changed.exit_code, "pass --restart" in changed.stderr) == (1, True)
    result = run("convert", "-q", src, dst, *options)
    assert result.exit_code == 0, result.stderr
    (n_kept,) = re.findall(r"kept (\d+) objects that had been written", result.stderr)
    assert 20 < int(n_kept) < 32
    assert os.listdir(dst.parent) == [dst.name]
    np.testing.assert_array_equal(lazyarr.open(dst), DATA)
    with zipfile.ZipFile(dst) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(
            ["zarr.json", *(f"c/{place}/0/0" for place in range(32))]
        )


@needs_root
@pytest.mark.parametrize("suffix", [".npy", ".zip"])
def test_a_file_goes_on_when_there_is_room(src, tmp_path, suffix):
    """After a file system was full: what was cut off is written once more."""
    place = tmp_path / "full"
    place.mkdir()
    options = ("--chunks", 32, "--shards", "none", "--compressor", "none") * (suffix == ".zip")
    ended = run_program(
        programs.a_conversion_goes_on_when_there_is_room,
        *(src, place, suffix, *options),
        wrapper=("unshare", "--mount"),
    )
    assert (ended.returncode, ended.stdout) == (0, f"['x{suffix}']\n"), ended.stderr
    assert "No space left on device; check the file system" in ended.stderr
    assert "going on where a conversion was stopped" in ended.stderr


def test_a_file_goes_on_after_ctrl_c_and_not_with_something_else(src, tmp_path, written):
    """Its source has to be what it was, unless it begins anew."""
    from lazyarr.cli import exporting

    dst, write = tmp_path / "x.npz", exporting._write

    def stop(fd, data, at):
        write(fd, data, at)
        if len(written) == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as context:
        context.setattr(exporting, "_write", stop)
        result = run("convert", "-q", src, dst)
    assert result.exit_code == 1
    assert "the same command goes on from here" in result.stderr
    np.save(src, DATA[::-1])
    changed = run("convert", "-q", src, dst)
    assert (changed.exit_code, "its source has changed" in changed.stderr) == (1, True)
    assert "pass --restart" in changed.stderr
    assert not dst.exists()
    written.clear()
    result = run("convert", "-q", "--restart", src, dst)
    assert result.exit_code == 0, result.stderr
    assert "going on" not in result.stderr
    assert sum(written) == DATA.nbytes
    with np.load(dst) as found:
        np.testing.assert_array_equal(found["arr_0"], DATA[::-1])
    assert sorted(os.listdir(tmp_path)) == [src.name, dst.name]


def test_what_was_left_of_a_file_is_compared(src, tmp_path, written):
    """What somebody has put in place of a part is found out, and the next one begins anew."""
    dst = tmp_path / "y.npy"
    ended = run_program(programs.a_conversion_is_killed, src, dst, 2)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    (left,) = tmp_path.glob(".*/store/file")
    with open(left, "r+b") as file:
        file.seek(1000)
        file.write(b"other")
    result = run("convert", "-q", src, dst)
    assert result.exit_code == 1
    assert "is not what was read of it, in [0:" in result.stderr
    assert os.listdir(tmp_path) == [src.name]
    assert run("convert", "-q", src, dst).exit_code == 0
    np.testing.assert_array_equal(np.load(dst), DATA)
