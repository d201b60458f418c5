"""A training run as one page: pictures, tables, the exact command and versions, in a file that needs no other.

Requires matplotlib. Pictures are drawn as SVG in the page, in the colours of the page, so that they are sharp at any width
and readable in dark mode.
"""

from __future__ import annotations

import html
import io
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import plots
from ..files import atomic

MOST_CLASSES = 40

INK = "#010203"
"""The colour of lines and letters while a picture is drawn; in the page it is that of the text."""

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
    """The page of a model of a table, whole or not there.

    Parameters
    ----------
    path
        The file.
    model
        A `portablenn.TableModel`, as it was trained or loaded.
    """
    atomic.write(path, page(model).encode())


def page(model: Any) -> str:
    """The page, as HTML."""
    figures, target = model.figures, model.target
    title = f"{model.task.capitalize()} of {target.name}"
    parts = [f"<h1>{_text(title)}</h1>", f'<p class="quiet">{_text(_summary(model))}</p>']
    if figures.get("metrics"):
        parts.append(_tiles(figures["metrics"]))
        parts += ["<h2>How well it predicts</h2>", _measures(figures)]
    if figures.get("confusion"):
        caption = f"A line for each class of the {figures['measured_on']} rows, a column for each that is predicted."
        parts.append(_confusion(figures["confusion"], target.classes, caption))
    if figures.get("predicted"):
        count, of = len(figures["predicted"]), figures["rows"][figures["measured_on"]]
        caption = (
            f"{count:,} of the {of:,} rows of the {figures['measured_on']} part." if count < of else f"The {of:,} rows."
        )
        parts.append(_figure(lambda ax: plots.predicted_values(figures["predicted"], ax), caption, (4.6, 4.0)))
    if figures.get("history"):
        told = f"{len(figures['history']['loss'])} epochs" + (f"; {figures['ended']}" if figures.get("ended") else "")
        told += f"; the weights are those of epoch {figures['best_epoch']}" if figures.get("best_epoch") else ""
        parts += ["<h2>Training</h2>", _figure(lambda ax: plots.loss_curves(figures["history"], ax), f"{told}.")]
    if figures.get("importances"):
        caption = (
            f"By how much the {'R²' if target.classes is None else 'accuracy'} falls when the cells of a column change "
            "places. What is about 0 is not needed, or said by another column, too."
        )
        most, every = min(20, len(figures["importances"])), len(figures["importances"])
        caption += f" The {most} of {every} columns that count most." if most < every else ""
        height = 0.3 * most + 0.9
        parts += ["<h2>What the prediction rests on</h2>"]
        parts.append(_figure(lambda ax: plots.importances(figures["importances"], ax=ax), caption, (4.8, height)))
    parts += ["<h2>Columns</h2>", _columns(model)]
    parts += ["<h2>Network</h2>", f"<pre>{_text(model.network.summary())}</pre>"]
    if model.network.parameter_count <= 100_000:
        caption = "Green lines are positive weights, red ones negative; wide ones are large."
        size = (1.3 * len(model.network.layers) + 1.6, 3.6)  # narrow, so that letters are not small on a phone
        parts.append(_figure(lambda ax: plots.diagram(model.network, 12, ax), caption, size))
    parts += ["<h2>To do it again</h2>", f"<pre>{_text(figures.get('command') or 'TableModel.train(…)')}</pre>"]
    parts.append(_table(("", "version"), [(k, str(v)) for k, v in figures.get("versions", {}).items()]))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_text(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _text(text: Any) -> str:
    return html.escape(str(text))


def _summary(model: Any) -> str:
    figures = model.figures
    rows = ", ".join(f"{count:,} {part}" for part, count in figures.get("rows", {}).items())
    of = f" of {figures['table']}" if "table" in figures else ""
    classes = f"; {len(model.target.classes)} classes" if model.target.classes else ""
    return f"Rows{of}: {rows}{classes}; {model.network.parameter_count:,} parameters."


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _tiles(metrics: Mapping[str, float]) -> str:
    tiles = (f"<div><b>{_number(value)}</b><span>{_text(_words(name))}</span></div>" for name, value in metrics.items())
    return f'<div class="figures">{"".join(tiles)}</div>'


def _words(name: str) -> str:
    return {"r2": "R²", "roc_auc": "ROC AUC", "f1_macro": "F1, macro"}.get(name, name.replace("_", " "))


def _measures(figures: Mapping[str, Any]) -> str:
    baseline = figures["baseline"]
    rows = [
        (_words(name), _number(value), _number(baseline[name]) if name in baseline else "")
        for name, value in figures["metrics"].items()
    ]
    return _table((f"on the {figures['measured_on']} rows", "this model", "always the same answer"), rows, numbers=2)


def _columns(model: Any) -> str:
    rows = []
    for column in model.preparation.columns:
        if hasattr(column, "values"):
            shown = ", ".join(f"“{value}”" for value in column.values[:6]) + (", …" if len(column.values) > 6 else "")
            what = f"one of {len(column.values)} values: {shown}" + (
                f"; {column.rarer:,} rarer ones" if column.rarer else ""
            )
        elif column.date:
            day, spread = np.datetime64(0, "D") + int(column.mean), _number(column.scale)
            what = f"a date, about {day} ± {spread} days"
        else:
            what = f"a number, about {_number(column.mean)} ± {_number(column.scale)}"
        rows.append((column.name, what + ("; some are missing" if column.missing else "")))
    rows += [(name, f"left out, for {why}") for name, why in model.figures.get("left_out", {}).items()]
    return _table(("column", "what becomes of it"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """Its last ``numbers`` columns are numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        first = len(cells) - numbers
        made = (f"<{tag}{' class=number' * (i >= first)}>{_text(cell)}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr>{''.join(made)}</tr>"

    return f'<div class="wide"><table>{line(head, "th")}{"".join(line(row, "td") for row in rows)}</table></div>'


def _figure(draw: Any, caption: str, size: tuple[float, float] = (4.8, 3.2)) -> str:
    """What ``draw(ax)`` draws, as SVG with text as text, transparent, and with the page's colour for lines and letters."""
    import matplotlib
    from matplotlib.figure import Figure

    drawn = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    settings = {
        **drawn,
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "legend.framealpha": 0.0,
        "text.parse_math": False,
    }
    settings |= {
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "svg.hashsalt": caption,
        "legend.labelcolor": INK,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters that the page's font has, and matplotlib's has not
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    unique = f"f{zlib.crc32(caption.encode())}-"  # ids are of the page, not of the picture
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{unique}", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{_text(caption)}" ', 1)
    return f"<figure>{svg}<figcaption>{_text(caption)}</figcaption></figure>"


def _confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], caption: str) -> str:
    """The counts as a table, for names of any length; the greener a cell, the more of its class's rows are there."""
    found = np.asarray(counts)
    shown = np.sort(np.argsort(-found.sum(axis=1), kind="stable")[:MOST_CLASSES])
    head = "".join(f"<th>{_text(classes[j])}</th>" for j in shown)
    lines = [f"<tr><th>true \\ predicted</th>{head}</tr>"]
    for i in shown:
        share = found[i] / max(1, found[i].sum())
        ground = (f"background: color-mix(in srgb, var(--good) {80 * share[j]:.0f}%, transparent)" for j in shown)
        cells = "".join(f'<td style="{style}">{found[i, j]:,}</td>' for j, style in zip(shown, ground))
        lines.append(f"<tr><th>{_text(classes[i])}</th>{cells}</tr>")
    less = f" The {len(shown)} commonest of {len(classes)} classes." if len(shown) < len(classes) else ""
    table = f'<div class="wide"><table class="counts">{"".join(lines)}</table></div>'
    return f"<figure>{table}<figcaption>{_text(caption + less)}</figcaption></figure>"
