"""The runs of a benchmark: each strategy with each seed, in processes, saved as they end."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from evonas import files, pareto, registry
from evonas.bench.spec import Bench
from evonas.consistency import check_warm_start
from evonas.core import Evaluation, Status, Stop, UserError, finite
from evonas.evaluators import pool
from evonas.evaluators.pool import Workers
from evonas.evaluators.tabular import Tabular
from evonas.experiment import strategy_of
from evonas.jobs.warm_start import Known, Pool
from evonas.loop import Desk, evolve
from evonas.pareto import Array, Losses
from evonas.protocols import Setting
from genomes import SearchSpace, Verbatim

CHUNK = 5  # seeds of a task, whose rows are written together
MIN_QUERIES = 100  # the fewest queries assumed when asks are limited under simulated seconds
TEXT = ("strategy", "trace")
_tables: dict[str, Table] = {}  # the tables that this process has read, by benchmark


@dataclass(frozen=True)
class Table:
    """A table as a benchmark uses it.

    Attributes:
        optimum: the best of the first objective, as a loss.
        scored: (m,), the metrics of the hypervolume.
        signs: (m,), 1 to minimise, -1 to maximise.
        exact: (k, m), the exact front in the scored metrics, as losses.
        reference: (m,), the reference point of the hypervolume, as losses.
        front: the hypervolume of the exact front.
    """

    space: SearchSpace
    evaluator: Tabular
    optimum: float
    scored: tuple[str, ...]
    signs: tuple[float, ...]
    exact: Losses
    reference: tuple[float, ...]
    front: float

    @property
    def filled(self) -> float:
        """The share that the exact front dominates of the box between its best values and the
        reference.
        """
        box = np.prod(np.array(self.reference) - self.exact.min(axis=0))
        return float(self.front / box) if box > 0 else 0.0


@dataclass(frozen=True)
class Run:
    """The result of one strategy with one seed.

    Attributes:
        trace: (k, 3), the changes of the best so far (with several objectives, of the share of the
            exact front's hypervolume): queries, simulated seconds, and the new value.
    """

    queries: int
    asks: int
    seconds: float
    best: float
    reported: dict[str, float]
    queries_to_optimum: int | None
    trace: list[tuple[int, float, float]]


def run_all(bench: Bench, folder: Path, workers: int) -> Iterator[int]:
    """Make the runs that `runs.csv` lacks, in order, and yield the number of its rows.

    Rows are written five seeds at a time, in order, so a kill costs the runs under way, and those
    that other workers have finished ahead of them.
    """
    path = folder / "runs.csv"
    finished = set(zip(*(read(path)[name] for name in ("strategy", "seed")), strict=True))
    if not finished:
        files.write_atomic(path, ",".join(columns(bench)) + "\n")
    chunks = []
    for label in bench.strategies:
        seeds = [seed for seed in range(bench.seeds) if (label, seed) not in finished]
        chunks += [(label, seeds[i : i + CHUNK]) for i in range(0, len(seeds), CHUNK)]
    count = len(finished)
    for rows in _made(bench, chunks, workers):
        frame = pd.DataFrame(rows, columns=columns(bench), dtype=object)
        text: str = frame.to_csv(index=False, header=False, lineterminator="\n")
        files.append(path, text.encode())
        count += len(rows)
        yield count


def read(path: Path) -> pd.DataFrame:
    """Read the runs of a file, and cut off a torn last line; without a file there are none."""
    if not path.exists() or not path.stat().st_size:
        return pd.DataFrame(columns=["strategy", "seed"])
    content = files.read(path)
    end = content.rfind(b"\n") + 1
    if end < len(content):
        files.cut(path, end)
    return pd.read_csv(io.BytesIO(content[:end]), dtype=dict.fromkeys(TEXT, "str"))


def columns(bench: Bench) -> list[str]:
    return [
        *("strategy", "seed", "queries", "asks", "simulated_seconds"),
        *("best", *bench.report, "queries_to_optimum", "trace"),
    ]


def read_table(bench: Bench) -> Table:
    """Read the table, and measure its exact front.

    Raises:
        UserError: it cannot be read.
    """
    space = registry.make_space(bench.space)
    evaluator = Tabular(bench.table, Setting(space, budget=bench.budget))
    signs = tuple(objective.sign for objective in bench.objectives)
    values = evaluator.rows.values
    kept = np.isfinite(np.column_stack(list(values.values()))).all(axis=1)
    if bench.distinct == "networks":  # each network is looked up by its canonical spelling
        for genes, place in evaluator.rows.places.items():
            genome = space.genome(genes)
            kept[place] &= space.canonical(genome) == genome
    if not kept.any():
        problem = "no row of the table has a value for each metric"
        raise UserError(problem, hint="drop a metric, or fill its cells", key="table.metrics")
    names = [objective.name for objective in bench.objectives]
    scored = tuple(bench.score.get(name, name) for name in names)
    losses = np.column_stack([values[name][kept] for name in scored]) * signs
    exact = losses[pareto.is_on_front(losses)]
    worst = (losses if bench.reference == "worst" else exact).max(axis=0)
    points = [objective.reference for objective in bench.objectives]
    reference = tuple(
        float(worst[i]) if point is None else signs[i] * point for i, point in enumerate(points)
    )
    front = pareto.hypervolume(exact, reference)
    optimum = float((signs[0] * values[names[0]][kept]).min())
    if bench.distinct == "genomes":
        space = Verbatim(space)
    return Table(space, evaluator, optimum, scored, signs, exact, reference, front)


def run(bench: Bench, table: Table, label: str, seed: int) -> Run:
    """Run one strategy with one seed, until the protocol ends it."""
    params, protocol = bench.strategies[label], bench.protocol
    kind, params = strategy_of(params)
    if label in bench.warm_start:
        warm_start, cheap = bench.warm_start[label], bench.table.cheap
        # Again, for a strategy of the user's, whose file may be imported by now.
        check_warm_start(warm_start, kind, cheap, f"warm_start.{label}")
        pool_desk = Desk(Known(table.evaluator), table.space, seed=seed)
        pool = Pool(warm_start, params, table.space, pool_desk)
        for _ in pool:
            pass
        params = pool.seeded()
    setting = Setting(table.space, bench.objectives, seed=seed, budget=bench.budget)
    strategy = kind(params, setting)
    watch = Watch(bench, table)
    desk = Desk(table.evaluator, table.space, seed=seed, budget=bench.budget)
    seconds = protocol.simulated_seconds
    stop = None if seconds is None else Stop(simulated_seconds=seconds)
    for generation in evolve(strategy, desk, stop=stop):
        for cached, evaluation in zip(generation.cached, generation.evaluations, strict=True):
            watch.see(evaluation, cached=cached)
            if watch.done:
                return watch.run()
    return watch.run()


class Watch:
    """Follows a run, and records its best so far.

    With several objectives, that is the share of the exact front's hypervolume of its archive: all
    that it has evaluated, of which `front` is what nothing else there dominates in the scored
    metrics, (n, m).
    """

    def __init__(self, bench: Bench, table: Table) -> None:
        self.bench = bench
        self.table = table
        self.names = [objective.name for objective in bench.objectives]
        self.scored = list(table.scored)
        self.queries = self.asks = 0
        self.seconds = 0.0
        self.best = float("inf")
        self.reported: dict[str, float] = {}
        self.hit: int | None = None
        self.front: Losses = np.zeros((0, len(self.names)))
        self.volume = 0.0
        self.trace: list[tuple[int, float, float]] = []

    @property
    def done(self) -> bool:
        """Whether all queries are made, the only objective is at the table's best, or the strategy
        keeps asking for the same genomes.
        """
        protocol = self.bench.protocol
        best = self.hit is not None and len(self.names) == 1
        limit = protocol.max_asks_per_query * (protocol.queries or max(self.queries, MIN_QUERIES))
        return best or self.asks >= limit or self.queries == protocol.queries

    def see(self, evaluation: Evaluation, *, cached: bool) -> None:
        self.asks += 1
        if cached:
            return
        values = evaluation.values
        self.queries += 1
        self.seconds += values.get("simulated_seconds", 0.0)
        if evaluation.status is not Status.OK or not finite(values, self.names + self.scored):
            return
        if evaluation.candidate.budget != self.bench.budget:
            return  # a shorter training, which no other arm's is to be compared with
        loss = self.table.signs[0] * values[self.names[0]]
        if loss < self.best:
            self.best = loss
            self.reported = {name: values[name] for name in self.bench.report}
            if self.best <= self.table.optimum:
                self.hit = self.queries
            if len(self.names) == 1:
                self._note(self.table.signs[0] * self.best)
        if len(self.names) > 1:
            self._archive(np.array([values[name] for name in self.scored]) * self.table.signs)

    def _archive(self, point: Array) -> None:
        if (self.front <= point).all(axis=1).any():
            return
        self.volume += pareto.hypervolume_gain(self.front, point, self.table.reference)
        self.front = np.vstack([self.front[~(point <= self.front).all(axis=1)], point])
        self._note(self.volume / self.table.front if self.table.front else 1.0)

    def _note(self, value: float) -> None:
        self.trace.append((self.queries, round(self.seconds, 3), value))

    def run(self) -> Run:
        best = self.table.signs[0] * self.best
        return Run(self.queries, self.asks, self.seconds, best, self.reported, self.hit, self.trace)


def _made(
    bench: Bench, chunks: Sequence[tuple[str, Sequence[int]]], count: int
) -> Iterator[list[dict[str, object]]]:
    """Yield the rows of each chunk, made by so many processes, or here by one."""
    calls = [(bench, label, seeds) for label, seeds in chunks]
    if count == 1:
        yield from (_rows(*call) for call in calls)
        return
    with (
        tempfile.TemporaryDirectory(prefix="evonas-") as folder,
        closing(Workers(Path(folder) / "traces", count)) as workers,
    ):
        yield from pool.results(workers, _rows, calls)


def _rows(bench: Bench, label: str, seeds: Sequence[int]) -> list[dict[str, object]]:
    """Make some runs, with the table that a process reads once."""
    key = bench.model_dump_json()
    if key not in _tables:
        _tables[key] = read_table(bench)
    rows: list[dict[str, object]] = []
    for seed in seeds:
        done = run(bench, _tables[key], label, seed)
        rows.append(
            {
                "strategy": label,
                "seed": seed,
                "queries": done.queries,
                "asks": done.asks,
                "simulated_seconds": round(done.seconds, 3),
                "best": done.best,
                **done.reported,
                "queries_to_optimum": done.queries_to_optimum,
                "trace": " ".join(f"{q}:{s!r}:{v!r}" for q, s, v in done.trace),
            }
        )
    return rows
