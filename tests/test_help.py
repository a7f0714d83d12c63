"""What ``help(lazyarr)`` prints, and who else is given the names."""

from __future__ import annotations

import inspect
import pydoc
import re

import lazyarr


def test_help_is_an_introduction_that_names_everything_public():
    """Each public name with what it is for, in fewer lines than anybody scrolls through."""
    text = pydoc.plain(pydoc.render_doc(lazyarr))
    assert len(text.splitlines()) < 400
    for part in ("lazyarr.open(", "numpy.asarray(x)", "help(lazyarr.open)", "PACKAGE CONTENTS"):
        assert part in text
    listed = re.findall(r"^ {8}((?:\w+, )*\w+)(?:  |, all)", text, re.M)
    listed += re.findall(r"^ {4}Errors, all of them `(\w+)`$", text, re.M)
    names = [name for line in listed for name in line.split(", ")]
    assert sorted(names) == sorted(set(lazyarr.__all__) - {"__version__"})


def test_help_of_a_name_is_all_that_there_is_to_say():
    """Nothing is kept from those who ask for one class or function."""
    assert "Examples" in pydoc.plain(pydoc.render_doc(lazyarr.open))
    assert "__getitem__" in pydoc.plain(pydoc.render_doc(lazyarr.LazyArray))


def test_only_help_is_given_no_names():
    """Completion, other tools and ``import *`` find all of them."""
    assert dir(lazyarr) == sorted(lazyarr.__all__)
    assert {name for name, _ in inspect.getmembers(lazyarr)} == set(lazyarr.__all__)
    found: dict[str, object] = {}
    exec("from lazyarr import *", found)
    assert set(lazyarr.__all__) <= found.keys()
