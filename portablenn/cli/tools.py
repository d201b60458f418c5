"""Commands that run examples and look at the machine: demo, backends, verify, bench.

Requires typer and rich (the extra "cli").
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import runpy
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import portablenn

from .app import app


class Demo(StrEnum):
    """The examples that can be run."""

    digits = "digits"
    first_network = "first-network"
    perceptron = "perceptron"
    three_layers = "three-layers"
    threshold_neuron = "threshold-neuron"
    xor = "xor"


class Activation(StrEnum):
    """Of the digit reader's neurons."""

    relu = "relu"
    sigmoid = "sigmoid"


@app.command()
def demo(
    context: typer.Context,
    name: Annotated[Demo, typer.Argument(help="Which one.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(),
    data: Annotated[
        Path | None, typer.Option(envvar="PORTABLENN_DATA", help="digits: folder of MNIST's IDX files.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="digits: how long to train.")] = 30,
    activation: Annotated[Activation, typer.Option(help="digits: of its neurons.")] = Activation.relu,
    seed: Annotated[int, typer.Option(min=0, help="digits: decides weights and batches.")] = 0,
    backend: Annotated[str, typer.Option(help="digits: what to train on, such as numpy or torch:cuda.")] = "auto",
) -> None:
    """Run an example: it prints what it learns and saves its pictures.

    Examples: "portablenn demo digits --data mnist/ --epochs 30", "portablenn demo xor --out pictures/".
    """
    for option in ("data", "epochs", "activation", "seed", "backend"):
        source = context.get_parameter_source(option)
        if name is not Demo.digits and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"--{option} is for the demo digits alone")
    out.mkdir(parents=True, exist_ok=True)
    if name is Demo.digits:
        example("digits")(out=out, data=data, epochs=epochs, activation=activation.value, seed=seed, backend=backend)
    else:
        example(name.value)(out=out)


@app.command()
def backends(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Show what networks can run on here: NumPy, and each library with a plug-in; or why not."""
    found = portablenn.backends()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(info) for info in found], indent=2))
        return
    table = Table("name", "version", "devices", "free memory", "executes through", "usable", box=None)
    for info in found:
        free = "" if info.memory is None else f"{info.memory[0] / 2**30:.1f} of {info.memory[1] / 2**30:.1f} GiB"
        usable = "yes" if info.usable else f"no: {info.reason}" + (f"; {info.install}" if info.install else "")
        table.add_row(info.name, info.version, ", ".join(info.devices), free, info.executes, usable)
    Console(markup=False).print(table)  # names hold brackets
    typer.echo(portablenn.explain_auto())


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[BACKEND]...", help="Such as numpy or torch:cuda; all that are here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Prove on this machine that each backend computes what NumPy does: exit status 1 where a promise is broken.

    Under float32 and float64 stand the largest deviations of a parameter from NumPy in float64, relative to the largest
    parameter, after one step and after twenty; under small and large steps a second of 20-64-64-2 and 784-512-512-10. It
    takes less than a minute.
    """
    from ..testing import TOLERANCES
    from ..testing.verify import verify as verified

    found = verified(names)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
    else:
        table = Table(
            "backend", "executes through", "float32", "float64", "seeds", "small", "large", "promises", box=None
        )
        for one in found:
            apart = [_two(one.deviation_one.get(t), one.deviation_twenty.get(t)) for t in ("float32", "float64")]
            speeds = ["-" if speed is None else f"{speed:,.0f}/s" for speed in (one.small, one.large)]
            seeds, kept = "agree" if one.seeds else "differ", "kept" if one.kept else "broken"
            table.add_row(f"{one.backend}:{one.device}", one.executes, *apart, seeds, *speeds, kept)
        bounds = [_two(TOLERANCES[t, 1], TOLERANCES[t, 20]) for t in ("float32", "float64")]
        table.add_row("", "at most", *bounds, style="dim")
        Console(markup=False).print(table)  # names hold brackets
        for one in found:
            if not one.kept:
                typer.echo(f"broken: {one.reason}")
    if not all(one.kept for one in found):
        raise typer.Exit(1)


def _two(one: float | None, twenty: float | None) -> str:
    return "  ".join("-" if deviation is None else f"{deviation:.0e}" for deviation in (one, twenty))


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
def bench(arguments: Annotated[list[str] | None, typer.Argument(help="See --help.")] = None) -> None:
    """Time workloads A to H: this library and every other that is installed, in turn ("portablenn bench --help")."""
    package = Path(__file__).resolve().parents[1]
    installed = (package / "benchmarks").is_dir()  # else they lie beside it, in a checkout
    if not installed:
        sys.path.insert(0, str(package.parent))
    importlib.import_module(f"{'portablenn.' * installed}benchmarks.__main__").main(arguments)


def example(name: str) -> Any:
    """The ``main`` of a script in examples/, which lies in the installed package or beside it in a checkout."""
    file = f"{name.replace('-', '_')}.py"
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "examples", package.parent / "examples"):
        if (folder / file).is_file():
            return runpy.run_path(str(folder / file))["main"]
    raise FileNotFoundError(
        f"the example {file} is neither in {package / 'examples'} nor in {package.parent / 'examples'}"
    )
