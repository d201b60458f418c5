"""Data that come in blocks or batches: the same training as of arrays, nothing held that need not be, resumed exactly."""

from __future__ import annotations

import gc
import io
import struct
import threading
import time
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.callbacks import Callback, Checkpoint
from portablenn.data import Rows, read_npy, read_npz, split
from portablenn.data import blocks as blocks_module
from portablenn.data.batching import chunks_of_epoch
from portablenn.data.blocks import Validated
from portablenn.data.chunks import Batching, Orders, Samples
from portablenn.data.dataset import Dataset, make_dataset
from portablenn.data.prefetch import prefetch
from portablenn.runtime.arrays import to_numpy

X = np.random.default_rng(0).normal(size=(103, 3)).astype("f4")
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
W = np.linspace(0.1, 1.0, 103)


def _network(backend: Any = "numpy", optimizer: Any = "adam") -> pnn.Network:
    layers = [pnn.Dense(6, "relu"), pnn.Dropout(0.2), pnn.Dense(2)]
    return pnn.Network(layers, 3, "softmax_cross_entropy", optimizer, backend=backend, seed=3)


def _same(a: pnn.Network, b: pnn.Network) -> None:
    np.testing.assert_array_equal(to_numpy(a.state.theta), to_numpy(b.state.theta))
    assert (a.steps, a.epochs) == (b.steps, b.epochs)
    assert a.history["loss"] == pytest.approx(b.history["loss"], rel=1e-12)


@pytest.mark.parametrize("pooled", [1, 60, 1 << 22], ids=lambda n: f"{n} numbers at a time")
@pytest.mark.parametrize("weights", [None, W], ids=["", "weights"])
def test_blocks_in_order_train_as_arrays_do(
    library: Any, pooled: int, weights: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "GROUP_SIZE", pooled)
    whole, parts = _network(library.backend), _network(library.backend)
    whole.fit(X, Y, epochs=3, batch_size=8, order="sequential", sample_weight=weights)
    parts.fit(Rows(X, Y, weights, block_rows=10), epochs=3, batch_size=8, order="sequential")
    np.testing.assert_allclose(to_numpy(parts.state.theta), to_numpy(whole.state.theta), rtol=1e-6, atol=1e-7)
    assert parts.history["loss"] == pytest.approx(whole.history["loss"], rel=1e-6)


class Seen(Callback):
    """The rows that each step took, of data whose first column is their number."""


def _numbers(order: str, **facts: Any) -> list[list[float]]:
    """The row numbers that each epoch trains on, in their order."""
    seen: list[list[float]] = []

    numbered = np.stack([np.arange(103.0), np.zeros(103)], axis=1)
    batching = Batching(103, facts.get("batch", 8), order, 103, pauses=facts.get("pauses", ()))
    rows = Rows(numbered, Y, block_rows=10)
    data = Dataset(rows, None, None, 103, None, False, None, lambda x, y, w: Validated(Samples(x, y, w), False))
    key = np.asarray([1, 2], dtype=np.int32)
    for epoch in range(2):
        found: list[float] = []
        chunks = chunks_of_epoch(Orders(batching, key), pnn.get_backend("numpy"), data, epoch, facts.get("done", 0))
        for chunk, _ in chunks:
            x = chunk.samples.x
            taken = np.arange(len(x))[None, :] if chunk.order is None else chunk.order[: chunk.steps]
            found += x[taken.reshape(-1), 0].tolist()
        seen.append(found)
    return seen


@pytest.mark.parametrize("pooled", [1, 50, 1 << 22])
@pytest.mark.parametrize("batch", [1, 8, 40, 103])
def test_every_row_comes_once_an_epoch_in_another_order_each_time(
    pooled: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "GROUP_SIZE", pooled)
    first, second = _numbers("shuffle", batch=batch)
    assert sorted(first) == sorted(second) == list(range(103))
    assert first != second
    assert first != sorted(first)


@pytest.mark.parametrize("pooled", [1, 50, 1 << 22])
@pytest.mark.parametrize("order", ["shuffle", "sequential"])
def test_an_epoch_of_blocks_can_start_at_any_batch(pooled: int, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "GROUP_SIZE", pooled)
    whole = _numbers(order)
    for done in range(1, 13):
        for pauses in ((), (3,)):
            assert _numbers(order, done=done, pauses=pauses) == [epoch[8 * done :] for epoch in whole]


class Kill(Callback):
    def __init__(self, step: int) -> None:
        self.every_steps, self.step = 1, step

    def on_snapshot_ready(self, network: Any, training: Any) -> None:
        if network.steps == self.step:
            raise KeyboardInterrupt


def _batches(epoch: int) -> Iterator[Any]:
    order = np.random.default_rng(epoch).permutation(103)
    for start in range(0, 103, 8):
        rows = order[start : start + 8]
        yield X[rows], Y[rows]


KINDS: dict[str, Any] = {
    "blocks": lambda: Rows(X, Y, W, block_rows=10),
    "a function of the epoch": lambda: _batches,
    "a list of batches": lambda: list(_batches(0)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [1, 5, 13, 20])
def test_a_killed_run_resumes_to_the_same_bits(kind: str, at: int, library: Any, tmp_path: Path) -> None:
    def fit(net: pnn.Network, *callbacks: Any, **facts: Any) -> pnn.Network:
        net.fit(
            KINDS[kind](),
            epochs=3,
            batch_size=8,
            callbacks=[*callbacks, Checkpoint(tmp_path / f"own{len(list(tmp_path.iterdir()))}", every_steps=1)],
            **facts,
        )
        return net

    whole = fit(_network(library.backend))
    with pytest.raises(KeyboardInterrupt):
        fit(_network(library.backend), Checkpoint(tmp_path / "parts", every_steps=1), Kill(at))
    _same(fit(_network(library.backend), resume=tmp_path / "parts"), whole)


def test_batches_train_as_the_rows_of_arrays_do() -> None:
    whole, parts, generator = _network(), _network(), _network()
    order = [np.concatenate([np.random.default_rng(epoch).permutation(103)]) for epoch in range(3)]
    whole.fit(X, Y, epochs=3, batch_size=8, order=lambda epoch: order[epoch])
    parts.fit(_batches, epochs=3)
    _same(parts, whole)
    for epoch in range(3):
        generator.fit(_batches(epoch))
    np.testing.assert_array_equal(generator.state.theta, whole.state.theta)


def test_batches_of_every_size_and_an_end() -> None:
    net = _network()
    sizes = [3, 3, 7, 1, 1, 1, 5]
    net.fit([(X[:n], Y[:n], W[:n]) for n in sizes], epochs=2)
    assert net.steps == 14
    endless = _network()

    def forever(epoch: int) -> Iterator[Any]:
        while True:
            yield X[:4], Y[:4]

    endless.fit(forever, epochs=2, steps_per_epoch=5)
    assert (endless.steps, endless.epochs) == (10, 2)


def test_an_epoch_without_batches_is_an_error() -> None:
    with pytest.raises(ValueError, match="no batch to train on in epoch 1"):
        _network().fit(lambda epoch: [(X, Y)] * (1 - epoch), epochs=3)


def test_a_data_loader_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(torch.asarray(X), torch.asarray(Y)), batch_size=8)
    net, whole = _network("auto"), _network("torch")
    net.fit(loader, epochs=2, validation_data=loader)
    assert net.backend.name == "torch"
    whole.fit(torch.asarray(X), torch.asarray(Y), epochs=2, batch_size=8, order="sequential")
    np.testing.assert_array_equal(net.state.theta, whole.state.theta)
    assert net.evaluate(loader) == pytest.approx(net.evaluate(torch.asarray(X), torch.asarray(Y)), rel=1e-6)
    assert set(net.history) == {"loss", "val_loss", "val_accuracy"}


def test_blocks_are_evaluated_predicted_and_split(library: Any) -> None:
    net, rows = _network(library.backend), Rows(X, Y, W, block_rows=10)
    net.fit(rows, epochs=2, validation_split=0.25, batch_size=16)
    assert len(net.history["val_accuracy"]) == 2
    assert net.steps == 2 * -(-(103 - round(103 * 0.25)) // 16)
    assert net.evaluate(rows) == pytest.approx(net.evaluate(X, Y, W), rel=1e-6)
    np.testing.assert_array_equal(net.predict(rows), net.predict(X))
    np.testing.assert_allclose(net.predict_proba(rows), net.predict_proba(X), rtol=1e-6)


def test_lbfgs_goes_through_blocks() -> None:
    whole, parts = _network(optimizer=pnn.LBFGS(l2=0.1)), _network(optimizer=pnn.LBFGS(l2=0.1))
    whole = pnn.mlp(
        [3, 4, 2], loss="softmax_cross_entropy", optimizer=pnn.LBFGS(l2=0.1), dtype="float64", backend="numpy"
    )
    parts = pnn.mlp(
        [3, 4, 2], loss="softmax_cross_entropy", optimizer=pnn.LBFGS(l2=0.1), dtype="float64", backend="numpy"
    )
    whole.fit(X, Y, epochs=8, sample_weight=W)
    parts.fit(Rows(X, Y, W, block_rows=10), epochs=8)
    assert parts.history["loss"] == pytest.approx(whole.history["loss"], rel=1e-9)


def test_a_memory_map_is_read_block_by_block(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", X)
    np.savez(tmp_path / "both.npz", X=X, Y=Y)
    np.savez_compressed(tmp_path / "small.npz", X=X, Y=Y)
    mapped, archive, small = (
        read_npy(tmp_path / "X.npy"),
        read_npz(tmp_path / "both.npz"),
        read_npz(tmp_path / "small.npz"),
    )
    assert isinstance(mapped, np.memmap)
    assert isinstance(archive["X"], np.memmap)
    for x, y in ((mapped, Y), (archive["X"], archive["Y"]), (small["X"], small["Y"])):
        np.testing.assert_array_equal(x, X)
        net, other = _network(), _network()
        net.fit(Rows(x, y, block_rows=10))
        other.fit(Rows(X, Y, block_rows=10))
        _same(net, other)


def test_a_generator_may_use_its_memory_again() -> None:
    def reusing(epoch: int) -> Iterator[Any]:
        x, y = np.empty((10, 3), "f4"), np.empty(10, int)
        for start in range(0, 100, 10):
            x[:], y[:] = X[start : start + 10], Y[start : start + 10]
            yield x, y

    reused, whole = _network(), _network()
    reused.fit(reusing, epochs=2)
    whole.fit(X[:100], Y[:100], epochs=2, batch_size=10, order="sequential")
    _same(reused, whole)


class Anew:
    """Begins anew at each iter(), as many loaders do."""

    def __iter__(self) -> Anew:
        self.at = 0
        return self

    def __next__(self) -> Any:
        if self.at == 5:
            raise StopIteration
        self.at += 1
        return X[self.at : self.at + 10], Y[self.at : self.at + 10]


def test_an_iterator_that_restarts_is_iterated_over_once_an_epoch() -> None:
    net = _network()
    net.fit(Anew(), epochs=3)
    assert net.steps == 15


class Shuffled:
    """Another order at each pass, as a PyTorch DataLoader has it."""

    def __init__(self) -> None:
        self.chance = np.random.default_rng(5)

    def __iter__(self) -> Iterator[Any]:
        order = self.chance.permutation(103)
        return iter([(X[order[i : i + 8]], Y[order[i : i + 8]]) for i in range(0, 103, 8)])


def test_a_loader_that_shuffles_resumes_at_its_epoch(tmp_path: Path) -> None:
    whole, rest = _network(), _network()
    whole.fit(Shuffled(), epochs=4)
    with pytest.raises(KeyboardInterrupt):
        _network().fit(Shuffled(), epochs=4, callbacks=[Checkpoint(tmp_path, every_steps=1), Kill(30)])
    rest.fit(Shuffled(), epochs=4, resume=tmp_path)
    _same(rest, whole)


def test_steps_have_the_same_bits_however_batches_are_run_together() -> None:
    batches = [(X[i : i + 5], Y[i : i + 5], W[i : i + 5]) for i in range(0, 100, 5)]
    one, many = _network(), _network()
    one.fit(batches, epochs=20, callbacks=[Kill(-1)])
    many.fit(batches, epochs=20)
    np.testing.assert_array_equal(one.state.theta, many.state.theta)


class Mixed(Rows):
    """The second block is of other kinds."""

    def __init__(self, x: Any, y: Any, weights: Any = None, rows: int = 20) -> None:
        super().__init__(X, Y, block_rows=20)
        self.second, self.rows = (x, y, weights), rows

    def read(self, block: int) -> Any:
        x, y, _ = super().read(block)
        if block != 1:
            return (x * 0).astype(int) if self.second[0] is not None else x, y, None
        return (x if self.second[0] is None else self.second[0](x))[: self.rows], y[: self.rows], self.second[2]


def test_blocks_of_other_kinds_are_not_cut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    seven, zero = _network(), _network()
    seven.fit(Mixed(lambda x: x * 0 + 0.7, None), order="sequential")
    zero.fit(Mixed(lambda x: x * 0, None), order="sequential")
    assert np.any(np.asarray(seven.state.theta) != np.asarray(zero.state.theta))
    for weights, rows, says in (
        (np.ones(20), 20, "some blocks have weights"),
        (None, 7, "expected 20 rows in block 1, got 7"),
    ):
        with pytest.raises(ValueError, match=says):
            _network().fit(Mixed(None, None, weights, rows))


@pytest.mark.parametrize("block_rows", [1, 2, 5, 30, 103])
def test_a_share_of_small_blocks_is_the_share_of_all(block_rows: int) -> None:
    train, apart = make_dataset(_network().spec, Rows(X, Y, block_rows=block_rows)).split_blocks(0, 0.2)
    assert (sum(train.x.sizes), sum(apart.x.sizes)) == (82, 21)


def test_an_empty_block_is_passed_over() -> None:
    class Gaps(Rows):
        sizes = (0, 50, 0, 53, 0)

        def __init__(self) -> None:
            self.columns = 3

        def read(self, block: int) -> Any:
            rows = slice(0, 50) if block == 1 else slice(50, 103)
            return X[rows], Y[rows], None

    net, whole = _network(), _network()
    net.fit(Gaps(), order="sequential", batch_size=8, validation_data=Gaps())
    whole.fit(X, Y, order="sequential", batch_size=8)
    np.testing.assert_allclose(net.state.theta, whole.state.theta, rtol=1e-6)


def test_a_reader_that_hangs_does_not_delay_an_error() -> None:
    hang = threading.Event()

    def hanging(epoch: int) -> Iterator[Any]:
        for i in range(3):
            yield X[i : i + 5], Y[i : i + 5]
        hang.wait(30)

    class Fail(Callback):
        def on_steps_end(self, network: Any, steps: Any) -> None:
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        _network().fit(lambda epoch: hanging(epoch), callbacks=[Kill(-1), Fail()])
    assert time.monotonic() - start < 10.0
    hang.set()
    for thread in [t for t in threading.enumerate() if t.name == "portablenn-prefetch"]:
        thread.join(10)


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no y": (X, {}, "y is missing: pass X and y, blocks"),
    "a generator for two epochs": (_batches(0), {"epochs": 2}, "a generator lasts for one epoch, got epochs=2"),
    "an empty iterable": ([], {}, "there is no batch to train on"),
    "no pairs": ([X, X], {}, r"expected batches \(X, y\) or \(X, y, weights\), got ndarray"),
    "a batch of other columns": (
        [(X, Y), (X[:, :2], Y)],
        {},
        r"expected 3 columns in X \(the network's inputs\), got 2",
    ),
    "NaN in a later block": (
        Rows(np.where(np.arange(103)[:, None] == 50, np.nan, X), Y, block_rows=10),
        {},
        "X holds NaN",
    ),
    "labels in a later block": (Rows(X, np.where(np.arange(103) == 99, 7, Y), block_rows=10), {}, "labels from 0 to 7"),
    "weights beside blocks": (Rows(X, Y), {"sample_weight": W}, "blocks and batches bring their own weights"),
    "another order of blocks": (Rows(X, Y), {"order": "random"}, 'for blocks order must be "shuffle" or "sequential"'),
    "all blocks at once": (Rows(X, Y), {"batch_size": None}, "would hold all blocks in memory"),
    "a split of a stream": (_batches, {"validation_split": 0.1}, "pass validation_data"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_data_say_so_and_leave_the_network_as_it_was(name: str) -> None:
    given, facts, says = WRONG[name]
    net = _network()
    before = net.state.theta.copy()
    with pytest.raises((ValueError, TypeError), match=says):
        net.fit(given, **facts)
    np.testing.assert_array_equal(net.state.theta, before)
    assert (net.steps, net.epochs) == (0, 0)
    assert not [t for t in threading.enumerate() if t.name == "portablenn-prefetch"]


def test_what_is_made_ahead_is_one_part_and_its_errors_come_in_their_place() -> None:
    made: list[int] = []

    def parts() -> Iterator[int]:
        for i in range(5):
            made.append(i)
            yield i
        raise RuntimeError("the end")

    taken = prefetch(parts())
    assert next(taken) == 0
    assert max(made, default=0) <= 2
    with pytest.raises(RuntimeError, match="the end"):
        list(taken)


def test_a_reader_that_is_left_ends() -> None:
    taken = prefetch(iter(range(1000)))
    next(taken)
    taken.close()
    assert not [t for t in threading.enumerate() if t.name == "portablenn-prefetch"]


def test_blocks_are_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "GROUP_SIZE", 1)
    alive: list[Any] = []
    most = 0

    class Noted(np.ndarray):
        pass

    class Big(Rows):
        def read(self, block: int) -> Any:
            nonlocal most
            x, y, w = super().read(block)
            x = x.copy().view(Noted)
            alive.append(weakref.ref(x))
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))
            return x, y, w

    gc.freeze()  # what other tests have left takes a second to go through, each time
    try:
        _network().fit(Big(X, Y, block_rows=5), epochs=2, batch_size=5)
    finally:
        gc.unfreeze()
    assert len(alive) > 40
    assert most <= 6


def test_parts_by_shares_are_the_same_everywhere() -> None:
    parts = split(1000, {"train": 0.7, "validation": 0.2, "test": 0.1}, seed=5)
    assert [len(rows) for rows in parts.values()] == [700, 200, 100]
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(1000))
    assert parts["test"][:4].tolist() == [13, 22, 28, 40]  # by the seed alone, as on the day this was written
    with pytest.raises(ValueError, match="sum to 1"):
        split(10, {"train": 0.5})


def _npy(header: bytes, body: bytes = b"") -> bytes:
    header = header.ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


ATTACKS: dict[str, bytes] = {
    "a pickle for a header": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "objects": _npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    "code for a header": _npy(b"__import__('os').system('true')"),
    "a terabyte": _npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
    "a product that wraps": _npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"),
    "negative": _npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"),
    "a text for a shape": _npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': 'x', }"),
    "nested": _npy(b"(" * 5000),
    "named fields": _npy(b"{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
    "a header of the wrong length": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{}",
    "an unknown version": b"\x93NUMPY\x09\x00" + b"\0" * 100,
    "nothing": b"",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_arrays_that_are_attacks_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(ATTACKS[name])
    with pytest.raises(pnn.FileFormatError):
        read_npy(tmp_path / "x.npy")
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "x.npz", "w", kind) as archive:
            archive.writestr("x.npy", ATTACKS[name])
        with pytest.raises(pnn.FileFormatError):
            read_npz(tmp_path / "x.npz")["x"]


def test_an_archive_that_claims_much_is_not_believed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "x.npy", _npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (8589934592,), }", b"\0" * 1000)
        )
    (tmp_path / "x.npz").write_bytes(buffer.getvalue())
    with pytest.raises(pnn.FileFormatError, match="more than the (maximum|.* of the archive)"):
        read_npz(tmp_path / "x.npz")["x"]


def test_the_reading_thread_does_not_change_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "GROUP_SIZE", 1)
    labels = np.zeros((40, 2), dtype=int)
    labels[np.arange(40), np.arange(40) % 2] = 1
    labels[20:] = 1  # the second block has several labels a row
    second_was_read = threading.Event()

    class Two(Rows):
        def read(self, block: int) -> Any:
            found = super().read(block)
            if block == 1:
                second_was_read.set()
            return found

    class Look(Callback):
        seen: list[bool]

        def on_train_begin(self, network: Any, epochs: int) -> None:
            self.seen = []

        def on_steps_end(self, network: Any, steps: Any) -> None:
            assert second_was_read.wait(10.0)
            time.sleep(0.2)  # for the reading thread to validate the block
            self.seen.append(network.multilabel)

    look, net = Look(), pnn.mlp([3, 2], loss="sigmoid_cross_entropy")
    net.fit(Two(X[:40], labels, block_rows=20), batch_size=20, order="sequential", callbacks=[look])
    assert look.seen == [False, True]
    assert net.predict(X[:1]).shape == (1, 2)
