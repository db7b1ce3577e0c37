"""What a supernet's scores are worth: whether they order networks as training each alone does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from evonas import config, machine, registry
from evonas.config import Experiment, component_name
from evonas.core import Budget, Candidate, Evaluation, Question, Status, UserError, derive_seed
from evonas.evaluators.parallel import Parallel
from evonas.evaluators.pool import Workers
from evonas.experiment import Parts, build
from evonas.loop import Desk
from evonas.pareto import Array
from evonas.records import files, tables
from evonas.records.folder import check_run_folder
from evonas.records.journal import Journal
from genomes import Genome

COLUMNS = ("key", "genome", "genes", "params", "flops", "supernet_error", "alone_error", "status")
SUMMARY = ("statistic", "value", "low", "high", "n", "budget")
RESAMPLES = 2000
LEAST = 3  # networks, of which an order can be told
TRIES = 200  # draws in a row without a new network, after which there are no more


@dataclass(frozen=True, slots=True)
class Statistic:
    """A measure of agreement, and where 95 % of its bootstrap resamples lie."""

    name: str
    value: float
    low: float
    high: float


class Ranking:
    """Networks drawn at random, each scored by a run's supernet and trained alone.

    A context manager: leaving it frees the folder and ends the workers. Iterating evaluates what
    is missing and yields how many answers there are; a kill costs what is in flight. The run's own
    tables stay as they are.

    Args:
        sample: how many networks; of the same run, a larger sample begins with a smaller.
        epochs: of a training; as long as finalists are trained, if not given.

    Raises:
        UserError: the run has no trained supernet, or nothing says how long to train.
    """

    def __init__(
        self, run_dir: Path, sample: int, *, epochs: int | None = None, workers: int | None = None
    ) -> None:
        self.run_dir = run_dir
        self.folder = run_dir / "rank"
        experiment = _experiment(run_dir)
        self.budget = _budget(experiment, epochs)
        parallel = experiment.parallel
        if workers is not None:
            parallel = parallel.model_copy(update={"workers": workers})
        parallel = machine.resolve(parallel)
        self.experiment = experiment.model_copy(update={"parallel": parallel})
        self.folder.mkdir(exist_ok=True)
        self._lock = files.lock(self.folder)
        self.parts: Parts = build(self.experiment)
        self.parts.evaluator.prepare(run_dir)
        self.workers = Workers(
            self.folder / "traces",
            int(parallel.workers),
            threads=parallel.threads,
            gpus=machine.visible(machine.gpus(parallel.device)),
        )
        self.journal = Journal(self.folder / "journal")
        self.genomes = self._drawn(sample)
        self._evaluations: list[tuple[Evaluation, Evaluation]] = []

    def __enter__(self) -> Ranking:
        return self

    def __exit__(self, *_: object) -> None:
        self.workers.close()
        self.journal.close()
        self._lock.close()

    @property
    def count(self) -> int:
        """How many answers there will be: a score and a training of each network."""
        return 2 * len(self.genomes)

    def __iter__(self) -> Iterator[int]:
        evaluator = Parallel(
            self.parts.evaluator, self.workers, timeout=self.experiment.parallel.timeout
        )
        desk = Desk(evaluator, self.parts.space, (), self.journal)
        asked = [
            (self._question(genome, budget), Candidate(genome, origin="rank", budget=budget))
            for budget in (None, self.budget)
            for genome in self.genomes
        ]
        for question, candidate in asked:
            desk.put(question, candidate)
        found = []
        for question, candidate in asked:
            found.append(desk.wait(question, candidate))
            weights = self.parts.evaluator.weights_file(candidate, question.seed)
            if weights is not None:
                weights.unlink(missing_ok=True)
            yield len(found)
        self.journal.sync()
        half = len(self.genomes)
        self._evaluations = list(zip(found[:half], found[half:], strict=True))

    def finish(self) -> str:
        """Writes `rank/networks.csv` and `rank/summary.csv`; what came out, as text.

        Raises:
            UserError: fewer than three networks ended well.
        """
        rows = [self._row(*pair) for pair in self._evaluations]
        tables.write_table(self.folder / "networks.csv", rows, COLUMNS)
        errors = np.array(
            [
                [row["supernet_error"], row["alone_error"]]
                for row in rows
                if row["status"] == str(Status.OK)
            ]
        ).reshape(-1, 2)
        if len(errors) < LEAST:
            raise UserError(
                f"{len(errors)} of {len(rows)} networks ended well; allowed: {LEAST} or more, "
                f"as {self.folder / 'networks.csv'} tells"
            )
        found = agreement(errors[:, 0], errors[:, 1], derive_seed(self.experiment.seed, "resample"))
        summary = [
            {
                "statistic": each.name,
                "value": each.value,
                "low": each.low,
                "high": each.high,
                "n": len(errors),
                "budget": self.budget.text,
            }
            for each in found
        ]
        tables.write_table(self.folder / "summary.csv", summary, SUMMARY)
        return "\n".join(_told(found, errors, len(rows), self.budget))

    def _question(self, genome: Genome, budget: Budget | None) -> Question:
        key = self.parts.space.key(genome)
        seed = derive_seed(self.experiment.seed, key, "rank")
        return Question(key, seed, budget.text if budget else "")

    def _drawn(self, sample: int) -> list[Genome]:
        """Canonical genomes of distinct networks that meet the constraints, drawn uniformly."""
        space, constraints = self.parts.space, self.experiment.constraints
        rng = np.random.default_rng(derive_seed(self.experiment.seed, "rank"))
        found: dict[str, Genome] = {}
        tries = 0
        while len(found) < sample and tries < TRIES:
            genome = space.canonical(space.sample(rng))
            cheap = self.parts.evaluator.cheap(genome) if constraints else {}
            key = space.key(genome)
            tries += 1
            if key not in found and not any(c.violation(cheap) for c in constraints):
                found[key] = genome
                tries = 0
        if len(found) < LEAST:
            raise UserError(
                f"--sample {sample}: {len(found)} networks; allowed: {LEAST} or more, in a space "
                "that has so many which meet the constraints"
            )
        return list(found.values())

    def _row(self, score: Evaluation, alone: Evaluation) -> dict[str, Any]:
        space, genome = self.parts.space, alone.candidate.genome
        failed = next((e for e in (score, alone) if e.status is not Status.OK), alone)
        return {
            "key": space.key(genome),
            "genome": space.describe(genome),
            "genes": genome.text,
            **{name: alone.values.get(name) for name in ("params", "flops")},
            "supernet_error": score.values.get("val_error"),
            "alone_error": alone.values.get("val_error"),
            "status": str(failed.status),
        }


def agreement(scores: Array, errors: Array, seed: int) -> list[Statistic]:
    """Kendall's tau-b and Spearman's rho between two measures of the same networks.

    The intervals are percentiles of resamples of the networks with replacement (Efron, 1979).

    Args:
        scores, errors: (n,) each.
        seed: of the resamples.
    """
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(scores), size=(RESAMPLES, len(scores)))
    found = []
    for name, measure in (("kendall_tau", stats.kendalltau), ("spearman", stats.spearmanr)):
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled = [
                float(measure(scores[p], errors[p]).statistic) for p in picks if _varies(p)
            ]
            value = float(measure(scores, errors).statistic)
        low, high = np.nanpercentile(resampled, [2.5, 97.5]).tolist()
        found.append(Statistic(name, value, low, high))
    return found


def _varies(picks: Array) -> bool:
    """Whether a resample has more than one network: of one alone there is no order."""
    return bool((picks != picks[0]).any())


def _told(found: Sequence[Statistic], errors: Array, asked: int, budget: Budget) -> Iterator[str]:
    n = len(errors)
    yield f"{n} networks scored with shared weights, and trained alone for {budget.text}"
    if n < asked:
        yield f"  {asked - n} more failed, and are left out"
    for each in found:
        yield (
            f"  {each.name.replace('_', ' ')}: {each.value:.3f} "
            f"(95% interval {each.low:.3f} to {each.high:.3f})"
        )
    by_score = np.lexsort((np.arange(n), errors[:, 0]))
    alone = errors[:, 1]
    place = 1 + int((alone < alone[by_score[0]]).sum())
    top = min(10, max(n // 4, 1))
    best = set(np.lexsort((np.arange(n), alone))[:top].tolist())
    shared = len(best & set(by_score[:top].tolist()))
    yield f"  the best by score is number {place} of {n} when trained alone"
    yield f"  of the {top} best by score, {shared} are among the {top} best trained alone"


def _experiment(run_dir: Path) -> Experiment:
    check_run_folder(run_dir)
    experiment = config.load(run_dir / "config.yaml")
    name = component_name(experiment.evaluator)
    if not hasattr(registry.load("evaluators", name), "OWN_BUDGET"):
        raise UserError(f"{run_dir}: its evaluator is {name}; allowed: a run of a supernet")
    if not (run_dir / "supernet" / "weights.safetensors").exists():
        raise UserError(
            f"{run_dir}: its supernet is not trained yet; allowed: evonas resume {run_dir}, first"
        )
    return experiment


def _budget(experiment: Experiment, epochs: int | None) -> Budget:
    if epochs is not None:
        return Budget(epochs=epochs)
    if experiment.finalists.budget is None:
        raise UserError(
            "--epochs: is missing, and the run has no finalists.budget; allowed: how many"
        )
    return experiment.finalists.budget
