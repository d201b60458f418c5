"""Reports: one HTML page on the training of a table's model, with its metrics, plots, columns, command and versions.

Plots are inline SVG in the colours of the page: sharp at any width, readable in dark mode, without further files.
"""

from __future__ import annotations

import html
import io
import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import plots
from ..files import atomic
from .columns import CategoricalColumn
from .metrics import tabulate_folds

MAX_CLASSES = 40
"""Maximum number of classes in the confusion matrix: the most frequent ones."""

MAX_IMPORTANCES = 20
MAX_DIAGRAM_PARAMETERS = 100_000

INK = "#010203"
"""A colour that nothing else has: lines and letters are drawn in it, then it is replaced by the page's colour of text."""

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #ffffff; --quiet: #59636e; --line: #d1d9e0; --good: #1a7f37; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --quiet: #9198a1; --line: #3d444d; --good: #3fb950; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
p { margin: .5rem 0; } .quiet { color: var(--quiet); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td:first-child, th:first-child { min-width: 6.5rem; max-width: 14rem; overflow-wrap: anywhere; }
table.counts td, table.counts th { padding: .3rem .6rem; text-align: right; border: 1px solid var(--line); }
table.counts th { min-width: 5rem; max-width: 9rem; overflow-wrap: anywhere; font-weight: 500; vertical-align: bottom; }
@media (max-width: 30rem) { td:first-child, th:first-child { max-width: 38vw; } }
th, td { text-align: left; padding: .3rem 1.25rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--line); border-radius: 6px; font-size: .85rem; }
figure { margin: .75rem 0; } figure svg { width: 100%; height: auto; max-width: 36rem; display: block; }
figcaption { color: var(--quiet); font-size: .9rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.figures div { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .8rem; }
.figures b { display: block; font-size: 1.4rem; } .figures span { color: var(--quiet); font-size: .85rem; }
"""


def write(path: str | Path, model: Any) -> None:
    """Write the report of a `TableModel`, trained or loaded, to an HTML file, which appears once it is complete."""
    atomic.write(path, page(model).encode())


def page(model: Any) -> str:
    """Return the report of a model as HTML; the same model gives the same text."""
    title = f"{model.task.capitalize()} of {model.target.name}"
    sections = (_metrics, _training, _importances, _columns, _network, _reproduction)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_text(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f'<style>{STYLE}</style>\n</head>\n<body>\n<h1>{_text(title)}</h1>\n<p class="quiet">{_text(_summary(model))}</p>\n'
        + "\n".join(part for section in sections for part in section(model))
        + "\n</body>\n</html>\n"
    )


def _summary(model: Any) -> str:
    results = model.results
    rows = ", ".join(f"{count:,} {part}" for part, count in results.get("rows", {}).items())
    table = f" of {results['table']}" if "table" in results else ""
    classes = f"; {len(model.target.classes)} classes" if model.target.classes else ""
    return f"Rows{table}: {rows}{classes}; {model.network.parameter_count:,} parameters."


# Sections: lists of HTML, empty where there is nothing to show


def _metrics(model: Any) -> list[str]:
    results = model.results
    if not results.get("metrics"):
        return []
    metrics, part = results["metrics"], results["measured_on"]
    tiles = (f"<div><b>{_number(v)}</b><span>{_text(_metric_name(name))}</span></div>" for name, v in metrics.items())
    columns = {"model": metrics, "linear model": results.get("linear", {}), "constant prediction": results["baseline"]}
    rows = [
        (_metric_name(name), *(_number(found[name]) if name in found else "" for found in columns.values()))
        for name in metrics
    ]
    section = [f'<div class="figures">{"".join(tiles)}</div>', "<h2>Metrics</h2>"]
    section.append(_table((f"on the {part} rows", *columns), rows, numeric=3))
    if "cross_validation" in results:
        section.append(_table(*tabulate_folds(results["cross_validation"]), numeric=3))
    if results.get("confusion"):
        caption = f"Confusion matrix of the {part} rows: true classes down, predicted classes across."
        section.append(_confusion(results["confusion"], model.target.classes, caption))
    if results.get("predicted"):
        shown, total = len(results["predicted"]), results["rows"][part]
        count = f"{shown:,} of the {total:,}" if shown < total else f"the {total:,}"
        caption = f"True and predicted values of {count} {part} rows; on the dashed line they are equal."
        section.append(_figure(lambda ax: plots.predicted_values(results["predicted"], ax), caption, (4.6, 4.0)))
    return section


def _training(model: Any) -> list[str]:
    results = model.results
    if not results.get("history"):
        return []
    caption = f"{len(results['history']['loss'])} epochs" + (f"; {results['ended']}" if results.get("ended") else "")
    caption += f"; the weights are those of epoch {results['best_epoch']}" if results.get("best_epoch") else ""
    return ["<h2>Training</h2>", _figure(lambda ax: plots.loss_curves(results["history"], ax), f"{caption}.")]


def _importances(model: Any) -> list[str]:
    importances = model.results.get("importances")
    if not importances:
        return []
    score = "R²" if model.target.classes is None else "accuracy"
    shown, total = min(MAX_IMPORTANCES, len(importances)), len(importances)
    caption = (
        f"Permutation importance: the decrease in {score} when the cells of a column are shuffled. About 0: the column is not "
        "needed, or other columns hold the same information."
    )
    caption += f" The {shown} most important of {total} columns." if shown < total else ""
    figure = _figure(lambda ax: plots.importances(importances, shown, ax), caption, (4.8, 0.3 * shown + 0.9))
    return ["<h2>Importance of the columns</h2>", figure]


def _columns(model: Any) -> list[str]:
    rows = [(column.name, _encoding(column)) for column in model.preprocessor.columns]
    rows += [(name, f"left out: {why}") for name, why in model.results.get("left_out", {}).items()]
    return ["<h2>Columns</h2>", _table(("column", "encoding"), rows)]


def _encoding(column: Any) -> str:
    if isinstance(column, CategoricalColumn):
        values = ", ".join(f"“{value}”" for value in column.values[:6]) + (", …" if len(column.values) > 6 else "")
        infrequent = f"; {column.infrequent:,} less frequent values are not distinguished" if column.infrequent else ""
        encoding = f"one-hot, {len(column.values)} values: {values}{infrequent}"
    else:
        center, spread = ("median", "interquartile range") if column.smooth else ("mean", "standard deviation")
        where, unit = _number(column.center), ""
        if column.cells.date:
            where, unit = str(np.datetime64(0, "D") + int(column.center)), " days"
        kind = "date" if column.cells.date else "number"
        encoding = f"scaled {kind}, {center} {where}, {spread} {_number(column.scale)}{unit}"
        encoding += "; extremes drawn in" if column.smooth else ""
    return encoding + ("; missing values marked" if column.missing else "")


def _network(model: Any) -> list[str]:
    section = ["<h2>Network</h2>", f"<pre>{_text(model.network.summary())}</pre>"]
    if model.network.parameter_count <= MAX_DIAGRAM_PARAMETERS:
        caption = "Weights: green is positive, red negative; the wider the line, the larger the weight."
        size = (1.3 * len(model.network.layers) + 1.6, 3.6)  # narrow, so that letters are not small on a phone
        section.append(_figure(lambda ax: plots.diagram(model.network, 12, ax), caption, size))
    return section


def _reproduction(model: Any) -> list[str]:
    command = model.results.get("command") or "TableModel.train(…)"
    versions = [(name, str(version)) for name, version in model.results.get("versions", {}).items()]
    return ["<h2>How to reproduce it</h2>", f"<pre>{_text(command)}</pre>", _table(("", "version"), versions)]


# HTML


def _text(text: Any) -> str:
    return html.escape(str(text))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _metric_name(name: str) -> str:
    return {"r2": "R²", "roc_auc": "ROC AUC", "f1_macro": "F1, macro"}.get(name, name.replace("_", " "))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: int = 0) -> str:
    """Return a table whose last ``numeric`` columns are aligned to the right."""

    def line(cells: Sequence[str], tag: str) -> str:
        first = len(cells) - numeric
        marked = (f"<{tag}{' class=number' * (i >= first)}>{_text(cell)}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr>{''.join(marked)}</tr>"

    return f'<div class="wide"><table>{line(head, "th")}{"".join(line(row, "td") for row in rows)}</table></div>'


def _confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], caption: str) -> str:
    """Return counts as an HTML table, which holds names of any length; the greener a cell, the larger its share of the row."""
    matrix = np.asarray(counts)
    shown = np.sort(np.argsort(-matrix.sum(axis=1), kind="stable")[:MAX_CLASSES])
    head = "".join(f"<th>{_text(classes[j])}</th>" for j in shown)
    lines = [f"<tr><th>true \\ predicted</th>{head}</tr>"]
    for i in shown:
        share = matrix[i] / max(1, matrix[i].sum())
        styles = (f"background: color-mix(in srgb, var(--good) {80 * share[j]:.0f}%, transparent)" for j in shown)
        cells = "".join(f'<td style="{style}">{matrix[i, j]:,}</td>' for j, style in zip(shown, styles))
        lines.append(f"<tr><th>{_text(classes[i])}</th>{cells}</tr>")
    omitted = f" The {len(shown)} most frequent of {len(classes)} classes." if len(shown) < len(classes) else ""
    table = f'<div class="wide"><table class="counts">{"".join(lines)}</table></div>'
    return f"<figure>{table}<figcaption>{_text(caption + omitted)}</figcaption></figure>"


def _figure(draw: Callable[[Any], Any], caption: str, size: tuple[float, float] = (4.8, 3.2)) -> str:
    """Return what ``draw(ax)`` draws as inline SVG: transparent, text as text, lines and letters in the colour of the page."""
    svg = _svg(draw, size, salt=caption).replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    prefix = f"f{zlib.crc32(caption.encode())}-"  # ids must be unique in the page, not only in the figure
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{_text(caption)}" ', 1)
    return f"<figure>{svg}<figcaption>{_text(caption)}</figcaption></figure>"


def _svg(draw: Callable[[Any], Any], size: tuple[float, float], salt: str) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    coloured = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "legend.labelcolor")
    settings = {
        **dict.fromkeys(coloured, INK),
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "font.family": "sans-serif",
        "legend.framealpha": 0.0,
        "svg.fonttype": "none",
        "svg.hashsalt": salt,  # the same ids each time
        "text.parse_math": False,  # a column may be named "a $5$ b"
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about letters that matplotlib's font lacks and the page's has
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True)
    svg = file.getvalue()
    return svg[svg.index("<svg") :]
