"""The typer application that all commands belong to."""

from __future__ import annotations

from typing import Annotated

import typer

import portablenn

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 success, 1 error (one line on standard error gives the reason), 2 invalid command line, "
    "130 interrupted by Ctrl-C (results up to then are kept).",
)

AS_JSON = typer.Option("--json", help="Write the results to standard output as JSON, for programs.")


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

    Start with "portablenn train TABLE --target COLUMN", or "portablenn demo digits".
    """
