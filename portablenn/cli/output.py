"""Output of the commands: models, backends and verifications as text or as JSON, warnings as lines."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

FEW_ROWS = 50
"""Number of rows below which a warning follows the metrics."""


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print a value, which may hold dataclasses, as JSON, with null for NaN and infinity, which JSON does not have."""
    typer.echo(json.dumps(_finite(value), indent=indent))


def _finite(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_warning(message: object) -> None:
    """Print one line on standard error."""
    print(f"portablenn: {message}", file=sys.stderr)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print warnings as one line on standard error, without their location in the code."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = lambda message, *_, **__: print_warning(message)
        yield


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str] = ()) -> None:
    """Print columns of literal text, not markup; the footer is dimmed."""
    table = Table(*head, box=None)
    for row in rows:
        table.add_row(*row)
    if footer:
        table.add_row(*footer, style="dim")
    Console(markup=False, highlight=False).print(table)


def describe_model(model: Any) -> dict[str, Any]:
    """Return the description of a table's model as values for JSON."""
    return {
        "task": model.task,
        "target": model.target.name,
        "classes": None if model.target.classes is None else list(model.target.classes),
        "columns": [column.name for column in model.preprocessor.columns],
        "inputs": list(model.preprocessor.input_names),
        "layers": describe_layers(model.network),
        "parameters": model.network.parameter_count,
        "epochs": model.network.epochs,
        **model.results,
    }


def describe_layers(network: Any) -> list[dict[str, Any]]:
    """Return the name and the fields of each layer, as values for JSON."""
    from ..files.checkpoint import describe

    return [{"name": name, **describe(layer)} for name, layer in network.model.layers]


def print_columns(columns: Sequence[Any]) -> None:
    """Print a row for each column of a table, and which would be left out."""
    rows = [(c.name, c.type or "left out", c.values, c.written, f"{c.missing:,}" if c.missing else "") for c in columns]
    print_table(("column", "type", "values", "written with", "missing"), rows)
    for column in columns:
        if column.note:
            typer.echo(f"{column.name!r}: {column.note}")


def print_model(model: Any) -> None:
    """Print the task, the use of rows and columns, the course of the training, and the metrics."""
    results = model.results
    _print_data(model)
    if results.get("history"):
        resumed = f", resumed from a checkpoint at step {results['resumed']:,}" if results.get("resumed") else ""
        ended = f"; {results['ended']}" if results.get("ended") else ""
        best = f"; the weights are those of epoch {results['best_epoch']}" if results.get("best_epoch") else ""
        typer.echo(f"{len(results['history']['loss'])} epochs{resumed}{ended}{best}")
        if results.get("chosen") == "linear model":
            typer.echo("a linear model predicts the validation rows better than the network: it is the model")
        elif (
            results.get("preset") == "fast"
            and not ended
            and results.get("best_epoch") == len(results["history"]["loss"])
        ):
            typer.echo("the validation loss was still falling: more epochs may help (--epochs)")
    if not results.get("metrics"):
        typer.echo("too few rows for a test set: how well the model predicts is unknown")
        return
    part, beside = results["measured_on"], [results.get("linear", {}), results["baseline"]]
    rows = [
        (
            name.replace("_", " "),
            *(f"{found[name]:.4g}" if name in found else "" for found in (results["metrics"], *beside)),
        )
        for name in results["metrics"]
    ]
    print_table((f"on {part} rows", "model", "linear model", "constant prediction"), rows)
    if results["rows"][part] < FEW_ROWS:
        typer.echo(f"these metrics are of {results['rows'][part]} rows only: they are uncertain")
    if "cross_validation" in results:
        from ..tables.metrics import tabulate_folds

        print_table(*tabulate_folds(results["cross_validation"]))


def _print_data(model: Any) -> None:
    results, target = model.results, model.target
    rows = "  ".join(f"{part} {count:,}" for part, count in results.get("rows", {}).items())
    classes = f", {len(target.classes)} classes" if target.classes else ""
    classes += " (use --task regression to predict them as numbers)" if target.labels_are == "integer" else ""
    typer.echo(f"{model.task} of {target.name!r}{classes}; rows: {rows}")
    if results.get("rows_without_target"):
        typer.echo(f"{results['rows_without_target']:,} rows without {target.name!r} were skipped")
    for name, why in results.get("left_out", {}).items():
        typer.echo(f"left out: {name!r}: {why}")
    for name, why in results.get("doubtful", {}).items():
        typer.echo(f"doubtful: {name!r}: {why}")
    for column in model.preprocessor.columns:
        if infrequent := getattr(column, "infrequent", 0):
            kept = f"the {len(column.values)} most frequent values are distinguished"
            typer.echo(f"{column.name!r}: {kept}, {infrequent:,} others are not")


def print_backends(backends: Sequence[Any], explanation: str) -> None:
    """Print a row for each backend, and which one "auto" chooses."""
    rows = []
    for info in backends:
        free = "" if info.memory is None else f"{info.memory[0] / 2**30:.1f} of {info.memory[1] / 2**30:.1f} GiB"
        usable = "yes" if info.usable else f"no: {info.reason}" + (f"; {info.install}" if info.install else "")
        rows.append((info.name, info.version, ", ".join(info.devices), free, info.executes, usable))
    print_table(("name", "version", "devices", "free memory", "executes with", "usable"), rows)
    typer.echo(explanation)


def print_verifications(verifications: Sequence[Any], tolerances: dict[tuple[str, int], float]) -> None:
    """Print a row for each backend that was verified, the tolerances, and the reason of each failure."""
    dtypes = ("float32", "float64")
    rows = []
    for one in verifications:
        deviations = [_pair(one.deviation_one.get(t), one.deviation_twenty.get(t)) for t in dtypes]
        speeds = ["-" if speed is None else f"{speed:,.0f}/s" for speed in (one.small, one.large)]
        seeds, result = "agree" if one.seeds else "differ", "passed" if one.passed else "failed"
        rows.append((f"{one.backend}:{one.device}", one.executes, *deviations, seeds, *speeds, result))
    bounds = [_pair(tolerances[t, 1], tolerances[t, 20]) for t in dtypes]
    head = ("backend", "executes with", *dtypes, "seeds", "small", "large", "result")
    print_table(head, rows, footer=("", "tolerance", *bounds))
    for one in verifications:
        if not one.passed:
            typer.echo(f"failed: {one.reason}")


def _pair(one: float | None, twenty: float | None) -> str:
    return "  ".join("-" if deviation is None else f"{deviation:.0e}" for deviation in (one, twenty))
