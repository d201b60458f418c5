"""Models of tables: a network that predicts a column from the others, with the preprocessing that belongs to it."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..callbacks import Callback, EarlyStopping
from ..data.validation import class_weight_table
from ..files import model_file
from ..files.safetensors_file import FileFormatError
from ..training.history import History
from ..training.network import Network, from_contents
from ..training.resume import versions
from .columns import NumericColumn
from .description import describe, preprocessor_from
from .linear import linear_network
from .metrics import compute_metrics, doubtful_columns, measure, summarize_folds
from .parts import Split, shares_of
from .preprocessing import FitResult, Preprocessor, fit_preprocessor, warnings_of
from .presets import choose_preset, make_network, report_without_smoothing
from .readers import TableError, open_table
from .spill import EncodedPart, encode_parts
from .target import Target

MANY_STEPS = 100_000
"""Number of steps, about six minutes of one core, above which other settings are named."""

MIN_ROWS_TO_CHOOSE = 10
"""Number of validation rows from which they choose between network and linear model."""

IN_MEMORY = 1 << 23
"""Maximum number of training inputs that are one array in memory, shuffled as a whole."""


@dataclass
class TableModel:
    """A model that predicts one column of a table from the others.

    Attributes
    ----------
    preprocessor
        The transformation from columns to the network's inputs.
    network
        The network.
    results
        Results of the training: "metrics" on the test rows, "linear" and "baseline" (those of a linear model, and of a constant
        prediction), "chosen" ("network", or "linear model" if it has the lower loss on the validation rows), "rows",
        "left_out", "history", "ended", "versions" and more.

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

    preprocessor: Preprocessor
    network: Network
    results: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def train(
        cls,
        table: Any,
        target: str,
        *,
        task: str | None = None,
        ignore: Sequence[str] = (),
        preset: str = "default",
        hidden: Sequence[int] | None = None,
        activation: str | None = None,
        dropout: float | None = None,
        optimizer: Any = None,
        learning_rate: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        patience: int | None = None,
        test_share: float = 0.1,
        group: str | None = None,
        time: str | None = None,
        fold: tuple[int, int] | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        missing: str = "impute",
        column_types: Mapping[str, str] | None = None,
        decimal: str | None = None,
        missing_marks: Sequence[str] = (),
        backend: Any = "auto",
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        resume: Any = None,
    ) -> TableModel:
        """Train a model on 80 % of the rows, choose the best epoch by 10 %, and measure it on the other 10 %.

        Of fewer than 1,000 rows, 100 are to choose the epoch by, or 20 %. If a linear model has a lower loss on these rows, it
        is the model, unless ``hidden``, ``activation`` or ``optimizer`` is given.

        Parameters
        ----------
        table
            A path to a CSV, Parquet or Arrow file, which is read in batches; a data frame; or a dict {name: column}.
        target
            Name of the column to predict.
        task
            "classification" or "regression"; None to infer it: text and few distinct integers are classes.
        ignore
            Names of columns that are not used.
        preset
            "default": an accurate network, RealMLP-TD-S of Holzmüller, Grinsztajn & Steinwart (2024), with three hidden layers
            of 256 units, trained for 256 epochs. "fast": two layers of 64 and 32 units with early stopping, which has larger
            errors in less time.
        hidden, activation, dropout
            Units, activation and dropout rate of the hidden layers; None for those of the preset, of which none has dropout.
        optimizer
            None for that of the preset: "default" Adam with the schedule `CosLog`, "fast" AdamW.
        learning_rate
            Its learning rate, or the highest one of its schedule; None for that of the preset.
        epochs, patience
            Maximum number of epochs, and number of epochs without a better validation loss after which training stops; the
            weights of the best epoch are taken. None for those of the preset: "default" trains for all 256 epochs, "fast" for
            at most 100, with patience 10.
        batch_size
            None for that of the preset: "default" 256, "fast" by the number of rows, from 16 to 1024.
        test_share
            Share of the rows to measure the model on. With 0, as where there is another table for that, the model is trained on
            as many rows more, and measured on the validation rows.
        group
            A column: rows with equal cells there, such as those of one patient, are all for training, all for validation or all
            for the test. It is not an input.
        time
            A column of dates or numbers: the latest rows are for the test, the latest of the others for validation. It is an
            input as well, unless it is ignored.
        fold
            (k, folds), k from 0: measure the model on the k-th of so many parts of the rows, instead of on ``test_share``; see
            `cross_validate`.
        class_weight
            {label: weight} of the rows of a class in the loss, 1 for labels that are not given; "balanced" for weights that
            give all classes the same total weight. For classifications only.
        missing
            "impute": a missing number becomes the mean (or median), and an input marks it; missing text is a category.
            "refuse": raise.
        column_types
            {column: "number", "date", "category" or "ignore"}, for columns whose cells look like something else. Text is read
            as numbers or dates if at least 95 % of a column's cells can be; the others then count as missing, with a warning.
        decimal
            What separates decimals in text, "." or ","; None to infer it from all rows.
        missing_marks
            Texts that mark a missing cell, in addition to those in `portablenn.tables.cells.MISSING`.
        backend, seed
            See `Network`; the seed also assigns the rows to the three parts.
        callbacks, resume
            See `Network.fit`.

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        TableError
            If the table cannot be read, or nothing can be learned from it.
        ValueError
            If ``task``, ``preset``, ``missing``, ``decimal`` or a type of a column is not one of these words, or both
            ``optimizer`` and ``learning_rate``, or ``group`` and ``time``, are given; if ``class_weight`` has unknown labels,
            or the model is a regression.

        Warns
        -----
        RuntimeWarning
            If cells cannot be read, or it is uncertain what they mean, or if the training takes more than 100,000 steps.
        """
        if task not in (None, "classification", "regression"):
            raise ValueError(f'expected task "classification", "regression" or None, got {task!r}')
        if missing not in ("impute", "refuse"):
            raise ValueError(f'expected missing "impute" or "refuse", got {missing!r}')
        if optimizer is not None and learning_rate is not None:
            raise ValueError("learning_rate is for the optimizer of the preset: give it to your own one")
        chosen = choose_preset(
            preset,
            hidden=None if hidden is None else tuple(hidden),
            activation=activation,
            dropout=dropout,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            patience=patience,
        )
        if not 0 <= test_share <= 0.7:
            raise ValueError(f"expected test_share from 0 to 0.7, got {test_share!r}")
        split = Split(
            lambda rows: shares_of(test_share if fold is None else 1.0 / fold[1], rows), seed, group, time, fold
        )
        opened = open_table(table)
        fitted = fit_preprocessor(
            opened, target, task, ignore, split, column_types, decimal, missing_marks, chosen.smooth
        )
        for name, cells in fitted.unreadable.items():
            _warn(f"column {name!r} holds {cells}, which cannot be read as the other cells; they count as missing")
        if fitted.incomplete and missing == "refuse":
            names = ", ".join(map(repr, fitted.incomplete))
            raise TableError(f'{opened.name} has missing cells in {names}: fill them, or use missing="impute"')
        rows = fitted.rows["train"]
        batch_size = chosen.rows_per_batch(rows)
        steps = chosen.epochs * math.ceil(rows / batch_size)
        if steps > MANY_STEPS and preset == "default" and epochs is None:
            _warn(
                f'{chosen.epochs} epochs of {rows:,} rows are {steps:,} steps: preset="fast", or fewer epochs, take less time'
            )
        network = make_network(chosen, fitted.preprocessor, steps, optimizer, backend, seed)
        stopping = EarlyStopping(patience=chosen.patience or chosen.epochs)
        model = cls(fitted.preprocessor, network)
        with encode_parts(opened, fitted.preprocessor, fitted.assignment) as parts:
            weights = _class_weights(class_weight, model.target, parts["train"].targets)
            parts["train"].class_weights = parts["validation"].class_weights = weights
            model._fit(parts, chosen.epochs, batch_size, [stopping, *callbacks], resume)
            linear = linear_network(parts["train"], model.target.class_count, backend)
            if all(given is None for given in (hidden, activation, optimizer)):
                model._choose(linear, parts["validation"])
            model.results = model._results(fitted, parts, network.history, linear)
            model.results |= {"preset": preset, "batch_size": batch_size, "best_epoch": stopping.best_epoch}
            model.results["weighted"] = class_weight is not None
        if group is None and time is None:
            model.results["doubtful"] |= {
                column.name: "rows are split at random, so that later ones are trained on: split by time to measure forecasts"
                for column in model.preprocessor.columns
                if isinstance(column, NumericColumn) and column.cells.date
            }
        return model

    @classmethod
    def cross_validate(cls, table: Any, target: str, *, folds: int = 5, **settings: Any) -> dict[str, dict[str, Any]]:
        """Train a model for each of several folds, and measure it on the rows of the fold, which it was not trained on.

        Folds are of about equal size, with the same share of each class. With ``group`` rows of a group are in one fold; with
        ``time`` each model is trained on the rows before its fold.

        Parameters
        ----------
        table, target
            See `train`.
        folds
            Number of folds, at least 2.
        settings
            Other arguments of `train`, but for ``test_share``, ``fold`` and ``resume``; no callbacks that keep the state of one
            training, such as `Checkpoint`.

        Returns
        -------
        dict
            "metrics", "linear" and "baseline" of the models, of linear models, and of constant predictions, each
            {name: {"mean": …, "standard_deviation": …, "folds": [one number for each fold]}}; standard deviations are those of
            a sample, with folds - 1 in the denominator.

        Raises
        ------
        TypeError
            If an argument is not one of `train`.
        ValueError
            If ``folds`` is not an integer of at least 2; see also `train`.

        Examples
        --------
        >>> import numpy as np
        >>> x = np.random.default_rng(0).uniform(size=300)
        >>> found = TableModel.cross_validate({"x": x, "y": 3.0 * x}, "y", folds=3, preset="fast", epochs=5)
        >>> len(found["linear"]["r2"]["folds"]), found["linear"]["r2"]["mean"] > 0.9
        (3, True)
        """
        if not isinstance(folds, int) or folds < 2:
            raise ValueError(f"expected an integer of at least 2 for folds, got {folds!r}")
        if taken := [name for name in ("test_share", "fold", "resume") if name in settings]:
            raise TypeError(
                f"{taken[0]} is not an argument of cross_validate: its folds are what models are measured on"
            )
        results = [cls.train(table, target, fold=(k, folds), **settings).results for k in range(folds)]
        return {kind: summarize_folds([one[kind] for one in results]) for kind in ("metrics", "linear", "baseline")}

    def _fit(
        self, parts: dict[str, EncodedPart], epochs: int, batch_size: int, callbacks: list[Callback], resume: Any
    ) -> None:
        network, train = self.network, parts["train"]
        validation = parts["validation"] if len(parts["validation"].targets) else None
        in_memory = len(train.targets) * train.columns <= IN_MEMORY
        x, y, weights = train.arrays() if in_memory else (train, None, None)
        network.fit(
            x,
            y,
            epochs,
            batch_size,
            validation_data=validation,
            sample_weight=weights,
            callbacks=callbacks,
            resume=resume,
        )
        if not np.isfinite(np.asarray(network.forward(np.zeros((1, network.inputs), np.float32)))).all():
            raise TableError("training diverged: the weights are not finite. Lower the learning rate")

    def _choose(self, linear: Network, validation: EncodedPart) -> None:
        """Take the linear model instead of the network if its loss on the validation rows is lower."""
        if len(validation.targets) >= MIN_ROWS_TO_CHOOSE:
            losses = [network.evaluate(validation)["loss"] for network in (self.network, linear)]
            if not losses[0] <= losses[1]:
                self.network = linear

    def _results(
        self, fitted: FitResult, parts: dict[str, EncodedPart], history: History, linear: Network
    ) -> dict[str, Any]:
        part = "test" if len(parts["test"].targets) else "validation"
        measured: dict[str, Any] = {"metrics": {}, "baseline": {}, "linear": {}}
        if len(parts[part].targets):
            measured = measure(self, linear, parts[part], parts["train"].targets)
        return {
            **measured,
            "measured_on": part,
            "chosen": "linear model" if self.network is linear else "network",
            "rows": fitted.rows,
            "rows_without_target": fitted.without_target,
            "left_out": fitted.left_out,
            "unreadable": fitted.unreadable,
            "doubtful": doubtful_columns(self.preprocessor, parts["train"]),
            "history": {name: list(values) for name, values in history.items()},
            "ended": history.ended,
            "resumed": history.resumed,
            "how": history.how,
            "versions": versions(self.network.backend),
        }

    @property
    def target(self) -> Target:
        """The column that is predicted."""
        return self.preprocessor.target

    @property
    def task(self) -> str:
        """Either "classification" or "regression"."""
        return "regression" if self.target.classes is None else "classification"

    def predict(self, table: Any) -> np.ndarray:
        """Return the predicted label or value of each row, (rows,), of a table that has at least the columns that are used.

        Labels have the type of the target's cells: text, integers, numbers or booleans. Dates are datetime64.

        Raises
        ------
        TableError
            If a column is missing, or most of its cells are text where numbers are expected.

        Warns
        -----
        RuntimeWarning
            If cells are unlike those of the training rows: values that did not occur there, missing where none was, far outside
            of their range.
        """
        return self._for_each_batch(table, self._predict)

    def predict_proba(self, table: Any) -> np.ndarray:
        """Return the probability of each class, (rows, classes), in the order of ``model.target.classes``; see `predict`."""
        return self._for_each_batch(table, self.network.predict_proba)

    def _for_each_batch(self, table: Any, function: Any) -> np.ndarray:
        unusual = Counter[tuple[str, str]]()
        results = [
            self._apply(function, inputs) for _, inputs in self.preprocessor.transform(open_table(table), unusual)
        ]
        for message in warnings_of(unusual):
            _warn(message)
        return np.concatenate(results or [self._apply(function, np.zeros((0, self.network.inputs), np.float32))])

    def _apply(self, function: Any, inputs: np.ndarray) -> np.ndarray:
        """Apply a function that requires at least one row."""
        padded = inputs if len(inputs) else np.zeros((1, self.network.inputs), np.float32)
        return np.asarray(function(padded))[: len(inputs)]

    def _predict(self, inputs: np.ndarray) -> np.ndarray:
        return self.target.decode(self.network.predict(inputs))

    def predict_batches(
        self,
        table: Any,
        probabilities: bool = False,
        unusual: Counter[tuple[str, str]] | None = None,
        strict: bool = False,
    ) -> Iterator[Any]:
        """Yield the rows of a table with a column "prediction" appended, as record batches of pyarrow.

        Parameters
        ----------
        table
            As for `predict`.
        probabilities
            Whether to append also a column "probability of <class>" for each class.
        unusual
            If given, counts by column and kind the cells that are unlike those of the training rows; see `warnings_of`.
        strict
            Whether to raise an error at the first batch that has such cells.

        Raises
        ------
        TableError
            If the table has columns of these names, or the model is a regression and ``probabilities`` is True; with
            ``strict``, if a cell is unlike those of the training rows.
        """
        import pyarrow

        opened = open_table(table)
        classes = self.target.classes or ()
        if probabilities and not classes:
            raise TableError("a regression predicts no probabilities: omit them")
        names = ["prediction", *(f"probability of {c}" for c in classes if probabilities)]
        if taken := [name for name in names if name in opened.columns]:
            raise TableError(f"{opened.name} already has a column {taken[0]!r}: rename it")
        empty = True
        unusual = Counter() if unusual is None else unusual
        for batch, inputs in self.preprocessor.transform(opened, unusual):
            if strict:
                _check_usual(opened.name, warnings_of(unusual, ended=False))
            empty = False
            appended = [self._apply(self._predict, inputs)]
            if probabilities:
                appended += list(self._apply(self.network.predict_proba, inputs).T)
            arrays = [*batch.columns, *map(pyarrow.array, appended)]
            yield pyarrow.RecordBatch.from_arrays(arrays, names=[*batch.schema.names, *names])
        if strict:
            _check_usual(opened.name, warnings_of(unusual))
        if empty:
            columns = [*opened.columns, *names]
            yield pyarrow.RecordBatch.from_arrays([pyarrow.array([], pyarrow.string())] * len(columns), names=columns)

    def evaluate(self, table: Any) -> dict[str, float]:
        """Return the metrics of a table that has the target; rows without it are skipped.

        Rows of classes that the model does not know count as wrong, with probability 0, and are warned of.

        Raises
        ------
        TableError
            If a column is missing, the target included, or no row has a target that the model knows.
        """
        opened, target = open_table(table), self.target
        opened.require((target.name,))
        unusual = Counter[tuple[str, str]]()
        batches = [
            (inputs, target.encode(batch.column(target.name)))
            for batch, inputs in self.preprocessor.transform(opened, unusual)
        ]
        for message in warnings_of(unusual):
            _warn(message)
        known = [np.isfinite(targets) if target.classes is None else targets != -2 for _, targets in batches]
        if not sum(map(np.sum, known)):
            raise TableError(
                f"{opened.name} has no row whose target {target.name!r} is known: there is nothing to measure"
            )
        inputs, targets = (np.concatenate([part[rows] for part, rows in zip(parts, known)]) for parts in zip(*batches))
        if unknown := int(np.sum(targets == -1)) if target.classes else 0:
            _warn(
                f"{unknown:,} of {len(targets):,} rows are of classes that the model does not know: they count as wrong"
            )
        return compute_metrics(self, inputs, targets)

    def save(self, path: str | Path) -> None:
        """Write network, preprocessor and results to one safetensors file, which `load` reads on any backend."""
        facts, arrays, slots = self.network.contents()
        model_file.write(path, {**facts, "table": describe(self.preprocessor, self.results)}, arrays, slots)

    @classmethod
    def load(cls, path: str | Path, backend: Any = "auto") -> TableModel:
        """Read a model that `save` wrote.

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        FileFormatError
            If it is of another kind or version, damaged, or holds a network without a table.
        """
        facts, arrays, slots = model_file.read(path)
        if facts["table"] is None:
            raise FileFormatError(f"{path} holds a network without a table: load it with portablenn.load")
        try:
            preprocessor, results = preprocessor_from(facts["table"])
        except (TypeError, ValueError) as error:
            raise FileFormatError(f"{path} is not a valid model file: invalid table: {error}") from None
        network = from_contents(path, facts, arrays, slots, backend)
        expected = (len(preprocessor.input_names), preprocessor.target.class_count or 1)
        if (network.inputs, network.outputs) != expected:
            raise FileFormatError(
                f"{path} is not a valid model file: its table requires {expected} inputs and outputs, "
                f"its network has {(network.inputs, network.outputs)}"
            )
        report_without_smoothing(network)
        return cls(preprocessor, network, results)


def _class_weights(given: Mapping[Any, float] | str | None, target: Target, targets: np.ndarray) -> np.ndarray | None:
    """Return the weight of each class, (classes,), float32, from what `TableModel.train` is given and the training rows."""
    if given is None:
        return None
    if target.classes is None:
        raise ValueError(f"class_weight is for classifications: the target {target.name!r} has values")
    labels = target.labels.tolist()
    return class_weight_table(given, targets, len(labels), labels).astype(np.float32)


def _check_usual(table: str, found: list[str]) -> None:
    if found:
        raise TableError(f"{table} is not like the table of the training: {'; '.join(found)}")


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)
