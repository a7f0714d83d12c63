"""Programs of tests/process/test_damaged_operations.py."""

from __future__ import annotations

import warnings

import numpy as np

import lazyarr
from tests.client.operations import EVERYWHERE, INDEXES


def every_operation_raises(url, engine, mode):
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    lazyarr.configure(memory_limit=1 << 20, engine=engine, on_error="sigbus")
    x = lazyarr.open(url, mode)
    operations = {
        **EVERYWHERE,
        **INDEXES,
        **{
            f"np.{name}(a, a)": lambda a, f=f: f(a, a)
            for name, f in vars(np).items()
            if isinstance(f, np.ufunc) and f.nin == 2 and not f.signature
        },
        "out=": lambda a: np.add(a, 1, out=np.empty(a.shape, "u2")),
    }
    changes = {
        "x[...] = 1": lambda a: a.__setitem__(..., 1),
        "partition": lambda a: a.partition(3),
        "x[:] = 1": lambda a: a.__setitem__(slice(None), 1),
        "x += 1": lambda a: a.__iadd__(1),
        "fill": lambda a: a.fill(3),
        "sort": lambda a: a.sort(),
        "put": lambda a: a.put(np.arange(a.size), 3),
        "np.copyto": lambda a: np.copyto(a, 3),
        "np.putmask": lambda a: np.putmask(a, True, 0),
        "np.add.at": lambda a: np.add.at(a, slice(None), 1),
        "x[mask] = 1": lambda a: a.__setitem__(np.ones(a.shape, bool), 1),
        "out": lambda a: np.add(1, 1, out=a),
    }
    for name, operation in {**operations, **(changes if mode == "c" else {})}.items():
        print("begin", name, flush=True)
        try:
            operation(x)
        except lazyarr.ChunkError:
            continue
        except (TypeError, ValueError) as error:  # what NumPy refuses of these numbers
            try:
                operation(np.ones((len(x), 8, 256), "u2"))
            except type(error):
                continue
            print("wrong", repr(error)[:500])
            continue
        print("wrong: no error")
    print("end")
