"""The commands. Exit status: 0 success, 2 user error, 3 failed run, 130 interrupted."""

from __future__ import annotations

import os
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from evonas import __version__
from evonas.cli import looking, preparing, searching, training
from evonas.cli.telling import echo, width

# Threads of torch keep a core busy while they wait for each other. On a busy machine that more than
# doubled the time of a step; on an idle one, a shorter wait costs little. Read when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# The help of click is no narrower than this by itself, so that a narrower terminal breaks it again.
NARROW = 50


def _settings() -> dict[str, Any]:
    columns = width()
    narrow = {"terminal_width": columns} if columns is not None and columns < NARROW else {}
    return {"help_option_names": ["-h", "--help"], **narrow}


class _Command(TyperCommand):
    """A command in whose help an option's meaning is below it where there is no room beside it."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        if formatter.width < NARROW:
            vars(formatter)["write_dl"] = partial(formatter.write_dl, col_max=NARROW // 4)
        super().format_options(ctx, formatter)


app = typer.Typer(
    help="Evolutionary neural architecture search that survives being killed.",
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=_settings(),
)
for command in (  # in the order of the help
    searching.run,
    searching.search,
    searching.resume,
    training.train,
    preparing.estimate,
    looking.show,
    looking.plot,
    looking.report,
    looking.compare,
    training.rank,
    training.export,
    preparing.bench,
    preparing.validate,
    preparing.init,
    preparing.schema,
):
    app.command(cls=_Command)(command)
app.command("list", cls=_Command)(preparing.list_)


def _version(show_version: bool) -> None:
    if show_version:
        echo(f"evonas {__version__}")
        raise typer.Exit


@app.callback()
@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass  # the option is handled before any command
