"""Programs of tests/fuzz/test_stores.py."""

from __future__ import annotations

import collections
import faulthandler
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import zarr

import lazyarr
from lazyarr.errors import ChunkError, FormatError, KernelError, StoreError
from tests.fuzz.mutation import mutate_input


def stores_with_changes_give_right_values_or_the_documented_error(root, seed, n_examples):

    warnings.simplefilter("ignore")
    root, n_examples = Path(root), int(n_examples)
    rows = np.arange(1500, dtype="<f4").reshape(60, 25)
    lazyarr.save(
        root / "ours", {"x": rows, "g/y": rows.astype("u2")}, chunks=(4, 25), shards=(20, 25)
    )
    for zarr_format in (2, 3):
        group = zarr.open_group(root / f"v{zarr_format}", mode="w", zarr_format=zarr_format)
        group.create_array("x", data=rows, chunks=(8, 10))
        zarr.consolidate_metadata(group.store, zarr_format=zarr_format)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
    documents = [path for path in files if path.name in DOCUMENTS]
    ALLOWED = (ChunkError, FormatError, StoreError, KernelError)
    counts = collections.Counter()
    lazyarr.configure(memory_limit="64 MiB")

    def arrays(dataset):
        """Yield every array that can be opened, and describe all else."""
        dataset.tree(), dataset.info, dataset._repr_html_()
        for name in dataset:
            try:
                node = dataset[name]
            except ALLOWED as error:
                counts[type(error).__name__] += 1
                continue
            if isinstance(node, lazyarr.Dataset):
                yield from arrays(node)
            else:
                yield node

    def read(array, is_checked):
        """Read what a request brings: touching what it does not bring would be SIGBUS."""
        array.info, repr(array)
        try:
            array.prefetch()
        except ALLOWED as error:
            counts[type(error).__name__] += 1
            return
        except ValueError as error:
            assert "memory limit" in str(error), error
            counts["too large"] += 1
            return
        plain = np.asarray(array)
        _copy = plain.tobytes()
        if is_checked:
            assert np.array_equal(plain.astype("f4"), rows), plain
        counts["right" if is_checked else "a value"] += 1

    def check(url, is_checked):
        try:
            with lazyarr.open(url) as dataset:
                if isinstance(dataset, lazyarr.Dataset):
                    for array in arrays(dataset):
                        read(array, is_checked)
                else:
                    read(dataset, is_checked)
        except ALLOWED as error:
            counts[type(error).__name__] += 1

    for number in range(n_examples):
        faulthandler.dump_traceback_later(60, exit=True)
        generator = random.Random(f"{seed}-{number}")
        path = generator.choice(documents if generator.random() < 0.5 else files)
        data = path.read_bytes()
        changed = data
        for _ in range(generator.randint(1, 2)):
            changed = mutate_input(changed, generator)
        url = root / path.relative_to(root).parts[0]
        is_checked = path.name not in DOCUMENTS and url.name == "ours"
        path.write_bytes(changed)
        try:
            check(url, is_checked)
        except BaseException:
            print("example", number, path, changed[:2000], file=sys.stderr)
            raise
        finally:
            path.write_bytes(data)
    for name in ("ours", "v2", "v3"):
        before = counts["right"]
        check(root / name, True)
        assert counts["right"] > before, (name, counts)
    print(lazyarr.stats()["workers_lost"], dict(counts))
