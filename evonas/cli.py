"""The commands. Exit status: 0 success, 2 user error, 3 failed run, 130 interrupted."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evonas import __version__, catalogue, config, files, interrupts, plugins, words
from evonas.core import SearchFailed, UserError
from evonas.markdown import counted
from evonas.records.folder import check_run_folder

if TYPE_CHECKING:
    from evonas.jobs.full_training import FullTraining
    from evonas.jobs.search import Run

app = typer.Typer(
    help="Evolutionary neural architecture search that survives being killed.",
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ExperimentFile = Annotated[Path, typer.Argument(help="The experiment file (YAML).")]
RunDir = Annotated[Path, typer.Argument(help="A run folder, such as results/NAME-seed0.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting, e.g. strategy.population=20. Repeatable.",
    ),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="A Python file this run depends on. Repeatable."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of worker processes (default: from the experiment file)."),
]
RunWorkers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of worker processes (default: as in the run)."),
]


def _count(text: str) -> int:
    """Read a count, which may be written like `50k`."""
    number = words.plain(text, float)
    with suppress(ValueError):
        number = float(number)
    if not isinstance(number, float | int) or not 1 <= number < 2**63 or number != int(number):
        raise typer.BadParameter(f"{text!r} is not a whole number of at least 1, such as 50k")
    return int(number)


MaxParams = Annotated[
    int | None,
    typer.Option(
        parser=_count, metavar="N", help="The most parameters that a network may have, e.g. 50k."
    ),
]
MaxFlops = Annotated[
    int | None,
    typer.Option(parser=_count, metavar="N", help="The most multiply-adds for an image, e.g. 5M."),
]
MaxMemory = Annotated[
    int | None,
    typer.Option(
        parser=_count,
        metavar="N",
        help="The most bytes of weights and activations at once, in float32, e.g. 256k.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The seed of the run.")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Evaluate on the Dask cluster of this scheduler, e.g. tcp://10.0.0.1:8786.",
    ),
]

# Threads of torch keep a core busy while they wait for each other. On a busy machine that more than
# doubled the time of a step; on an idle one, a shorter wait costs little. Read when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

Network = Annotated[
    str | None,
    typer.Option(
        metavar="winner|best|knee|KEY",
        help="A network of the run folder; also genes, a genome as the space writes it, or a name "
        "from `evonas list genomes` (default: the winner).",
        autocompletion=catalogue.completing("winner", "best", "knee"),
    ),
]


@app.command()
def run(
    experiment: ExperimentFile,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run folder (default: results/NAME-seedN)."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="The seed of the run (default: from the experiment file)."),
    ] = None,
    workers: Workers = None,
    address: Address = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="auto|cpu|cuda|cuda:0,1",
            help="Where to train (default: from the experiment file).",
        ),
    ] = None,
    set_: Set = None,
) -> None:
    """Runs an experiment in a new run folder."""
    since = time.monotonic()
    overrides = [*(set_ or []), *_overrides(seed=seed, device=device)]
    with _reported():
        overrides += _where(workers, address)
        settings = _loaded(experiment, overrides)
        path = out or Path("results") / f"{settings.name}-seed{settings.seed}"
        if not (path / "config.yaml").exists():
            echo(f"{settings.name}: starting in {path}", err=True)
        from evonas.jobs.search import start  # loads torch, in seconds: after the file is checked

        with _interruptible(path), start(settings, path, since) as search:
            _search(search)


@app.command()
def search(
    images: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A folder with a folder of images for each class."),
    ],
    max_params: MaxParams = None,
    max_flops: MaxFlops = None,
    max_memory: MaxMemory = None,
    hours: Annotated[
        float,
        typer.Option(min=0.001, max=10_000, help="How long all of it may take, figures included."),
    ] = 1.0,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The search space (default: one for images).",
            autocompletion=catalogue.completing(kind="spaces"),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="The run folder (default: results/DIR-seedN)."),
    ] = None,
    seed: Seed = 0,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of worker processes (default: one per core or GPU)."),
    ] = None,
) -> None:
    """Finds the best small network for a folder of images, in a given time.

    Looks at the images and the machine, writes the experiment beside the run folder, as
    RUN_DIR.yaml, and runs it: search, finals, winner, figures.

    Example: evonas search pictures --max-params 50k --hours 1
    """
    since = time.monotonic()
    with _reported():
        from evonas import starter_images

        limits = starter_images.limits_of(max_params, max_flops, max_memory)
        path = out or Path("results") / f"{starter_images.name_of(images)}-seed{seed}"
        file = path.with_name(f"{path.name}.yaml")
        if (path / "config.yaml").exists():
            hint = f"resume it with `evonas resume {path}`, or choose another folder with --out"
            raise UserError(f"{path} already exists", hint=hint)
        _refuse_existing(file, f"run it with `evonas run {file}`, or choose another --out")
        with _interruptible(path):
            begun = starter_images.for_images(
                file,
                images,
                limits,
                hours=hours,
                since=since,
                seed=seed,
                space=space or starter_images.DEFAULT_SPACE,
                workers=workers,
                run=path,
            )
            files.make_folder(file.parent)
            _create(file, begun.text)
            echo(f"{begun.summary}; the experiment is {file}", err=True)
            from evonas.jobs.search import start

            try:
                with start(_loaded(file), path, since) as run:
                    _search(run)
            except UserError:  # such as an image that cannot be read
                if not (path / "config.yaml").exists():  # the same command is to begin anew
                    files.remove(file)
                raise
        echo(f"To search again with another seed: evonas run {file} --seed {seed + 1}")


@app.command()
def resume(
    run_dir: RunDir,
    workers: RunWorkers = None,
    address: Address = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override hours, stop, finalists, training, parallel.workers, parallel.timeout or "
            "cache. Repeatable.",
        ),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Resumes an interrupted run, or extends a finished one.

    Also resumes a full training begun with `evonas train`.
    """
    since = time.monotonic()
    with _reported():
        overrides = [*(set_ or []), *_where(workers, address)]
        if (run_dir / "training.yaml").exists():
            if overrides:
                problem = "--set, --workers and --address do not apply to a full training"
                raise UserError(problem, hint="leave them out", key=str(run_dir))
            from evonas.jobs.full_training import resume as resume_training

            with _interruptible(run_dir), resume_training(run_dir, plugin or ()) as training:
                _train(training)
            return
        if (run_dir / "config.yaml").exists():
            echo(f"resuming {run_dir}", err=True)
        from evonas.jobs.search import resume as resume_search

        own = plugin or ()
        with _interruptible(run_dir), resume_search(run_dir, overrides, own, since) as search:
            _search(search)


@app.command()
def train(
    what: Annotated[
        str,
        typer.Argument(metavar="RUN_DIR|GENOME", help="A run folder, or a genome."),
    ],
    genome: Network = None,
    experiment: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For a GENOME: the experiment with its data and sizes."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the training (default: RUN_DIR-KEY)."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of epochs (default: from the experiment)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed (default: from the experiment).")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="auto|cpu|cuda|cuda:0", help="Where to train (default: from the experiment)."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting of the training, e.g. recipe.lr=0.05. Repeatable.",
        ),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Trains one network in full, then tests it."""
    overrides = _overrides(seed=seed, epochs=epochs, device=device)
    if device is not None:  # precision and layout were chosen for the device of the search
        overrides += ["parallel.precision=auto", "parallel.channels_last=null"]
    overrides += set_ or []
    with _reported():
        searched, folder = _searched(what, experiment, plugin or ())
        from evonas.jobs import choice, full_training  # loads torch, in seconds: after the checks

        full_training.check_trains(searched)
        chosen = choice.choose(what, genome, searched)
        settings = full_training.settings_for(searched, chosen.genome.text, overrides, folder)
        key = choice.read(settings.genome, settings).key
        stem = Path("results") / settings.name if experiment else Path(what)
        stem = stem if stem.name not in ("", "..") else stem.resolve()
        path = out or stem.with_name(f"{stem.name}-{files.short(key)}")
        if not (path / "training.yaml").exists():
            echo(f"{settings.name}: training {key} in {path}", err=True)
        with _interruptible(path), full_training.start(settings, path) as training:
            _train(training)
        if not experiment and len(searched.objectives) > 1:
            # The run's front shows it beside what the search measured.
            _draw_if_possible(Path(what), only=("front",))


@app.command()
def estimate(
    experiment: ExperimentFile,
    workers: Workers = None,
    set_: Set = None,
) -> None:
    """Estimates run time and memory from a few timed steps."""
    overrides = [*(set_ or []), *_where(workers)]
    with _reported():
        settings = _loaded(experiment, overrides)
        from evonas import display
        from evonas.jobs.estimate import estimate as estimate_costs

        display.show_estimate(settings.name, estimate_costs(settings))


@app.command()
def show(
    what: Annotated[
        str, typer.Argument(metavar="RUN_DIR|GENOME", help="A run folder, or a genome.")
    ],
    genome: Annotated[
        str | None,
        typer.Option(
            metavar="winner|best|knee|KEY",
            help="Show a network of the run folder, named as for `evonas train`.",
        ),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the genome into a PNG, SVG or PDF file."),
    ] = None,
    experiment: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For a GENOME: the experiment with its sizes."),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Shows a run's front, winner, cost and faults, or describes a genome."""
    from evonas import display

    with _reported():
        from evonas.jobs.choice import choose, is_folder, settings_of

        of_run = is_folder(what)
        if of_run and experiment is not None:
            problem = "applies to a genome, not to a run folder"
            raise UserError(problem, hint="leave it out", key="--experiment")
        if of_run and genome is None:
            if draw is not None:
                hint = f"add --genome, or draw the run with `evonas plot {what}`"
                raise UserError("draws a genome, not a run folder", hint=hint, key="--draw")
            is_training = (Path(what) / "training.yaml").exists()
            (display.show_training if is_training else display.show_run)(Path(what))
            return
        from evonas.jobs.facts import facts
        from evonas.jobs.parts import fitted

        settings: config.Experiment | config.TrainingRun | None = None
        if of_run:
            plugins.allow_recorded(Path(what), plugin or ())
            settings = settings_of(Path(what))
        elif experiment is not None:
            settings = fitted(_loaded(experiment))
        choice = choose(what, genome, settings)
        display.show_genome(choice, facts(choice, settings))
        if draw is not None:
            from evonas import plots

            plots.draw_cell(choice.space, choice.genome, draw)


@app.command()
def plot(run_dir: RunDir) -> None:
    """Redraws a run's figures from its tables, even while it is running.

    For a full training, draws its learning curve.
    """
    with _reported():
        _draw(run_dir)


@app.command()
def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR", help="One run folder, or several.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file to write (default: RUN_DIR/report.html; of several runs, report.html).",
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Write it anew after each generation, while a run goes on."),
    ] = False,
) -> None:
    """Writes a report as a single HTML file, to read offline or to send.

    It has the winner and its score, the front, the progress of the search, lineage, cost and
    faults; of several runs, first their comparison. It reads the tables alone, even while a run is
    going on. For example: evonas report results/mine --out mine.html
    """
    with _reported():
        from evonas.report import page

        if watch:
            file = page.file_of(run_dirs, out)
            with interrupts.saying(lambda: f"interrupted; the report so far is in {file}"):
                for written in page.watch(run_dirs, out):
                    echo(f"written: {written}", err=True)
        file = page.write(run_dirs, out)
        size = file.stat().st_size / 1e6
        echo(f"the report is in {file} ({size:.1f} MB); any browser opens it, also offline")


@app.command()
def compare(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR", help="Two or more run folders.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for tables and figures.")] = Path(
        "results/compare"
    ),
) -> None:
    """Compares runs over seeds: best so far, hypervolume, cost."""
    with _reported():
        from evonas.report.compare import Comparison

        comparison = Comparison.of(run_dirs)
        comparison.write(out)
        echo(comparison.text())
        echo(f"\ntables and figures are in {out}", err=True)


@app.command()
def rank(
    run_dir: RunDir,
    sample: Annotated[
        int, typer.Option(min=3, metavar="N", help="Number of networks, drawn at random.")
    ] = 50,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            metavar="E",
            help="Number of epochs of each training (default: finalists.budget).",
        ),
    ] = None,
    workers: RunWorkers = None,
    plugin: Plugin = None,
) -> None:
    """Compares supernet scores with stand-alone training; resumable.

    For a run with the evaluator supernet. Draws networks at random, scores each with the shared
    weights, trains each on its own, and reports how well the two orders agree.
    """
    with _reported():
        plugins.allow_recorded(run_dir, plugin or ())
        from evonas.display import counter
        from evonas.jobs.rank import opened

        folder = run_dir / "rank"
        with (
            _interruptible(folder, command="the same command"),
            opened(run_dir, sample, epochs=epochs, workers=workers) as ranking,
        ):
            name = f"{ranking.experiment.name}: {counted(len(ranking.genomes), 'network')}"
            echo(f"{name}, {ranking.budget.text}, in {folder}", err=True)
            with counter(name, "results") as update:
                for count in ranking:
                    update(count, ranking.count)
            echo(ranking.finish())
        _draw_if_possible(run_dir, only=("rank",))


@app.command()
def export(
    run_dir: RunDir,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="python|torch|onnx",
            help="The output format (default: as the output file ends, or python).",
            autocompletion=catalogue.completing("python", "torch", "onnx"),
        ),
    ] = None,
    genome: Network = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Output file (default: KEY.py, KEY.safetensors or KEY.onnx)."
        ),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Exports a trained network: plain PyTorch without evonas, safetensors, or ONNX."""
    with _reported():
        from evonas.export import network as exporting

        form = exporting.form_of(format_, out)
        plugins.allow_recorded(run_dir, plugin or ())
        network = exporting.trained(run_dir, genome)
        for line in exporting.closing(network, form, exporting.export(network, form, out)):
            echo(line)


@app.command()
def bench(
    table: Annotated[
        Path, typer.Argument(help="The benchmark file (YAML), which names the table.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the benchmark (default: results/bench-NAME)."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes (default: one per core).")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a setting, e.g. seeds=20. Repeatable."
        ),
    ] = None,
) -> None:
    """Compares strategies on a table of trained networks, over many seeds; resumable."""
    with _reported():
        from evonas.bench.bench import opened
        from evonas.bench.spec import load
        from evonas.display import counter

        settings = load(table, set_ or [])
        folder = out or Path("results") / f"bench-{settings.name}"
        with (
            _interruptible(folder, command="the same command"),
            opened(settings, folder, workers=workers) as benching,
        ):
            echo(f"{settings.name}: {counted(benching.count, 'run')} in {folder}", err=True)
            with counter(settings.name, "runs") as update:
                for count in benching:
                    update(count, benching.count)
            echo(benching.finish())
            echo(f"table and figure are in {folder}", err=True)


@app.command()
def validate(
    experiment: ExperimentFile,
    data: Annotated[
        bool, typer.Option("--data", help="Also read the images, or the table, and check them.")
    ] = False,
    set_: Set = None,
) -> None:
    """Checks an experiment file without running anything."""
    with _reported():
        settings = _loaded(experiment, set_ or [])
        if data:
            from evonas.jobs.parts import read_data  # loads torch, in seconds

            echo(f"data: {read_data(settings)}")
        echo(f"{experiment}: valid ({settings.name}, seed {settings.seed})")


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="The file to write.")] = Path("experiment.yaml"),
    data: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The data set.", autocompletion=catalogue.completing(kind="data")
        ),
    ] = "digits",
    path: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Where the data are, for a data set that needs a path."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder with a folder of images for each class, instead of --data and --path. "
            "The experiment is then complete, with settings that suit the images and the machine.",
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The search space; `evonas list spaces` says what each is for (default: "
            "nasbench201, or one for --images).",
            autocompletion=catalogue.completing(kind="spaces"),
        ),
    ] = None,
    max_params: MaxParams = None,
    max_flops: MaxFlops = None,
    max_memory: MaxMemory = None,
    hours: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=10_000, help="With --images: how long a run may take (default: 1)."
        ),
    ] = None,
) -> None:
    """Writes an experiment file to start from, with each key explained.

    Example: evonas init --images pictures --max-params 50k --hours 2
    """
    since = time.monotonic()
    with _reported():
        _refuse_existing(file, "name a new file")
        if images is not None:
            from evonas import starter_images

            if path is not None or data != "digits":
                problem = "cannot be given with --data or --path"
                raise UserError(problem, hint="leave these out", key="--images")
            begun = starter_images.for_images(
                file,
                images,
                starter_images.limits_of(max_params, max_flops, max_memory),
                hours=hours or 1.0,
                since=since,
                space=space or starter_images.DEFAULT_SPACE,
            )
            _create(file, begun.text)
            echo(f"{begun.summary}")
            echo(f"wrote {file}; next: evonas run {file}")
            return
        for option, given in (
            ("--max-flops", max_flops),
            ("--max-memory", max_memory),
            ("--hours", hours),
        ):
            if given is not None:
                raise UserError("needs --images", hint="add it, or leave this out", key=option)
        from evonas.starter import MISSING, starter

        text = starter(file, data, path, space or "nasbench201", max_params)
        _create(file, text)
        first = f"set data.path, now {MISSING}; then " if MISSING in text else ""
        echo(f"wrote {file}; next: {first}evonas estimate {file}, then evonas run {file}")


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="|".join(catalogue.KINDS),
            help="What to list, with what each is for (default: all names).",
            autocompletion=catalogue.completing(*catalogue.KINDS),
        ),
    ] = None,
) -> None:
    """Lists the names that an experiment file can use."""
    with _reported():
        echo("\n".join(catalogue.lines(kind)))


def _refuse_existing(file: Path, hint: str) -> None:
    if os.path.lexists(file):
        raise UserError("already exists", hint=hint, key=str(file))


def _create(file: Path, text: str) -> None:
    """Write a new file.

    Raises:
        UserError: it is there, or cannot be written.
    """
    try:
        files.create(file, text)
    except FileExistsError:
        raise UserError("already exists", hint="name a new file", key=str(file)) from None
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", key=str(file)) from None


def echo(text: str, *, err: bool = False) -> None:
    """Print a text without the control characters that files may have put into it."""
    typer.echo(files.escaped(text, keep="\n\t"), err=err)


def _version(show_version: bool) -> None:
    if show_version:
        echo(f"evonas {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass  # the option is handled before any command


def _overrides(
    *,
    seed: int | None = None,
    epochs: int | None = None,
    device: str | None = None,
) -> list[str]:
    """Return the options as `--set` would have them."""
    values = {
        "seed": seed,
        "epochs": epochs,
        "parallel.device": None if device is None else f"'{device}'",
    }
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def _where(workers: int | None, address: str | None = None) -> list[str]:
    """Return where to evaluate, as `--set` would have it.

    Raises:
        UserError: here and elsewhere.
    """
    if workers is not None and address is not None:
        problem = "cannot be given with --workers, since the cluster says how many there are"
        raise UserError(problem, hint="give one of them", key="--address")
    if workers is not None:
        return [*config.HERE, f"parallel.workers={workers}"]
    if address is not None:
        there = ("backend=dask", f"address='{address}'", "workers=auto")
        return [f"parallel.{setting}" for setting in there]
    return []


def _search(search: Run) -> None:
    """Search to the end, with progress on screen, and show the results."""
    from evonas import display

    display.search_shown(search)
    display.show_run(search.path)
    _draw_if_possible(search.path)
    if search.folder.weights("winner").exists():
        path, own = search.path, _plugin_options(search.path)
        echo(f"To train the winner in full: evonas train {path}{own}")
        echo(f"To use it without evonas: evonas export {path}{own}")


def _searched(
    what: str, experiment: Path | None, own: Sequence[Path]
) -> tuple[config.Experiment, Path]:
    """Load the experiment whose network `evonas train` trains, and permit its own Python files.

    Returns:
        The experiment, and the folder that its relative paths start from.

    Raises:
        UserError: `what` is a full training, or neither a run folder nor a genome with its
            experiment.
    """
    from evonas.jobs import choice

    folder = Path(what)
    if not choice.is_folder(what):
        if experiment is None:
            hint = "name a run folder, or add --experiment FILE to a genome"
            raise UserError(f"{what} is no run folder", hint=hint)
        return _loaded(experiment), experiment.parent
    if (folder / "training.yaml").exists():
        raise UserError(f"{what} is a full training", hint=f"continue it: evonas resume {what}")
    if experiment is not None:
        problem = f"applies to a genome, and {what} is a run folder"
        raise UserError(problem, hint="leave it out", key="--experiment")
    check_run_folder(folder)
    plugins.allow_recorded(folder, own)
    return config.load_run(folder), folder


def _draw(run_dir: Path, only: Collection[str] = ()) -> None:
    """Draw the figures, and print how many there are and which could not be drawn."""
    from evonas import plots

    drawn = plots.draw(run_dir, only)
    echo(f"{drawn.folder}: {counted(len(drawn.figures), 'figure')}")
    for name, reason in drawn.skipped.items():
        echo(f"  {name}: not drawn, since {reason}")


def _train(training: FullTraining) -> None:
    """Train to the end, with progress on screen, and show the result."""
    from evonas import display

    reader = display.of_training(training)
    with display.progress(training.settings.name, "epochs", reader) as show_now:
        for _ in training:
            show_now()
        training.finish()
    display.show_training(training.path)
    _draw_if_possible(training.path)
    path, own = training.path, _plugin_options(training.path)
    echo(f"To use it without evonas: evonas export {path}{own}")


def _draw_if_possible(path: Path, only: Collection[str] = ()) -> None:
    try:
        _draw(path, only)
    except Exception as error:  # the run is finished and recorded; only its figures are missing
        if not isinstance(error, OSError):
            logging.getLogger("evonas").exception("figures")
        echo(f"figures: not drawn: {type(error).__name__}: {error}", err=True)


@contextmanager
def _interruptible(path: Path, command: str = "") -> Iterator[None]:
    """Tell how to continue after Ctrl-C, or SIGTERM as schedulers send it.

    Args:
        command: the command that continues; without it, `evonas resume` once a run has begun.
    """

    def words() -> str:
        return f"interrupted; {_saved(path)} saved. To continue: {_onward(path, command)}"

    with interrupts.saying(words):
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            moved = "" if path.exists() else f"evonas resume {path}{_plugin_options(path)}"
            raise files.failure(error, f"continue: {_onward(path, command or moved)}") from None


def _onward(path: Path, command: str) -> str:
    """Return the command that continues."""
    begun = any((path / name).exists() for name in ("training.yaml", "config.yaml"))
    resume = f"evonas resume {path}{_plugin_options(path)}"
    return command or (resume if begun else "the same command")


def _plugin_options(path: Path) -> str:
    """Return the options that permit again the user's own files that a folder has on record.

    Of a folder that is gone, they are all that this command may import.
    """
    from evonas.records.folder import environment

    allowed = plugins.all_allowed()
    recorded: Collection[str] = ()
    with suppress(UserError, OSError):  # what is damaged, a resume will tell
        recorded = environment(path).get("plugins", {}) if path.exists() else allowed
    paths = [code.path for file, code in allowed.items() if file in recorded]
    return "".join(f" --plugin {shlex.quote(str(path))}" for path in paths)


def _saved(path: Path) -> str:
    """Count what a run, or a full training, has saved so far."""

    def lines(name: str) -> int:
        file = path / name
        return files.read(file).count(b"\n") if file.exists() else 0

    if (path / "training.yaml").exists():
        return counted(max(lines("curve.csv") - 1, 0), "epoch")
    if lines("runs.csv"):
        return counted(lines("runs.csv") - 1, "run")
    parts = [counted(lines("journal"), "result")] if lines("journal") else []
    if lines("supernet/curve.csv"):
        parts += [f"{counted(lines('supernet/curve.csv') - 1, 'epoch')} of the supernet"]
    return " and ".join(parts) or counted(0, "result")


def _loaded(experiment: Path, overrides: Sequence[str] = ()) -> config.Experiment:
    """Load an experiment, and permit its own Python files to be imported later."""
    settings = config.load(experiment, overrides)
    plugins.allow(config.own_files(settings))
    return settings


@contextmanager
def _reported() -> Iterator[None]:
    """Report errors in a few lines, and exit with their status."""
    try:
        with interrupts.heard():
            yield
    except UserError as error:
        echo(f"evonas: {error}", err=True)
        raise typer.Exit(2) from None
    except SearchFailed as error:
        echo(f"evonas: the run failed: {error}", err=True)
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        echo(interrupts.words(), err=True)
        raise typer.Exit(interrupts.STATUS) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except OSError as error:
        echo(f"evonas: {files.failure(error)}", err=True)
        raise typer.Exit(3) from None
    except Exception as error:  # a bug of ours: exit with a status too, and show the traceback
        echo(traceback.format_exc(), err=True)
        echo(f"evonas: internal error: {type(error).__name__}: {error}", err=True)
        raise typer.Exit(3) from error


if __name__ == "__main__":
    sys.exit(app())
