"""The benchmarks run, and every contestant reads the same data; how fast is not tested."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The figures of a quick run, and its Markdown."""
    directory = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--data", str(directory / "data")]
    outputs = ["--json", str(directory / "r.json"), "--output", str(directory / "r.md")]
    subprocess.run([*command, *outputs], cwd=ROOT, check=True, timeout=240, capture_output=True)
    document = json.loads((directory / "r.json").read_text())
    return {**document, "markdown": (directory / "r.md").read_text()}


def test_all_fault_contestants_read_the_same_elements(results):
    """For each compression and size of units, one checksum."""
    checksums = {}
    for latency in results["faults"]:
        case = (latency["codec"], latency["unit_nbytes"])
        checksums.setdefault(case, set()).add(latency["checksum"])
    assert len(checksums) >= 6
    assert all(len(found) == 1 and found != {0} for found in checksums.values()), checksums


def test_handler_in_c_takes_part_where_there_is_a_compiler(results):
    """The pager and the bare sums always run; the handler in C if it can be compiled."""
    contestants = {x["contestant"] for x in results["faults"] if x["codec"] == "none"}
    expected = {"lazyarr", "sum", "sum, new pages"}
    assert contestants == expected | ({"C handler"} if shutil.which("cc") else set())


def test_all_peers_read_the_same_rows(results):
    """Each contestant's checksums are those of the limit; the file that opens has the same too."""
    by_name = {result["contestant"]: result["checksums"] for result in results["peers"]}
    assert {"lazyarr", "lazyarr, plain ndarray", "zarr-python"} <= by_name.keys()
    expected = {**by_name["lazyarr"], **by_name["limit: decompress"]}
    for name, checksums in by_name.items():
        assert checksums == {scenario: expected[scenario] for scenario in checksums}, name
        assert all(0 not in found for found in checksums.values()), name


def test_results_name_the_machine_and_every_contestant(results):
    """The Markdown says where it was measured, and has a row for each contestant."""
    markdown = results["markdown"]
    for fact in ("processor", "kernel", "memory", "date", "versions", "zarr "):
        assert fact in markdown
    for result in results["peers"]:
        assert f"| {result['contestant']} |" in markdown
    assert "### Goals" in markdown


@pytest.mark.parametrize("module", ["codecs", "saving"])
def test_small_benchmarks_run(module):
    """With tiny sizes; the table has a row for each compressor, and nothing is compared."""
    command = [sys.executable, "-m", f"benchmarks.{module}", "--quick", "--repeats", "1"]
    result = subprocess.run(
        command, cwd=ROOT, check=True, timeout=240, capture_output=True, text=True
    )
    for compressor in ("zstd", "blosc", "none"):
        assert f"| {compressor} |" in result.stdout


def test_remote_contestants_read_the_same_rows():
    """Over HTTP and S3; who reads something else makes the run fail."""
    command = [sys.executable, "-m", "benchmarks.remote", "--quick"]
    done = subprocess.run(
        command, cwd=ROOT, check=True, timeout=280, capture_output=True, text=True
    )
    assert done.stdout.count("| lazyarr |") == done.stdout.count("| TensorStore |") == 2
    assert "### HTTP" in done.stdout
    assert "### S3" in done.stdout


def test_epochs_slabs_and_memory_are_measured(results):
    """Every chunk is decompressed once however many workers read it; all have read the same."""
    epochs = {epoch["contestant"]: epoch for epoch in results["epochs"]}
    assert epochs["lazyarr"]["decoded_per_chunk"] == 1
    assert len({epoch["checksum"] for epoch in epochs.values()}) == 1
    assert len({slab["checksum"] for slab in results["slabs"]}) == 1
    assert all(peak["nbytes"] >= peak["before_nbytes"] > 0 for peak in results["memory"])
    for title in ("A shuffled epoch", "Thick slabs and thin ones", "Memory"):
        assert f"## {title}" in results["markdown"]
