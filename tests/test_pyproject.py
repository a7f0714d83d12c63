"""What the project says of itself in several places is the same in all of them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_versions_that_are_named_are_those_that_are_tested():
    """The classifiers, the oldest that installs, and what continuous integration looks for."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(document["project"]["classifiers"]))
    assert (
        re.search(r"^versions=\((.*)\)$", (ROOT / ".ci/run").read_text(), re.M)[1].split() == named
    )
    assert document["project"]["requires-python"] == f">={named[0]}"
    assert document["tool"]["mypy"]["python_version"] == named[0]
    assert document["tool"]["ruff"]["target-version"] == f"py{named[0].replace('.', '')}"
