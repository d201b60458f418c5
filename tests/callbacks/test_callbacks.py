"""Callbacks: what they are told, how they end a training, and what they write for other programs."""

from __future__ import annotations

import csv
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.callbacks import (
    Callback,
    CSVLog,
    EarlyStopping,
    LivePlot,
    MLflow,
    ProgressBar,
    ReduceOnPlateau,
    Steps,
    StopOnNaN,
    TensorBoard,
    TimeLimit,
)
from portablenn.runtime.arrays import to_numpy

X = np.random.default_rng(0).normal(size=(60, 2)).astype("f4")
Y = (X[:, 0] * X[:, 1] > 0).astype(int)


def _network(rate: float = 0.05, backend: Any = "numpy") -> pnn.Network:
    return pnn.mlp([2, 6, 2], loss="softmax_cross_entropy", optimizer=pnn.SGD(rate), backend=backend)


class Noted(Callback):
    def __init__(self, every: int | None = None) -> None:
        self.every_steps = every
        self.steps: list[Steps] = []
        self.said: list[str] = []

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self.said.append(f"begin {epochs}")

    def on_steps_end(self, network: Any, steps: Steps) -> None:
        self.steps.append(steps)
        self.said.append(f"steps {steps.epoch}: {steps.first}-{steps.last} of {steps.total}")

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
        self.said.append(f"epoch {epoch}")

    def on_snapshot_ready(self, network: Any, training: Any) -> None:
        self.said.append("pause")

    def on_train_end(self, network: Any) -> None:
        self.said.append("end")


def test_callbacks_are_called_in_this_order() -> None:
    noted = Noted(every=2)
    _network().fit(X, Y, epochs=2, batch_size=20, callbacks=[noted])
    one = ["steps {}: 1-2 of 3", "pause", "steps {}: 3-3 of 3", "epoch {}", "pause"]
    assert noted.said == ["begin 2", *(s.format(1) for s in one), *(s.format(2) for s in one), "end"]


def test_steps_tell_each_loss_and_its_rows(library: Any) -> None:
    noted, net = Noted(), _network(backend=library.backend)
    history = net.fit(X, Y, epochs=2, batch_size=20, callbacks=[noted])
    assert [s.losses.shape for s in noted.steps] == [(3,), (3,)]
    assert [s.step for s in noted.steps] == [3, 6]
    np.testing.assert_allclose([s.losses.mean() for s in noted.steps], history["loss"], rtol=1e-6)
    rows = [noted.steps[0].rows(i) for i in range(3)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(60))


def test_early_stopping_goes_back_to_the_best_weights() -> None:
    best: dict[int, Any] = {}

    class Keep(Callback):
        def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
            best[epoch] = (logs["val_loss"], to_numpy(network.state.theta).copy())

    net, stopping = _network(1.5), EarlyStopping(patience=3)
    history = net.fit(X, Y, epochs=500, batch_size=5, validation_split=0.3, callbacks=[Keep(), stopping])
    assert history.ended == "val_loss did not improve for 3 epochs"
    assert len(best) < 500
    epoch = min(best, key=lambda e: best[e][0])
    assert (stopping.best_epoch, stopping.best) == (epoch, best[epoch][0])
    np.testing.assert_array_equal(net.state.theta, best[epoch][1])
    assert epoch == len(best) - 3


def test_of_full_batches_the_best_loss_is_that_of_the_weights_that_come_back() -> None:
    for optimizer in (pnn.SGD(8.0), pnn.LBFGS()):
        net = pnn.mlp([2, 6, 2], loss="softmax_cross_entropy", optimizer=optimizer, dtype="float64", backend="numpy")
        stopping = EarlyStopping("loss", patience=4)
        history = net.fit(X, Y, epochs=60, batch_size=None, callbacks=[stopping])
        assert stopping.best == min(history["loss"])
        assert net.evaluate(X, Y)["loss"] == pytest.approx(stopping.best, rel=1e-12)


def test_of_several_steps_the_weights_at_the_end_of_the_best_epoch_come_back() -> None:
    best: dict[int, Any] = {}

    class Keep(Callback):
        def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
            best[epoch] = to_numpy(network.state.theta).copy()

    net, stopping = _network(6.0), EarlyStopping("loss", patience=3)
    net.fit(X, Y, epochs=100, batch_size=20, callbacks=[Keep(), stopping])
    assert stopping.best_epoch < len(best)
    np.testing.assert_array_equal(net.state.theta, best[stopping.best_epoch])


def test_early_stopping_of_an_accuracy_wants_more_of_it() -> None:
    stopping = EarlyStopping("val_accuracy", patience=2, min_delta=0.5, restore_best=False)
    net = _network(0.0)
    assert len(net.fit(X, Y, epochs=9, validation_split=0.3, callbacks=[stopping])["loss"]) == 3
    with pytest.raises(ValueError, match="monitors 'val_loss' and there are no validation rows: pass validation_data"):
        net.fit(X, Y, callbacks=[EarlyStopping("val_loss")])


def _values(row: int) -> tuple[Any, np.ndarray]:
    """A network for values, and values of which one has a square that float32 does not hold."""
    values = X[:, 0].copy()
    values[row] = 1e30
    return lambda backend="numpy": pnn.mlp([2, 6, 1], optimizer=pnn.SGD(0.05), backend=backend), values


def test_nan_ends_with_the_step_the_batch_and_the_row_to_blame(library: Any) -> None:
    make, values = _values(47)
    net = make(library.backend)
    before = to_numpy(net.state.theta).copy()
    with pytest.warns(RuntimeWarning, match="training ended and the state before it is restored") as said:
        history = net.fit(X, values, epochs=5, batch_size=20, order="sequential", callbacks=[StopOnNaN()])
    assert len(said) == 1
    row = "the loss of row 47, the first of 1 among its rows, is not finite by itself"
    assert history.ended == f"the loss is inf at step 3 (epoch 1, batch 3 of 3); {row}"
    np.testing.assert_array_equal(to_numpy(net.state.theta), before)


@pytest.mark.parametrize("order", ["shuffle", "sequential"])
def test_the_row_to_blame_may_be_any_of_its_batch(order: str) -> None:
    make, values = _values(57)
    with pytest.warns(RuntimeWarning, match="the loss of row 57, the first of 1 among its rows, is not"):
        make().fit(X, values, batch_size=30, order=order, callbacks=[StopOnNaN()])
    with pytest.warns(RuntimeWarning, match="the loss of row 57, the first of 1 among the rows trained on, is not"):
        make().fit(X, values, batch_size=None, callbacks=[StopOnNaN()])


def test_no_row_is_named_if_the_rate_is_the_cause() -> None:
    net = pnn.mlp([2, 6, 1], optimizer=pnn.SGD(1e30), backend="numpy")
    with pytest.warns(RuntimeWarning, match=r"at step 2 \(epoch 1, batch 2 of 3\): training ended"):
        net.fit(X, X[:, 0], batch_size=20, callbacks=[StopOnNaN()])


def test_nan_goes_back_to_the_last_look() -> None:
    make, values = _values(50)
    net, whole = make(), make()
    with pytest.warns(RuntimeWarning, match=r"batch 6 of 6"):
        net.fit(X, values, epochs=5, batch_size=10, order="sequential", callbacks=[StopOnNaN(every_steps=1)])
    whole.fit(X[:50], values[:50], batch_size=10, order="sequential")
    np.testing.assert_array_equal(net.state.theta, whole.state.theta)


def test_a_time_limit_ends_in_the_middle_of_an_epoch() -> None:
    net, start = _network(), time.monotonic()
    history = net.fit(X, Y, epochs=10**6, callbacks=[TimeLimit(0.2)])
    assert 0.2 <= time.monotonic() - start < 5.0
    assert history.ended == "the time limit of 0.2 s was reached"


def test_the_rate_falls_while_the_loss_does_not() -> None:
    net = _network(1e-12)
    net.fit(X, Y, epochs=7, callbacks=[ReduceOnPlateau(0.1, patience=2, min_delta=1e-3)])
    assert net.optimizer.learning_rate == pytest.approx(1e-15)
    with pytest.raises(ValueError, match="requires a constant learning rate"):
        pnn.mlp([2, 2], optimizer=pnn.SGD(pnn.schedules.CosineDecay(0.1, 5))).fit(X, X, callbacks=[ReduceOnPlateau()])


def test_what_a_callback_does_to_the_weights_stays() -> None:
    class Clip(Callback):
        def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
            network.set_parameters({name: np.clip(v, -0.01, 0.01) for name, v in network.parameters.items()})

    net, by_hand = _network(), _network()
    net.fit(X, Y, epochs=3, callbacks=[Clip()])
    for _ in range(3):
        by_hand.fit(X, Y)
        Clip().on_epoch_end(by_hand, 1, {})
    np.testing.assert_array_equal(net.state.theta, by_hand.state.theta)
    with pytest.raises(ValueError, match="which L-BFGS does not allow"):
        pnn.mlp([2, 2], loss="softmax_cross_entropy", optimizer="lbfgs").fit(X, Y, epochs=3, callbacks=[Clip()])


def test_an_object_with_three_methods_is_a_callback() -> None:
    class Old:
        def on_train_begin(self, network: Any, epochs: int) -> None: ...

        def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> bool:
            return True

        def on_train_end(self, network: Any) -> None: ...

    assert _network().fit(X, Y, epochs=5, callbacks=[Old()]).ended == "Old ended it"  # type: ignore[list-item]


@pytest.fixture
def _default_ctrl_c() -> Iterator[None]:
    """Python's own handler: a process that a shell started in the background ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_default_ctrl_c")
def test_ctrl_c_ends_after_the_steps_under_way(capfd: pytest.CaptureFixture[str]) -> None:
    class Press(Callback):
        def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
            if epoch == 3:
                signal.raise_signal(signal.SIGINT)

    net = _network()
    with pytest.warns(RuntimeWarning, match="training was ended by Ctrl-C in epoch 3"):
        history = net.fit(X, Y, epochs=9, callbacks=[Press()])
    assert (len(history["loss"]), history.ended) == (3, "Ctrl-C in epoch 3")
    assert "training ends after the current steps" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("_default_ctrl_c")
def test_a_second_ctrl_c_ends_at_once() -> None:
    class Press(Callback):
        def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        _network().fit(X, Y, epochs=9, callbacks=[Press()])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_in_another_thread_leaves_signals_alone() -> None:
    net, found = _network(), []
    thread = threading.Thread(target=lambda: found.append(net.fit(X, Y, epochs=2)))
    thread.start()
    thread.join()
    assert len(found[0]["loss"]) == 2


def test_a_log_has_a_line_an_epoch(tmp_path: Path) -> None:
    history = _network().fit(X, Y, epochs=3, validation_split=0.2, callbacks=[CSVLog(tmp_path / "log.csv")])
    with (tmp_path / "log.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["epoch"]) for line in lines] == [1, 2, 3]
    assert [float(line["val_loss"]) for line in lines] == history["val_loss"]
    with pytest.raises(FileNotFoundError, match="the folder .* does not exist"):
        _network().fit(X, Y, callbacks=[CSVLog(tmp_path / "missing" / "log.csv")])


class Stop(Callback):
    """Ends as a kill does, as far as those see it that write."""

    def on_snapshot_ready(self, network: Any, training: Any) -> None:
        if training.epoch == 2:
            raise KeyboardInterrupt


def test_tensorboard_reads_what_is_written_also_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("safetensors")
    saving = pnn.callbacks.Checkpoint(tmp_path / "c")
    with pytest.raises(KeyboardInterrupt):
        _network().fit(X, Y, epochs=4, callbacks=[TensorBoard(tmp_path / "tb"), saving, Stop()])
    history = _network().fit(X, Y, epochs=4, callbacks=[TensorBoard(tmp_path / "tb"), saving], resume=tmp_path / "c")
    events = accumulator.EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4]
    np.testing.assert_allclose([e.value for e in events.Scalars("loss")], history["loss"], rtol=1e-6)
    assert "network/text_summary" in events.Tags()["tensors"]


def test_mlflow_reads_what_is_written_also_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("safetensors")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a server would need the whole of mlflow
    uri, saving = (tmp_path / "runs").as_uri(), pnn.callbacks.Checkpoint(tmp_path / "c")
    with pytest.raises(KeyboardInterrupt):
        _network().fit(X, Y, epochs=4, callbacks=[MLflow("test", tracking_uri=uri), saving, Stop()])
    logged = MLflow("test", tracking_uri=uri)
    history = _network().fit(X, Y, epochs=4, callbacks=[logged, saving], resume=tmp_path / "c")
    client = mlflow.MlflowClient(uri)
    run = client.get_run(logged.run_id)
    seen = client.get_metric_history(logged.run_id, "loss")
    assert [(m.step, m.value) for m in seen] == list(enumerate(history["loss"], 1))
    assert (run.info.status, run.data.params["seed"]) == ("FINISHED", "0")
    assert "SGD" in run.data.params["optimizer"]
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_a_live_plot_is_drawn_again_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    pytest.importorskip("matplotlib")
    shown: list[Any] = []

    class Handle:
        def update(self, figure: Any) -> None:
            shown.append(figure)

    def first(figure: Any, display_id: bool) -> Handle:
        assert display_id
        shown.append(figure)
        return Handle()

    monkeypatch.setattr(display, "display", first)
    _network().fit(X, Y, epochs=5, validation_split=0.2, callbacks=[LivePlot(every=2)])
    assert len(shown) == 3
    labels = [line.get_label() for line in shown[-1].axes[0].get_lines()]
    assert labels == ["loss", "validation loss"]
    assert len(shown[-1].axes[0].get_lines()[0].get_xdata()) == 5


def test_a_bar_is_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    _network().fit(X, Y, epochs=20, callbacks=[ProgressBar()])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [f"{n}/20" for n in range(2, 21, 2)]


def test_a_bar_on_a_terminal_shows_the_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    history = _network().fit(X, Y, epochs=3, callbacks=[ProgressBar()])
    out = capsys.readouterr().out
    assert f"loss {history['loss'][-1]:.4f}" in out
    assert "3/3" in out


def test_the_finder_finds_a_rate_that_learns_and_leaves_the_network_alone() -> None:
    net = pnn.mlp([2, 16, 2], loss="softmax_cross_entropy", optimizer=pnn.SGD(0.1), backend="numpy")
    before, facts = net.state.theta.copy(), (net.steps, net.epochs, net.optimizer)
    found = pnn.find_learning_rate(net, X, Y, batch_size=10)
    np.testing.assert_array_equal(net.state.theta, before)
    assert (net.steps, net.epochs, net.optimizer) == facts
    assert found.rates.shape == found.losses.shape == (200,)
    assert found.rates[0] == pytest.approx(1e-6)
    assert found.rates[-1] == pytest.approx(10.0)
    found_net = pnn.mlp([2, 16, 2], loss="softmax_cross_entropy", optimizer=pnn.SGD(found.suggestion), backend="numpy")
    low_net = pnn.mlp(
        [2, 16, 2], loss="softmax_cross_entropy", optimizer=pnn.SGD(found.suggestion / 100), backend="numpy"
    )
    good, low = (n.fit(X, Y, epochs=40, batch_size=10)["loss"][-1] for n in (found_net, low_net))
    assert good < 0.8 * low
    with pytest.raises(ValueError, match="does not work with L-BFGS"):
        pnn.find_learning_rate(pnn.mlp([2, 2], optimizer="lbfgs"), X, X)
    with pytest.raises(ValueError, match="expected 0 < lowest < highest"):
        pnn.find_learning_rate(net, X, Y, lowest=0.0)
