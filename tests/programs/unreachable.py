"""Programs of tests/process/test_unreachable.py."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os

import lazyarr


def nobody_waits_for_ever_for_what_a_worker_can_not_open(path, method):
    group = lazyarr.open(path, mode="c")
    array = group["a"]
    os.rename(path, path + ".elsewhere")

    def fails(function, *arguments):
        try:
            function(*arguments)
        except lazyarr.NodeNotFoundError as error:
            print("x.zarr" in str(error))

    context = multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        for given in (array, group):
            fails(pool.apply, len, (given,))
            fails(pool.map, len, [given] * 3)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        fails(pool.submit(len, array).result)


def a_pool_begins_with_what_it_can_not_open(path, method):
    given = lazyarr.open(path, mode="c")["a"]
    os.rename(path, path + ".elsewhere")
    with multiprocessing.get_context(method).Pool(1, id, (given,)) as pool:
        print(pool.apply(abs, (-3,)))
