"""The commands. Exit status: 0 done, 2 the user's mistake, 3 the run failed, 130 interrupted."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from evonas import __version__, config, plugins, registry
from evonas.core import SearchFailed, UserError
from evonas.metrics import LATENCY, SIMULATED_SECONDS, TRAINED
from evonas.records.folder import check_run_folder
from genomes import library

if TYPE_CHECKING:
    from evonas.jobs.full_training import FullTraining
    from evonas.jobs.search import Run

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
Plugin = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="A Python file of your own that the run began with."),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Worker processes; the file's if not given.")
]

# Threads of torch that wait for each other burn a core meanwhile: on a busy machine that cost more
# than twice the time a step, on an idle one the shorter wait costs little. Read when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

Which = Annotated[
    str | None,
    typer.Option(
        metavar="winner|best|knee|KEY",
        help="Which network of the run folder, its winner if not given; also genes, a genome as "
        "the space writes it, or a name of `evonas list genomes`.",
    ),
]

KINDS = ("spaces", "strategies", "evaluators", "data", "genomes", "metrics")


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
        settings = _loaded(experiment, overrides)
        path = out or Path("results") / f"{settings.name}-seed{settings.seed}"
        if not (path / "config.yaml").exists():
            typer.echo(f"{settings.name}: starting, in {path}", err=True)
        from evonas.jobs.search import start  # torch takes seconds; not for a mistake in the file

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
            help="Changes stop, finalists, training, parallel.workers, parallel.timeout or cache.",
        ),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Goes on with a run that was killed or interrupted, or further than it was meant to go.

    A full training, of `evonas train`, too.
    """
    overrides = list(set_ or [])
    overrides += [f"parallel.workers={workers}"] if workers is not None else []
    with _reported():
        if (run_dir / "training.yaml").exists():
            if overrides:
                raise UserError(f"{run_dir} is a full training; allowed: to go on as it began")
            from evonas.jobs.full_training import resume as resumed_training

            with _interruptible(run_dir), resumed_training(run_dir, plugin or ()) as training:
                _train(training)
            return
        if (run_dir / "config.yaml").exists():
            typer.echo(f"going on in {run_dir}", err=True)
        from evonas.jobs.search import resume as resumed

        with _interruptible(run_dir), resumed(run_dir, overrides, plugin or ()) as going_on:
            _search(going_on)


@app.command()
def train(
    what: Annotated[
        str,
        typer.Argument(metavar="RUN_DIR|GENOME", help="A run folder, or a genome."),
    ],
    genome: Which = None,
    experiment: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For a GENOME: the experiment with data and sizes."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The training's folder; RUN_DIR-KEY if not given."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="The experiment's if not given.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The experiment's if not given.")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|cuda|cuda:0", help="Where to train.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Such as recipe.lr=0.05; may be repeated."),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Trains one network in full, on all images but the test part, and tests it at the end."""
    overrides = [f"epochs={epochs}"] if epochs is not None else []
    overrides += [f"seed={seed}"] if seed is not None else []
    if device is not None:  # another than the search's has a precision of its own
        overrides += [f"parallel.device='{device}'", "parallel.precision=auto"]
        overrides += ["parallel.channels_last=null"]
    overrides += set_ or []
    with _reported():
        from evonas.jobs import choice

        folder = Path(what)
        of_run = choice.is_folder(what)
        if of_run and (folder / "training.yaml").exists():
            raise UserError(f"{what} is a full training; allowed: `evonas resume {what}`")
        if of_run == (experiment is not None):
            raise UserError(
                f"{what} is {'a' if of_run else 'no'} run folder; "
                "allowed: a run folder, or a genome with --experiment FILE"
            )
        settings_file = experiment or folder / "config.yaml"
        if of_run:
            check_run_folder(folder)
            plugins.allow_recorded(folder, plugin or ())
        searched = _loaded(settings_file) if experiment else config.load(settings_file)
        from evonas.jobs import full_training  # torch takes seconds; not for a mistake so far

        full_training.check_trains(searched)
        chosen = choice.choose(what, genome, searched)
        settings = full_training.settings_for(
            searched, chosen.genome.text, overrides, settings_file.parent
        )
        key = choice.read(settings.genome, settings).key
        stem = folder if of_run else Path("results") / settings.name
        stem = stem if stem.name not in ("", "..") else stem.resolve()
        path = out or stem.with_name(f"{stem.name}-{key}")
        if not (path / "training.yaml").exists():
            typer.echo(f"{settings.name}: training {key}, in {path}", err=True)
        with _interruptible(path), full_training.start(settings, path) as training:
            _train(training)


@app.command()
def estimate(
    experiment: ExperimentFile,
    workers: Workers = None,
    set_: Set = None,
) -> None:
    """Foresees how long an experiment takes, and how much memory, from a few measured steps."""
    overrides = list(set_ or [])
    overrides += [f"parallel.workers={workers}"] if workers is not None else []
    with _reported():
        settings = _loaded(experiment, overrides)
        from evonas import display
        from evonas.jobs.estimate import estimate as estimated

        display.show_estimate(settings.name, estimated(settings))


@app.command()
def show(
    what: Annotated[
        str, typer.Argument(metavar="RUN_DIR|GENOME", help="A run folder, or a genome.")
    ],
    genome: Annotated[
        str | None,
        typer.Option(
            metavar="winner|best|knee|KEY",
            help="Shows a network of the run folder, named as in `evonas train`.",
        ),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draws a genome into a PNG, SVG or PDF file."),
    ] = None,
    experiment: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For a genome: counts it with this experiment's sizes."),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Shows a run's front, best, cost and faults, or what a genome is."""
    from evonas import display

    with _reported():
        from evonas.jobs.choice import choose, is_folder, settings_of

        of_run = is_folder(what)
        if of_run and experiment is not None:
            raise UserError("--experiment: sizes a genome; allowed for a run: evonas show RUN_DIR")
        if of_run and genome is None:
            if draw is not None:
                raise UserError(
                    "--draw: draws a genome; allowed for a run: --genome, or evonas plot RUN_DIR"
                )
            is_training = (Path(what) / "training.yaml").exists()
            (display.show_training if is_training else display.show_run)(Path(what))
            return
        from evonas.jobs.facts import facts

        settings: config.Experiment | config.TrainingRun | None = None
        if of_run:
            plugins.allow_recorded(Path(what), plugin or ())
            settings = settings_of(Path(what))
        elif experiment is not None:
            settings = _loaded(experiment)
        choice = choose(what, genome, settings)
        display.show_genome(choice, facts(choice, settings))
        if draw is not None:
            from evonas import plots

            plots.draw_cell(choice.space, choice.genome, draw)


@app.command()
def plot(run_dir: RunDir) -> None:
    """Draws a run's figures again, from its tables alone; the run may be going on.

    Of a full training, its learning curve.
    """
    with _reported():
        _draw(run_dir)


@app.command()
def compare(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR", help="Two run folders or more.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where tables and figures go.")] = Path(
        "results/compare"
    ),
) -> None:
    """Compares runs over seeds: best so far, hypervolume, cost."""
    with _reported():
        from evonas.report.compare import Comparison

        comparison = Comparison.of(run_dirs)
        comparison.write(out)
        typer.echo(comparison.text())
        typer.echo(f"\ntables and figures are in {out}", err=True)


@app.command()
def rank(
    run_dir: RunDir,
    sample: Annotated[
        int, typer.Option(min=3, metavar="N", help="How many networks, drawn at random.")
    ] = 50,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, max=100_000, metavar="E", help="Of a training; finalists.budget if not given."
        ),
    ] = None,
    workers: Workers = None,
    plugin: Plugin = None,
) -> None:
    """Holds a supernet's scores against stand-alone training; goes on if killed.

    For a run with the evaluator supernet. Draws networks at random, scores each with the shared
    weights, trains each alone, and tells how well the two orders agree.
    """
    with _reported():
        plugins.allow_recorded(run_dir, plugin or ())
        from evonas.display import counter
        from evonas.jobs.rank import opened

        folder = run_dir / "rank"
        with (
            _interruptible(folder, again="the same command"),
            opened(run_dir, sample, epochs=epochs, workers=workers) as ranking,
        ):
            name = f"{ranking.experiment.name}: {len(ranking.genomes)} networks"
            typer.echo(f"{name}, {ranking.budget.text}, in {folder}", err=True)
            with counter(name, "answers") as tell:
                for count in ranking:
                    tell(count, ranking.count)
            typer.echo(ranking.finish())
        _draw_if_possible(run_dir, only=("rank",))


@app.command()
def export(
    run_dir: RunDir,
    format_: Annotated[
        str, typer.Option("--format", metavar="python|torch|onnx", help="What to write.")
    ] = "python",
    genome: Which = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file; its key, and .py or the like, if not given."),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Writes a trained network to take away: plain PyTorch without evonas, safetensors, ONNX."""
    with _reported():
        from evonas.export import network as exporting

        plugins.allow_recorded(run_dir, plugin or ())
        network = exporting.trained(run_dir, genome)
        for file in exporting.export(network, format_, out):
            typer.echo(f"{file} is written")


@app.command()
def bench(
    table: Annotated[Path, typer.Argument(help="The benchmark, a YAML file that names a table.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Its folder; results/bench-NAME if not given."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one a core if not given.")
    ] = None,
    set_: Set = None,
) -> None:
    """Runs strategies against a table of trained networks, over many seeds; goes on if killed."""
    with _reported():
        from evonas.bench.bench import opened
        from evonas.bench.spec import load
        from evonas.display import counter

        settings = load(table, set_ or [])
        folder = out or Path("results") / f"bench-{settings.name}"
        with opened(settings, folder, workers=workers) as benching:
            runs = f"{benching.count} run{'' if benching.count == 1 else 's'}"
            typer.echo(f"{settings.name}: {runs}, in {folder}", err=True)
            with counter(settings.name, "runs") as tell:
                for count in benching:
                    tell(count, benching.count)
            typer.echo(benching.finish())
            typer.echo(f"table and figure are in {folder}", err=True)


@app.command()
def validate(experiment: ExperimentFile, set_: Set = None) -> None:
    """Checks an experiment without running anything."""
    with _reported():
        settings = _loaded(experiment, set_ or [])
        typer.echo(f"{experiment}: valid ({settings.name}, seed {settings.seed})")


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="The file to write.")] = Path("experiment.yaml"),
    data: Annotated[str, typer.Option(metavar="NAME", help="The data set.")] = "digits",
    path: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where the data are, if not known.")
    ] = None,
) -> None:
    """Writes an experiment to begin with, each key explained."""
    from evonas.starter import MISSING, starter

    with _reported():
        text = starter(file, data, path)
        try:
            with file.open("x") as opened:
                opened.write(text)
        except FileExistsError:
            raise UserError(f"{file} is there already; allowed: a new file") from None
        except OSError as error:
            raise UserError(f"{file} cannot be written: {error.strerror}") from None
        first = f"fill in data.path: {MISSING}, then " if MISSING in text else ""
        steps = f"{first}evonas estimate {file}, then evonas run {file}"
        typer.echo(f"{file} is written; next: {steps}")


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
                names = [*(metric.name for metric in TRAINED), *registry.names("metrics")]
                names += [f"{LATENCY.name} (evaluator supernet)"]
                names += [f"{SIMULATED_SECONDS.name} (evaluator tabular)"]
            elif each == "genomes":
                told = library.library().values()
                names = [cell.name for cell in told]
                if kind is not None:
                    width = max(map(len, names))
                    names = [f"{c.name:<{width}}  {c.space:<14}  {c.source}" for c in told]
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

    name = going.experiment.name
    with display.counter(f"{name}: shared weights", "epochs") as tell:
        for done, of in going.prepare():
            tell(done, of)
    with display.progress(name, "evaluations", display.of_search(going)) as show_now:
        for _ in going:
            show_now()
        going.finish()
    display.show_run(going.path)
    _draw_if_possible(going.path)


def _draw(run_dir: Path, only: Collection[str] = ()) -> None:
    """Draws the figures, and says in a line each what is there and what could not be drawn."""
    from evonas import plots

    drawn = plots.draw(run_dir, only)
    count = len(drawn.figures)
    typer.echo(f"{drawn.folder}: {count} figure{'' if count == 1 else 's'}")
    for name, reason in drawn.skipped.items():
        typer.echo(f"  {name}: not drawn, since {reason}")


def _train(training: FullTraining) -> None:
    """Trains to the end, with progress on screen, and shows what came out."""
    from evonas import display

    reader = display.of_training(training)
    with display.progress(training.settings.name, "epochs", reader) as show_now:
        for _ in training:
            show_now()
        training.finish()
    display.show_training(training.path)
    _draw_if_possible(training.path)


def _draw_if_possible(path: Path, only: Collection[str] = ()) -> None:
    try:
        _draw(path, only)
    except Exception as error:  # all is done and recorded; only its pictures are missing
        logging.getLogger("evonas").exception("figures")
        typer.echo(f"figures: not drawn: {type(error).__name__}: {error}", err=True)


@contextmanager
def _interruptible(path: Path, again: str = "") -> Iterator[None]:
    """Ctrl-C, or SIGTERM, as schedulers send it, says how to go on."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        begun = any((path / name).exists() for name in ("training.yaml", "config.yaml"))
        command = again or f"{'evonas resume' if begun else 'the same command, for'} {path}"
        typer.echo(f"interrupted; {_kept(path)} are kept; go on with: {command}", err=True)
        raise typer.Exit(130) from None


def _kept(path: Path) -> str:
    """What a run, or a training, has done so far."""

    def lines(name: str) -> int:
        file = path / name
        return file.read_bytes().count(b"\n") if file.exists() else 0

    if (path / "training.yaml").exists():
        return f"{max(lines('curve.csv') - 1, 0)} epochs"
    if (answers := lines("journal")) or not lines("supernet/curve.csv"):
        return f"{answers} answers"
    return f"{lines('supernet/curve.csv') - 1} epochs of the supernet"


def _loaded(experiment: Path, overrides: Sequence[str] = ()) -> config.Experiment:
    """An experiment from the command line, whose own Python files may be imported; none is yet."""
    settings = config.load(experiment, overrides)
    plugins.allow(config.own_files(settings))
    return settings


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
        typer.echo(f"evonas: the run failed: {error}", err=True)
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
