"""Commands for tables: train, predict, inspect.

Requires pyarrow, safetensors and scikit-learn beside typer and rich (the extras "tables", "files", "sklearn").
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as Shown

from ..callbacks import Callback, Checkpoint, ProgressBar, TimeLimit
from ..files import atomic
from ..nn.optimizers import AdamW
from .app import app

INTERRUPTED = 130

FEW = 50
"""Rows below which figures are said to be of too few."""

os.environ.setdefault(
    "ARROW_DEFAULT_MEMORY_POOL", "system"
)  # pyarrow's other ones reserve a gigabyte, whatever the limit is


class Task(StrEnum):
    """What kind of target."""

    classification = "classification"
    regression = "regression"


class Missing(StrEnum):
    """What to do where cells are missing."""

    impute = "impute"
    refuse = "refuse"


TABLE = "A .csv, .tsv, .parquet, .arrow or .feather file; .csv also compressed, .csv.gz."
MODEL = "A file that 'portablenn train' wrote."
AS_JSON = typer.Option("--json", help="Write what is found as JSON to standard output, for programs.")


@app.command()
def train(
    table: Annotated[Path, typer.Argument(help=TABLE)],
    target: Annotated[str, typer.Option(help="The column to learn to predict.")],
    out: Annotated[Path, typer.Option(help="The model file to write.")] = Path("model.safetensors"),
    report: Annotated[Path | None, typer.Option(help="The page to write; beside the model if not given.")] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no page.")] = False,
    task: Annotated[Task | None, typer.Option(help="What the column looks like, if not given.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="A column that is not to be used; may come again.")] = None,
    missing: Annotated[Missing, typer.Option(help="Fill missing cells, or refuse tables with some.")] = Missing.impute,
    hidden: Annotated[str, typer.Option(help="Units of the hidden layers.")] = "64,32",
    dropout: Annotated[
        float, typer.Option(min=0.0, max=0.95, help="Share of the units left out while training.")
    ] = 0.0,
    learning_rate: Annotated[float, typer.Option(min=1e-12, help="Of AdamW.")] = 1e-3,
    epochs: Annotated[int, typer.Option(min=1, help="At most so often through the rows.")] = 100,
    patience: Annotated[
        int, typer.Option(min=1, help="End after so many epochs without a better validation loss.")
    ] = 10,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows a step; by the number of rows if not given.")
    ] = None,
    time_limit: Annotated[float | None, typer.Option(min=1e-3, help="End after so many seconds.")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="A folder for checkpoints; the same command goes on from the last one there.")
    ] = None,
    backend: Annotated[str, typer.Option(help="What to train on, such as numpy or torch:cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Decides rows, weights and batches.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Train a network that predicts a column of a table from the others, and say how well it does on rows it has not seen.

    Text becomes classes or yes-no inputs, numbers are scaled, missing cells filled; names and free text are left out.
    80 % of the rows are trained on, 10 % decide when to stop, 10 % measure. The table may be larger than memory.

    Examples: "portablenn train houses.csv --target price", "portablenn train patients.parquet --target ill --ignore name
    --out ill.safetensors", "portablenn train big.parquet --target y --checkpoints runs/1 --backend torch:cuda".
    """
    from ..tables import TableModel

    page = None if no_report else report or out.parent / f"{out.stem}.html"
    _check_written([table], [out, page])
    callbacks: list[Callback] = [] if quiet or as_json else [ProgressBar()]
    callbacks += [TimeLimit(time_limit)] if time_limit else []
    callbacks += [Checkpoint(checkpoints)] if checkpoints is not None else []
    with _warnings_as_lines():
        model = TableModel.train(
            table,
            target,
            task=task.value if task else None,
            ignore=ignore or (),
            hidden=_sizes(hidden),
            dropout=dropout,
            optimizer=AdamW(learning_rate),
            epochs=epochs,
            batch_size=batch_size,
            patience=patience,
            missing=missing.value,
            backend=backend,
            seed=seed,
            callbacks=callbacks,
            resume=checkpoints,
        )
        model.figures["command"] = shlex.join(["portablenn", *sys.argv[1:]])
        model.figures["table"] = str(table)
        model.save(out)
        if page is not None:
            from ..tables.report import write

            try:
                write(page, model)
            except Exception as error:
                raise RuntimeError(f"the model is written, {out}, and the page {page} could not be: {error}") from error
    if as_json:
        told = {"model": str(out), "report": None if page is None else str(page), **_told(model)}
        typer.echo(json.dumps(_finite(told), indent=2))
    else:
        _show(model)
        typer.echo(f"model: {out}" + ("" if page is None else f"\nreport: {page}"))
    if model.figures["ended"].startswith("Ctrl-C"):
        raise typer.Exit(INTERRUPTED)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help=MODEL)],
    table: Annotated[Path, typer.Argument(help=TABLE)],
    out: Annotated[
        Path | None, typer.Option(help="A .csv, .parquet or .arrow file; else CSV to standard output.")
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="A column for each class, too.")] = False,
    backend: Annotated[str, typer.Option(help="What to predict on.")] = "auto",
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Append a column "prediction" to a table, some rows at a time.

    Examples: "portablenn predict model.safetensors new.csv --out predicted.csv", "portablenn predict model.safetensors
    new.parquet --out predicted.parquet --probabilities", "portablenn predict model.safetensors new.csv | head".
    """
    from ..tables import TableModel

    if as_json and out is None:
        raise typer.BadParameter("--json says what was written: give --out, too")
    _check_written([model, table], [out])
    loaded = TableModel.load(model, backend)
    rows, unseen = 0, Counter[str]()
    try:
        with _warnings_as_lines(), _writer(out) as write:
            for batch in loaded.batches(table, probabilities, unseen):
                write(batch)
                rows += batch.num_rows
    except OSError as error:
        if out is not None or error.errno != errno.EPIPE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # such as head, which has seen enough
        return
    unseen = +unseen
    if as_json:
        told = {"out": str(out), "rows": rows, "target": loaded.target.name, "unseen": dict(unseen)}
        typer.echo(json.dumps(told))
    elif out is not None:
        typer.echo(f"{rows:,} rows: {out}")
    for name, count in unseen.items():
        message = f"{count:,} cells of {name!r} hold what was not there when the model learnt, and count as unknown"
        print(f"portablenn: {message}", file=sys.stderr)


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help=MODEL + " Or one of a network, which 'Network.save' wrote.")],
    report: Annotated[Path | None, typer.Option(help="Write the page again.")] = None,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Show what is in a model file: layers, sizes, inputs, training figures.

    Examples: "portablenn inspect model.safetensors", "portablenn inspect model.safetensors --json".
    """
    from ..files import model_file
    from ..tables import TableModel
    from ..training.network import load

    of_table = model_file.read(model)[0]["table"] is not None
    if not of_table:
        network = load(model, "numpy")
        if report is not None:
            raise ValueError(f"{model} is a network without a table: there is nothing to report of")
        told = {"layers": _layers(network), "parameters": network.parameter_count, "inputs": network.inputs}
        typer.echo(json.dumps(told, indent=2) if as_json else network.summary())
        return
    loaded = TableModel.load(model, "numpy")
    if report is not None:
        from ..tables.report import write

        write(report, loaded)
    if as_json:
        typer.echo(json.dumps(_finite(_told(loaded)), indent=2))
        return
    _show(loaded)
    typer.echo(loaded.network.summary())


def _check_written(read: list[Path], written: list[Path | None]) -> None:
    """Before anything is done: what is written can be, and takes the place of nothing that is read or written, too."""
    known = {path.absolute() for path in read}
    for path in (path for path in written if path is not None):
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"there is no folder {path.absolute().parent} to write {path.name} to")
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder: name a file to write")
        if path.absolute() in known:
            raise ValueError(f"{path} would take the place of what is read, or written, there: name another file")
        known.add(path.absolute())


def _told(model: Any) -> dict[str, Any]:
    network = model.network
    return {
        "task": model.task,
        "target": model.target.name,
        "classes": None if model.target.classes is None else list(model.target.classes),
        "columns": [column.name for column in model.preparation.columns],
        "inputs": list(model.preparation.inputs),
        "layers": _layers(network),
        "parameters": network.parameter_count,
        "epochs": network.epochs,
        **model.figures,
    }


def _layers(network: Any) -> list[dict[str, Any]]:
    from ..files.checkpoint import describe

    return [{"name": name, **describe(layer)} for name, layer in network.model.layers]


def _finite(told: Any) -> Any:
    """What JSON of other programs can hold: null for NaN and infinity."""
    if isinstance(told, dict):
        return {name: _finite(value) for name, value in told.items()}
    if isinstance(told, list):
        return [_finite(value) for value in told]
    return None if isinstance(told, float) and not math.isfinite(told) else told


def _show(model: Any) -> None:
    figures = model.figures
    rows = "  ".join(f"{part} {count:,}" for part, count in figures.get("rows", {}).items())
    kinds = f", {len(model.target.classes)} classes" if model.target.classes else ""
    if model.target.whole:
        kinds += " (--task regression would predict them as numbers)"
    typer.echo(f"{model.task} of {model.target.name!r}{kinds}; rows: {rows}")
    if figures.get("rows_without_target"):
        typer.echo(f"{figures['rows_without_target']:,} rows have no {model.target.name!r} and were passed over")
    for name, why in figures.get("left_out", {}).items():
        typer.echo(f"left out: {name!r}, for {why}")
    for column in model.preparation.columns:
        if getattr(column, "rarer", 0):
            typer.echo(
                f"{column.name!r}: the {len(column.values)} commonest values are told apart, {column.rarer:,} rarer ones not"
            )
    if figures.get("history"):
        epochs = len(figures["history"]["loss"])
        resumed = f", from a checkpoint at step {figures['resumed']:,} on" if figures.get("resumed") else ""
        best = f"; the weights are those of epoch {figures['best_epoch']}" if figures.get("best_epoch") else ""
        typer.echo(f"{epochs} epochs{resumed}" + (f"; {figures['ended']}" if figures.get("ended") else "") + best)
    if not figures.get("metrics"):
        typer.echo("there are too few rows to set some apart: nothing is known of how well it predicts")
        return
    shown = Shown(f"on {figures['measured_on']} rows", "model", "always the same", box=None)
    for name, value in figures["metrics"].items():
        base = figures["baseline"].get(name)
        shown.add_row(name.replace("_", " "), f"{value:.4g}", "" if base is None else f"{base:.4g}")
    Console(markup=False, highlight=False).print(shown)
    measured = figures["rows"][figures["measured_on"]]
    if measured < FEW:
        typer.echo(f"these figures are of {measured} rows: too few to say much")


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        sizes = (0,)
    if any(size < 1 for size in sizes):
        raise typer.BadParameter(f"--hidden is whole numbers such as 64,32, found {text!r}")
    return sizes


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """A warning as one line on standard error, without a place in the code."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"portablenn: {message}", file=sys.stderr)
        yield


@contextmanager
def _writer(path: Path | None) -> Iterator[Callable[[Any], None]]:
    """What writes record batches, by the end of the file's name; a file is whole or not there."""
    if path is None:
        with _of_kind("csv", sys.stdout.buffer) as write:
            yield write
        return
    kind = path.suffix.lower().lstrip(".")
    kind = "arrow" if kind == "feather" else kind
    if kind not in ("csv", "parquet", "arrow"):
        raise typer.BadParameter(f"--out ends in .csv, .parquet or .arrow, found {path.name!r}")
    with atomic.replacing(path) as file, _of_kind(kind, file) as write:
        yield write


@contextmanager
def _of_kind(kind: str, file: Any) -> Iterator[Callable[[Any], None]]:
    import pyarrow
    from pyarrow import parquet

    opened: Any = None

    def write(batch: Any) -> None:
        nonlocal opened
        if kind == "csv":
            _as_csv(batch, file, header=opened is None)
            opened = opened or contextlib.nullcontext()
            return
        if opened is None:
            opened = (
                parquet.ParquetWriter(file, batch.schema)
                if kind == "parquet"
                else pyarrow.ipc.new_file(file, batch.schema)
            )
        opened.write_batch(batch)

    try:
        yield write
    finally:
        if opened is not None and kind != "csv":
            opened.close()


def _as_csv(batch: Any, file: Any, header: bool) -> None:
    """Cells in quotes only where they need them: pyarrow knows none or all."""
    import csv
    import io

    import pyarrow
    import pyarrow.compute as pc
    from pyarrow import csv as writer

    if header:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(batch.schema.names)
        file.write(line.getvalue().encode())
    text = [c for c in batch.columns if pyarrow.types.is_string(c.type) or pyarrow.types.is_large_string(c.type)]
    special = any(pc.any(pc.match_substring_regex(column, '[",\r\n]')).as_py() for column in text)
    style = "needed" if special else "none"
    writer.write_csv(batch, file, writer.WriteOptions(include_header=False, quoting_style=style))
