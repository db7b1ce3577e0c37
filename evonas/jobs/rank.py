"""What a supernet's scores are worth: whether they order networks as training each alone does."""

from __future__ import annotations

import itertools
import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from evonas import config, registry
from evonas.config import Experiment
from evonas.core import (
    Budget,
    Candidate,
    Constraint,
    Evaluation,
    SearchFailed,
    Status,
    UserError,
    derive_seed,
    violation,
)
from evonas.evaluators.parallel import InWorkers
from evonas.evaluators.pool import Workers
from evonas.jobs import machine
from evonas.jobs.parts import Parts, build
from evonas.loop import Asked, Desk
from evonas.pareto import Array
from evonas.protocols import Need, Prepares
from evonas.records import tables
from evonas.records.files import weights_left
from evonas.records.folder import Hold, check_run_folder, note_data
from evonas.records.journal import Journal
from genomes import Genome, SearchSpace

COLUMNS = ("key", "genome", "genes", "params", "flops", "supernet_error", "alone_error", "status")
SUMMARY = ("statistic", "value", "low", "high", "n", "budget")
NAMES = {"kendall_tau": "Kendall's tau", "spearman": "Spearman's rho"}
MEASURES = {"kendall_tau": stats.kendalltau, "spearman": stats.spearmanrho}
LEAST = 3  # networks, of which an order can be told
MOST = 10_000  # of which 1000 resamples are drawn, in seconds
TOP = 10  # of either order, whose overlap is told
RESAMPLES = 10_000
DRAWS = 10_000_000  # networks in all resamples at most: seconds
AT_ONCE = 1_000_000  # networks in resamples held in memory: tens of megabytes
STALE = 5000  # draws in a row without a new network, after which no more are drawn
ENUMERABLE = 100_000  # genomes of a space that are all looked at, where draws find no more

log = logging.getLogger("evonas")


@dataclass(frozen=True, slots=True)
class Statistic:
    """A measure of agreement, and where 95 % of its bootstrap resamples lie; NaN if undefined."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Networks that were drawn.

    Attributes:
        wanted: how many there should be.
        fewer: why there are fewer, where there are.
    """

    wanted: int
    genomes: tuple[Genome, ...]
    fewer: str


class Ranking:
    """A sample of a run's networks, with the answers so far; `opened` makes one.

    Iterating answers what is missing, and `finish` writes the tables in `rank/`. The run's own
    tables, and its supernet, stay as they are.
    """

    def __init__(
        self,
        folder: Path,
        experiment: Experiment,
        budget: Budget,
        sample: Sample,
        parts: Parts,
        workers: Workers,
        journal: Journal,
    ) -> None:
        """A ranking as far as its journal has the answers.

        Args:
            folder: where its tables go.
            budget: how long each network is trained alone.
        """
        self.folder = folder
        self.experiment = experiment
        self.budget = budget
        self.sample = sample
        self.genomes = sample.genomes
        self.space = parts.setting.space
        self.journal = journal
        self._desk = Desk(
            parts.evaluator,
            self.space,
            seed=experiment.seed,
            answers=journal,
            dispatcher=InWorkers(parts.evaluator, workers, timeout=experiment.parallel.timeout),
        )

    @property
    def count(self) -> int:
        """How many answers there will be: a score and a training of each network."""
        return 2 * len(self.genomes)

    def __iter__(self) -> Iterator[int]:
        """Answers what is missing; a kill costs what is in flight.

        Yields:
            How many answers there are.

        Raises:
            SearchFailed: no worker lives long enough to begin anything.
        """
        batch = [self._asked(genome, alone) for alone in (False, True) for genome in self.genomes]
        before = sum(self.journal.get(asked.question) is not None for asked in batch)
        before -= self.journal.added
        for asked in batch:
            self._desk.put(asked)
        for asked in batch:
            weights = weights_left(self.folder.parent, self._desk.wait(asked))
            if weights is not None:
                weights.unlink(missing_ok=True)
            yield before + self.journal.added
        self.journal.sync()

    def finish(self) -> str:
        """Writes `networks.csv` and `summary.csv`, and says what came out.

        Raises:
            SearchFailed: fewer than 3 networks ended well.
        """
        rows = [self._row(genome) for genome in self.genomes]
        tables.write_table(self.folder / "networks.csv", rows, COLUMNS)
        (self.folder / "summary.csv").unlink(missing_ok=True)
        well = [row for row in rows if row["status"] == str(Status.OK)]
        failed = Counter(row["status"] for row in rows if row["status"] != str(Status.OK))
        told = ", ".join(f"{status} {count}" for status, count in sorted(failed.items()))
        if len(well) < LEAST:
            raise SearchFailed(
                f"{len(well)} of {len(rows)} networks ended well, which is too few to tell an "
                f"order ({told}); {self.folder / 'log.txt'} has the reasons"
            )
        scores, errors = (
            np.array([row[name] for row in well], dtype=np.float64)
            for name in ("supernet_error", "alone_error")
        )
        found = agreement(scores, errors, derive_seed(self.experiment.seed, "rank", "resamples"))
        shared = {"n": len(well), "budget": self.budget.text}
        tables.write_table(
            self.folder / "summary.csv",
            [
                {"statistic": s.name, "value": s.value, "low": s.low, "high": s.high, **shared}
                for s in found
            ],
            SUMMARY,
        )
        lines = [
            f"{len(well)} networks, drawn at random; each scored with shared weights, "
            f"and trained alone ({self.budget.text})"
        ]
        if len(rows) < self.sample.wanted:
            lines.append(f"  --sample {self.sample.wanted}: {self.sample.fewer}")
        if failed:
            lines.append(f"  {failed.total()} more failed, and are left out: {told}")
        lines += [f"  {NAMES[s.name]}: {_interval(s)}" for s in found]
        return "\n".join([*lines, *_best(well)])

    def _asked(self, genome: Genome, alone: bool) -> Asked:
        budget = self.budget if alone else None
        return self._desk.question(Candidate(genome, origin="rank", budget=budget), "rank")

    def _row(self, genome: Genome) -> dict[str, Any]:
        score, alone = (self._answer(genome, each) for each in (False, True))
        failed = [e for e in (score, alone) if e.status is not Status.OK]
        for each in failed:
            log.warning("%s %s: %s", genome.text, each.status, each.message)
        known = {**score.values, **alone.values}
        return {
            "key": self.space.key(genome),
            "genome": self.space.describe(genome),
            "genes": genome.text,
            **{name: known.get(name) for name in ("params", "flops")},
            "supernet_error": _error(score),
            "alone_error": _error(alone),
            "status": str(failed[0].status if failed else Status.OK),
        }

    def _answer(self, genome: Genome, alone: bool) -> Evaluation:
        answer = self.journal.get(self._asked(genome, alone).question)
        assert answer is not None, "iterate first"
        return answer


@contextmanager
def opened(
    run_dir: Path, count: int, *, epochs: int | None = None, workers: int | None = None
) -> Iterator[Ranking]:
    """A ranking in `rank/` of a run folder, which is held meanwhile; the run's own is not.

    Args:
        count: how many networks to draw; a larger sample of the same run begins with a smaller.
        epochs: of a training alone; as long as a finalist's, if not given.

    Raises:
        UserError: the run has no trained supernet, nothing says how long to train, there are
            fewer than 3 networks, or another process has the folder.
    """
    if not LEAST <= count <= MOST:
        raise UserError(f"--sample: is {count}; allowed: {LEAST} to {MOST:,}")
    experiment = _experiment(run_dir, workers)
    budget = _budget(experiment, epochs)
    folder = run_dir / "rank"
    folder.mkdir(exist_ok=True)
    with Hold(folder):
        parts = build(experiment)
        note_data(run_dir, parts.evaluator.fingerprint)
        if isinstance(parts.evaluator, Prepares):
            for _ in parts.evaluator.prepare(run_dir):  # trained already: loads what it measured
                pass
        seed = derive_seed(experiment.seed, "rank")
        genomes, fewer = drawn(
            parts.setting.space, count, seed, experiment.constraints, parts.evaluator.cheap
        )
        if len(genomes) < LEAST:
            raise UserError(f"--sample {count}: {fewer}; allowed: {LEAST} or more")
        sample = Sample(count, tuple(genomes), fewer)
        pool = machine.workers(folder / "scratch", experiment.parallel)
        with closing(Journal(folder / "journal")) as journal, closing(pool):
            yield Ranking(folder, experiment, budget, sample, parts, pool, journal)


def drawn(
    space: SearchSpace,
    count: int,
    seed: int,
    constraints: Sequence[Constraint] = (),
    cheap: Callable[[Genome], Mapping[str, float]] = lambda _: {},
) -> tuple[list[Genome], str]:
    """Canonical genomes of distinct networks that constraints allow, by what is known untrained.

    Genomes are drawn uniformly, so that a network with many spellings comes sooner. Where draws
    find no more in a small space, it is gone through from its first genome on.

    Returns:
        The genomes, of which the first are those of a smaller count; and why there are too few.
    """
    rng = np.random.default_rng(seed)
    seen: set[str] = set()
    found: list[Genome] = []

    def is_new(genome: Genome) -> bool:
        key = space.key(genome)
        if key in seen:
            return False
        seen.add(key)
        canonical = space.canonical(genome)
        if constraints and violation(cheap(canonical), constraints) > 0:
            return False
        found.append(canonical)
        return True

    stale = 0
    while len(found) < count and stale < STALE:
        stale = 0 if is_new(space.sample(rng)) else stale + 1
    every = map(space.genome, itertools.product(*map(range, space.choices)))
    small = space.size <= ENUMERABLE
    while small and len(found) < count and (genome := next(every, None)) is not None:
        is_new(genome)
    allowed = " that the constraints allow" if constraints else ""
    if small:
        return found, f"the space has {len(found)} networks{allowed}"
    return found, f"{STALE:,} draws in a row gave no new network{allowed}"


def agreement(scores: Array, errors: Array, seed: int) -> list[Statistic]:
    """Gives Kendall's tau-b and Spearman's rho of two measures of the same networks.

    The intervals are percentiles of 10,000 resamples of the networks with replacement (Efron,
    1979); of fewer where there are more than 1000 networks, 1000 at 10,000. Resamples in which all
    networks are tied do not count.

    Args:
        scores, errors: (n,) each, finite or infinite, n of 2 at least.
        seed: seeds the resamples, which are the same for both statistics.
    """
    return [_statistic(name, measure, scores, errors, seed) for name, measure in MEASURES.items()]


def _statistic(
    name: str, measure: Callable[..., Any], scores: Array, errors: Array, seed: int
) -> Statistic:
    def value(x: Array, y: Array, axis: int = -1) -> Any:
        return measure(x, y, axis=axis).statistic

    n = len(scores)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all are tied
        resampled = stats.bootstrap(
            (scores, errors),
            value,
            paired=True,
            method="percentile",
            n_resamples=min(RESAMPLES, DRAWS // n),
            batch=max(1, AT_ONCE // n),
            rng=seed,
        ).bootstrap_distribution
        low, high = np.nanpercentile(resampled, [2.5, 97.5])  # scipy's interval is NaN if any is
        return Statistic(name, float(value(scores, errors)), float(low), float(high))


def _best(well: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What the best by score comes to, and how far both orders agree on the best."""
    by_score, alone = (
        sorted(well, key=lambda row: (row[name], row["key"]))
        for name in ("supernet_error", "alone_error")
    )
    n, first = len(well), by_score[0]
    place = 1 + sum(row["alone_error"] < first["alone_error"] for row in well)
    yield (
        f"  best by score: {first['key']}, number {place} of {n} when trained alone: "
        f"error {first['alone_error']:.4f}; the best has {alone[0]['alone_error']:.4f}"
    )
    top = TOP if n > TOP else max(n // 2, 1)
    both = len({r["key"] for r in by_score[:top]} & {r["key"] for r in alone[:top]})
    yield (
        f"  of the {top} best by score, {both} are among the {top} best trained alone "
        f"({top * top / n:.1f} by chance)"
    )


def _interval(statistic: Statistic) -> str:
    if not math.isfinite(statistic.value):
        return "undefined, since all are tied"
    return f"{statistic.value:.3f} (95 % interval {statistic.low:.3f} to {statistic.high:.3f})"


def _error(evaluation: Evaluation) -> float | None:
    return evaluation.values.get("val_error") if evaluation.status is Status.OK else None


def _experiment(run_dir: Path, workers: int | None) -> Experiment:
    """A run's, if its supernet is trained, with the machine's part decided."""
    check_run_folder(run_dir)
    overrides = [] if workers is None else [f"parallel.workers={workers}"]
    experiment = config.load(run_dir / "config.yaml", overrides)
    evaluator, params = config.evaluator_of(experiment)
    if Need.SUPERNET not in evaluator.needs:
        name = registry.name_of(experiment.evaluator)
        raise UserError(
            f"{run_dir}: its evaluator {name} shares no weights",
            hint="name a run with the evaluator supernet",
        )
    results = ["weights.safetensors"]
    if any(metric.timed for metric in evaluator.metrics_of(params)):
        results.append("latency.csv")
    if not all((run_dir / "supernet" / file).exists() for file in results):
        raise UserError(
            f"{run_dir}: its supernet is not fully trained",
            hint=f"run `evonas resume {run_dir}` first",
        )
    decided = machine.resolve(experiment.parallel)
    return experiment.model_copy(update={"parallel": decided})


def _budget(experiment: Experiment, epochs: int | None) -> Budget:
    budget = experiment.finalists.budget if epochs is None else Budget(epochs=epochs)
    if budget is None:
        raise UserError(
            "--epochs: is missing, and the run has no finalists.budget to train with; "
            "allowed: --epochs E"
        )
    return budget
