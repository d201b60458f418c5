"""A model of a table: what becomes of its columns, the network that predicts one of them, and how well it does.

Requires pyarrow, safetensors for files, and scikit-learn for the metrics.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..callbacks import Callback, EarlyStopping
from ..files import model_file
from ..files.safetensors_file import FileFormatError
from ..nn import layers
from ..nn.optimizers import AdamW
from ..training.loop import versions
from ..training.network import Network, of_contents
from .columns import Category, Column, Number
from .metrics import measured, metrics_of
from .preprocessing import Learnt, Preparation, Prepared, Target, learn, prepared
from .readers import Table, TableError, open_table

SHARES = (0.8, 0.1, 0.1)
IN_MEMORY = 1 << 23
"""Numbers up to which the rows to train on are one array, shuffled as a whole."""

MOST_COLUMNS = 100_000


@dataclass
class TableModel:
    """Predicts one column of a table from the others.

    Attributes
    ----------
    preparation
        What becomes of each column; see `Preparation`.
    network
        What predicts.
    figures
        Of the training: "metrics" of the test rows, "baseline" (what saying the commonest class, or the mean, achieves),
        "rows", "left_out", "history", "ended", "versions".

    Examples
    --------
    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> table = {"age": random.integers(20, 60, 400), "city": random.choice(["Oslo", "Rome"], 400)}
    >>> table["rich"] = np.where((table["age"] > 40) & (table["city"] == "Oslo"), "yes", "no")
    >>> model = TableModel.train(table, "rich", epochs=60)
    >>> model.predict({"age": [50, 50], "city": ["Oslo", "Rome"]}).tolist()
    ['yes', 'no']
    """

    preparation: Preparation
    network: Network
    figures: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def train(
        cls,
        table: Any,
        target: str,
        *,
        task: str | None = None,
        ignore: Sequence[str] = (),
        hidden: Sequence[int] = (64, 32),
        activation: str = "relu",
        dropout: float = 0.0,
        optimizer: Any = None,
        epochs: int = 100,
        batch_size: int | None = None,
        patience: int = 10,
        missing: str = "impute",
        backend: Any = "auto",
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        resume: Any = None,
    ) -> TableModel:
        """Train on 80 % of the rows, stop by 10 %, and measure on the other 10 %; which is which is decided by the seed.

        Parameters
        ----------
        table
            A path to a CSV, Parquet or Arrow file, of which some rows are in memory at a time; a data frame; {name: column}.
        target
            The column to be predicted.
        task
            "classification" or "regression"; None for what the column looks like: text and few whole numbers are classes.
        ignore
            Columns that are not to be used.
        hidden, activation, dropout
            Units of the hidden layers, what they apply, and the share of them that is dropped while training.
        optimizer
            None for AdamW at 1e-3.
        epochs, patience
            At most so many, and the end after so many without a better validation loss.
        batch_size
            None for one by the number of rows, from 16 to 1024.
        missing
            "impute" (numbers become their mean, and an input says so; of text it is a value like others) or "refuse".
        backend, seed
            As `Network` has them.
        callbacks, resume
            As ``fit`` has them.

        Raises
        ------
        FileNotFoundError, TableError
            If there is no such table, or nothing can be learnt of it.
        """
        opened = table if isinstance(table, Table) else open_table(table)
        if task not in (None, "classification", "regression"):
            raise ValueError(f'task is "classification", "regression" or None, found {task!r}')
        if missing not in ("impute", "refuse"):
            raise ValueError(f'missing is "impute" or "refuse", found {missing!r}')
        learnt = learn(opened, target, task, ignore, SHARES, seed)
        gone = [column.name for column in learnt.preparation.columns if column.missing]
        if gone and missing == "refuse":
            raise TableError(
                f"{opened.name} has missing cells in {', '.join(map(repr, gone))}: fill them, or impute them"
            )
        with prepared(opened, learnt, SHARES, seed) as parts:
            rows = len(parts["train"].targets)
            network = _network(learnt.preparation, hidden, activation, dropout, optimizer or AdamW(1e-3), backend, seed)
            model = cls(learnt.preparation, network)
            batch = batch_size or min(1024, max(16, 2 ** int(math.log2(max(1, rows / 100)))))
            held_out = parts["validation"] if len(parts["validation"].targets) else None
            train = parts["train"]
            x, y = train.arrays() if rows * train.columns <= IN_MEMORY else (train, None)
            stopping = EarlyStopping(patience=patience)
            told = [stopping, *callbacks]
            network.fit(x, y, epochs, batch, validation_data=held_out, callbacks=told, resume=resume)
            if not np.isfinite(np.asarray(network.forward(np.zeros((1, network.inputs), np.float32)))).all():
                raise TableError("training diverged: the weights are not finite. Lower the learning rate")
            model.figures = {**model._told(learnt, parts, batch), "best_epoch": stopping.best_epoch}
        return model

    def _told(self, learnt: Learnt, parts: dict[str, Prepared], batch: int) -> dict[str, Any]:
        """What there is to say of a training."""
        history, part = self.network.history, "test" if len(parts["test"].targets) else "validation"
        found: dict[str, Any] = {"metrics": {}, "baseline": {}, "measured_on": part}
        if len(parts[part].targets):
            found |= measured(self, parts[part], parts["train"].targets)
        return {
            **found,
            "rows": learnt.rows,
            "rows_without_target": learnt.without_target,
            "left_out": learnt.left_out,
            "batch_size": batch,
            "history": {name: list(values) for name, values in history.items()},
            "ended": history.ended,
            "resumed": history.resumed,
            "how": history.how,
            "versions": versions(self.network.backend),
        }

    @property
    def target(self) -> Target:
        """The column that is predicted."""
        return self.preparation.target

    @property
    def task(self) -> str:
        """What it does: "classification" or "regression"."""
        return "regression" if self.target.classes is None else "classification"

    def predict(self, table: Any) -> np.ndarray:
        """The target of each row, (rows,): labels, or values. ``table`` is what `train` takes; a column too many is no harm."""
        found = [self._decoded(inputs) for _, inputs in self.preparation.rows(_opened(table))]
        return np.concatenate(found) if found else self._decoded(np.zeros((0, self.network.inputs), np.float32))

    def predict_proba(self, table: Any) -> np.ndarray:
        """The probability of each class, (rows, classes), in the order of ``model.target.classes``."""
        return np.concatenate(
            [self.network.predict_proba(inputs) for _, inputs in self.preparation.rows(_opened(table))]
        )

    def batches(self, table: Any, probabilities: bool = False, unseen: Counter[str] | None = None) -> Iterator[Any]:
        """The rows of a table as record batches of pyarrow, with a column "prediction" more.

        Parameters
        ----------
        table
            What `train` takes.
        probabilities
            Whether each class gets a column "probability of <class>", too.
        unseen
            As `Preparation.rows` has it.

        Raises
        ------
        TableError
            If there are columns of these names already.
        """
        import pyarrow

        opened = _opened(table)
        classes = self.target.classes or ()
        if probabilities and not classes:
            raise TableError("probabilities are for classes and this model predicts numbers")
        names = ["prediction", *(f"probability of {c}" for c in classes if probabilities)]
        taken = [name for name in names if name in opened.columns]
        if taken:
            raise TableError(f"{opened.name} has a column {taken[0]!r} already: rename it")
        empty = True
        for batch, inputs in self.preparation.rows(opened, unseen):
            empty = False
            new = [self._decoded(inputs)]
            if probabilities:
                new += list(np.asarray(self.network.predict_proba(inputs)).T)
            arrays = [*batch.columns, *(pyarrow.array(column) for column in new)]
            yield pyarrow.RecordBatch.from_arrays(arrays, names=[*batch.schema.names, *names])
        if empty:
            none = pyarrow.array([], pyarrow.string())
            every = [*opened.columns, *names]
            yield pyarrow.RecordBatch.from_arrays([none] * len(every), names=every)

    def _decoded(self, inputs: np.ndarray) -> np.ndarray:
        return self.target.decoded(self.network.predict(inputs) if len(inputs) else np.zeros(0))

    def evaluate(self, table: Any) -> dict[str, float]:
        """Metrics of a table that has the target, too; rows without it are passed over."""
        opened = _opened(table)
        opened.check((self.target.name,))
        found = [
            (inputs, self.target.encoded(batch.column(self.target.name)))
            for batch, inputs in self.preparation.rows(opened)
        ]
        inputs, targets = (np.concatenate(parts) for parts in zip(*found))
        known = np.isfinite(targets) if self.target.classes is None else targets >= 0
        return metrics_of(self, _Arrays(inputs[known], targets[known]), targets[known])

    def save(self, path: str | Path) -> None:
        """Write network, preparation and figures to one safetensors file; `load` reads it, on any backend."""
        facts, arrays, slots = self.network.contents()
        model_file.write(path, {**facts, "table": self._facts()}, arrays, slots)

    def _facts(self) -> dict[str, Any]:
        kinds = {Number: "number", Category: "category"}
        columns = [{"kind": kinds[type(c)], **asdict(c)} for c in self.preparation.columns]
        return {"columns": columns, "target": asdict(self.target), "figures": self.figures}

    @classmethod
    def load(cls, path: str | Path, backend: Any = "auto") -> TableModel:
        """The model that `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        FileFormatError
            If it is not such a file, whole and of a known version.
        """
        facts, arrays, slots = model_file.read(path)
        if facts["table"] is None:
            raise FileFormatError(f"{path} holds a network that knows of no table: load it with portablenn.load")
        try:
            preparation, figures = _preparation(facts["table"])
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{path} is no model file of portablenn: its table is wrong: {error}") from None
        network = of_contents(path, facts, arrays, slots, backend)
        wanted = (len(preparation.inputs), len(preparation.target.classes or ("value",)))
        if (network.inputs, network.outputs) != wanted:
            raise FileFormatError(f"{path} is no model file of portablenn: its table has {wanted} inputs and outputs")
        return cls(preparation, network, figures)


@dataclass(frozen=True)
class _Arrays:
    """Rows in memory, as blocks."""

    inputs: np.ndarray
    targets: np.ndarray

    @property
    def columns(self) -> int:
        return int(self.inputs.shape[1])

    @property
    def sizes(self) -> tuple[int, ...]:
        return (len(self.inputs),)

    def read(self, block: int) -> Any:
        return self.inputs, self.targets, None


def _opened(table: Any) -> Table:
    return table if isinstance(table, Table) else open_table(table)


def _network(
    preparation: Preparation,
    hidden: Sequence[int],
    activation: str,
    dropout: float,
    optimizer: Any,
    backend: Any,
    seed: int,
) -> Network:
    classes = preparation.target.classes
    made: list[Any] = []
    for units in hidden:
        made += [
            layers.Dense(units, activation, kernel_init="he_uniform"),
            *([layers.Dropout(dropout)] if dropout else []),
        ]
    made.append(layers.Dense(1 if classes is None else len(classes)))
    loss = "squared_error" if classes is None else "softmax_cross_entropy"
    return Network(made, len(preparation.inputs), loss, optimizer, backend, seed=seed)


def _preparation(facts: dict[str, Any]) -> tuple[Preparation, dict[str, Any]]:
    """What `TableModel._facts` told, strictly checked."""
    _exactly(facts, {"columns": list, "target": dict, "figures": dict}, "table")
    if not 1 <= len(facts["columns"]) <= MOST_COLUMNS:
        raise ValueError(f"it has {len(facts['columns'])} columns")
    columns: list[Column] = []
    for told in facts["columns"]:
        kind = told.get("kind") if isinstance(told, dict) else None
        given = {k: v for k, v in told.items() if k != "kind"} if isinstance(told, dict) else {}
        if kind == "number":
            _exactly(given, {"name": str, "mean": float, "scale": float, "missing": bool, "date": bool}, "column")
            _finite(given)
            columns.append(Number(**given))
        elif kind == "category":
            _exactly(given, {"name": str, "values": list, "missing": bool, "rarer": int}, "column")
            columns.append(Category(given["name"], _texts(given["values"]), given["missing"], given["rarer"]))
        else:
            raise ValueError(f"unknown column {kind!r}")
    target = facts["target"]
    kinds = {"name": str, "classes": (list, type(None)), "whole": bool, "mean": float, "scale": float, "date": bool}
    _exactly(target, kinds, "target")
    _finite(target)
    classes = None if target["classes"] is None else _texts(target["classes"])
    if target["whole"]:
        [int(c) for c in classes or ()]
    return Preparation(tuple(columns), Target(**{**target, "classes": classes})), facts["figures"]


def _exactly(given: dict[str, Any], kinds: dict[str, Any], what: str) -> None:
    if set(given) != set(kinds):
        raise ValueError(f"the {what} has {sorted(given)}, expected {sorted(kinds)}")
    for name, kind in kinds.items():
        if type(given[name]) not in (kind if isinstance(kind, tuple) else (kind,)):
            raise ValueError(f"{name} of the {what} is a {type(given[name]).__name__}")


def _finite(facts: dict[str, Any]) -> None:
    if not (math.isfinite(facts["mean"]) and math.isfinite(facts["scale"]) and facts["scale"] > 0):
        raise ValueError(f"mean and scale are {facts['mean']} and {facts['scale']}")


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    if not all(isinstance(v, str) for v in values) or len(set(values)) != len(values):
        raise ValueError("values of a column are no different texts")
    return tuple(values)
