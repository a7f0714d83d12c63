"""That no module is imported, in whatever way, by one that it imports itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]


def circles(imports: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Yield the sets of modules that all import each other, if only by way of others."""
    reached = {module: _reached_from(module, imports) for module in imports}
    seen: set[str] = set()
    for module in sorted(imports):
        circle = {other for other in reached[module] if module in reached[other]}
        if circle and module not in seen:
            seen |= circle
            yield sorted(circle)


def _reached_from(module: str, imports: Mapping[str, set[str]]) -> set[str]:
    """Return what a module imports, and what that imports, and so on."""
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        found = imports.get(waiting.pop(), set()) - reached
        reached |= found
        waiting.extend(found)
    return reached


def test_circles():
    """A circle is found whole, and only once."""
    imports = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"f"}}
    assert list(circles(imports)) == [["a", "b", "c"], ["f"]]


def test_imports_are_free_of_circles():
    """For types alone, in functions and by name too; packages are modules of their own.

    import-linter looks at packages as wholes, and not at what is between one and its parts.
    """
    graph = grimp.build_graph("lazyarr", exclude_type_checking_imports=False, cache_dir=None)
    imports = {
        module: graph.find_modules_directly_imported_by(module) | _named(module, graph.modules)
        for module in graph.modules
    }
    assert list(circles(imports)) == []


def _named(module: str, modules: set[str]) -> set[str]:
    """Return the modules whose names a module has as strings, as `importlib` would take them."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    nodes = ast.walk(ast.parse(file.read_text()))
    strings = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return (strings & modules) - {"lazyarr", module}


def test_every_module_can_be_imported():
    """In one fresh process; pytest passes over a module that cannot be (see pyproject.toml)."""
    graph = grimp.build_graph("lazyarr", cache_dir=None)
    modules = sorted(name for name in graph.modules if not name.endswith("__main__"))
    if find_spec("torch") is None:
        modules.remove("lazyarr.torch")
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
