"""What the documents name is there: files, sections, tests, and the states of a unit."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from lazyarr.plan import machine

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/README.md")
    for path in ROOT.glob(pattern)
    if path.name not in ("CHANGELOG.md", "RESULTS.md")  # what was true then
)


def anchors(text):
    """Return the anchors that GitHub gives the headings of a document."""
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_sections(document):
    """Every link to a file of the project, and to a section of a document."""
    source = ROOT / document
    for link in re.findall(r"\]\(([^)\s]+)\)", source.read_text()):
        if "://" in link:
            continue
        place, _, section = link.partition("#")
        target = source.parent / place if place else source
        assert target.exists(), link
        assert not section or section in anchors(target.read_text()), link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_tests_that_are_named_exist(document):
    """Paths with a folder in them, from the root or from the package, and tests by their names."""
    text = (ROOT / document).read_text()
    for path in set(re.findall(r"`((?:\w+/)+\w+\.py)`", text)):
        assert (ROOT / path).exists() or (ROOT / "lazyarr" / path).exists(), path
    named = set(re.findall(r"`(test_\w+)`", text))
    if named:
        tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
        found = set(itertools.chain(*(re.findall(r"def (test_\w+)", source) for source in tests)))
        assert named <= found


def test_the_picture_of_a_unit_has_the_states_and_steps_of_the_machine():
    """Each step to another state in the table of the machine, and no state but those of it."""
    picture = (ROOT / "ARCHITECTURE.md").read_text().partition("stateDiagram-v2")[2]
    drawn = set(re.findall(r"^ +(\w+) --> (\w+):", picture, re.M))
    states = set(re.findall(r"^([A-Z]+)$", machine.__doc__, re.M))
    assert {state for step in drawn for state in step} == states
    rows = machine.__doc__.partition("Transitions\n")[2].splitlines()
    steps, state = set(), ""
    for row in rows:
        if row[:1].isupper() and row[:9].strip() in states:
            state = row[:9].strip()
        elif row.strip() and not row.startswith(" "):
            state = ""  # a row about any state
        steps |= {(state, goal) for goal in re.findall(r"\b[A-Z]{4,}\b", row[71:]) if state}
    assert len(steps) > 10
    assert {step for step in steps if step[0] != step[1]} <= drawn
