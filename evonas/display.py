"""What a person sees in the terminal: progress from a run's counters, results from its tables."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import rich.progress
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from evonas import registry, yamlfile
from evonas.core import FAILURES, Candidate, UserError
from evonas.loop import guarded
from evonas.records import tables as recorded
from evonas.records.files import is_locked
from evonas.records.folder import check_run_folder
from evonas.records.tables import read
from genomes import Genome, SearchSpace, library

if TYPE_CHECKING:
    from evonas.config import Experiment
    from evonas.jobs.estimate import Estimate
    from evonas.jobs.full_training import FullTraining
    from evonas.jobs.search import Run

SHOWN = 20  # rows of a front on screen
DEAD = 6  # genes


class Progress:
    """A run's counters as one line; it reads them when drawn, the run does not know of it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.started = time.monotonic()
        self.before = run.folder.archive.evaluations
        self.journaled = 0  # answers at the end of the last generation
        self.generations = run.folder.archive.generations

    def __rich__(self) -> Text:
        return Text(self.line(), no_wrap=True, overflow="ellipsis")

    def line(self) -> str:
        run, archive = self.run, self.run.folder.archive
        if archive.generations != self.generations:
            self.generations, self.journaled = archive.generations, run.folder.journal.added
        done = archive.evaluations + run.folder.journal.added - self.journaled
        objective = run.experiment.objectives[0]
        best = archive.best(objective)
        shown = "-" if best is None else f"{best.evaluation.values[objective.name]:.4g}"
        limit = run.experiment.stop.generations
        generation = f"generation {archive.generations}" + (f"/{limit}" if limit else "")
        faults = sum(archive.faults.values())
        # The end is cut off where a terminal is narrow.
        parts = [
            run.experiment.name,
            self._left(done),
            generation,
            f"{done} evaluations",
            f"best {objective.name} {shown}",
            *([f"{faults} faults"] if faults else []),
            *([f"{archive.hits} hits"] if archive.hits else []),
        ]
        return " · ".join(parts)

    def _left(self, done: int) -> str:
        """From the mean time of an evaluation so far; in the finals there is nothing to go by."""
        archive, stop = self.run.folder.archive, self.run.experiment.stop
        ends = [stop.evaluations] if stop.evaluations else []
        if stop.generations and archive.generations:
            ends.append(round(archive.evaluations / archive.generations * stop.generations))
        fresh = done - self.before
        if not ends or fresh <= 0:
            return "time left: -"
        if min(ends) <= archive.evaluations:
            return "finalists"
        seconds = (time.monotonic() - self.started) / fresh * max(min(ends) - done, 0)
        return f"{timedelta(seconds=round(seconds))} left"


class TrainingProgress:
    """A full training's last epoch as one line."""

    def __init__(self, training: FullTraining) -> None:
        self.training = training
        self.started = time.monotonic()
        self.before = len(training.curve)

    def __rich__(self) -> Text:
        return Text(self.line(), no_wrap=True, overflow="ellipsis")

    def line(self) -> str:
        training = self.training
        done, epochs = len(training.curve), training.settings.epochs
        parts = [training.settings.name, f"epoch {done}/{epochs}"]
        if training.curve:
            last = training.curve[-1]
            parts += [f"train loss {last.train_loss:.4f}", f"test error {last.test_error:.4f}"]
        left = "-"
        if done > self.before:
            seconds = (time.monotonic() - self.started) / (done - self.before) * (epochs - done)
            left = str(timedelta(seconds=round(seconds)))
        return " · ".join([*parts, f"{left} left"])


@contextmanager
def progress(shown: Progress | TrainingProgress) -> Iterator[Callable[[], None]]:
    """A live line on a terminal; elsewhere a plain line each time the function given is called."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Live(shown, console=console, refresh_per_second=4, transient=True):
            yield lambda: None
    else:
        yield lambda: console.print(shown.line(), soft_wrap=True, highlight=False)


@contextmanager
def counter(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, from the first time that it is told how many are done of how many;
    elsewhere nothing but the end is told.
    """
    console = Console(stderr=True)
    with rich.progress.Progress(console=console, transient=True) as bar:
        task = bar.add_task(name, visible=False)
        yield lambda done, of: bar.update(task, completed=done, total=of, visible=True)


def show_run(path: Path) -> None:
    """A run folder's front, best, winner, cost and faults, finished or not."""
    console = Console()
    say = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    check_run_folder(path)
    tables = [path / f"{name}.csv" for name in ("evaluations", "front", "timings")]
    evaluations = read(tables[0]) if all(table.exists() for table in tables) else pd.DataFrame()
    if evaluations.empty:
        say(f"{path}: no generation is finished yet; {_going_on(path)}")
        return
    front = read(path / "front.csv")
    console.print(_front_table(front, path))
    settings = yamlfile.read(path / "config.yaml")
    generations = evaluations["generation"].nunique()
    if not (path / "finalists.csv").exists() and settings["finalists"]["top"]:
        limit = settings["stop"].get("generations")
        of = f" of {limit}" if limit else ""
        say(f"unfinished: generation {generations}{of} is the last; {_going_on(path)}")
    _print_winner(say, path)
    timings = read(path / "timings.csv")
    found = timings.get("from_cache", pd.Series(False, timings.index)).astype(bool)
    trained = timings[~found]
    shared = settings["evaluator"]["name"] == "supernet"
    scored = int((trained["phase"].eq("search") & shared).sum())
    seconds = timedelta(seconds=round(trained["seconds"].sum()))
    taken = f"; {found.sum()} more taken from the cache" if found.any() else ""
    say(
        f"cost: {len(evaluations)} evaluations in {generations} generations, "
        f"{int(evaluations['cached'].sum())} answered by an earlier one; "
        + (f"{scored} scored with shared weights; " if scored else "")
        + f"{len(trained) - scored} trainings, finalists included"
        + (", and the scores" if scored else "")
        + f", took {seconds} of worker time{taken}"
    )
    turned_down = int((evaluations["status"] == "infeasible").sum())
    if turned_down:
        say(f"infeasible: {turned_down} of them are outside the constraints")
    if turned_down == len(evaluations):
        for constraint in settings["constraints"]:
            values = evaluations.get(constraint["name"], pd.Series(dtype=float)).dropna()
            if len(values):
                low, high = _number(values.min()), _number(values.max())
                say(f"  no network met them: {constraint['name']} was from {low} to {high}")
    failed = trained[trained["status"].isin(FAILURES)]
    if failed.empty:
        say("faults: none")
    else:
        counts = failed["status"].value_counts()
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        commonest = failed["message"].dropna().mode()
        say(f"faults: {told}; commonest: {commonest.iloc[0] if len(commonest) else '-'}")
    if not evaluations["deterministic"].all() or not _planned_deterministic(path):
        say("deterministic: false, since clock or memory had a say in some rows")


def _going_on(path: Path) -> str:
    """Whether a process is at it, or how to go on."""
    return "a process is at it" if is_locked(path) else f"go on with: evonas resume {path}"


def show_training(path: Path) -> None:
    """A full training's score, or how far it is."""
    say = partial(Console().print, soft_wrap=True, markup=False, highlight=False)
    settings = yamlfile.read(path / "training.yaml")
    if not (path / "result.csv").exists():
        curve = read(path / "curve.csv") if (path / "curve.csv").exists() else pd.DataFrame()
        last = "" if curve.empty else f", test error {curve['test_error'].iloc[-1]:.4f}"
        say(f"{path}: {len(curve)} of {settings['epochs']} epochs{last}; evonas resume {path}")
        return
    row = read(path / "result.csv").iloc[0]
    say(f"{row['key']}, {row['genome']}, {row['params']:,} params, {row['flops']:,} flops")
    epochs = f"{row['epochs']} epoch{'' if row['epochs'] == 1 else 's'}"
    say(f"  trained for {epochs} on {row['train_images']:,} images")
    say(
        f"  test accuracy {1 - row['test_error']:.4f} ± {row['test_error_se']:.4f} "
        f"(standard error, {row['test_images']:,} images)"
    )
    say(f"  weights {path / 'weights.safetensors'}")


def show_estimate(name: str, foreseen: Estimate) -> None:
    """What a run will cost."""
    say = partial(Console().print, soft_wrap=True, markup=False, highlight=False)
    mean, least, most = foreseen.seconds
    workers = f"{foreseen.workers} worker{'s' if foreseen.workers > 1 else ''}"
    varied = foreseen.generations is None
    generations = "generations, the largest" if varied else f"{foreseen.generations} generations"
    one = "score" if foreseen.scored else "training"
    finals = f"{foreseen.final_trainings} {'trainings ' if foreseen.scored else ''}of finalists"
    say(
        f"{name}: at most {foreseen.trainings} {one}s in the search "
        f"({generations} of {foreseen.population}) and {finals}"
    )
    say(
        f"a {one}: {mean:.3g} s ({least:.3g} to {most:.3g} s; {foreseen.measured} networks "
        f"measured for some steps, {workers} at a time)"
    )
    if foreseen.shared_seconds:
        told = timedelta(seconds=round(foreseen.shared_seconds))
        say(f"weights that all share: {told}, of the search's time, in one process")
    search, last = foreseen.search_time, foreseen.final_time
    shown = [str(timedelta(seconds=round(s))) for s in (search + last, search, last)]
    say(f"time: about {shown[0]}: search {shown[1]}, finalists {shown[2]}")
    gigabytes = [n / 1e9 for n in (foreseen.memory, foreseen.worker_memory, foreseen.gpu_memory)]
    say(f"memory: about {gigabytes[0]:.1f} GB: {workers} of {gigabytes[1]:.1f} GB, and the driver")
    if foreseen.gpu_memory:
        say(f"GPU memory: about {gigabytes[2]:.1f} GB a worker")


def show_genome(text: str, experiment: Experiment | None = None) -> None:
    """What a genome is: its space, spelling, key, and size, or what a table says of it.

    Args:
        experiment: whose space, sizes and data to count with, or whose table to look it up in;
            none: the first space that can read it, with its default settings.
    """
    space, genome = parse_genome(text, experiment)
    console = Console()
    canonical = space.canonical(genome)
    measured: dict[str, str] = {}
    if experiment is None:
        from evonas.networks.decode import decode
        from evonas.networks.profile import profile

        found = profile(decode(space, canonical), (3, 32, 32))
        measured = {"params": f"{found.params:,}", "flops": f"{found.flops:,}"}
        measured["counted at"] = "the space's default size, 3x32x32 images, 10 classes"
    else:
        from evonas.jobs import machine
        from evonas.jobs.parts import build

        parallel = machine.resolve(experiment.parallel)
        parts = build(experiment.model_copy(update={"parallel": parallel}))
        training = parts.setting.training
        if training is None:
            answer = guarded(parts.evaluator, Candidate(genome), 0)
            measured = {name: f"{value:.7g}" for name, value in answer.values.items()}
            measured["looked up in"] = answer.message or f"the table of {experiment.name}"
        else:
            cheap = parts.evaluator.cheap(canonical)
            shape = "x".join(map(str, training.data.image_shape))
            measured = {name: f"{cheap[name]:,}" for name in ("params", "flops")}
            measured["counted at"] = (
                f"the sizes of {experiment.name}, {shape} images, {training.data.classes} classes"
            )
    dead = [
        f"{gene.name} {choice}"
        for gene, live, choice in zip(
            space.genes,
            space.live(genome),
            (space.choice(genome, i) for i in range(len(space.genes))),
            strict=True,
        )
        if not live and choice != "none"
    ]
    more = len(dead) - DEAD
    rows = {
        "space": space.name,
        "genome": space.describe(genome),
        "genes": genome.text,
        "key": space.key(genome),
        "canonical": space.describe(canonical),
        "dead": ", ".join(dead[:DEAD]) + (f" and {more} more" if more > 0 else "") or "nothing",
        **measured,
    }
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        console.print(
            f"{name + ':':<{width}}{value}", markup=False, highlight=False, soft_wrap=True
        )


def parse_genome(text: str, experiment: Experiment | None = None) -> tuple[SearchSpace, Genome]:
    """A genome by its text, genes or key, in an experiment's space, or the first that can read it;
    or a cell of the library by its name.

    Raises:
        UserError: it cannot, or none can.
    """
    if experiment is not None:
        space = registry.make_space(experiment.space)
        try:
            return space, library.read(space, text)
        except ValueError as error:
            raise UserError(f"{text} is no genome of {experiment.name}: {error}") from None
    if text in library.library():
        return library.load(text)
    reasons = []
    for name in registry.names("spaces"):
        try:
            space = registry.make_space(registry.space(name).Params())
        except ValidationError:
            continue  # not known without its settings
        try:
            return space, space.parse(text)
        except ValueError as error:
            reasons.append(str(error))
    # A space that knows the form of the text says what is wrong with it; the others, that it is
    # not theirs.
    known = [reason for reason in reasons if "no genome of" not in reason]
    if re.fullmatch(r"g?\d+(-\d+)*", text.strip()) or not known:
        known = [
            "not in any space with its default settings; allowed: --experiment FILE with others"
        ]
    raise UserError(f"{text} is neither a folder nor a genome: {known[0]}")


def _front_table(front: pd.DataFrame, path: Path) -> Table:
    title = f"front of {path}: {len(front)} networks"
    if len(front) > SHOWN:
        title += f", the first {SHOWN}"
    table = Table(title=title)
    columns = list(front.columns)
    metrics = columns[columns.index("seed") + 1 :]
    for column in ("key", *metrics):
        table.add_column(column, justify="left" if column == "key" else "right", overflow="fold")
    for row in front.head(SHOWN).to_dict("records"):
        table.add_row(str(row["key"]), *(_number(row[name]) for name in metrics))
    return table


def _print_winner(say: Callable[[str], None], path: Path) -> None:
    settings = yamlfile.read(path / "config.yaml")
    if not (path / "finalists.csv").exists():
        wanted = settings["finalists"]["top"]
        later = "none yet; the finalists are trained when the search ends"
        say(f"winner: {later if wanted else 'none asked for, since finalists.top is 0'}")
        return
    winner = recorded.winner(path)
    if winner is None:
        empty = read(path / "finalists.csv").empty
        reason = "no network is on the front" if empty else "no finalist ended well"
        say(f"winner: none, since {reason}")
        return
    spread = next(name for name in map(str, winner.index) if name.endswith("_std"))
    first = spread.removesuffix("_std")
    epochs = settings["finalists"].get("budget")
    budget = f" for {', '.join(f'{v} {k}' for k, v in epochs.items())}" if epochs else ""
    seeds = winner["seeds"] - winner["failed"]
    spread_of = "" if pd.isna(winner[spread]) else f" ± {winner[spread]:.4f} (standard deviation)"
    say(f"winner: {winner['key']}, {winner['genome']}, {int(winner['params']):,} params")
    say(f"  {first} {winner[first]:.4f}{spread_of}, trained again with {seeds} seeds{budget}")
    say(
        f"  test accuracy {1 - winner['test_error']:.4f} ± {winner['test_error_se']:.4f} "
        "(standard error), on images that the search has not seen"
    )
    say(f"  weights {path / 'weights' / 'winner.safetensors'}")


def _planned_deterministic(path: Path) -> bool:
    noted = path / "environment.json"
    return bool(not noted.exists() or json.loads(noted.read_text()).get("deterministic", True))


def _number(value: Any) -> str:
    if pd.isna(value):
        return "-"
    if abs(value) >= 1e12:
        return f"{value:.4g}"
    return f"{int(value):,}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4f}"
