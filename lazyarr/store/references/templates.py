"""Names and expressions between double braces, in the texts of a references document.

Source: kerchunk's specification of version 1.  It means Jinja2, which runs code.  Here is what
its examples use and no more: names, numbers, texts, arithmetic with integers, and calls of
templates, as ``{{f(c='text')}}``.
"""

from __future__ import annotations

import ast
import operator
import re
from typing import TYPE_CHECKING, TypeAlias

from lazyarr.checks import shown
from lazyarr.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["render"]

Scalar: TypeAlias = int | str

_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_MAX_EXPRESSION_CHARACTERS = 1000
_MAX_TEXT_CHARACTERS = 16 << 10
"""Longer than any URL: templates that call each other could double a text again and again."""
_MAX_INTEGER = 1 << 63
_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def render(text: str, names: Mapping[str, object], what: str) -> str:
    """Return a text with what its double braces stand for.

    Parameters
    ----------
    text : str
        The text.
    names : mapping
        Numbers and texts by name.  A text that has double braces itself can be called.
    what : str
        Where the text is, for the message.

    Raises
    ------
    FormatError
        There is an expression of another kind, or a name that is not known.

    Examples
    --------
    >>> render("{{u}}/{{f(c='x')}}-{{ (i + 1) * 10 }}", {"u": "s3:", "f": "<{{c}}>", "i": 3}, "url")
    's3:/<x>-40'
    """
    if "{{" not in text:
        _refuse_statement(text, what)
        return text

    def put(found: re.Match[str]) -> str:
        value = _Expression(names, what).evaluate(found.group(1))
        if isinstance(value, str) and "{{" in value:
            raise FormatError(
                f"template {shown(found.group(1).strip())} in {what} takes arguments, and is given "
                "none; call it"
            )
        return str(value)

    rendered = _BRACES.sub(put, text)
    if len(rendered) > _MAX_TEXT_CHARACTERS:
        raise FormatError(
            f"templates make {what} {len(rendered)} characters long; it may have up to "
            f"{_MAX_TEXT_CHARACTERS}"
        )
    _refuse_statement(rendered, what)
    return rendered


def _refuse_statement(text: str, what: str) -> None:
    if "{%" in text or "{{" in text:
        raise FormatError(
            f"{what} has {shown(text)}: lazyarr does not run Jinja2, but only names, integer "
            "arithmetic and calls of templates between {{ and }}; write the references anew "
            "without"
        )


class _Expression:
    """Evaluates what stands between two double braces; nothing of Python's can be reached."""

    def __init__(self, names: Mapping[str, object], what: str) -> None:
        self._names = names
        self._what = what

    def evaluate(self, text: str) -> Scalar:
        """Return the value of an expression."""
        try:
            if len(text) > _MAX_EXPRESSION_CHARACTERS:
                raise self._refuse(text)
            # Parentheses: a template may have line breaks, and spaces at its beginning.
            return self._value(ast.parse(f"({text.strip()})", mode="eval").body)
        except FormatError:
            raise
        except (SyntaxError, ValueError, RecursionError, MemoryError, ZeroDivisionError) as error:
            raise self._refuse(text) from error

    def _value(self, node: ast.expr) -> Scalar:
        match node:
            case ast.Constant(value=int() | str() as value) if not isinstance(value, bool):
                return value
            case ast.Name(id=name):
                return self._named(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._integer(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                value = _OPERATORS[type(op)](self._integer(left), self._integer(right))
                if abs(value) >= _MAX_INTEGER:
                    raise self._refuse(ast.unparse(node))
                return value
            case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords):
                return self._call(name, keywords)
        raise self._refuse(ast.unparse(node))

    def _integer(self, node: ast.expr) -> int:
        value = self._value(node)
        if not isinstance(value, int) or abs(value) >= _MAX_INTEGER:
            raise self._refuse(ast.unparse(node))
        return value

    def _named(self, name: str) -> Scalar:
        value = self._names.get(name)
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise FormatError(f"{self._what} names {name!r}, of which the references say nothing")
        return value

    def _call(self, name: str, keywords: list[ast.keyword]) -> Scalar:
        # A template sees its arguments alone, so it cannot call itself or others.
        arguments = {each.arg: self._value(each.value) for each in keywords if each.arg}
        if len(arguments) != len(keywords):
            raise self._refuse(name)
        return render(str(self._named(name)), arguments, f"template {name!r}")

    def _refuse(self, text: str) -> FormatError:
        return FormatError(
            f"{self._what} has the expression {shown(text)}: lazyarr does not run Jinja2, but only "
            "names, integer arithmetic and calls of templates; write the references anew without"
        )
