"""What a run will cost, foreseen from a few measured steps."""

from __future__ import annotations

import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from evonas import registry
from evonas.config import Experiment, Stop, component_name
from evonas.core import (
    Budget,
    Candidate,
    Evaluation,
    Evaluator,
    SearchFailed,
    Status,
    UserError,
    violation,
)
from evonas.evaluators.pool import Workers
from evonas.jobs import machine
from evonas.jobs.search import Parts, build
from evonas.loop import describe, evolve, guarded

STEPS = (2, 12)  # of the two trainings whose difference tells what a step takes
LEAST = 6  # networks measured
REHEARSED = (10, 50)  # generations or candidates of a search, at which its rehearsal ends


@dataclass(frozen=True, slots=True)
class Estimate:
    """Trainings at most, since networks that come again are not trained again; times are means.

    The beginning of the search is rehearsed, with random numbers for answers. Where there are
    constraints, as many of all candidates are taken to meet them as do of the rehearsed; where
    generations differ in size, as with local search, each is taken to be as large as the largest.

    Attributes:
        generations: None where their sizes differ and candidates are what is counted.
        population: of a generation, the most.
        seconds: of one training of the search, in one of the workers: mean, least, most.
        final_seconds: of one training of a finalist, the mean.
        scored: whether candidates are scored with shared weights, and not trained; then trainings
            and seconds are those of scores.
        shared_seconds: of what is trained for all, a supernet or a relaxation, in the driver.
        worker_memory: of the worker that used most, bytes.
        gpu_memory: the same on its GPU; 0 without.
        measured: networks.
    """

    generations: int | None
    population: int
    trainings: int
    final_trainings: int
    workers: int
    seconds: tuple[float, float, float]
    final_seconds: float
    shared_seconds: float
    scored: bool
    worker_memory: int
    driver_memory: int
    gpu_memory: int
    measured: int

    @property
    def search_time(self) -> float:
        """Of the search, seconds."""
        return self.shared_seconds + self.trainings * self.seconds[0] / self.workers

    @property
    def final_time(self) -> float:
        """Of the finalists, seconds."""
        return math.ceil(self.final_trainings / self.workers) * self.final_seconds

    @property
    def memory(self) -> int:
        """Of all processes together, bytes; what they share is counted for each."""
        return self.workers * self.worker_memory + self.driver_memory


@dataclass(frozen=True, slots=True)
class Measured:
    """One short training in a worker."""

    ok: bool
    seconds: float
    memory: int
    gpu_memory: int
    message: str


def estimate(experiment: Experiment) -> Estimate:
    """Trains networks of the first generation for a few steps, as many at once as the run would.

    Raises:
        SearchFailed: no network could be trained.
    """
    parallel = machine.resolve(experiment.parallel)
    resolved = experiment.model_copy(update={"parallel": parallel})
    workers = int(parallel.workers)
    parts = build(resolved)
    if parts.data is None:
        name = component_name(experiment.evaluator)
        raise UserError(f"the evaluator {name} trains nothing, so there is nothing to estimate")
    relaxed = getattr(parts.strategy, "TRAINS", False)
    rehearsed = _drawn(parts) if relaxed else _rehearsed(experiment, parts)
    population = max(map(len, rehearsed))
    generations, asked_for = _foreseen(experiment.stop, rehearsed)
    shared_seconds, scoring = 0.0, None
    if relaxed:
        generations = asked_for = min(asked_for, parts.strategy.params.epochs)  # type: ignore[attr-defined]  # it has them
        shared_seconds += generations * parts.strategy.foreseen()  # type: ignore[attr-defined]
    if hasattr(parts.evaluator, "foreseen"):
        of_supernet, scoring = parts.evaluator.foreseen()
        shared_seconds += of_supernet
    asked = [candidate for generation in rehearsed for candidate in generation]
    feasible = [
        candidate
        for candidate in asked
        if not violation(parts.evaluator.cheap(candidate.genome), experiment.constraints)
    ]
    if not feasible:
        raise SearchFailed(f"none of the first {len(asked)} candidates meets the constraints")
    share = len(feasible) / len(asked)
    trainings = min(round(asked_for * share), parts.space.size)
    finals = min(experiment.finalists.top, trainings) * experiment.finalists.seeds

    # Of what scores candidates, what trains finalists is measured.
    trainer: Evaluator = getattr(parts.evaluator, "alone", parts.evaluator)
    sample = _spread(feasible, trainer, max(LEAST, 2 * workers))
    with tempfile.TemporaryDirectory(prefix="evonas-") as folder:
        trainer.prepare(Path(folder))
        pool = Workers(
            Path(folder) / "traces",
            workers,
            threads=parallel.threads,
            gpus=machine.visible(machine.gpus(parallel.device)),
        )
        try:
            warm_up = registry.load("evaluators", component_name(experiment.evaluator)).warm_up
            pool.warm(warm_up)
            _all_measured(pool, trainer, sample[:workers], STEPS[0])  # the data get there
            short, long = (_all_measured(pool, trainer, sample, n) for n in STEPS)
        except BrokenProcessPool as error:
            cause = describe(error.__cause__ or error)
            raise SearchFailed(f"a worker died, of a lack of memory perhaps: {cause}") from None
        finally:
            pool.close()
    pairs = [(a, b) for a, b in zip(short, long, strict=True) if a.ok and b.ok]
    if not pairs:
        raise SearchFailed(f"no network could be trained: {long[0].message}")
    epoch_steps = len(parts.data.train) // parts.evaluator.batch_size
    searched = [_seconds(a, b, experiment.budget, epoch_steps) for a, b in pairs]
    if scoring is not None:
        searched = [scoring]
    final_budget = experiment.finalists.budget or experiment.budget
    finalist = [_seconds(a, b, final_budget, epoch_steps) for a, b in pairs]
    return Estimate(
        generations=generations,
        population=population,
        trainings=trainings,
        final_trainings=finals,
        workers=workers,
        seconds=(statistics.fmean(searched), min(searched), max(searched)),
        final_seconds=statistics.fmean(finalist),
        shared_seconds=shared_seconds,
        scored=scoring is not None,
        worker_memory=max(each.memory for each in long),
        driver_memory=_memory(),
        gpu_memory=max(each.gpu_memory for each in long),
        measured=len(pairs),
    )


class _Rehearsal:
    """Random numbers for answers; what is known without training is true."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.metrics = evaluator.metrics
        self.cheap = evaluator.cheap

    def prepare(self, run_dir: Path) -> None: ...

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        drawn = np.random.default_rng(seed).random(len(self.metrics)).tolist()
        values = dict(zip(self.metrics, drawn, strict=True))
        return Evaluation(candidate, values | dict(self.cheap(candidate.genome)))


def _drawn(parts: Parts) -> list[list[Candidate]]:
    """Some candidates, drawn at random, each of a generation of its own: a relaxation's are known
    only once it is trained.
    """
    rng = np.random.default_rng(0)
    return [[Candidate(parts.space.canonical(parts.space.sample(rng)))] for _ in range(LEAST)]


def _rehearsed(experiment: Experiment, parts: Parts) -> list[list[Candidate]]:
    """The first generations of the search, were its answers random."""
    found: list[list[Candidate]] = []
    for generation in evolve(
        parts.strategy,
        _Rehearsal(parts.evaluator),
        space=parts.space,
        seed=experiment.seed,
        generations=experiment.stop.generations,
        evaluations=experiment.stop.evaluations,
        constraints=experiment.constraints,
    ):
        found.append([evaluation.candidate for evaluation in generation.evaluations])
        if len(found) >= REHEARSED[0] or sum(map(len, found)) >= REHEARSED[1]:
            break
    return found


def _foreseen(stop: Stop, rehearsed: Sequence[Sequence[Candidate]]) -> tuple[int | None, int]:
    """Generations and candidates that the stop allows at most; a generation begun is finished."""
    sizes = {len(generation) for generation in rehearsed}
    population = max(sizes)
    if len(sizes) == 1:
        limits = [stop.generations] if stop.generations else []
        limits += [math.ceil(stop.evaluations / population)] if stop.evaluations else []
        return min(limits), min(limits) * population
    limits = [stop.generations * population] if stop.generations else []
    limits += [stop.evaluations + population - 1] if stop.evaluations else []
    return None, min(limits)


def _spread(candidates: Sequence[Candidate], evaluator: Evaluator, count: int) -> list[Candidate]:
    """Some candidates, from the cheapest to the dearest, evenly."""
    by_cost = sorted(candidates, key=lambda c: evaluator.cheap(c.genome).get("flops", 0.0))
    places = np.linspace(0, len(by_cost) - 1, min(count, len(by_cost)))
    return [by_cost[round(place)] for place in places.tolist()]


def _all_measured(
    pool: Workers, evaluator: Evaluator, candidates: Sequence[Candidate], steps: int
) -> list[Measured]:
    # Each has a seed of its own, by which its weights are named: no two write the same file.
    futures = [
        pool.submit(_measured, evaluator, candidate, steps, seed)
        for seed, candidate in enumerate(candidates)
    ]
    return [future.result() for future in futures]


def _measured(evaluator: Evaluator, candidate: Candidate, steps: int, seed: int) -> Measured:
    """In a worker: a training of so many steps, and the most memory the process has had."""
    started = time.perf_counter()
    done = guarded(evaluator, replace(candidate, budget=Budget(steps=steps)), seed)
    seconds = time.perf_counter() - started
    gpu = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    ok = done.status in (Status.OK, Status.DIVERGED)  # at so few steps, it takes as long
    return Measured(ok, seconds, _memory(), gpu, done.message)


def _memory() -> int:
    """The most that this process has held, bytes.

    `ru_maxrss` alone does not say: on Linux a process begins with what its parent held.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _seconds(short: Measured, long: Measured, budget: Budget | None, epoch_steps: int) -> float:
    """Of a training under a budget: a line through two points, building and measuring included."""
    a_step = max(long.seconds - short.seconds, 0.0) / (STEPS[1] - STEPS[0])
    beside = max(short.seconds - STEPS[0] * a_step, 0.0)
    if budget is None:
        return beside
    if budget.seconds:
        return beside + budget.seconds
    steps = (budget.steps or 0) + (budget.epochs or 0) * epoch_steps
    return beside + steps * a_step
