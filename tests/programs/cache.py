"""Programs of tests/process/test_cache.py."""

from __future__ import annotations

import json

import numpy as np

import lazyarr


def reads_all(url, cache, limit, engine, total):
    lazyarr.configure(cache_dir=cache or None, cache_limit=limit, engine=engine)
    x = lazyarr.open(url)["x"]
    x.prefetch()
    assert int(np.asarray(x).sum()) == int(total), "wrong bytes"
    print(lazyarr.stats()["bytes_fetched"])


def reads_two_of_a_bucket(url, cache, options, total):
    lazyarr.configure(cache_dir=cache)
    group = lazyarr.open(url, storage_options=json.loads(options))
    for x in (group["x"], group["y"]):
        x.prefetch()
        assert int(np.asarray(x).sum()) == int(total), "wrong bytes"
    print(lazyarr.stats()["bytes_fetched"])
