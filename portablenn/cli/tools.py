"""Commands that run examples and examine the machine: demo, backends, verify, bench."""

from __future__ import annotations

import importlib
import runpy
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import portablenn

from .app import AS_JSON, Command, app
from .output import print_backends, print_json, print_verifications

Demo = StrEnum("Demo", ["digits", "first-network", "perceptron", "three-layers", "threshold-neuron", "xor"])
Activation = StrEnum("Activation", ["relu", "sigmoid"])


@app.command(cls=Command)
def demo(
    context: typer.Context,
    name: Annotated[Demo, typer.Argument(help="Example to run.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(),
    data: Annotated[
        Path | None, typer.Option(envvar="PORTABLENN_DATA", help="digits: folder of MNIST's IDX files.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="digits: number of epochs.")] = 30,
    activation: Annotated[Activation, typer.Option(help="digits: activation of the hidden layers.")] = Activation.relu,
    seed: Annotated[int, typer.Option(min=0, help="digits: seed of the initial weights and batches.")] = 0,
    backend: Annotated[str, typer.Option(help="digits: backend to train on, such as numpy or torch:cuda.")] = "auto",
) -> None:
    """Run an example, which prints its results and saves pictures.

    Examples: "portablenn demo digits --data mnist/ --epochs 30", "portablenn demo xor --out pictures/".
    """
    for option in ("data", "epochs", "activation", "seed", "backend"):
        source = context.get_parameter_source(option)
        if name is not Demo.digits and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"--{option} applies only to the demo digits")
    out.mkdir(parents=True, exist_ok=True)
    if name is Demo.digits:
        example("digits")(out=out, data=data, epochs=epochs, activation=activation.value, seed=seed, backend=backend)
    else:
        example(name.value)(out=out)


@app.command(cls=Command)
def backends(as_json: Annotated[bool, AS_JSON] = False) -> None:
    """List the backends: NumPy, and each library with a plug-in; for one that is not usable, the reason."""
    listed = portablenn.backends()
    if as_json:
        print_json(listed)
    else:
        print_backends(listed, portablenn.explain_auto())


@app.command(cls=Command)
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BACKEND]...", help="Backends, such as numpy or torch:cuda; default: all usable ones."),
    ] = None,
    as_json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Check on this machine that each backend computes what NumPy does; exit status 1 if one does not.

    The columns float32 and float64 show the largest deviation of a parameter from NumPy in float64, relative to the largest
    parameter, after one step and after twenty; small and large show steps per second of the networks 20-64-64-2 and
    784-512-512-10. It takes less than a minute.
    """
    from ..testing import TOLERANCES
    from ..testing.verify import verify as verify_backends

    results = verify_backends(names)
    if as_json:
        print_json(results)
    else:
        print_verifications(results, TOLERANCES)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
def bench(arguments: Annotated[list[str] | None, typer.Argument(help="See --help.")] = None) -> None:
    """Time workloads A to H with this library and every other that is installed ("portablenn bench --help")."""
    package = Path(__file__).resolve().parents[1]
    installed = (package / "benchmarks").is_dir()  # in a checkout, they are next to the package
    if not installed:
        sys.path.insert(0, str(package.parent))
    importlib.import_module(f"{'portablenn.' * installed}benchmarks.__main__").main(arguments)


def example(name: str) -> Any:
    """Return ``main`` of a script in examples/, which is in the installed package, or next to it in a checkout."""
    file = f"{name.replace('-', '_')}.py"
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "examples", package.parent / "examples"):
        if (folder / file).is_file():
            return runpy.run_path(str(folder / file))["main"]
    raise FileNotFoundError(
        f"the example {file} is neither in {package / 'examples'} nor in {package.parent / 'examples'}: reinstall portablenn"
    )
