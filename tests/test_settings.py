"""Settings: what they take, where they come from, who is told."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lazyarr
from lazyarr import settings
from lazyarr.settings import Settings, parse_nbytes

NAMES = sorted(name for name in Settings._fields if not name.startswith("_"))


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    """Begin as a new process without any setting does, and leave this one's alone."""
    for name in list(os.environ):
        if name.startswith("LAZYARR_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(settings, "_current", None)
    monkeypatch.setattr(settings, "_listeners", [])


@pytest.mark.parametrize(
    ("size", "nbytes"),
    [
        (0, 0),
        (1 << 40, 1 << 40),
        (np.int64(4096), 4096),
        ("0", 0),
        ("17", 17),
        ("17 B", 17),
        ("4 GiB", 4 << 30),
        ("4GiB", 4 << 30),
        ("1G", 10**9),
        ("512M", 512 * 10**6),
        ("1.5 k", 1500),
        ("2t", 2 * 10**12),
        ("4Gi", 4 << 30),
        ("512 Mi", 512 << 20),
        ("  4  gib ", 4 << 30),
        ("1.5 GiB", 3 << 29),
        ("2 kB", 2000),
        ("2 KiB", 2048),
        ("3 MB", 3 * 10**6),
        ("0.5 TiB", 1 << 39),
        ("1 TB", 10**12),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_size_is_bytes_or_a_number_with_a_unit(size, nbytes):
    """Powers of 1000 and of 1024 are told apart; whole numbers are exact."""
    assert parse_nbytes(size) == nbytes
    assert type(parse_nbytes(size)) is int


@pytest.mark.parametrize(
    "size",
    [-1, 1.5, True, None, b"4", [], "", "GiB", "-4 GiB", "4 XiB", "4 Gi B", "1e9", "4 GiB x", "²"],
)
def test_what_is_no_size_is_refused(size):
    """The message shows it, and what is taken instead."""
    with pytest.raises(ValueError, match=r"not a size: .*; give bytes, or a number and a unit"):
        parse_nbytes(size)


def test_who_was_told_a_limit_shares_none(monkeypatch):
    """By a setting or by the environment; until the setting is taken back."""
    assert settings.current()._shared_limit
    with lazyarr.configure(threads=2):
        assert settings.current()._shared_limit
        with lazyarr.configure(memory_limit="1 GiB"):
            assert not settings.current()._shared_limit
        assert settings.current()._shared_limit
    assert "_shared_limit" not in [*dir(lazyarr.config), *repr(lazyarr.config).split("=")]
    settings.adopt({**settings.current().document(), "_shared_limit": 0})
    assert not settings.current()._shared_limit
    monkeypatch.setattr(settings, "_current", None)
    monkeypatch.setenv("LAZYARR_MEMORY_LIMIT", "1 GiB")
    assert not settings.current()._shared_limit


def test_a_worker_of_a_cluster_may_hold_less(monkeypatch):
    """Unless a limit was set; what all pagers share is as it was."""
    shared = settings.current()._shared_limit
    with lazyarr.configure(memory_limit=3 << 30):
        settings.lower_default(1 << 30)
        assert lazyarr.config.memory_limit == 3 << 30
    monkeypatch.setattr(settings, "_current", settings.current())
    settings.lower_default(1 << 30)
    settings.lower_default(2 << 30)
    assert settings.current()._shared_limit == shared
    assert lazyarr.config.memory_limit == min(1 << 30, shared)


@given(st.text(max_size=12) | st.integers(300, 6000).map(lambda n: "9" * n + ".5 kB"))
def test_any_text_is_a_size_or_a_value_error(text):
    """Also where a float would overflow."""
    try:
        nbytes = parse_nbytes(text)
    except ValueError:
        return
    assert nbytes >= 0


def test_defaults_are_half_of_the_memory_and_every_processor():
    """Of those that this process may use."""
    current = settings.current()
    machine_nbytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < current.memory_limit <= machine_nbytes // 2
    assert current.threads == len(os.sched_getaffinity(0))
    assert (current.timeout, current.retries, current.on_error) == (60.0, 6, "sigbus")
    assert current.stop_timeout == 10.0
    assert current.engine == "auto"
    assert current.readahead == 128 << 20


def test_environment_overrides_defaults(monkeypatch):
    """In the words that `configure` takes."""
    monkeypatch.setenv("LAZYARR_MEMORY_LIMIT", "3 GiB")
    monkeypatch.setenv("LAZYARR_THREADS", "5")
    monkeypatch.setenv("LAZYARR_TIMEOUT", "0.5")
    monkeypatch.setenv("LAZYARR_RETRIES", "0")
    monkeypatch.setenv("LAZYARR_ON_ERROR", "sigbus")
    monkeypatch.setenv("LAZYARR_STOP_TIMEOUT", "2.5")
    monkeypatch.setenv("LAZYARR_CONNECTIONS", "7")
    monkeypatch.setenv("LAZYARR_ENGINE", "copy")
    monkeypatch.setenv("LAZYARR_READAHEAD", "1 MiB")
    expected = Settings(3 << 30, 5, 0.5, 0, "sigbus", 2.5, 7, engine="copy", readahead=1 << 20)
    assert settings.current() == expected


@pytest.mark.parametrize("name", sorted({*NAMES} - {"cache_dir"}))
def test_wrong_environment_variable_is_named(monkeypatch, name):
    """Whoever has set it must find it."""
    monkeypatch.setenv(f"LAZYARR_{name.upper()}", "nonsense")
    with pytest.raises(ValueError, match=f"variable LAZYARR_{name.upper()}: .*nonsense"):
        settings.current()


@pytest.mark.parametrize("name", NAMES)
def test_empty_environment_variable_is_as_good_as_none(monkeypatch, name):
    """The way to take one back for a command in a shell."""
    before = settings.current()
    monkeypatch.setattr(settings, "_current", None)
    monkeypatch.setenv(f"LAZYARR_{name.upper()}", "")
    assert settings.current() == before


def test_environment_is_read_once(monkeypatch):
    """What held at first holds until somebody changes it."""
    before = settings.current()
    monkeypatch.setenv("LAZYARR_RETRIES", "33")
    assert settings.current() is before


def test_replace_changes_what_is_named_and_returns_what_held():
    """So that a context manager can put it back."""
    before = settings.current()
    assert settings.replace(memory_limit="1 GiB", retries=2) is before
    now = before._replace(memory_limit=1 << 30, retries=2, _shared_limit=0)
    assert settings.current() == now
    settings.put_back(before, NAMES)
    assert settings.current() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory_limit", 0),
        ("memory_limit", "0.1 B"),
        ("memory_limit", True),
        ("memory_limit", None),
        ("threads", 0),
        ("threads", 2.5),
        ("threads", True),
        ("threads", math.inf),
        ("threads", "many"),
        ("timeout", 0),
        ("timeout", -1.0),
        ("timeout", math.nan),
        ("timeout", math.inf),
        ("timeout", True),
        ("timeout", "soon"),
        ("timeout", None),
        ("stop_timeout", 0.4),
        ("stop_timeout", math.inf),
        ("stop_timeout", "soon"),
        ("readahead", -1),
        ("readahead", None),
        ("readahead", "far"),
        ("retries", -1),
        ("retries", 1.5),
        ("retries", None),
        ("retries", math.inf),
        ("retries", "nonsense"),
        ("cache_dir", ""),
        ("cache_dir", 3),
        ("cache_limit", 0),
        ("cache_limit", "much"),
        ("connections", 0),
        ("connections", "many"),
        ("on_error", "ignore"),
        ("on_error", None),
        ("on_error", []),
        ("python", "/nowhere/python"),
        ("python", "nonsense"),
        ("python", "py\0thon"),
        ("python", ""),
        ("python", 3),
        ("engine", "ignore"),
        ("engine", None),
        ("engine", []),
    ],
)
def test_wrong_value_changes_nothing(name, value):
    """Nor do the right values beside it, and nobody is told."""
    told: list[Settings] = []
    settings.subscribe(told.append)
    before = settings.current()
    with pytest.raises(ValueError, match=name) as caught:
        settings.replace(**{"retries": 9, "threads": 3, name: value})
    assert type(caught.value) is ValueError
    assert settings.current() is before
    assert told == []


def test_unknown_name_is_a_type_error_as_for_any_function():
    """It says what there is."""
    with pytest.raises(TypeError, match="no such setting: memory_limits; there are memory_limit,"):
        settings.replace(memory_limits=1)


def test_listeners_are_told_in_order():
    """After the change, with all that holds."""
    told: list[tuple[str, Settings]] = []
    settings.subscribe(lambda new: told.append(("first", new)))
    settings.subscribe(lambda new: told.append(("second", new)))
    settings.replace(threads=7)
    assert told == [("first", settings.current()), ("second", settings.current())]
    assert settings.current().threads == 7


def test_settings_of_a_pager_hold_without_anybody_being_told():
    """Who joins one goes by what is set there, but for what each process decides for itself."""
    told: list[Settings] = []
    settings.subscribe(told.append)
    theirs = {"memory_limit": 5, "threads": 3, "timeout": 2.5, "retries": 1, "on_error": "else"}
    settings.adopt({**theirs, "unknown": 1})
    assert settings.current() == Settings(5, 3, 2.5, 1)
    settings.adopt({"retries": 2})
    assert settings.current() == Settings(5, 3, 2.5, 2)
    with pytest.raises(ValueError, match="threads"):
        settings.adopt({"threads": 0})
    assert told == []


def test_config_says_what_holds_and_how_to_change_it():
    """Assigning to it is an error, not a value that nobody goes by."""
    before = lazyarr.config.memory_limit
    with pytest.raises(AttributeError, match=r"lazyarr\.configure\(memory_limit=5\)"):
        lazyarr.config.memory_limit = 5
    assert lazyarr.config.memory_limit == before
    with lazyarr.configure(memory_limit="1 MiB"):
        assert lazyarr.config.memory_limit == 1 << 20
