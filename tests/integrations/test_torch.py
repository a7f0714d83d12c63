"""Arrays as data sets of torch: the samples, batches as requests, workers, resuming, ranks."""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
import warnings

import numpy as np
import pytest

import lazyarr
from lazyarr.errors import PerformanceWarning
from tests.engines import memory_only
from tests.process.running import run_program
from tests.programs import sampling as programs
from tests.stores import images, write_zarr

torch = pytest.importorskip("torch", reason="it has a small build for one version of Python")
stateful = pytest.importorskip("torchdata.stateful_dataloader")

from torch.utils.data import DataLoader  # noqa: E402

import lazyarr.torch  # noqa: E402

pytestmark = pytest.mark.usefixtures("engine")

N = 240
X, Y = images((N, 16, 64), np.uint8), np.arange(N) * 3


@pytest.fixture
def url(tmp_path):
    """A store of sixty units, and one of labels, that nobody has opened before."""
    write_zarr(tmp_path / "t.zarr", Y, name="y", chunks=(N,))
    return write_zarr(tmp_path / "t.zarr", X, name="x", chunks=(4, 16, 64))


def test_samples_have_the_form_of_what_is_given(url):
    """An array for an array, a tuple for a tuple, a dict for a mapping or a group."""
    ds = lazyarr.open(url)
    one = lazyarr.torch.Dataset(ds["x"])
    np.testing.assert_array_equal(one[5], X[5])
    x, y = lazyarr.torch.Dataset((ds["x"], ds["y"]))[-1]
    np.testing.assert_array_equal(x, X[-1])
    assert y == Y[-1]
    for arrays in (ds, {"x": ds["x"], "y": ds["y"]}, {"x": ds["x"], "y": Y}):
        data = lazyarr.torch.Dataset(arrays)
        assert len(data) == N
        sample = data[7]
        assert sample.keys() == {"x", "y"}
        assert type(sample["x"]) is np.ndarray
        np.testing.assert_array_equal(sample["x"], X[7])
        assert sample["y"] == Y[7]
    assert repr(data) == "lazyarr.torch.Dataset(240 samples: x, y)"
    with pytest.raises(IndexError):
        one[N]
    with pytest.raises(ValueError, match=r"different lengths \(x: 240, z: 3\)"):
        lazyarr.torch.Dataset({"x": ds["x"], "z": np.zeros(3)})


def test_a_transform_is_given_samples(url):
    """Each by itself."""
    data = lazyarr.torch.Dataset(lazyarr.open(url), transform=lambda s: (s["x"].sum(), s["y"]))
    assert data[3] == (X[3].sum(), Y[3])
    assert data.__getitems__([9, 2]) == [(X[9].sum(), Y[9]), (X[2].sum(), Y[2])]


def test_samples_can_be_changed_and_the_store_is_not(url):
    """Augmenting in place never changes the next epoch; torch warns of nothing."""
    data = lazyarr.torch.Dataset(lazyarr.open(url))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            for k, batch in enumerate(DataLoader(data, batch_size=50)):
                np.testing.assert_array_equal(batch["x"].numpy(), X[50 * k : 50 * k + 50])
                batch["x"] += 1
            sample = data[0]["x"]
            sample += 1
            torch.from_numpy(data.__getitems__([0])[0]["x"]).add_(1)
    np.testing.assert_array_equal(data[0]["x"], X[0])


def _turned(batch):
    return torch.utils.data.default_collate(batch[::-1])


def _changed(batch):
    batch[0]["x"][:] = 7
    return torch.utils.data.default_collate(batch)


@memory_only
def test_batches_of_workers_are_what_the_samples_are(url):
    """As they come, in another order, and with one that was changed."""
    ds = lazyarr.open(url)
    rows = [5, 200, 5, 17, 0, 239]
    for collate, expected in (
        (None, X[rows]),
        (_turned, X[rows[::-1]]),
        (_changed, np.concatenate([np.full_like(X[:1], 7), X[rows[1:]]])),
    ):
        data = lazyarr.torch.Dataset(ds)
        loader = DataLoader(data, sampler=rows, batch_size=6, num_workers=1, collate_fn=collate)
        batch = next(iter(loader))
        np.testing.assert_array_equal(batch["x"].numpy(), expected)
        assert batch["x"].is_shared()
        assert sorted(batch["y"].tolist()) == sorted(Y[rows].tolist())


@memory_only
def test_without_copies_samples_are_read_only_views(url):
    """Of memory that all processes share."""
    x = lazyarr.open(url)["x"]
    rows = lazyarr.torch.Dataset(x, copy=False).__getitems__([4, 100])
    np.testing.assert_array_equal(rows, X[[4, 100]])
    assert all(np.shares_memory(row, np.asarray(x)) for row in rows)
    assert not any(row.flags.writeable for row in rows)


@memory_only
def test_a_batch_is_one_request(url):
    """However many chunks it needs."""
    data = lazyarr.torch.Dataset(lazyarr.open(url)["x"])
    before = lazyarr.stats()
    data.__getitems__([*range(0, N, 4)])
    after = lazyarr.stats()
    assert after["requests"] - before["requests"] == 1
    assert after["units_loaded"] - before["units_loaded"] == 60


def flat(lists):
    """Return the items of lists in one list."""
    return list(itertools.chain.from_iterable(lists))


def read(loader):
    """Return the labels of all batches, after a look at what belongs to them."""
    labels = []
    for batch in loader:
        np.testing.assert_array_equal(batch["x"].numpy(), X[batch["y"].numpy() // 3])
        labels.append(batch["y"].tolist())
    return labels


@memory_only
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than processors
@pytest.mark.parametrize(
    ("method", "n_workers"),
    [("fork", 0), ("fork", 1), ("fork", 5), ("spawn", 2), ("forkserver", 2)],
)
def test_workers_share_what_is_loaded(url, method, n_workers):
    """Over two epochs each chunk is loaded once, and the order does not depend on workers."""
    ds = lazyarr.open(url)
    before = lazyarr.stats()["units_loaded"]
    order = lazyarr.torch.ChunkShuffle(ds, seed=2, window=10)
    loader = DataLoader(
        lazyarr.torch.Dataset(ds),
        batch_size=32,
        sampler=order,
        num_workers=n_workers,
        multiprocessing_context=method if n_workers else None,
        persistent_workers=n_workers > 0,
    )
    for epoch in range(2):
        order.set_epoch(epoch)
        expected = lazyarr.sampling.ChunkShuffle(ds, seed=2, epoch=epoch, window=10)
        assert flat(read(loader)) == [Y[k] for k in expected]
    assert lazyarr.stats()["units_loaded"] - before == 61


@memory_only
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("n_workers", [0, 5])
def test_torchdata_resumes_in_the_middle_of_an_epoch(url, n_workers):
    """With what is left, and with all of the next epoch."""
    ds = lazyarr.open(url)

    def make():
        order = lazyarr.torch.ChunkShuffle(ds, seed=4, window=10)
        data = lazyarr.torch.Dataset(ds)
        return order, stateful.StatefulDataLoader(
            data, batch_size=16, sampler=order, num_workers=n_workers
        )

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch")  # torchdata calls what torch deprecates
        _, loader = make()
        batches = iter(loader)
        first = [next(batches)["y"].tolist() for _ in range(6)]
        state = pickle.loads(pickle.dumps(loader.state_dict()))
        rest = read(batches)
        order, loader = make()
        loader.load_state_dict(state)
        assert read(loader) == rest
        assert sorted(flat(first + rest)) == Y.tolist()
        order.set_epoch(1)
        again = flat(read(loader))
    assert sorted(again) == Y.tolist()
    assert again != flat(first + rest)


def _rank(rank, url, file, queue):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=2
    )
    ds = lazyarr.open(url)
    order = lazyarr.torch.ChunkShuffle(ds, seed=1, window=10, drop_last=True)
    assert (order.rank, order.world_size) == (rank, 2)
    loader = DataLoader(lazyarr.torch.Dataset(ds), batch_size=24, sampler=order)
    labels = []
    for batch in loader:
        total = batch["y"].sum()
        torch.distributed.all_reduce(total)  # waits for the other rank
        labels += batch["y"].tolist()
    queue.put((rank, labels, order.state_dict()))
    torch.distributed.destroy_process_group()


@memory_only
def test_two_ranks_have_a_half_each(url, tmp_path):
    """They find their rank by themselves, and their states are the same."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    ranks = [
        context.Process(target=_rank, args=(rank, url, tmp_path / "group", queue))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    found = sorted(queue.get(timeout=100) for _ in ranks)
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(found[0][1] + found[1][1]) == Y.tolist()
    assert len(found[0][1]) == len(found[1][1])
    assert found[0][2] == found[1][2]


def test_ranks_with_different_numbers_of_samples_are_told_of(url):
    """A rank that has a batch more would wait for the others."""
    x = lazyarr.open(url)["x"]
    with pytest.warns(PerformanceWarning, match="2 of 7 ranks .*drop_last=True"):
        lazyarr.torch.ChunkShuffle(x, rank=0, world_size=7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lazyarr.torch.ChunkShuffle(x, rank=0, world_size=7, drop_last=True)
        lazyarr.torch.ChunkShuffle(x, rank=0, world_size=8)


def test_lightning_trains_on_the_samples(url, tmp_path):
    """The Trainer sets the epoch, and each has all samples in an order of its own."""
    lightning = pytest.importorskip("lightning.pytorch")
    seen = []

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch, _):
            np.testing.assert_array_equal(batch["x"].numpy(), X[batch["y"].numpy() // 3])
            seen.extend(batch["y"].tolist())
            return self.layer(batch["y"][:, None].float() / N).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    ds = lazyarr.open(url)
    order = lazyarr.torch.ChunkShuffle(ds, window=10)
    loader = DataLoader(lazyarr.torch.Dataset(ds), batch_size=48, sampler=order)
    with warnings.catch_warnings():
        # It advises more workers than a test needs, and warns of what torch deprecates.
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(Model(), loader)
    assert sorted(seen[:N]) == sorted(seen[N:]) == Y.tolist()
    assert seen[:N] != seen[N:]


@memory_only
def test_a_plain_shuffle_is_told_of_by_one_worker(tmp_path):
    """Not by each of them; the line of code that mends it is named."""
    url = write_zarr(tmp_path / "x.zarr", np.ones((2048, 1024), np.uint8), chunks=(32, 1024))
    ended = run_program(programs.shuffle_in_workers, url)
    assert (ended.returncode, ended.stdout) == (0, "4096\n"), ended.stderr
    assert ended.stderr.count("sampler=lazyarr.torch.ChunkShuffle(x)") == 1, ended.stderr
