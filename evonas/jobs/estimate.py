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
from evonas.config import Experiment
from evonas.core import (
    Budget,
    Candidate,
    Evaluation,
    SearchFailed,
    Status,
    Stop,
    UserError,
    violation,
)
from evonas.evaluators.pool import Workers
from evonas.jobs import machine
from evonas.jobs.parts import Parts, build, make_strategy
from evonas.loop import Desk, error_text, evolve, guarded
from evonas.protocols import Evaluator, Prepares, Shares, Strategy, TrainsByEpoch
from evonas.training.loop import warm_up

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
    epoch_steps: int
    message: str


def estimate(experiment: Experiment) -> Estimate:
    """Trains networks of the first generation for a few steps, as many at once as the run would.

    Raises:
        UserError: nothing is trained.
        SearchFailed: no network could be trained.
    """
    parallel = machine.resolve(experiment.parallel)
    resolved = experiment.model_copy(update={"parallel": parallel})
    parts = build(resolved)
    if parts.setting.training is None:
        name = registry.name_of(experiment.evaluator)
        raise UserError(f"the evaluator {name} trains nothing, so there is nothing to estimate")
    rehearsal = _rehearse(resolved, parts)
    # Finalists are trained by another evaluator than the one that scores with shared weights.
    trainer = parts.evaluator.alone if isinstance(parts.evaluator, Shares) else parts.evaluator
    times = _time_steps(resolved, trainer, rehearsal.feasible)
    return _estimated(resolved, rehearsal, times)


@dataclass(frozen=True, slots=True)
class _Rehearsal:
    """What the beginning of the search says about the rest of it.

    Attributes:
        generations, candidates: how many the whole search has at most.
        feasible: candidates asked for that meet the constraints, as far as is known untrained.
        share: how many of all do.
        shared_seconds: for what the driver trains.
        scoring_seconds: for scoring a candidate; None where candidates are trained.
    """

    generations: int | None
    population: int
    candidates: int
    feasible: list[Candidate]
    share: float
    networks: int
    shared_seconds: float
    scoring_seconds: float | None


def _rehearse(experiment: Experiment, parts: Parts) -> _Rehearsal:
    """Asks for the first candidates, with random numbers for answers."""
    strategy = make_strategy(experiment, parts.setting)
    by_epoch = isinstance(strategy, TrainsByEpoch)
    asked = _drawn(parts) if by_epoch else _first_generations(experiment, parts, strategy)
    generations, candidates = _foreseen(experiment.stop, asked)
    shared_seconds, scoring = 0.0, None
    if isinstance(strategy, TrainsByEpoch):
        generations = candidates = min(candidates, strategy.max_generations)
        shared_seconds += generations * strategy.seconds_per_epoch()
    if isinstance(parts.evaluator, Shares):
        of_supernet, scoring = parts.evaluator.seconds()
        shared_seconds += of_supernet
    everyone = [candidate for generation in asked for candidate in generation]
    feasible = [
        candidate
        for candidate in everyone
        if not violation(parts.evaluator.cheap(candidate.genome), experiment.constraints)
    ]
    if not feasible:
        raise SearchFailed(f"none of the first {len(everyone)} candidates meets the constraints")
    return _Rehearsal(
        generations,
        max(map(len, asked)),
        candidates,
        feasible,
        len(feasible) / len(everyone),
        parts.setting.space.size,
        shared_seconds,
        scoring,
    )


@dataclass(frozen=True, slots=True)
class _StepTimes:
    """Short and long trainings of the same networks, and what they show together."""

    pairs: list[tuple[Measured, Measured]]
    epoch_steps: int
    worker_memory: int
    gpu_memory: int

    def seconds(self, budget: Budget | None) -> list[float]:
        """What each training would take under a budget."""
        return [_seconds(short, long, budget, self.epoch_steps) for short, long in self.pairs]


def _time_steps(
    experiment: Experiment, trainer: Evaluator, candidates: Sequence[Candidate]
) -> _StepTimes:
    """Trains some candidates in workers, for few steps and for more."""
    workers = int(experiment.parallel.workers)
    sample = _evenly(candidates, trainer, max(LEAST, 2 * workers))
    with tempfile.TemporaryDirectory(prefix="evonas-") as folder:
        if isinstance(trainer, Prepares):
            for _ in trainer.prepare(Path(folder)):
                pass
        pool = machine.workers(Path(folder) / "traces", experiment.parallel)
        try:
            pool.warm(warm_up)
            _all_measured(pool, trainer, sample[:workers], STEPS[0])  # the data get there
            short, long = (_all_measured(pool, trainer, sample, n) for n in STEPS)
        except BrokenProcessPool as error:
            cause = error_text(error.__cause__ or error)
            raise SearchFailed(f"a worker died, possibly out of memory: {cause}") from None
        finally:
            pool.close()
    pairs = [(a, b) for a, b in zip(short, long, strict=True) if a.ok and b.ok]
    if not pairs:
        raise SearchFailed(f"no network could be trained: {long[0].message}")
    return _StepTimes(
        pairs,
        pairs[0][1].epoch_steps,
        max(each.memory for each in long),
        max(each.gpu_memory for each in long),
    )


def _estimated(experiment: Experiment, rehearsal: _Rehearsal, times: _StepTimes) -> Estimate:
    trainings = min(round(rehearsal.candidates * rehearsal.share), rehearsal.networks)
    scoring = rehearsal.scoring_seconds
    searched = times.seconds(experiment.budget) if scoring is None else [scoring]
    finalists = experiment.finalists
    return Estimate(
        generations=rehearsal.generations,
        population=rehearsal.population,
        trainings=trainings,
        final_trainings=min(finalists.top, trainings) * finalists.seeds,
        workers=int(experiment.parallel.workers),
        seconds=(statistics.fmean(searched), min(searched), max(searched)),
        final_seconds=statistics.fmean(times.seconds(finalists.budget or experiment.budget)),
        shared_seconds=rehearsal.shared_seconds,
        scored=scoring is not None,
        worker_memory=times.worker_memory,
        driver_memory=_memory(),
        gpu_memory=times.gpu_memory,
        measured=len(times.pairs),
    )


class _Understudy:
    """Answers with random numbers; what is known without training is true."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.metrics = evaluator.metrics
        self.fingerprint = evaluator.fingerprint
        self.cheap = evaluator.cheap

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        drawn = np.random.default_rng(seed).random(len(self.metrics)).tolist()
        names = [metric.name for metric in self.metrics]
        values = dict(zip(names, drawn, strict=True))
        return Evaluation(candidate, values | dict(self.cheap(candidate.genome)))


def _drawn(parts: Parts) -> list[list[Candidate]]:
    """Some candidates, drawn at random, each in a generation of its own: what a strategy that
    trains asks for is known only once it is trained.
    """
    rng, space = np.random.default_rng(0), parts.setting.space
    return [[Candidate(space.canonical(space.sample(rng)))] for _ in range(LEAST)]


def _first_generations(
    experiment: Experiment, parts: Parts, strategy: Strategy
) -> list[list[Candidate]]:
    """The first generations of the search, were its answers random."""
    desk = Desk(
        _Understudy(parts.evaluator),
        parts.setting.space,
        seed=experiment.seed,
        constraints=experiment.constraints,
    )
    generations: list[list[Candidate]] = []
    for generation in evolve(strategy, desk, stop=experiment.stop):
        generations.append([evaluation.candidate for evaluation in generation.evaluations])
        if len(generations) >= REHEARSED[0] or sum(map(len, generations)) >= REHEARSED[1]:
            break
    return generations


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


def _evenly(candidates: Sequence[Candidate], evaluator: Evaluator, count: int) -> list[Candidate]:
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
    epoch_steps = round(done.cost.steps / done.cost.epochs) if done.cost.epochs else 0
    return Measured(ok, seconds, _memory(), gpu, epoch_steps, done.message)


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
