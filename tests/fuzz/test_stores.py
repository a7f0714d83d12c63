"""Stores with a changed document, index or chunk, read through a real pager."""

from __future__ import annotations

import pytest

from tests.process.running import ended_by, run_program
from tests.programs import fuzz_stores as programs


@pytest.mark.timeout(120)
def test_stores_with_changes_give_right_values_or_the_documented_error(tmp_path):
    """In one process, hundreds of them; the pager lives, and what is right reads right."""
    ended = run_program(
        programs.stores_with_changes_give_right_values_or_the_documented_error, tmp_path, 1, 100
    )
    assert ended_by(ended) == "0", ended.stderr
    assert ended.stdout.startswith("0 {"), ended.stdout
    for outcome in ("right", "a value", "ChunkError", "FormatError"):
        assert f"'{outcome}'" in ended.stdout
    # Loads that fail with what nobody expects are reported.
    assert ended.stderr == ""
