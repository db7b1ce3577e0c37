"""The commands. Exit status: 0 done, 2 the user's mistake, 3 the run failed, 130 interrupted."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from evonas import __version__, config, registry
from evonas.core import SearchFailed, UserError

if TYPE_CHECKING:
    from evonas.experiment import Run

app = typer.Typer(
    help="Evolutionary neural architecture search that survives being killed.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ExperimentFile = Annotated[Path, typer.Argument(help="The experiment, a YAML file.")]
RunDir = Annotated[Path, typer.Argument(help="A run folder, results/NAME-seedN by default.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Puts in a value; may be repeated.",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Worker processes; the file's if not given.")
]

KINDS = ("spaces", "strategies", "evaluators", "data", "metrics")


@app.command()
def run(
    experiment: ExperimentFile,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run folder; results/NAME-seedN if not given."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The run's seed; the file's if not given.")
    ] = None,
    workers: Workers = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|cuda|cuda:0,1", help="Where to train.")
    ] = None,
    set_: Set = None,
) -> None:
    """Runs an experiment, in a new run folder."""
    overrides = list(set_ or [])
    overrides += [f"seed={seed}"] if seed is not None else []
    overrides += [f"parallel.workers={workers}"] if workers is not None else []
    overrides += [f"parallel.device='{device}'"] if device is not None else []
    with _reported():
        settings = config.load(experiment, overrides)
        path = out or Path("results") / f"{settings.name}-seed{settings.seed}"
        if not (path / "config.yaml").exists():
            typer.echo(f"{settings.name}: starting, in {path}", err=True)
        from evonas.experiment import start  # torch takes seconds; not for a mistake in the file

        with _interruptible(path), start(settings, path) as started:
            _search(started)


@app.command()
def resume(
    run_dir: RunDir,
    workers: Workers = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Changes stop, finalists, parallel.workers or parallel.timeout.",
        ),
    ] = None,
) -> None:
    """Goes on with a run that was killed or interrupted, or further than it was meant to go."""
    overrides = list(set_ or [])
    overrides += [f"parallel.workers={workers}"] if workers is not None else []
    with _reported():
        if (run_dir / "config.yaml").exists():
            typer.echo(f"going on in {run_dir}", err=True)
        from evonas.experiment import resume as resumed

        with _interruptible(run_dir), resumed(run_dir, overrides) as going_on:
            _search(going_on)


@app.command()
def show(
    what: Annotated[
        str, typer.Argument(metavar="RUN_DIR|GENOME", help="A run folder, or a genome.")
    ],
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draws a genome into a PNG, SVG or PDF file."),
    ] = None,
) -> None:
    """Shows a run's front, best, cost and faults, or what a genome is."""
    from evonas import display

    with _reported():
        if Path(what).is_dir():
            if draw is not None:
                raise UserError("--draw: draws a genome; allowed for a run: evonas plot RUN_DIR")
            display.show_run(Path(what))
        else:
            display.show_genome(what)
            if draw is not None:
                from evonas import plots

                plots.draw_cell(*display.parse_genome(what), draw)


@app.command()
def plot(run_dir: RunDir) -> None:
    """Draws a run's figures again, from its tables alone; the run may be going on."""
    with _reported():
        _draw(run_dir)


@app.command()
def validate(experiment: ExperimentFile, set_: Set = None) -> None:
    """Checks an experiment without running anything."""
    with _reported():
        settings = config.load(experiment, set_ or [])
        typer.echo(f"{experiment}: valid ({settings.name}, seed {settings.seed})")


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(metavar=f"[{'|'.join(KINDS)}]")] = None,
) -> None:
    """Lists what can be named in an experiment."""
    with _reported():
        if kind is not None and kind not in KINDS:
            raise UserError(registry.unknown("kind", kind, list(KINDS)))
        for each in KINDS if kind is None else (kind,):
            if each == "metrics":
                names = [
                    name
                    for evaluator in registry.names("evaluators")
                    for name in registry.load("evaluators", evaluator).METRICS
                ]
            else:
                names = registry.names(each)
            typer.echo(f"{each}: {', '.join(names)}" if kind is None else "\n".join(names))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"evonas {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    pass  # the option is handled before any command


def _search(going: Run) -> None:
    """Searches to the end, with progress on screen, and shows what came out."""
    from evonas import display

    with display.progress(going) as tell:
        for _ in going:
            tell()
        going.finish()
    display.show_run(going.path)
    try:
        _draw(going.path)
    except Exception as error:  # the run is done and recorded; only its pictures are missing
        logging.getLogger("evonas").exception("figures")
        typer.echo(f"figures: not drawn: {type(error).__name__}: {error}", err=True)


def _draw(run_dir: Path) -> None:
    """Draws the figures, and says in a line each what is there and what could not be drawn."""
    from evonas import plots

    drawn = plots.draw(run_dir)
    typer.echo(f"{drawn.folder}: {len(drawn.figures)} figures")
    for name, reason in drawn.skipped.items():
        typer.echo(f"  {name}: not drawn, since {reason}")


@contextmanager
def _interruptible(path: Path) -> Iterator[None]:
    """Ctrl-C, or SIGTERM, as schedulers send it, says how to go on."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        journal = path / "journal"
        kept = journal.read_bytes().count(b"\n") if journal.exists() else 0
        again = "evonas resume" if (path / "config.yaml").exists() else "the same command, for"
        message = f"interrupted; {kept} answers are kept; go on with: {again} {path}"
        typer.echo(message, err=True)
        raise typer.Exit(130) from None


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def _reported() -> Iterator[None]:
    """Tells errors in a line or a few, and ends with their status."""
    try:
        yield
    except UserError as error:
        typer.echo(f"evonas: {error}", err=True)
        raise typer.Exit(2) from None
    except SearchFailed as error:
        typer.echo(f"evonas: the search failed: {error}", err=True)
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:  # a bug of ours: still a status, and its traceback on screen
        logging.getLogger("evonas").exception("internal error")
        typer.echo(f"evonas: internal error: {type(error).__name__}: {error}", err=True)
        raise typer.Exit(3) from error


if __name__ == "__main__":
    sys.exit(app())
