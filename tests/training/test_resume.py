"""Checkpoints: a training that was ended anywhere, in any way, goes on bit for bit as if it had not been."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import training_run
from training_run import Run

import portablenn as pnn
from portablenn.callbacks import Callback, Checkpoint, CSVLog, EarlyStopping, ReduceOnPlateau
from portablenn.files import checkpoint
from portablenn.runtime.arrays import to_numpy

pytest.importorskip("safetensors")
pytestmark = pytest.mark.slow

X = np.random.default_rng(0).normal(size=(50, 3)).astype("f4")
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
STEPS = 4 * 7
"""Of four epochs of seven batches of eight, the last of them of two."""


class Kill(Callback):
    """What ends a process, as far as this one can show it: an error after a step."""

    def __init__(self, step: int) -> None:
        self.every_steps, self.step = 1, step

    def on_snapshot_ready(self, network: Any, training: Any) -> None:
        if network.steps == self.step:
            raise KeyboardInterrupt


def _network(backend: Any = "numpy", optimizer: Any = None) -> pnn.Network:
    layers = [pnn.Dense(6, "relu"), pnn.BatchNorm(0.8), pnn.Dropout(0.2), pnn.Dense(2)]
    rate = pnn.schedules.CosineDecay(0.05, 40)
    return pnn.Network(
        layers, 3, "softmax_cross_entropy", optimizer or pnn.Adam(rate, l2=1e-3, clip_norm=1.0), backend=backend, seed=3
    )


def _fitted(net: pnn.Network, **facts: Any) -> pnn.Network:
    net.fit(X, Y, **{"epochs": 4, "batch_size": 8, "validation_split": 0.0} | facts)
    return net


def _same(a: pnn.Network, b: pnn.Network) -> None:
    for ours, theirs in zip(
        (a.state.theta, *a.state.slots, a.state.statistics), (b.state.theta, *b.state.slots, b.state.statistics)
    ):
        np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))
    assert (a.steps, a.epochs, dict(a.history)) == (b.steps, b.epochs, dict(b.history))


def _killed(net: pnn.Network, at: int, folder: Path, every: int = 1, **facts: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        _fitted(net, callbacks=[*facts.pop("callbacks", ()), Checkpoint(folder, every_steps=every), Kill(at)], **facts)


@pytest.mark.parametrize("at", [1, 2, 6, 7, 8, 13, 20, STEPS - 1])
def test_a_run_that_ended_after_any_step_resumes_to_the_same_bits(library: Any, at: int, tmp_path: Path) -> None:
    whole = _fitted(_network(library.backend), callbacks=[Checkpoint(tmp_path / "whole", every_steps=1), Callback()])
    _killed(_network(library.backend), at, tmp_path / "parts")
    _same(
        _fitted(_network(library.backend), resume=tmp_path / "parts", callbacks=[Checkpoint(tmp_path / "parts", 1)]),
        whole,
    )


ORDERS: dict[str, dict[str, Any]] = {
    "sequential": {"order": "sequential"},
    "with replacement": {"order": "random", "steps_per_epoch": 5},
    "a function": {"order": lambda epoch: np.roll(np.arange(50), epoch)},
    "full batch": {"batch_size": None, "epochs": 12},
    "validation rows": {"validation_split": 0.2},
    "weights": {"sample_weight": np.linspace(0.1, 1.0, 50)},
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("at", [3, 9])
def test_in_every_order_without_checkpoints_the_bits_are_the_same(name: str, at: int, tmp_path: Path) -> None:
    whole = _fitted(_network(), **ORDERS[name])
    _killed(_network(), at, tmp_path, **ORDERS[name])
    _same(_fitted(_network(), resume=tmp_path, **ORDERS[name]), whole)


@pytest.mark.parametrize("every", [2, 3, 5])
def test_from_a_checkpoint_before_the_end_the_steps_after_it_come_again(every: int, tmp_path: Path) -> None:
    _killed(_network(), 11, tmp_path, every)
    _same(_fitted(_network(), resume=tmp_path), _fitted(_network()))


OPTIMIZERS = [
    pnn.SGD(0.1, momentum=0.9, nesterov=True),
    pnn.AdamW(0.01),
    pnn.RMSprop(0.01),
    pnn.Adagrad(0.1),
    pnn.LBFGS(),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_every_optimizer_remembers_all(optimizer: Any, tmp_path: Path) -> None:
    def network() -> pnn.Network:
        return pnn.mlp([3, 5, 2], loss="softmax_cross_entropy", optimizer=optimizer, dtype="float64", backend="numpy")

    whole = _fitted(network(), epochs=9)
    _killed(network(), 5, tmp_path, epochs=9)
    _same(_fitted(network(), epochs=9, resume=tmp_path), whole)


EXPONENT = 2


def _power(predictions: Any, targets: Any, factor: float = 1.0) -> Any:
    return factor * (predictions - targets) ** EXPONENT


def _times(factor: Any) -> Any:
    return lambda predictions, targets: factor * (predictions - targets) ** 2


def _without_source(code: str) -> Any:
    return eval(code, {})


LOSSES = {
    "arguments": (partial(_power, factor=1.0), partial(_power, factor=2.0)),
    "closures": (_times(1.0), _times(2.0)),
    "arrays": (_times(np.ones(2)), _times(np.full(2, 2.0))),
    "functions": (_times(1.0), _power),
    "code": (_without_source("lambda p, t: (p - t) ** 2"), _without_source("lambda p, t: 2 * (p - t) ** 2")),
    "constants": (_without_source("lambda p, t: (p - t) ** 2"), _without_source("lambda p, t: (p - t) ** 4")),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_checkpoint_of_another_loss_function_is_refused(name: str, tmp_path: Path) -> None:
    def fit(loss: Any, epochs: int, **options: Any) -> None:
        net = pnn.mlp([3, 5, 2], loss=loss, backend="numpy")
        net.fit(X, np.stack([Y, Y], axis=1).astype("f4"), epochs=epochs, callbacks=[Checkpoint(tmp_path)], **options)

    first, second = LOSSES[name]
    fit(first, 1)
    fit(first, 2, resume=tmp_path)
    with pytest.raises(ValueError, match="belongs to another run.*network.loss"):
        fit(second, 3, resume=tmp_path)


def test_a_checkpoint_is_refused_if_a_global_that_the_loss_reads_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(epochs: int) -> None:
        net = pnn.mlp([3, 5, 1], loss=_power, backend="numpy")
        net.fit(X, Y, epochs=epochs, callbacks=[Checkpoint(tmp_path)], resume=tmp_path)

    fit(1)
    fit(2)
    monkeypatch.setitem(globals(), "EXPONENT", 4)
    with pytest.raises(ValueError, match=r"globals.EXPONENT: 2, now 4"):
        fit(3)


def test_callbacks_continue_to_count(tmp_path: Path) -> None:
    def callbacks(name: str) -> list[Callback]:
        return [EarlyStopping(patience=4, monitor="val_accuracy"), ReduceOnPlateau(0.5, 2), CSVLog(tmp_path / name)]

    facts = {"epochs": 60, "validation_split": 0.3, "batch_size": 5}
    one = pnn.mlp([3, 6, 2], loss="softmax_cross_entropy", optimizer=pnn.SGD(0.3), backend="numpy")
    _fitted(one, callbacks=callbacks("whole.csv"), **facts)
    assert "did not improve for 4 epochs" in one.history.ended
    ends = one.steps
    for at in (10, ends // 2, ends - 1, ends):
        folder = tmp_path / str(at)
        two, three = (
            pnn.mlp([3, 6, 2], loss="softmax_cross_entropy", optimizer=pnn.SGD(0.3), backend="numpy") for _ in "ab"
        )
        _killed(two, at, folder, callbacks=callbacks("parts.csv"), **facts)
        _fitted(three, callbacks=[*callbacks("parts.csv"), Checkpoint(folder)], resume=folder, **facts)
        _same(one, three)
        assert one.history.ended == three.history.ended
        assert (tmp_path / "whole.csv").read_text() == (tmp_path / "parts.csv").read_text()
        # and once more, when there is nothing left to do
        four = pnn.mlp([3, 6, 2], loss="softmax_cross_entropy", optimizer=pnn.SGD(0.3), backend="numpy")
        _same(_fitted(four, callbacks=callbacks("parts.csv"), resume=folder, **facts), one)


def test_a_checkpoint_goes_over_to_another_library(other_library: Any, tmp_path: Path) -> None:
    _killed(_network(), 10, tmp_path)
    there = _fitted(_network(other_library.backend), resume=tmp_path)
    np.testing.assert_allclose(to_numpy(there.state.theta), _fitted(_network()).state.theta, rtol=1e-4, atol=1e-5)


def test_more_epochs_than_first_asked_for_are_trained_on_top(tmp_path: Path) -> None:
    _fitted(_network(), epochs=2, callbacks=[Checkpoint(tmp_path)])
    _same(_fitted(_network(), epochs=4, resume=tmp_path), _fitted(_network(), epochs=4))


def test_an_empty_or_missing_folder_starts_a_new_run(tmp_path: Path) -> None:
    _same(_fitted(_network(), resume=tmp_path), _fitted(_network(), resume=tmp_path / "missing"))


def test_the_newest_are_kept_and_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path) -> None:
    whole = _fitted(_network(), callbacks=[Checkpoint(tmp_path, every_steps=2, keep=3)])
    files = checkpoint.list_paths(tmp_path)
    assert [int(path.stem[-12:]) for path in files] == [28, 27, 25]
    for damage in (lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])):
        content = files[0].read_bytes()
        files[0].write_bytes(damage(content))
        with pytest.warns(RuntimeWarning, match="checkpoint-000000000028.*using the one before it"):
            _same(_fitted(_network(), resume=tmp_path), whole)
        files[0].write_bytes(content)
    for path in files:
        path.write_bytes(b"nothing")
    net = _network()
    before = net.state.theta.copy()
    with pytest.warns(RuntimeWarning), pytest.raises(pnn.FileFormatError, match="none of the 3 checkpoints"):
        _fitted(net, resume=tmp_path)
    np.testing.assert_array_equal(net.state.theta, before)


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another optimizer": ({"optimizer": pnn.Adam(0.5)}, {}, "network.optimizer.learning_rate"),
    "another batch size": ({}, {"batch_size": 5}, "batch_size: 8, now 5"),
    "another order": ({}, {"order": "sequential"}, "order: shuffle, now sequential"),
    "fewer rows": ({}, {"rows": 40}, "rows: 50, now 40"),
    "other data": ({}, {"shift": 1.0}, "data: "),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_training_is_refused(name: str, tmp_path: Path) -> None:
    _killed(_network(), 5, tmp_path)
    network, facts, says = OTHERS[name]
    net, facts = _network(**network), dict(facts)
    rows, shift = facts.pop("rows", 50), facts.pop("shift", 0.0)
    before = net.state.theta.copy()
    with pytest.raises(ValueError, match=f"belongs to another run.*{says}"):
        net.fit(X[:rows] + shift, Y[:rows], **{"epochs": 4, "batch_size": 8} | facts, resume=tmp_path)
    np.testing.assert_array_equal(net.state.theta, before)
    assert (net.steps, net.training) == (0, None)


def test_the_state_of_a_callback_is_not_lost_silently(tmp_path: Path) -> None:
    _killed(_network(), 10, tmp_path, callbacks=[EarlyStopping()])
    with pytest.raises(ValueError, match="has the state of EarlyStopping, and this fit has no such callback"):
        _fitted(_network(), resume=tmp_path)


def test_a_refused_resume_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    _killed(_network(), 10, tmp_path, callbacks=[EarlyStopping()])
    net = _network()
    before = net.state.theta.copy()
    with pytest.raises(ValueError, match="has the state of EarlyStopping"):
        _fitted(net, resume=tmp_path)
    np.testing.assert_array_equal(net.state.theta, before)
    assert (net.steps, net.epochs) == (0, 0)


def test_a_new_training_does_not_write_among_anothers_checkpoints(tmp_path: Path) -> None:
    _fitted(_network(), callbacks=[Checkpoint(tmp_path)])
    names = [path.name for path in checkpoint.list_paths(tmp_path)]
    with pytest.raises(ValueError, match="of another run: pass resume="):
        _fitted(_network(), callbacks=[Checkpoint(tmp_path)])
    assert [path.name for path in checkpoint.list_paths(tmp_path)] == names
    with pytest.raises(NotADirectoryError, match="resume from the folder"):
        _fitted(_network(), resume=checkpoint.list_paths(tmp_path)[0])


def test_after_a_damaged_checkpoint_the_next_ones_are_kept(tmp_path: Path) -> None:
    _killed(_network(), 12, tmp_path)
    newest = checkpoint.list_paths(tmp_path)[0]
    newest.write_bytes(b"damaged")
    again, callbacks = _network(), [Checkpoint(tmp_path, every_steps=1, keep=1), Kill(12)]
    with pytest.warns(RuntimeWarning, match="using the one before it"), pytest.raises(KeyboardInterrupt):
        _fitted(again, resume=tmp_path, callbacks=callbacks)
    _same(_fitted(_network(), resume=tmp_path), _fitted(_network()))


@pytest.mark.parametrize("at", range(1, 7))
def test_callbacks_resume_in_any_order(at: int, tmp_path: Path) -> None:
    def fit(folder: str, *more: Callback, **facts: Any) -> pnn.Network:
        net = pnn.mlp([3, 6, 2], loss="softmax_cross_entropy", optimizer=pnn.SGD(1.6), backend="numpy")
        callbacks = [Checkpoint(tmp_path / folder), ReduceOnPlateau(0.5, 1), EarlyStopping(patience=50), *more]
        return _fitted(net, epochs=8, batch_size=None, callbacks=callbacks, **facts)

    whole = fit("whole")
    with pytest.raises(KeyboardInterrupt):
        fit("parts", Kill(at))
    _same(fit("parts", resume=tmp_path / "parts"), whole)


def test_nan_after_a_resume_restores_the_last_finite_state(tmp_path: Path) -> None:
    from portablenn.callbacks import StopOnNaN

    def fit(folder: str, *more: Callback, **facts: Any) -> pnn.Network:
        rate = pnn.schedules.ExponentialDecay(1e-3, 10.0, 1)
        net = pnn.mlp([3, 6, 1], optimizer=pnn.SGD(rate), backend="numpy")
        callbacks = [StopOnNaN(), Checkpoint(tmp_path / folder, every_steps=1), *more]
        net.fit(X, X[:, 0], epochs=9, batch_size=10, callbacks=callbacks, **facts)
        return net

    with pytest.warns(RuntimeWarning, match="training ended"):
        whole = fit("whole")
    with pytest.raises(KeyboardInterrupt):
        fit("parts", Kill(3))
    with pytest.warns(RuntimeWarning, match="training ended"):
        parts = fit("parts", resume=tmp_path / "parts")
    np.testing.assert_array_equal(parts.state.theta, whole.state.theta)
    assert parts.history.ended == whole.history.ended


def test_what_a_callback_decided_stands_after_a_resume(tmp_path: Path) -> None:
    class Enough(Callback):
        def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> str | None:
            return "enough" if epoch == 2 else None

    whole = _fitted(_network(), callbacks=[Enough(), Checkpoint(tmp_path)])
    _same(_fitted(_network(), callbacks=[Enough()], resume=tmp_path), whole)
    from portablenn.callbacks import TimeLimit

    limited = _network()
    _fitted(limited, callbacks=[TimeLimit(1e-9), Checkpoint(tmp_path / "limited")])
    assert limited.epochs < 4
    _same(_fitted(_network(), resume=tmp_path / "limited"), _fitted(_network()))


def test_a_budget_of_lbfgs_is_spent_once(tmp_path: Path) -> None:
    def network() -> pnn.Network:
        return pnn.mlp(
            [3, 6, 2], loss="softmax_cross_entropy", optimizer=pnn.LBFGS(budget=12), dtype="float64", backend="numpy"
        )

    whole = _fitted(network(), epochs=50, callbacks=[Checkpoint(tmp_path, every_epochs=30)])
    _same(_fitted(network(), epochs=50, resume=tmp_path), whole)


def test_fewer_epochs_than_are_done_are_an_error(tmp_path: Path) -> None:
    _killed(_network(), 17, tmp_path)  # two epochs and three steps
    with pytest.raises(
        ValueError, match="the checkpoint was written after 2 epochs and 3 steps, and epochs=2 is the total"
    ):
        _fitted(_network(), epochs=2, resume=tmp_path)


def test_the_interrupted_network_itself_can_resume(tmp_path: Path) -> None:
    whole = _fitted(_network(), epochs=6)
    net = _network()
    _killed(net, 10, tmp_path, callbacks=[], epochs=6)
    _same(_fitted(net, epochs=6, resume=tmp_path), whole)


def test_validation_rows_and_settings_must_be_the_same(tmp_path: Path) -> None:
    _killed(_network(), 10, tmp_path, validation_data=(X[:9], Y[:9]))
    for other in ({}, {"validation_data": (X[1:10], Y[1:10])}):
        with pytest.raises(ValueError, match="data: others"):
            _fitted(_network(), resume=tmp_path, **other)


def test_all_callbacks_are_called_at_the_end() -> None:
    class Fails(Callback):
        def on_train_end(self, network: Any) -> None:
            raise RuntimeError("upload failed")

    nets = [pnn.mlp([3, 6, 2], loss="softmax_cross_entropy", optimizer=pnn.SGD(3.0), backend="numpy") for _ in "ab"]
    _fitted(nets[0], epochs=100, callbacks=[EarlyStopping(patience=2)])
    with pytest.raises(RuntimeError, match="upload failed"):
        _fitted(nets[1], epochs=100, callbacks=[Fails(), EarlyStopping(patience=2)])
    np.testing.assert_array_equal(nets[0].state.theta, nets[1].state.theta)  # the best weights


def test_a_callback_that_cannot_begin_leaves_all_as_it_was() -> None:
    ended: list[str] = []

    class Begins(Callback):
        def on_train_end(self, network: Any) -> None:
            ended.append("end")

    net = _fitted(_network(), epochs=1)
    history = net.history
    with pytest.raises(ValueError, match="there are no validation rows"):
        _fitted(net, callbacks=[Begins(), EarlyStopping("val_loss")])
    assert (ended, net.history, net.epochs) == (["end"], history, 1)


def test_early_stopping_does_not_wait_for_nan() -> None:
    net = pnn.mlp([3, 6, 1], optimizer=pnn.SGD(1e30), backend="numpy")
    with pytest.warns(RuntimeWarning, match="the loss is"):
        net.fit(X * 1e20, X[:, 0], epochs=100, callbacks=[EarlyStopping(patience=3)])
    assert len(net.history["loss"]) <= 5


# Processes that are killed


def _process(folder: Path, backend: str, limit: Any = None) -> subprocess.Popen[str]:
    command = [sys.executable, training_run.__file__, str(folder), backend]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit)


def _end(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out.split()[-1]


def _kills(library: Any, folder: Path, kills: int) -> None:
    """Kill it at random moments, mostly while it writes, until it was killed so often; its end is that of a run at one go."""
    whole = Run(folder / "whole", library.name)
    begin = time.monotonic()
    wanted = whole.end()
    takes = min(time.monotonic() - begin, 1.0)
    chance, killed, part, of_part = random.Random(0), 0, 0, 0
    for round_ in range(10 * kills):
        run = Run(folder / f"parts{part}", library.name)
        if round_ % 2:  # in the middle of writing, as the file's name says that is there then
            deadline = time.monotonic() + chance.uniform(0.0, takes / 4)
            while time.monotonic() < deadline or not list(folder.glob(f"parts{part}/.*unfinished")):
                if not run.process.is_alive():
                    break
        else:
            time.sleep(chance.uniform(0.0, takes / 2))
        was_running = run.kill()
        killed, of_part = killed + was_running, of_part + was_running
        if of_part == 5 or not was_running or killed >= kills:
            assert Run(folder / f"parts{part}", library.name).end() == wanted
            part, of_part = part + 1, 0
        if killed >= kills:
            return
    pytest.fail(f"it could be killed {killed} times only")


@pytest.mark.skipif(os.name != "posix", reason="kills by a signal")
def test_fifty_kills_change_no_bit(tmp_path: Path) -> None:
    class NumPy:
        name = "numpy"

    _kills(NumPy, tmp_path, 50)


@pytest.mark.skipif(os.name != "posix", reason="kills by a signal")
def test_kills_change_no_bit_on_any_library(other_library: Any, tmp_path: Path) -> None:
    if "device1" in other_library.name:
        pytest.skip("the same code as the device before it, and slow")
    _kills(other_library, tmp_path, 5)


@pytest.mark.skipif(os.name != "posix", reason="kills by a signal")
def test_kills_change_no_bit_on_numba(tmp_path: Path) -> None:
    pytest.importorskip("portablenn_numba")

    class Numba:
        name = "numba"

    _kills(Numba, tmp_path, 5)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_ends_with_a_checkpoint_and_the_best_weights(tmp_path: Path) -> None:
    # a process that a shell started in the background ignores the signal, and so do those that it starts
    script = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"runpy.run_path({training_run.__file__!r}, run_name='__main__')"
    )
    wanted = Run(tmp_path / "whole", "numpy").end()
    command = [sys.executable, "-c", script, str(tmp_path / "parts"), "numpy", "100000", "1000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    while not checkpoint.list_paths(tmp_path / "parts"):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(out.split()[-1]) == 64
    assert "training ends after the current steps" in errors
    assert "was ended by Ctrl-C in epoch" in errors
    newest = checkpoint.newest(tmp_path / "parts")
    assert newest is not None
    assert newest.facts["ended"].startswith("Ctrl-C")
    if newest.facts["epoch"] < 12:
        assert Run(tmp_path / "parts", "numpy").end() == wanted


def test_a_read_only_folder_is_named_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # root may write anywhere
    net = _network()
    with pytest.raises(PermissionError, match="this user may not write there"):
        _fitted(net, callbacks=[Checkpoint(tmp_path)])
    assert net.steps == 0


@pytest.mark.skipif(os.name != "posix", reason="limits as POSIX has them")
def test_a_disk_that_gets_full_costs_nothing_that_was_written(tmp_path: Path) -> None:
    wanted = _end(_process(tmp_path / "whole", "numpy"))
    process = _process(tmp_path / "parts", "numpy")
    assert process.stdout is not None
    process.stdout.readline()
    while len(checkpoint.list_paths(tmp_path / "parts")) < 2:
        time.sleep(0.005)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "larger than is allowed here" in errors
    assert "its previous content is unchanged" in errors
    assert not list((tmp_path / "parts").glob(".*"))
    assert _end(_process(tmp_path / "parts", "numpy")) == wanted


def test_every_target_of_several_columns_counts_for_the_fingerprint() -> None:
    from portablenn.training.resume import fingerprint

    targets = np.zeros((5000, 2))
    other = targets.copy()
    other[1, 1] = 1.0  # a row that evenly spaced ones would miss
    assert fingerprint([targets]) != fingerprint([other])
