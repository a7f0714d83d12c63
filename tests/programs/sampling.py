"""Programs of tests/sampling/test_shuffle.py and tests/integrations/test_torch.py."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np

import lazyarr
from lazyarr.sampling import ChunkShuffle


def epochs_under_a_limit(path: str, plain: str) -> None:
    """Read three epochs in batches; print whether all was right, and the loads of each."""
    x, data = lazyarr.open(path), np.load(Path(plain))
    loaded, is_right = [], True
    with lazyarr.configure(memory_limit="2 MiB"):  # 128 of 400 chunks
        sampler = ChunkShuffle(x, window=20)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            before = lazyarr.stats()["units_loaded"]
            samples = iter(sampler)
            while batch := list(itertools.islice(samples, 8)):
                is_right &= bool((x[batch] == data[batch]).all())
            loaded.append(lazyarr.stats()["units_loaded"] - before)
    print(is_right, *loaded)


def shuffle_in_workers(path: str) -> None:
    """Read two epochs in a plain random order, in two processes and with too little memory."""
    from torch.utils.data import DataLoader

    import lazyarr.torch

    warnings.simplefilter("default")
    lazyarr.configure(memory_limit="1 MiB")
    data = lazyarr.torch.Dataset(lazyarr.open(path))
    loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=2, persistent_workers=True)
    print(sum(len(batch) for _ in range(2) for batch in loader))
