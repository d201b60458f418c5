"""The typer application that all commands belong to."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import portablenn

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 success, 1 error (one line on standard error gives the reason), 2 invalid command line, "
    "3 trained, but not better than a constant prediction, 130 interrupted by Ctrl-C (results up to then are kept).",
)


class Command(TyperCommand):  # type: ignore[misc]
    """A command that rejects an option given twice, unless it may be repeated: the first would have no effect."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; raise `typer.BadParameter` if an option that takes one value is given more than once."""
        options = args[: args.index("--")] if "--" in args else args
        given = [argument.partition("=")[0] for argument in options]
        for param in self.params:
            names = [name for name in getattr(param, "opts", ()) if name.startswith("-")]
            if not getattr(param, "multiple", False) and sum(map(given.count, names)) > 1:
                raise typer.BadParameter("given more than once: give it once", ctx=ctx, param_hint=names[0])
        return super().parse_args(ctx, args)


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
