"""Where targets are, and which of them may be read with what."""

from __future__ import annotations

import pytest

from lazyarr.errors import StoreError
from lazyarr.store.references import targets as module
from lazyarr.store.references.targets import TargetRules, Targets

RULES = TargetRules(
    base="file:///data/refs",
    base_options={"token": "of the references"},
    protocol=None,
    options=None,
    options_by_protocol={},
)


@pytest.mark.parametrize(
    ("base", "protocol", "url", "found"),
    [
        ("file:///data/refs", None, "a.nc", ("file://", "data/refs/a.nc")),
        ("file:///data/refs", None, "../b/a.nc", ("file://", "data/b/a.nc")),
        ("file:///data/refs", None, "/x/a.nc", ("file://", "x/a.nc")),
        ("file:///data/refs", None, "file:///x//a.nc", ("file://", "x/a.nc")),
        ("file:///data/refs", None, "S3://bucket/x/a.nc", ("s3://bucket", "x/a.nc")),
        ("file:///data/refs", "s3", "bucket/x/a.nc", ("s3://bucket", "x/a.nc")),
        ("file:///data/refs", "s3", "gs://bucket/x/a.nc", ("gs://bucket", "x/a.nc")),
        ("s3://bucket/refs", None, "a.nc", ("s3://bucket", "refs/a.nc")),
        ("s3://bucket/refs", None, "../../../a.nc", ("s3://bucket", "a.nc")),
        ("s3://bucket", None, "b/a.nc", ("s3://bucket", "b/a.nc")),
        ("s3://bucket/refs", "file", "/x/a.nc", ("file://", "x/a.nc")),
        ("https://h:80/r", None, "http://h/a%20b.nc?x=1", ("http://h", "a%20b.nc?x=1")),
        ("memory://m", None, "/x/a.nc", ("file://", "x/a.nc")),
        ("memory://m", None, "memory://x/a.nc", ("memory://", "x/a.nc")),
        ("memory://m", None, "a.nc", ("memory://", "m/a.nc")),
    ],
)
def test_where_a_target_is(base, protocol, url, found):
    """Relative to the references' own place, unless a protocol is given."""
    assert RULES._replace(base=base, protocol=protocol).resolve(url) == found


@pytest.mark.parametrize("base", ["https://h/r", "s3://bucket/r"])
@pytest.mark.parametrize("url", ["/etc/passwd", "file:///etc/passwd", "local:///etc/passwd"])
def test_references_on_a_server_name_no_local_files(base, url):
    """Unless the user says so."""
    rules = RULES._replace(base=base)
    with pytest.raises(StoreError, match="'remote_protocol': 'file'"):
        rules.resolve(url)
    assert rules._replace(protocol="file").resolve(url).key == "etc/passwd"


@pytest.mark.parametrize("url", ["zip://a::s3://b/c", "s3://bucket", "s3://bucket/", "/"])
def test_what_names_no_file_is_refused(url):
    """By its URL."""
    with pytest.raises(StoreError, match="cannot read the target"):
        RULES.resolve(url)


def test_credentials_are_shown_to_nobody_else():
    """Those of the references are for the same bucket or host alone."""
    rules = RULES._replace(base="s3://bucket/refs")
    assert rules.options_of("s3://bucket") == {"token": "of the references"}
    for other in ("s3://other", "https://bucket", "gs://bucket"):
        assert rules.options_of(other) == {}
    rules = rules._replace(options={"anon": True})
    assert rules.options_of("s3://bucket") == rules.options_of("https://h") == {"anon": True}
    rules = rules._replace(protocol="s3")
    assert rules.options_of("s3a://other") == {"anon": True}
    assert rules.options_of("https://h") == {}
    rules = rules._replace(options_by_protocol={"http": {"headers": {}}})
    assert rules.options_of("https://h") == {"headers": {}}


def test_a_secret_in_a_url_is_in_no_message(tmp_path):
    """Neither a user's name and password nor a signature."""
    with pytest.raises(StoreError) as caught:
        RULES._replace(base="https://me:secret@h/r").resolve("/etc/passwd")
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreError) as caught:
        RULES.resolve("zip://a::https://h/c?signature=secret")
    assert "secret" not in str(caught.value)


def test_stores_are_kept_but_not_without_limit(tmp_path, monkeypatch):
    """One for a host, and one for all files of this machine."""
    monkeypatch.setattr(module, "_MAX_STORES", 32)
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    targets = Targets(RULES, timeout_seconds=1)
    assert targets.find(str(tmp_path / "a"))[0] is targets.find(str(tmp_path / "b"))[0]
    first = targets.find("http://127.0.0.1:1/x")[0]
    assert targets.find("http://127.0.0.1:1/y")[0] is first
    for port in range(1, 60):
        targets.find(f"http://127.0.0.1:{port}/x")
    assert len(targets._stores) <= 32
    assert targets.find_open(str(tmp_path / "a")) is not None
    targets.close()
