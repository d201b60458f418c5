"""Callbacks that write the metrics of each epoch for other programs: CSV, TensorBoard, MLflow."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from .base import Callback

if TYPE_CHECKING:
    from pathlib import Path


class CSVLog(Callback):
    """Write one line per epoch to a CSV file: its number, and every metric; each is on disk before the next epoch.

    A resumed run continues the file from the epoch that it resumes from.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import portablenn as pnn
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
    >>> net = pnn.mlp([1, 1], optimizer=pnn.SGD(0.0), kernel_init="zeros")
    >>> _ = net.fit([[1.0]], [2.0], epochs=2, callbacks=[pnn.callbacks.CSVLog(path)])
    >>> print(path.read_text())
    epoch,loss
    1,4.0
    2,4.0
    <BLANKLINE>
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self._rows = os.path.abspath(path), list[list[str]]()

    def on_train_begin(self, network: Any, epochs: int) -> None:
        folder, name = os.path.split(self.path)
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"cannot write {name}: the folder {folder} does not exist")
        self._rows = []

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
        names, new = ["epoch", *logs], not self._rows
        if new:
            self._rows = [names]
        elif names != self._rows[0]:
            raise ValueError(f"{self.path}: expected the columns {self._rows[0]}, got {names}")
        self._rows.append([str(epoch), *(repr(float(v)) for v in logs.values())])
        self._write("w" if new else "a", self._rows if new else self._rows[-1:])

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows} if self._rows else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Write the lines again, without those of epochs that will be repeated."""
        self._rows = [[str(cell) for cell in row] for row in state_dict["rows"]]
        self._write("w", self._rows)

    def _write(self, mode: str, rows: list[list[str]]) -> None:
        import csv

        with open(self.path, mode, newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


CSVLogger = CSVLog  # the name in Keras


class TensorBoard(Callback):
    """Write each metric as a scalar, and the network's summary as a text, to a folder that TensorBoard reads.

    Requires tensorboardX. A resumed run replaces the epochs that are repeated.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = os.fspath(folder)
        self._writer: Any = None
        self._epoch = 0

    def on_train_begin(self, network: Any, epochs: int) -> None:
        try:
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise ImportError('TensorBoard needs tensorboardX: pip install "portablenn[tensorboard]"') from error
        self._epoch = 0

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
        if self._writer is None:
            from tensorboardX import SummaryWriter

            purge = epoch if self._epoch else None
            ends = f".{self._epoch}"  # else two files of the same second get the same name
            self._writer = SummaryWriter(self.folder, purge_step=purge, filename_suffix=ends)
            self._writer.add_text("network", f"```\n{network.summary()}\n```", 0)
        for name, value in logs.items():
            self._writer.add_scalar(name, value, epoch)
        self._epoch = epoch

    def on_train_end(self, network: Any) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch} if self._epoch else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch = int(state_dict["epoch"])


class MLflow(Callback):
    """Log to MLflow: the history as metrics, layers, loss, optimizer and seed as parameters. Requires mlflow.

    Parameters
    ----------
    experiment
        Its name; created if it does not exist.
    run_name, tracking_uri
        Name of the run, and where to log to; None for MLflow's defaults.

    Attributes
    ----------
    run_id : str
        The last run. A resumed training continues the same run.
    """

    def __init__(
        self, experiment: str = "portablenn", run_name: str | None = None, tracking_uri: str | None = None
    ) -> None:
        self.experiment, self.run_name, self.tracking_uri = experiment, run_name, tracking_uri
        self.run_id = ""
        self._client: Any = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise ImportError('MLflow needs mlflow: pip install "portablenn[mlflow]"') from error
        self._client, self.run_id = MlflowClient(self.tracking_uri), ""

    def _start_run(self, network: Any) -> None:
        client = self._client
        known = client.get_experiment_by_name(self.experiment)
        number = client.create_experiment(self.experiment) if known is None else known.experiment_id
        self.run_id = client.create_run(number, run_name=self.run_name).info.run_id
        facts = {
            "layers": " ".join(map(repr, network.layers)),
            "inputs": network.inputs,
            "parameters": network.parameter_count,
            "loss": network.loss,
            "optimizer": network.optimizer,
            "dtype": network.dtype,
            "seed": network.seed,
            "backend": network.backend,
        }
        for name, value in facts.items():
            client.log_param(self.run_id, name, str(value)[:500])

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
        if not self.run_id:
            self._start_run(network)
        for name, value in logs.items():
            if math.isfinite(value):
                self._client.log_metric(self.run_id, name, value, step=epoch)

    def on_train_end(self, network: Any) -> None:
        if self.run_id:
            self._client.set_terminated(self.run_id)

    def state_dict(self) -> dict[str, Any]:
        return {"run_id": self.run_id} if self.run_id else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.run_id = state_dict["run_id"]
