"""The application that commands belong to.

Requires typer (the extra "cli").
"""

from __future__ import annotations

from typing import Annotated

import typer

import portablenn

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 it could not be done (one line on standard error says why), 2 the command was not "
    "understood, 130 ended by Ctrl-C, with what there was until then.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"portablenn {portablenn.__version__}")
        raise typer.Exit


@app.callback()
def _commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Neural networks on any array library, from the command line.

    Begin with "portablenn train TABLE --target COLUMN", or "portablenn demo digits".
    """
