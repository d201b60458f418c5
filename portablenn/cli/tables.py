"""Commands for tables: train, predict, evaluate, inspect."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..callbacks import Callback, Checkpoint, ProgressBar, TimeLimit
from .app import AS_JSON, Command, app
from .output import (
    describe_layers,
    describe_model,
    print_columns,
    print_json,
    print_model,
    print_table,
    print_warning,
    warnings_as_lines,
)

INTERRUPTED = 130
NOT_BETTER = 3

# other pools reserve 1 GB of addresses, which fails under ulimit -v
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

Task = StrEnum("Task", ["classification", "regression"])
Missing = StrEnum("Missing", ["impute", "refuse"])
ClassWeight = StrEnum("ClassWeight", ["balanced"])
Preset = StrEnum("Preset", ["default", "fast"])
Decimal = StrEnum("Decimal", {"POINT": ".", "COMMA": ","})
TABLE = "A .csv, .tsv, .txt, .parquet, .pq, .arrow, .feather or .ipc file; also compressed CSV, .csv.gz."
COLUMN_TYPE = typer.Option(
    help="Type of a column, NAME=number, date, category or ignore; may be repeated.", metavar="NAME=TYPE"
)
DECIMAL = typer.Option(help="What separates decimals, . or ,; default: inferred.")
NA = typer.Option(help="Text that marks a missing cell; may be repeated.")
MODEL = "A model file that 'portablenn train' wrote."


@app.command(cls=Command)
def train(
    table: Annotated[Path, typer.Argument(help=TABLE)],
    target: Annotated[str, typer.Option(help="Column to predict.")],
    out: Annotated[
        Path | None, typer.Option(help="Model file to write; default: model.safetensors, if there is none yet.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write; default: next to the model.")] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.")] = False,
    task: Annotated[Task | None, typer.Option(help="Default: inferred from the target.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Column not to use; may be repeated.")] = None,
    missing: Annotated[Missing, typer.Option(help="Impute missing cells, or fail if there are any.")] = Missing.impute,
    column_type: Annotated[list[str] | None, COLUMN_TYPE] = None,
    decimal: Annotated[Decimal | None, DECIMAL] = None,
    na: Annotated[list[str] | None, NA] = None,
    preset: Annotated[
        Preset, typer.Option(help="default: an accurate network; fast: a small one, in a fraction of the time.")
    ] = Preset.default,
    hidden: Annotated[
        str | None, typer.Option(help="Units of the hidden layers, such as 64,32; default: the preset's.")
    ] = None,
    dropout: Annotated[float, typer.Option(min=0.0, max=0.95, help="Dropout rate of the hidden layers.")] = 0.0,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=1e-12, help="Learning rate, or the highest of the schedule; default: the preset's."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Maximum number of epochs; default: the preset's.")] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs without a better validation loss before stopping; default: the preset's."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows per step; default: the preset's.")] = None,
    test_share: Annotated[
        float, typer.Option(min=0.0, max=0.7, help="Share of the rows to measure the model on.")
    ] = 0.1,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Also train a model for each of so many folds, and measure it on its rows, which it has not seen.",
        ),
    ] = None,
    class_weight: Annotated[
        ClassWeight | None, typer.Option(help="balanced: all classes have the same total weight in the loss.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column whose equal cells, such as patients, are in the same part of the rows.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column of dates or numbers: the latest rows are for testing.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(min=1e-3, help="Stop each training after this many seconds.")
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints; the same command resumes from the latest.")
    ] = None,
    backend: Annotated[str, typer.Option(help="Backend to train on, such as numpy or torch:cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split, the initial weights and the batches.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")] = False,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Train a network that predicts a column of a table from the others, and measure it on rows it has not seen.

    Text is one-hot encoded, numbers are scaled, missing cells imputed; identifiers and free text are left out. 80 % of the
    rows are for training, 10 % to choose the best epoch, 10 % for testing. The table may be larger than memory.

    Examples: "portablenn train houses.csv --target price", "portablenn train patients.parquet --target ill --ignore name
    --out ill.safetensors", "portablenn train big.parquet --target y --checkpoints runs/1 --backend torch:cuda".
    """
    from ..tables import TableModel
    from ..tables import report as reports
    from ..tables.metrics import worse_than_constant

    if out is None:
        out = Path("model.safetensors")
        if out.exists() and checkpoints is None:
            raise FileExistsError(
                f"there is a file {out} already: name the model to write with --out, this one or another"
            )
    page = None if no_report else report or out.parent / f"{out.stem}.html"
    _check_outputs([table], [out, page])
    callbacks: list[Callback] = [] if quiet or as_json else [ProgressBar()]
    callbacks += [TimeLimit(time_limit)] if time_limit else []
    settings: dict[str, Any] = {
        "task": task.value if task else None,
        "ignore": ignore or (),
        "preset": preset.value,
        "hidden": None if hidden is None else _layer_sizes(hidden),
        "dropout": dropout,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "batch_size": batch_size,
        "patience": patience,
        "class_weight": class_weight.value if class_weight else None,
        "group": group,
        "time": time,
        "missing": missing.value,
        "column_types": _column_types(column_type or ()),
        "decimal": decimal.value if decimal else None,
        "missing_marks": na or (),
        "backend": backend,
        "seed": seed,
    }
    saved: list[Callback] = [Checkpoint(checkpoints)] if checkpoints is not None else []
    with warnings_as_lines():
        found: dict[str, Any] = {}
        if folds is not None:
            of_folds = TableModel.cross_validate(table, target, folds=folds, callbacks=callbacks, **settings)
            found = {"cross_validation": of_folds}
        model = TableModel.train(
            table, target, test_share=test_share, callbacks=[*callbacks, *saved], resume=checkpoints, **settings
        )
        model.results |= found | {"command": shlex.join(["portablenn", *sys.argv[1:]]), "table": str(table)}
        model.save(out)
        if page is not None:
            try:
                reports.write(page, model)
            except Exception as error:
                raise RuntimeError(f"the model was written to {out}, but not the report {page}: {error}") from error
    if as_json:
        print_json({"model": str(out), "report": None if page is None else str(page), **describe_model(model)})
    else:
        print_model(model)
        typer.echo(f"model: {out}" + ("" if page is None else f"\nreport: {page}"))
    if model.results["ended"].startswith("Ctrl-C"):
        raise typer.Exit(INTERRUPTED)
    if comparison := worse_than_constant(model.results):
        print_warning(f"the model is not better than the same answer for every row: {comparison}")
        raise typer.Exit(NOT_BETTER)


@app.command(cls=Command)
def predict(
    model: Annotated[Path, typer.Argument(help=MODEL)],
    table: Annotated[Path, typer.Argument(help=TABLE)],
    out: Annotated[
        Path | None, typer.Option(help="A .csv, .parquet or .arrow file; default: CSV to standard output.")
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also add a column for each class.")] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail if cells are unlike those of the training: unseen, missing, far outside."),
    ] = False,
    backend: Annotated[str, typer.Option(help="Backend to predict on.")] = "auto",
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Append a column "prediction" to a table, which may be larger than memory.

    Examples: "portablenn predict model.safetensors new.csv --out predicted.csv", "portablenn predict model.safetensors
    new.parquet --out predicted.parquet --probabilities", "portablenn predict model.safetensors new.csv | head".
    """
    from ..tables import TableModel
    from ..tables.preprocessing import warnings_of
    from ..tables.writers import write_batches, write_table, writer_extension

    if as_json and out is None:
        raise typer.BadParameter("--json reports what was written: add --out")
    _check_outputs([model, table], [out])
    if out is not None:
        try:
            writer_extension(out)
        except ValueError as error:
            raise typer.BadParameter(f"--out: {error}") from None
    loaded, unusual = TableModel.load(model, backend), Counter[tuple[str, str]]()
    batches = loaded.predict_batches(table, probabilities, unusual, strict)
    with warnings_as_lines():
        if out is not None:
            rows = write_table(out, batches)
        elif not _unless_pipe_is_closed(lambda: write_batches(sys.stdout.buffer, batches)):
            return
    found = warnings_of(unusual)
    if as_json:
        print_json({"out": str(out), "rows": rows, "target": loaded.target.name, "warnings": found}, indent=None)
    elif out is not None:
        typer.echo(f"{rows:,} rows: {out}")
    for message in found:
        print_warning(message)


def _unless_pipe_is_closed(write: Any) -> bool:
    """Write to standard output; return False if its reader, such as head, has closed it."""
    try:
        write()
        sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python complains when it flushes at exit
        return False
    return True


@app.command(cls=Command)
def evaluate(
    model: Annotated[Path, typer.Argument(help=MODEL)],
    table: Annotated[Path, typer.Argument(help=TABLE + " It has the target.")],
    backend: Annotated[str, typer.Option(help="Backend to predict on.")] = "auto",
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Measure a model on a table that has the target, such as one of newer rows; rows without it are skipped.

    Example: "portablenn evaluate model.safetensors newer.csv".
    """
    from ..tables import TableModel

    with warnings_as_lines():
        metrics = TableModel.load(model, backend).evaluate(table)
    if as_json:
        print_json(metrics)
    else:
        print_table((f"on {table}", "model"), [(name.replace("_", " "), f"{v:.4g}") for name, v in metrics.items()])


@app.command(cls=Command)
def inspect(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL|TABLE", help=MODEL + " Or one of a network; or a table, as for training.")
    ],
    report: Annotated[Path | None, typer.Option(help="HTML report of a model to write again.")] = None,
    column_type: Annotated[list[str] | None, COLUMN_TYPE] = None,
    decimal: Annotated[Decimal | None, DECIMAL] = None,
    na: Annotated[list[str] | None, NA] = None,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Show the content of a model file: layers, parameters, inputs, results; or what the columns of a table would be.

    Examples: "portablenn inspect model.safetensors", "portablenn inspect people.csv --column-type zip=category".
    """
    from ..files import model_file
    from ..tables import TableModel, summarize_columns
    from ..tables import report as reports
    from ..tables.readers import has_reader
    from ..training.network import load

    if has_reader(model):
        if report is not None:
            raise ValueError(f"{model} is a table: a report requires a model")
        with warnings_as_lines():
            columns = summarize_columns(
                model,
                column_types=_column_types(column_type or ()),
                decimal=decimal.value if decimal else None,
                missing_marks=na or (),
            )
        print_json([asdict(column) for column in columns]) if as_json else print_columns(columns)
        return
    if column_type or decimal or na:
        raise ValueError(f"--column-type, --decimal and --na are for tables: {model} is not one by its extension")
    if model_file.read(model)[0]["table"] is None:
        if report is not None:
            raise ValueError(f"{model} holds a network without a table: a report requires one")
        network = load(model, "numpy")
        layers = describe_layers(network)
        facts = {"layers": layers, "parameters": network.parameter_count, "inputs": network.inputs}
        print_json(facts) if as_json else typer.echo(network.summary())
        return
    loaded = TableModel.load(model, "numpy")
    if report is not None:
        reports.write(report, loaded)
    if as_json:
        print_json(describe_model(loaded))
        return
    print_model(loaded)
    typer.echo(loaded.network.summary())


def _check_outputs(inputs: list[Path], outputs: list[Path | None]) -> None:
    """Validate, before anything is done, that outputs can be written and overwrite neither an input nor each other."""
    known = {path.absolute() for path in inputs}
    for path in (path for path in outputs if path is not None):
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"cannot write {path.name}: the folder {path.absolute().parent} does not exist")
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder: give the name of a file to write")
        if path.absolute() in known:
            raise ValueError(f"{path} would overwrite another file of this command: give another name")
        known.add(path.absolute())


def _column_types(given: Sequence[str]) -> dict[str, str]:
    from ..tables.types import KINDS

    pairs = [text.rpartition("=") for text in given]
    names = [name for name, _, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise typer.BadParameter(f"--column-type: {twice[0]!r} is given more than once: give it once")
    if wrong := [text for text, (name, _, kind) in zip(given, pairs) if not name or kind not in KINDS]:
        raise typer.BadParameter(f"--column-type: expected NAME=TYPE such as zip=category, got {wrong[0]!r}")
    return {name: kind for name, _, kind in pairs}


def _layer_sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        sizes = (0,)
    if any(size < 1 for size in sizes):
        raise typer.BadParameter(f"--hidden: expected positive integers such as 64,32, got {text!r}")
    return sizes
