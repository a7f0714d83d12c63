"""What tests run in processes of their own."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PROGRAMS = sorted((TESTS / "programs").glob("*.py"))


@pytest.fixture(scope="module")
def words():
    """How often each word is written in the code of tests."""
    return Counter(
        word for path in TESTS.rglob("*.py") for word in re.findall(r"\w+", path.read_text())
    )


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_program_is_run(path, words):
    """What is defined there is named once more, by a test or by another program."""
    defined = [
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    # pytest finds tests by their names.
    unnamed = [name for name in defined if words[name] < 2 and not name.startswith("Test")]
    assert unnamed == []
