"""What the terminal shows: progress from a run's counters, results from its tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import rich.progress
from rich.console import Console, RenderableType
from rich.progress import ProgressColumn
from rich.table import Column
from rich.text import Text

from evonas import files, yamlfile
from evonas.core import FAILURES
from evonas.files import check_folder, escaped
from evonas.live import Panel
from evonas.markdown import counted, length
from evonas.metrics import SCORED, VAL_ERROR
from evonas.records import guessing
from evonas.records import seeds as begun
from evonas.records import tables as recorded
from evonas.records.files import is_locked
from evonas.records.folder import check_run_folder, environment, undamaged
from evonas.records.results import full_trainings
from evonas.records.tables import read
from evonas.report.front import front_table, number
from genomes import Gene, SearchSpace

if TYPE_CHECKING:
    from evonas.jobs.choice import Choice
    from evonas.jobs.estimate import Estimate
    from evonas.jobs.facts import Facts
    from evonas.jobs.full_training import FullTraining
    from evonas.jobs.search import Run

DEAD = 6  # genes
TOLD = ("evonas.cluster", "evonas.loggers")  # whose messages are shown on the terminal too


@dataclass(frozen=True, slots=True)
class Reading:
    """The progress of a job.

    Attributes:
        total: the expected total; None if it cannot be known.
        text: further details.
    """

    done: int
    total: int | None = None
    text: str = ""


class _Console(Console):
    """Prints texts without the control characters that files may have put into them."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escaped(text, keep="\n\t"), **options)


class _Left(rich.progress.ProgressColumn):
    """The time left, from the mean pace since the start, since a total may change on the way."""

    def render(self, task: rich.progress.Task) -> Text:
        fresh = task.completed - task.fields["before"]
        if task.remaining is None or task.elapsed is None or fresh <= 0:
            return Text("time left: -")
        if task.remaining <= 0:  # the text names what happens now
            return Text("")
        seconds = task.elapsed / fresh * task.remaining
        return Text(f"{timedelta(seconds=round(seconds))} left")


class _Line(rich.progress.Progress):
    """A line of name, time left, counts and text, which reads the counters when it is drawn.

    The panel, if any, stands above it.
    """

    def __init__(
        self,
        name: str,
        unit: str,
        look: Callable[[], Reading | None],
        panel: Panel | None = None,
    ) -> None:
        self._unit, self._look, self._panel = unit, look, panel
        console = _Console(stderr=True)
        super().__init__(
            rich.progress.TextColumn("{task.description}", markup=False),
            _Left(),
            rich.progress.TextColumn("{task.fields[counts]}", markup=False),
            rich.progress.TextColumn(
                "{task.fields[text]}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            transient=True,
            expand=True,
            refresh_per_second=4,
            disable=not console.is_terminal,
        )
        first = look()
        before = first.done if first else 0
        self.add_task(
            escaped(name),
            total=None,
            completed=before,
            before=before,
            counts="",
            text="",
            visible=False,
        )

    def read(self) -> rich.progress.Task | None:
        """Update the line from the counters, and return its task; None before there are any."""
        now = self._look()
        if now is None or not self.tasks:  # drawn once during construction
            return None
        [task] = self.tasks
        of = "" if now.total is None else f"/{now.total}"
        one = (now.done if now.total is None else now.total) == 1
        self.update(
            task.id,
            completed=now.done,
            total=now.total,
            counts=f"{now.done}{of} {self._unit.removesuffix('s') if one else self._unit}",
            text=escaped(now.text),
            visible=True,
        )
        return task

    def get_renderables(self) -> Iterable[RenderableType]:
        self.read()
        if self._panel is not None and self.tasks:
            yield from self._panel.lines(self.console.width, self.console.height)
        yield from super().get_renderables()

    def print_plain(self) -> None:
        """Print the state on a line of its own, where there is no terminal."""
        task = self.read()
        if self.disable and task is not None:
            parts = [column(task) for column in self.columns if isinstance(column, ProgressColumn)]
            text = " · ".join(part.plain for part in parts if isinstance(part, Text) and part.plain)
            self.console.print(text, soft_wrap=True, highlight=False, markup=False)


@contextmanager
def progress(
    name: str, unit: str, look: Callable[[], Reading | None], panel: Panel | None = None
) -> Iterator[Callable[[], None]]:
    """Show a live line on a terminal; elsewhere, print a line each time the result is called.

    Args:
        unit: what is counted, in the plural.
        look: reads the progress; None while there is nothing to show.
        panel: what a terminal shows above the line.
    """
    with _Line(name, unit, look, panel) as line:
        told = _Told(line.console)
        for name in TOLD:
            logging.getLogger(name).addHandler(told)
        try:
            yield line.print_plain
        finally:
            for name in TOLD:
                logging.getLogger(name).removeHandler(told)


@contextmanager
def counter(name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a live line on a terminal, from the first call of the result, `update(done, total)`.

    Elsewhere, show nothing.
    """
    readings: list[Reading] = []
    with _Line(name, unit, lambda: readings[-1] if readings else None):
        yield lambda done, total: readings.append(Reading(done, total))


class _Told(logging.Handler):
    """Prints what is logged of a cluster, or of the user's loggers, above the live line."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = escaped(record.getMessage())
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


def search_shown(search: Run) -> None:
    """Search to the end, finals included, with progress on screen."""
    name = search.experiment.name
    with counter(f"{name}: shared weights", "epochs") as update:
        for done, total in search.prepare():
            update(done, total)
    with counter(f"{name}: pool", "networks") as update:
        for done, total in search.warm_start():
            update(done, total)
    with progress(name, "evaluations", of_search(search), Panel(search.path)) as show_now:
        for _ in search:
            show_now()
    with progress(f"{name}: finalists", "trainings", of_finals(search)) as show_now:
        search.finish()
        show_now()


def of_search(run: Run) -> Callable[[], Reading]:
    """Return a reader of a run's counters, which change within a generation too."""
    archive, journal = run.folder.archive, run.folder.journal
    objective, stop = run.experiment.objectives[0], run.experiment.stop
    val = guessing.guess(run.path, "val")
    generations, journaled = archive.generations, journal.added  # at the end of a generation

    def look() -> Reading:
        nonlocal generations, journaled
        if archive.generations != generations:
            generations, journaled = archive.generations, journal.added
        ends = [count for count in (stop.evaluations, stop.networks) if count]
        if stop.generations and archive.generations:
            ends.append(round(archive.evaluations / archive.generations * stop.generations))
        total = min(ends, default=None)
        best = archive.best(objective)
        shown = "-" if best is None else f"{best.evaluation.values[objective.name]:.4g}"
        errors = [entry.evaluation.values.get(VAL_ERROR.name) for entry in archive.front]
        error = min((each for each in errors if each is not None), default=None)
        if val is not None and val.verdict(error, len(archive.keys)):
            shown += f", {guessing.AT_CHANCE}"
        faults = sum(archive.faults.values())
        limit = f"/{stop.generations}" if stop.generations else ""
        parts = [
            f"generation {archive.generations}{limit}",
            f"best {objective.name} {shown}",
            *([counted(faults, "fault")] if faults else []),
            *([counted(archive.hits, "hit")] if archive.hits else []),
        ]
        done = archive.evaluations + journal.added - journaled
        return Reading(done, total, " · ".join(parts))

    return look


def of_finals(run: Run) -> Callable[[], Reading | None]:
    """Return a reader of how many trainings of the finalists are done."""
    questions, journal = run.finals(), run.folder.journal

    def look() -> Reading | None:
        done = sum(journal.get(question) is not None for question in questions)
        return Reading(done, len(questions)) if questions else None

    return look


def of_training(training: FullTraining) -> Callable[[], Reading]:
    """Return a reader of the last epoch of a full training."""

    def look() -> Reading:
        text = training.curve[-1].text if training.curve else ""
        return Reading(len(training.curve), training.settings.epochs, text)

    return look


def show_run(path: Path) -> None:
    """Print the front, winner, cost and faults of a run, whether it is finished or not.

    Raises:
        UserError: it is not a run folder, or one of its files is damaged.
    """
    check_run_folder(path)
    with undamaged(path):
        _show_run(path)


def _show_run(path: Path) -> None:
    console = _Console()
    say = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    tables = [path / f"{name}.csv" for name in ("evaluations", "front", "timings")]
    evaluations = read(tables[0]) if all(table.exists() for table in tables) else pd.DataFrame()
    if evaluations.empty:
        say(f"{path}: no generation is finished yet; {_how_to_continue(path)}")
        return
    settings = yamlfile.read(path / "config.yaml")
    table, caption = front_table(path, settings, console.width)
    console.print(table)
    if caption:
        say(caption)
    if verdict := guessing.of_search(path):
        say(verdict)
    generations = evaluations["generation"].nunique()
    finals = (path / "finalists.csv").exists() and not recorded.outdated(path)
    if not finals and settings["finalists"]["top"]:
        limit = settings["stop"].get("generations")
        of = f" of {limit}" if limit else ""
        say(f"unfinished: stopped after generation {generations}{of}; {_how_to_continue(path)}")
    _print_winner(say, path)
    timings = read(path / "timings.csv")
    from_cache = timings.get("from_cache", pd.Series(False, timings.index)).astype(bool)
    trained = timings[~from_cache]
    how = SCORED.get(settings["evaluator"]["name"], "")  # else candidates are trained
    scored = int(trained["phase"].eq("search").sum()) if how else 0
    seconds = timedelta(seconds=round(trained["seconds"].sum()))
    parts = [
        f"{counted(len(evaluations), 'evaluation')} in {counted(generations, 'generation')}, "
        f"{int(evaluations['cached'].sum())} of them repeats",
        *([f"{scored} scored {how}"] if scored else []),
        f"{counted(len(trained) - scored, 'training')}, including finalists"
        if settings.get("data")
        else counted(len(trained), "measurement"),
        f"{seconds} of worker time",
        *(
            [f"{counted(from_cache.sum(), 'more training')} from the cache"]
            if from_cache.any()
            else []
        ),
    ]
    say(f"cost: {'; '.join(parts)}")
    infeasible = int((evaluations["status"] == "infeasible").sum())
    if infeasible:
        say(f"infeasible: {counted(infeasible, 'evaluation')} outside the constraints")
    if infeasible == len(evaluations):
        for constraint in settings["constraints"]:
            values = evaluations.get(constraint["name"], pd.Series(dtype=float)).dropna()
            if len(values):
                low, high = number(values.min()), number(values.max())
                name = constraint["name"]
                say(f"  no network satisfies the constraints; {name} ranged from {low} to {high}")
    say(f"faults: {_faults(trained)}")
    if not evaluations["deterministic"].all() or not _planned_deterministic(path):
        say("not reproducible: some rows depend on time or memory limits")
    if settings["stop"].get("seconds"):
        say("where the search ended depends on the clock (stop.seconds); no row does")


def _faults(trained: pd.DataFrame) -> str:
    failed = trained[trained["status"].isin(FAILURES)]
    if failed.empty:
        return "none"
    counts = failed["status"].value_counts()
    listed = ", ".join(f"{count} {status}" for status, count in counts.items())
    commonest = failed["message"].dropna().mode()
    return f"{listed}; most common: {commonest.iloc[0] if len(commonest) else '-'}"


def _how_to_continue(path: Path) -> str:
    """Return the command that continues a run, or that it is still running."""
    return "still running" if is_locked(path) else f"to continue: evonas resume {path}"


def show_training(path: Path) -> None:
    """Print the test result of a full training, or its progress.

    Raises:
        UserError: one of its files is damaged.
    """
    check_folder(path)
    with undamaged(path):
        _show_training(path)


def _show_training(path: Path) -> None:
    say = partial(_Console().print, soft_wrap=True, markup=False, highlight=False)
    settings = yamlfile.read(path / "training.yaml")
    if not (path / "result.csv").exists():
        curve = read(path / "curve.csv") if (path / "curve.csv").exists() else pd.DataFrame()
        shown = "val_error" in curve and curve["val_error"].notna().any()
        last = f", val error {curve['val_error'].iloc[-1]:.4f}" if shown else ""
        epochs = counted(settings["epochs"], "epoch")
        say(f"{path}: {len(curve)} of {epochs}{last}; {_how_to_continue(path)}")
        return
    row = read(path / "result.csv").iloc[0]
    say(f"{row['key']}, {row['genome']}, {row['params']:,} params, {row['flops']:,} flops")
    epochs, images = counted(row["epochs"], "epoch"), counted(row["train_images"], "image")
    say(f"  trained for {epochs} on {images}")
    say(
        f"  test accuracy {1 - row['test_error']:.4f} ± {row['test_error_se']:.4f} "
        f"(standard error, {counted(row['test_images'], 'image')})"
    )
    if verdict := guessing.of_training(path):
        say(f"  {verdict}")
    say(f"  weights: {path / 'weights.safetensors'}")


def show_estimate(name: str, estimate: Estimate) -> None:
    """Print what a run will cost."""
    say = partial(_Console().print, soft_wrap=True, markup=False, highlight=False)
    mean, low, high = estimate.seconds
    workers = counted(estimate.workers, "worker")
    generations = (
        "generations of up to"
        if estimate.generations is None
        else f"{counted(estimate.generations, 'generation')} of"
    )
    unit = "score" if estimate.scored else "training"
    finals = str(estimate.final_trainings)
    if estimate.scored:
        finals = counted(estimate.final_trainings, "training")
    say(
        f"{name}: at most {counted(estimate.trainings, unit)} in the search "
        f"({generations} {estimate.population}) and {finals} of finalists"
    )
    say(
        f"per {unit}: {mean:.3g} s ({low:.3g} to {high:.3g} s for "
        f"{counted(estimate.measured, 'network')}, timed for a few steps on {workers})"
    )
    if estimate.shared_seconds:
        shared = timedelta(seconds=round(estimate.shared_seconds))
        say(f"shared weights: {shared} of the search, single process")
    if estimate.pool_seconds:
        say(f"pool of the warm start: {timedelta(seconds=round(estimate.pool_seconds))}")
    search, last = estimate.search_time, estimate.final_time
    times = [str(timedelta(seconds=round(s))) for s in (search + last, search, last)]
    say(f"time: about {times[0]} (search {times[1]}, finalists {times[2]})")
    memory, each, gpu = (
        f"{size / 1e9:.1f} GB"
        for size in (estimate.memory, estimate.worker_memory, estimate.gpu_memory)
    )
    say(f"memory: about {memory} ({workers} x {each}, plus the main process)")
    if estimate.gpu_memory:
        say(f"GPU memory: about {gpu} per worker")


def show_genome(choice: Choice, facts: Facts) -> None:
    """Print the space, spelling, key and size of a genome, or its row of a table."""
    space, genome = choice.space, choice.genome
    console = _Console()
    dead = [
        f"{gene.name} {option}"
        for gene, live, option in zip(
            space.genes,
            space.live(genome),
            (space.choice(genome, i) for i in range(len(space.genes))),
            strict=True,
        )
        if not live and option != "none"
    ]
    more = len(dead) - DEAD
    how, where = facts.source
    rows = {
        "space": space.name,
        "genome": space.describe(genome),
        "genes": genome.text,
        **({"choices": space.named(genome)} if space.describe(genome) == genome.text else {}),
        "key": choice.key,
        "canonical": space.describe(space.canonical(genome)),
        "dead": ", ".join(dead[:DEAD]) + (f" and {more} more" if more > 0 else "") or "nothing",
        **{
            name: f"{value:,}" if isinstance(value, int) else f"{value:.7g}"
            for name, value in facts.values.items()
        },
        how: where,
    }
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        console.print(
            f"{name + ':':<{width}}{value}", markup=False, highlight=False, soft_wrap=True
        )


def _print_winner(say: Callable[[str], None], path: Path) -> None:
    settings = yamlfile.read(path / "config.yaml")
    if not (path / "finalists.csv").exists():
        later = "none yet; the finalists are trained when the search ends"
        expected = settings["finalists"]["top"]
        never = "none, since finalists.top is 0"
        if not settings.get("data") or settings["evaluator"]["name"] == "proxy":
            never = "none, since nothing was trained: the front is the result"
        say(f"winner: {later if expected else never}")
        return
    winner = recorded.winner(path)
    if winner is None:
        empty = read(path / "finalists.csv").empty
        reason = "no network is on the front" if empty else "all finalists failed"
        say(f"winner: none, since {reason}")
        return
    spread = next(name for name in map(str, winner.index) if name.endswith("_std"))
    first = spread.removesuffix("_std")
    budget = length(settings["finalists"].get("budget"))
    seeds = counted(winner["seeds"] - winner["failed"], "seed")
    if winner["failed"]:
        seeds += f" of {winner['seeds']} (the others failed)"
    spread_of = "" if pd.isna(winner[spread]) else f" ± {winner[spread]:.4f} (standard deviation)"
    of_now = "" if not recorded.outdated(path) else " of the last finals, before the search went on"
    text = _in_words(path, winner)
    say(f"winner{of_now}: {winner['key']}, {text}, {int(winner['params']):,} params")
    say(f"  {first} {winner[first]:.4f}{spread_of}, retrained with {seeds}{budget}")
    say(
        f"  test accuracy {1 - winner['test_error']:.4f} ± {winner['test_error_se']:.4f} "
        "(standard error), on images that the search has not seen"
    )
    if verdict := guessing.of_winner(path):
        say(f"  {verdict}")
    if comparison := begun.compared(path):
        say(f"  {comparison}")
    full = full_trainings(path)
    if winner["key"] in full.index:
        row = full.loc[winner["key"]]
        say(
            f"  in full, for {counted(int(row['epochs']), 'epoch')}: test accuracy "
            f"{1 - row['test_error']:.4f} ± {row['test_error_se']:.4f}"
        )
    say(f"  weights: {path / 'weights' / 'winner.safetensors'}")


def _in_words(path: Path, network: pd.Series[Any]) -> str:
    """Return a network as its space writes it, or by its choices where the space has no words."""
    text, described = str(network["genome"]), path / "space.json"
    if text != network.get("genes") or not described.exists():
        return text
    listed = json.loads(files.read(described))["genes"]
    space = SearchSpace("", tuple(Gene(gene["name"], tuple(gene["choices"])) for gene in listed))
    return space.named(space.genome(map(int, text.split("-"))))


def _planned_deterministic(path: Path) -> bool:
    return bool(environment(path).get("deterministic", True))
