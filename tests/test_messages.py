"""How messages read: what failed: what was found; what to do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("lazyarr/**/*.py")]


def literal(node):
    """Return the text of a literal, with {} for what is put in."""
    if isinstance(node, ast.BinOp):
        return literal(node.left) + literal(node.right)
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) for part in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return "{}"


def raised():
    """Yield where in the package something is raised with a message, and the message."""
    for path in sorted(ROOT.glob("lazyarr/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                message = literal(node.exc.args[0])
                if re.search("[a-z]", message):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", message


MESSAGES = dict(raised())


def test_messages_are_found():
    """Else nothing would be tested here."""
    assert len(MESSAGES) > 100
    assert any("is closed; open it again" in message for message in MESSAGES.values())


def test_a_message_is_a_part_of_a_sentence():
    """In lower case, unless a name begins it, without a full stop."""
    ends = {
        place: message
        for place, message in MESSAGES.items()
        if message.endswith((".", "!", ";", ":", " ")) and not message.endswith("...")
    }
    assert ends == {}
    begins = {place: message.split(" ")[0] for place, message in MESSAGES.items()}
    assert {p: word for p, word in begins.items() if re.fullmatch("[A-Z][a-z]*", word)} == {}


def test_what_was_found_comes_before_what_to_do():
    """Not the rule first: whoever reads it knows what he wanted, and asks what is wrong with it."""
    assert {place: m for place, m in MESSAGES.items() if "; found" in m} == {}


def test_cannot_is_one_word():
    """Everywhere, so that it is found when it is looked for."""
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in TEXTS}
    assert len(texts) > 100
    split = re.compile(r"\bcan\s+not\b", re.IGNORECASE)
    assert [path for path, text in texts.items() if split.search(text)] == []
