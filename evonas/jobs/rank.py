"""Compares a supernet's scores of networks with the results of training each network alone."""

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

from evonas import config, files, registry
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
from evonas.experiment import Experiment, evaluator_of
from evonas.jobs import machine
from evonas.jobs.parts import Parts, build
from evonas.loop import Asked, Desk
from evonas.markdown import counted
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
MIN_NETWORKS = 3  # fewer have no order worth comparing
MAX_NETWORKS = 10_000  # 1000 resamples of them take seconds
TOP = 10  # networks at the head of either order, whose overlap is reported
RESAMPLES = 10_000
MAX_DRAWS = 10_000_000  # networks in all resamples together; they take seconds
BATCH_DRAWS = 1_000_000  # networks in memory at a time: tens of megabytes
MAX_STALE_DRAWS = 5000  # in a row, without a new network; then no more are drawn
MAX_ENUMERATED = 100_000  # genomes; a space of up to so many is enumerated if draws find no more

log = logging.getLogger("evonas")


@dataclass(frozen=True, slots=True)
class Statistic:
    """A measure of agreement and the 95 % interval of its bootstrap resamples; NaN if undefined."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A random sample of networks.

    Attributes:
        requested: the number of networks asked for.
        reason: why there are fewer, if there are.
    """

    requested: int
    genomes: tuple[Genome, ...]
    reason: str


class Ranking:
    """A sample of a run's networks and their results so far, opened by `opened`.

    Iterating evaluates what is missing, and `finish` writes the tables in `rank/`. The run's own
    tables and its supernet do not change.
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
        """Create a ranking with the results in its journal.

        Args:
            folder: the folder of its tables.
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
        """The number of results in the end: a score and a training of each network."""
        return 2 * len(self.genomes)

    def __iter__(self) -> Iterator[int]:
        """Evaluate what is missing; a kill costs only the evaluations under way.

        Yields:
            The number of results so far.

        Raises:
            SearchFailed: workers die before they start an evaluation.
        """
        batch = [self._asked(genome, alone) for alone in (False, True) for genome in self.genomes]
        before = sum(self.journal.get(asked.question) is not None for asked in batch)
        before -= self.journal.added
        for asked in batch:
            self._desk.put(asked)
        for asked in batch:
            weights = weights_left(self.folder.parent, self._desk.wait(asked))
            if weights is not None:
                files.remove(weights)
            yield before + self.journal.added
        self.journal.sync()

    def finish(self) -> str:
        """Write `networks.csv` and `summary.csv`, and return a summary in text.

        Raises:
            SearchFailed: fewer than 3 networks ended well.
        """
        rows = [self._row(genome) for genome in self.genomes]
        tables.write_table(self.folder / "networks.csv", rows, COLUMNS)
        files.remove(self.folder / "summary.csv")
        well = [row for row in rows if row["status"] == str(Status.OK)]
        failed = Counter(row["status"] for row in rows if row["status"] != str(Status.OK))
        failures = ", ".join(f"{status} {count}" for status, count in sorted(failed.items()))
        if len(well) < MIN_NETWORKS:
            raise SearchFailed(
                f"only {len(well)} of {counted(len(rows), 'network')} ended well, too few "
                f"to compare ({failures}); see {self.folder / 'log.txt'} for the reasons"
            )
        scores, errors = (
            np.array([row[name] for row in well], dtype=np.float64)
            for name in ("supernet_error", "alone_error")
        )
        statistics = agreement(
            scores, errors, derive_seed(self.experiment.seed, "rank", "resamples")
        )
        shared = {"n": len(well), "budget": self.budget.text}
        tables.write_table(
            self.folder / "summary.csv",
            [
                {"statistic": s.name, "value": s.value, "low": s.low, "high": s.high, **shared}
                for s in statistics
            ],
            SUMMARY,
        )
        lines = [
            f"{counted(len(well), 'network')}, drawn at random; each scored with shared weights, "
            f"and trained alone ({self.budget.text})"
        ]
        if len(rows) < self.sample.requested:
            lines.append(f"  --sample {self.sample.requested}: {self.sample.reason}")
        if failed:
            lines.append(f"  {failed.total()} more failed and are left out: {failures}")
        lines += [f"  {NAMES[s.name]}: {_interval(s)}" for s in statistics]
        return "\n".join([*lines, *_best(well)])

    def _asked(self, genome: Genome, alone: bool) -> Asked:
        budget = self.budget if alone else None
        return self._desk.question(Candidate(genome, origin="rank", budget=budget), "rank")

    def _row(self, genome: Genome) -> dict[str, Any]:
        score, alone = (self._answer(genome, each) for each in (False, True))
        failed = [e for e in (score, alone) if e.status is not Status.OK]
        for each in failed:
            log.warning("%s %s: %s", genome.text, each.status, each.message)
        values = {**score.values, **alone.values}
        return {
            "key": self.space.key(genome),
            "genome": self.space.describe(genome),
            "genes": genome.text,
            **{name: values.get(name) for name in ("params", "flops")},
            "supernet_error": _error(score),
            "alone_error": _error(alone),
            "status": str(failed[0].status if failed else Status.OK),
        }

    def _answer(self, genome: Genome, alone: bool) -> Evaluation:
        answer = self.journal.get(self._asked(genome, alone).question)
        assert answer is not None, "iterate over the ranking first"
        return answer


@contextmanager
def opened(
    run_dir: Path, count: int, *, epochs: int | None = None, workers: int | None = None
) -> Iterator[Ranking]:
    """Open a ranking in the folder `rank/` of a run, which is locked in the meantime.

    The run's own folder is not locked.

    Args:
        count: the number of networks to draw; a larger sample of a run contains a smaller one.
        epochs: how long each network is trained alone; by default, as long as a finalist.

    Raises:
        UserError: the run has no trained supernet or no budget, there are fewer than 3 networks,
            or another process uses the folder.
    """
    if not MIN_NETWORKS <= count <= MAX_NETWORKS:
        raise UserError(
            f"is {count}", hint=f"must be {MIN_NETWORKS} to {MAX_NETWORKS:,}", key="--sample"
        )
    experiment = _experiment(run_dir, workers)
    budget = _budget(experiment, epochs)
    folder = run_dir / "rank"
    files.make_folder(folder)
    with Hold(folder):
        parts = build(experiment)
        note_data(run_dir, parts.evaluator.fingerprint)
        if isinstance(parts.evaluator, Prepares):
            for _ in parts.evaluator.prepare(run_dir):  # already trained: this only loads its files
                pass
        seed = derive_seed(experiment.seed, "rank")
        genomes, reason = draw(
            parts.setting.space, count, seed, experiment.constraints, parts.evaluator.cheap
        )
        if len(genomes) < MIN_NETWORKS:
            raise UserError(
                reason, hint=f"a ranking needs at least {MIN_NETWORKS}", key=f"--sample {count}"
            )
        sample = Sample(count, tuple(genomes), reason)
        pool = machine.workers(folder / "scratch", experiment.parallel)
        with closing(Journal(folder / "journal")) as journal, closing(pool):
            yield Ranking(folder, experiment, budget, sample, parts, pool, journal)


def draw(
    space: SearchSpace,
    count: int,
    seed: int,
    constraints: Sequence[Constraint] = (),
    cheap: Callable[[Genome], Mapping[str, float]] = lambda _: {},
) -> tuple[list[Genome], str]:
    """Draw distinct networks that meet the constraints, by what is known without training.

    Genomes are drawn uniformly, so a network with many spellings is more likely to come early. If
    draws find no new network in a small space, all its genomes are tried in order.

    Returns:
        The canonical genomes, of which the first are those of a smaller count; and the reason why
        there are fewer than `count`, if there are.
    """
    rng = np.random.default_rng(seed)
    keys: set[str] = set()
    genomes: list[Genome] = []

    def is_new(genome: Genome) -> bool:
        key = space.key(genome)
        if key in keys:
            return False
        keys.add(key)
        canonical = space.canonical(genome)
        if constraints and violation(cheap(canonical), constraints) > 0:
            return False
        genomes.append(canonical)
        return True

    stale = 0
    while len(genomes) < count and stale < MAX_STALE_DRAWS:
        stale = 0 if is_new(space.sample(rng)) else stale + 1
    every = map(space.genome, itertools.product(*map(range, space.choices)))
    small = space.size <= MAX_ENUMERATED
    while small and len(genomes) < count and (genome := next(every, None)) is not None:
        is_new(genome)
    feasible = " that meet the constraints" if constraints else ""
    if small:
        return genomes, f"the space has only {counted(len(genomes), 'network')}{feasible}"
    return genomes, f"the last {MAX_STALE_DRAWS:,} draws found no further networks{feasible}"


def agreement(scores: Array, errors: Array, seed: int) -> list[Statistic]:
    """Return Kendall's tau-b and Spearman's rho of two measures of the same networks.

    The intervals are percentiles of 10,000 resamples of the networks with replacement (Efron,
    1979); of fewer if there are more than 1000 networks, down to 1000 for 10,000. Resamples in
    which all networks are tied do not count.

    Args:
        scores, errors: (n,) each, finite or infinite, with n at least 2.
        seed: the seed of the resamples, which are the same for both statistics.
    """
    return [_statistic(name, measure, scores, errors, seed) for name, measure in MEASURES.items()]


def _statistic(
    name: str, measure: Callable[..., Any], scores: Array, errors: Array, seed: int
) -> Statistic:
    def value(x: Array, y: Array, axis: int = -1) -> Any:
        return measure(x, y, axis=axis).statistic

    n = len(scores)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # if all are tied
        resampled = stats.bootstrap(
            (scores, errors),
            value,
            paired=True,
            method="percentile",
            n_resamples=min(RESAMPLES, MAX_DRAWS // n),
            batch=max(1, BATCH_DRAWS // n),
            rng=seed,
        ).bootstrap_distribution
        low, high = np.nanpercentile(resampled, [2.5, 97.5])  # scipy's interval is NaN if one is
        return Statistic(name, float(value(scores, errors)), float(low), float(high))


def _best(well: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield lines on the best network by score, and on the overlap of the best by both orders."""
    by_score, alone = (
        sorted(well, key=lambda row: (row[name], row["key"]))
        for name in ("supernet_error", "alone_error")
    )
    n, first = len(well), by_score[0]
    place = 1 + sum(row["alone_error"] < first["alone_error"] for row in well)
    yield (
        f"  best by score: {first['key']}, number {place} of {n} when trained alone, with an "
        f"error of {first['alone_error']:.4f}; the best has {alone[0]['alone_error']:.4f}"
    )
    top = TOP if n > TOP else max(n // 2, 1)
    both = len({r["key"] for r in by_score[:top]} & {r["key"] for r in alone[:top]})
    yield (
        f"  of the {top} best by score, {both} are among the {top} best when trained alone "
        f"({top * top / n:.1f} expected by chance)"
    )


def _interval(statistic: Statistic) -> str:
    if not math.isfinite(statistic.value):
        return "undefined, since all networks are tied"
    return f"{statistic.value:.3f} (95 % interval {statistic.low:.3f} to {statistic.high:.3f})"


def _error(evaluation: Evaluation) -> float | None:
    return evaluation.values.get("val_error") if evaluation.status is Status.OK else None


def _experiment(run_dir: Path, workers: int | None) -> Experiment:
    """Return the resolved experiment of a run whose supernet is trained."""
    check_run_folder(run_dir)
    overrides = [] if workers is None else [f"parallel.workers={workers}"]
    experiment = config.load_run(run_dir, [*config.HERE, *overrides])
    evaluator, params = evaluator_of(experiment)
    if Need.SUPERNET not in evaluator.needs:
        name = registry.name_of(experiment.evaluator)
        raise UserError(
            f"its evaluator {name} shares no weights",
            hint="give a run with the evaluator supernet",
            key=str(run_dir),
        )
    results = ["weights.safetensors"]
    if any(metric.timed for metric in evaluator.metrics_of(params)):
        results.append("latency.csv")
    if not all((run_dir / "supernet" / file).exists() for file in results):
        raise UserError(
            "its supernet is not fully trained",
            hint=f"run `evonas resume {run_dir}` first",
            key=str(run_dir),
        )
    return experiment.model_copy(update={"parallel": machine.resolve(experiment.parallel)})


def _budget(experiment: Experiment, epochs: int | None) -> Budget:
    budget = experiment.finalists.budget if epochs is None else Budget(epochs=epochs)
    if budget is None:
        raise UserError(
            "is missing, and the run has no finalists.budget",
            hint="give --epochs N",
            key="--epochs",
        )
    return budget
