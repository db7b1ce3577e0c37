"""The time and memory that a run will take, estimated from a few timed steps."""

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
from typing import Self

import numpy as np
import torch

from evonas import registry
from evonas.consistency import NO_FINALISTS
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
from evonas.evaluators.proxy import ProxyEvaluator, ProxyParams
from evonas.experiment import Experiment, Finalists, ParallelParams, has_finalists
from evonas.jobs import machine, sharing
from evonas.jobs.hours import finals_in_time
from evonas.jobs.parts import Parts, build, make_strategy
from evonas.loop import Desk, error_text, evolve, guarded
from evonas.protocols import Evaluator, Prepares, Seeded, Shares, Strategy, TrainsByEpoch
from evonas.training.loop import warm_up

STEPS = (2, 12)  # in two trainings, whose difference gives the time of a step
MIN_NETWORKS = 6  # to measure, if the space has as many
MAX_GENERATIONS = 10  # of a rehearsal, which ends at the first of these limits
MAX_CANDIDATES = 50


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated time and memory of a run.

    The beginning of the search is rehearsed with random results. The share of candidates that meet
    the constraints is assumed to stay as in the rehearsal; generations of different sizes, as in a
    local search, are all assumed to be as large as the largest.

    Attributes:
        generations: the number of generations; None if their sizes differ.
        population: the size of the largest generation.
        trainings: the largest number of trainings in the search; a network that is asked about
            again is not trained again.
        final_trainings: the number of trainings of finalists.
        workers: the number of worker processes.
        seconds: the time of a training in the search, in one worker: mean, minimum, maximum.
        final_seconds: the mean time of a training of a finalist.
        shared_seconds: the time to train what all candidates share, a supernet or a relaxation, in
            the main process.
        pool_seconds: the time to rank the pool of a warm start.
        scored: whether candidates are scored, with shared weights or before any training, and not
            trained; then `trainings` and `seconds` refer to scores.
        worker_memory: the memory of the largest worker, in bytes.
        driver_memory: the memory of the main process, in bytes.
        gpu_memory: the memory of the largest worker on its GPU, in bytes; 0 without a GPU.
        measured: the number of networks measured.
    """

    generations: int | None
    population: int
    trainings: int
    final_trainings: int
    workers: int
    seconds: tuple[float, float, float]
    final_seconds: float
    shared_seconds: float
    pool_seconds: float
    scored: bool
    worker_memory: int
    driver_memory: int
    gpu_memory: int
    measured: int

    @property
    def search_time(self) -> float:
        """The time of the search, in seconds."""
        scoring = self.trainings * self.seconds[0] / self.workers
        return self.shared_seconds + self.pool_seconds + scoring

    @property
    def final_time(self) -> float:
        """The time of the finalists' trainings, in seconds."""
        return math.ceil(self.final_trainings / self.workers) * self.final_seconds

    @property
    def memory(self) -> int:
        """The memory of all processes in bytes; shared memory is counted for each of them."""
        return self.workers * self.worker_memory + self.driver_memory


@dataclass(frozen=True, slots=True)
class Measured:
    """A short training in a worker.

    Attributes:
        ok: whether it ended well.
        memory, gpu_memory: the largest use of memory, in bytes.
        epoch_steps: the number of steps in an epoch; 0 if the training failed.
        message: why it failed.
    """

    ok: bool
    seconds: float
    memory: int
    gpu_memory: int
    epoch_steps: int
    message: str


def estimate(experiment: Experiment) -> Estimate:
    """Estimate a run by training some of its first networks for a few steps.

    As many networks are trained at the same time as in a run on this machine.

    Raises:
        UserError: the run trains nothing.
        SearchFailed: no network could be trained.
    """
    parallel = machine.resolve(experiment.parallel.local)
    resolved = experiment.model_copy(update={"parallel": parallel})
    if parallel.device != "cpu" and parallel.per_device == "auto":
        resolved, _ = sharing.measured(resolved)
    parts = build(resolved)
    if parts.setting.training is None:
        name = registry.name_of(experiment.evaluator)
        raise UserError(
            f"the evaluator {name} does not train, so there is nothing to estimate",
            hint="start the search with `evonas run`",
        )
    rehearsal = _rehearse(resolved, parts)
    # Finalists are trained by another evaluator than the one that scores with shared weights.
    trainer = parts.evaluator.alone if isinstance(parts.evaluator, Shares) else parts.evaluator
    times = time_steps(resolved.parallel, trainer, rehearsal.feasible)
    pool = 0.0
    if resolved.warm_start is not None:
        names, size = resolved.warm_start.names, resolved.warm_start.pool
        scorer = ProxyEvaluator(ProxyParams(), parts.setting, names)
        scores = time_steps(resolved.parallel, scorer, rehearsal.feasible).seconds(None)
        pool = size * statistics.fmean(scores) / int(parallel.workers)
    return _estimated(resolved, rehearsal, times, pool)


@dataclass(frozen=True, slots=True)
class _Rehearsal:
    """The findings about a search from its beginning.

    Attributes:
        generations, candidates: the largest number of each in the whole search; None without one.
        population: the size of the largest generation.
        feasible: the candidates that meet the constraints, by what is known without training.
        share: the share of such candidates.
        networks: the number of genomes in the space.
        shared_seconds: the time of what the main process trains.
        scoring_seconds: the time to score a candidate; None if candidates are trained.
        trainings: what each of the candidates that meet the constraints trains, as a budget of its
            own; from a strategy such as `halving` these differ.
    """

    generations: int | None
    population: int
    candidates: int | None
    feasible: list[Candidate]
    share: float
    networks: int
    shared_seconds: float
    scoring_seconds: float | None
    trainings: list[Budget | None]


def _rehearse(experiment: Experiment, parts: Parts) -> _Rehearsal:
    """Ask for the first candidates of the search, with random results."""
    if not any(value for limit, value in experiment.stop if limit != "stagnation"):
        raise UserError(
            "cannot be foreseen", hint="give another limit as well", key="stop.stagnation"
        )
    strategy = make_strategy(experiment, parts.setting)
    by_epoch = isinstance(strategy, TrainsByEpoch)
    first = _sampled(parts) if by_epoch else first_generations(experiment, parts, strategy)
    generations, candidates = totals(experiment.stop, first)
    shared_seconds, scoring = 0.0, None
    if isinstance(strategy, TrainsByEpoch):
        per_epoch = strategy.seconds_per_epoch()
        most = [strategy.max_generations, *([] if candidates is None else [candidates])]
        if experiment.stop.seconds:
            most.append(math.ceil(experiment.stop.seconds / per_epoch))
        generations = candidates = min(most)
        shared_seconds += generations * per_epoch
    if isinstance(parts.evaluator, Shares):
        supernet_seconds, scoring = parts.evaluator.seconds()
        shared_seconds += supernet_seconds
    everyone = [candidate for generation in first for candidate in generation]
    feasible = [
        candidate
        for candidate in everyone
        if not violation(parts.evaluator.cheap(candidate.genome), experiment.constraints)
    ]
    if not feasible:
        raise SearchFailed(
            f"none of the first {len(everyone)} candidates meets the constraints; relax them"
        )
    return _Rehearsal(
        generations,
        max(map(len, first)),
        candidates,
        feasible,
        len(feasible) / len(everyone),
        parts.setting.space.size,
        shared_seconds,
        scoring,
        [_added(candidate, experiment.budget) for candidate in feasible],
    )


def _added(candidate: Candidate, default: Budget | None) -> Budget | None:
    """Return what a candidate trains beyond what it goes on from, as a budget."""
    budget = candidate.budget or default
    if budget is None or candidate.after is None:
        return budget
    return Budget.model_validate({budget.unit: budget.amount - candidate.after.amount})


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Short and long trainings of the same networks.

    Attributes:
        epoch_steps: the number of steps in an epoch.
        worker_memory, gpu_memory: the largest use of memory by a worker, in bytes.
    """

    pairs: list[tuple[Measured, Measured]]
    epoch_steps: int
    worker_memory: int
    gpu_memory: int

    @classmethod
    def of(cls, short: Sequence[Measured], long: Sequence[Measured]) -> Self:
        """Return the times of the networks that could be trained.

        Raises:
            SearchFailed: there is none.
        """
        pairs = [(a, b) for a, b in zip(short, long, strict=True) if a.ok and b.ok]
        if not pairs:
            raise SearchFailed(f"no network could be trained: {long[0].message}")
        return cls(
            pairs,
            pairs[0][1].epoch_steps,
            max(each.memory for each in long),
            max(each.gpu_memory for each in long),
        )

    def seconds(self, budget: Budget | None) -> list[float]:
        """Return the time of each network's training under a budget."""
        return [_seconds(short, long, budget, self.epoch_steps) for short, long in self.pairs]

    def of_all(self, trainings: Sequence[Budget | None]) -> list[float]:
        """Return the time of each network's training under each of some budgets."""
        return [seconds for budget in trainings for seconds in self.seconds(budget)]


def time_steps(
    settings: ParallelParams, trainer: Evaluator, candidates: Sequence[Candidate]
) -> StepTimes:
    """Train some candidates in workers, for a few steps and for some more.

    Args:
        settings: the hardware, resolved.

    Raises:
        SearchFailed: a worker died, or no network could be trained.
    """
    workers = int(settings.workers)
    sample = _evenly(candidates, trainer, max(MIN_NETWORKS, 2 * workers))
    with tempfile.TemporaryDirectory(prefix="evonas-") as folder:
        if isinstance(trainer, Prepares):
            for _ in trainer.prepare(Path(folder)):
                pass
        pool = machine.workers(Path(folder) / "traces", settings)
        try:
            pool.warm(warm_up)
            _all_measured(pool, trainer, sample[:workers], STEPS[0])  # sends the data
            short, long = (_all_measured(pool, trainer, sample, n) for n in STEPS)
        except BrokenProcessPool as error:
            cause = error_text(error.__cause__ or error)
            raise SearchFailed(
                f"a worker died, possibly out of memory: {cause}; "
                "use fewer workers or smaller batches"
            ) from None
        finally:
            pool.close()
    return StepTimes.of(short, long)


def time_steps_here(trainer: Evaluator, candidates: Sequence[Candidate]) -> StepTimes:
    """As `time_steps`, but in this process, one candidate after the other."""
    _measured(trainer, candidates[0], STEPS[0], 0)  # the first steps of a process take longer
    short, long = (
        [_measured(trainer, candidate, n, seed) for seed, candidate in enumerate(candidates)]
        for n in STEPS
    )
    return StepTimes.of(short, long)


def _estimated(
    experiment: Experiment, rehearsal: _Rehearsal, times: StepTimes, pool_seconds: float
) -> Estimate:
    scoring = rehearsal.scoring_seconds
    seconds = times.of_all(rehearsal.trainings) if scoring is None else [scoring]
    finalists, limit = experiment.finalists, experiment.stop.seconds
    if not has_finalists(experiment):
        finalists = NO_FINALISTS
    workers = int(experiment.parallel.workers)
    # A network is trained once under each budget.
    trainings = rehearsal.networks * len({budget and budget.text for budget in rehearsal.trainings})
    if rehearsal.candidates is not None:
        trainings = min(round(rehearsal.candidates * rehearsal.share), trainings)
    generations = rehearsal.generations
    if limit is not None:
        left = max(limit - rehearsal.shared_seconds - pool_seconds, 0.0)
        in_time = rehearsal.population + math.ceil(left / statistics.fmean(seconds) * workers)
        if in_time < trainings:
            generations, trainings = None, in_time
    networks = _finalists(experiment, finalists, trainings)
    if experiment.hours is not None and finalists.budget is None:
        finalists = finals_in_time(
            finalists,
            networks,
            experiment.hours,
            experiment.stop.seconds or 0.0,
            workers=workers,
            usual=statistics.fmean(seconds),
            beside=statistics.fmean(times.seconds(None)),
            timeout=experiment.parallel.timeout,
        )
    return Estimate(
        generations=generations,
        population=rehearsal.population,
        trainings=trainings,
        final_trainings=networks * finalists.seeds,
        workers=workers,
        seconds=(statistics.fmean(seconds), min(seconds), max(seconds)),
        final_seconds=statistics.fmean(times.seconds(finalists.budget or experiment.budget)),
        shared_seconds=rehearsal.shared_seconds,
        pool_seconds=pool_seconds,
        scored=scoring is not None or experiment.budget is None,
        worker_memory=times.worker_memory,
        driver_memory=_memory(),
        gpu_memory=times.gpu_memory,
        measured=len(times.pairs),
    )


class _RandomResults:
    """An evaluator of random results; only values that are known without training are real."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.metrics = evaluator.metrics
        self.fingerprint = evaluator.fingerprint
        self.cheap = evaluator.cheap

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        rng = np.random.default_rng(seed)
        values = {metric.name: rng.random() for metric in self.metrics}
        return Evaluation(candidate, values | dict(self.cheap(candidate.genome)))


def _finalists(experiment: Experiment, finalists: Finalists, trainings: int) -> int:
    """Return the largest number of finalists; the best seed may come to the others."""
    strategy = experiment.strategy
    seeded = finalists.best_seed and isinstance(strategy, Seeded) and bool(strategy.seeds)
    return min(finalists.top + (seeded and finalists.top > 0), trainings)


def _sampled(parts: Parts) -> list[list[Candidate]]:
    """Return random candidates, each in its own generation, for a strategy that trains.

    What such a strategy would ask for is not known before its training.
    """
    rng, space = np.random.default_rng(0), parts.setting.space
    return [[Candidate(space.canonical(space.sample(rng)))] for _ in range(MIN_NETWORKS)]


def first_generations(
    experiment: Experiment, parts: Parts, strategy: Strategy
) -> list[list[Candidate]]:
    """Return the candidates of the first generations, as they are with random results."""
    desk = Desk(
        _RandomResults(parts.evaluator),
        parts.setting.space,
        seed=experiment.seed,
        constraints=experiment.constraints,
    )
    generations: list[list[Candidate]] = []
    for generation in evolve(strategy, desk, stop=experiment.stop):
        generations.append([evaluation.candidate for evaluation in generation.evaluations])
        if len(generations) >= MAX_GENERATIONS or sum(map(len, generations)) >= MAX_CANDIDATES:
            break
    return generations


def totals(stop: Stop, first: Sequence[Sequence[Candidate]]) -> tuple[int | None, int | None]:
    """Return the largest numbers of generations and candidates; the last generation is finished.

    A limit in seconds, or on stagnation, says nothing about them.

    Args:
        first: the first generations, which show how large generations are.
    """
    sizes = {len(generation) for generation in first}
    population = max(sizes)
    candidates = [count for count in (stop.evaluations, stop.networks) if count]
    if len(sizes) == 1:
        limits = [stop.generations] if stop.generations else []
        limits += [math.ceil(count / population) for count in candidates]
        return (min(limits), min(limits) * population) if limits else (None, None)
    limits = [stop.generations * population] if stop.generations else []
    limits += [count + population - 1 for count in candidates]
    return None, min(limits, default=None)


def _evenly(candidates: Sequence[Candidate], evaluator: Evaluator, count: int) -> list[Candidate]:
    """Return `count` candidates, spread evenly from the cheapest to the most expensive."""
    by_cost = sorted(candidates, key=lambda c: evaluator.cheap(c.genome).get("flops", 0.0))
    places = np.linspace(0, len(by_cost) - 1, min(count, len(by_cost)))
    return [by_cost[round(place)] for place in places.tolist()]


def _all_measured(
    pool: Workers, evaluator: Evaluator, candidates: Sequence[Candidate], steps: int
) -> list[Measured]:
    # Weights are named after the seed, so different seeds keep workers from writing the same file.
    futures = [
        pool.submit(_measured, evaluator, candidate, steps, seed)
        for seed, candidate in enumerate(candidates)
    ]
    return [future.result() for future in futures]


def _measured(evaluator: Evaluator, candidate: Candidate, steps: int, seed: int) -> Measured:
    """Train for some steps, in a worker, and measure time and memory."""
    started = time.perf_counter()
    evaluation = guarded(evaluator, replace(candidate, budget=Budget(steps=steps)), seed)
    seconds = time.perf_counter() - started
    gpu = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    ok = evaluation.status in (Status.OK, Status.DIVERGED)  # which takes as long in a few steps
    cost = evaluation.cost
    epoch_steps = round(cost.steps / cost.epochs) if cost.epochs else 0
    return Measured(ok, seconds, _memory(), gpu, epoch_steps, evaluation.message)


def _memory() -> int:
    """Return the largest memory use of this process so far, in bytes.

    On Linux `ru_maxrss` does not do: a process starts with its parent's value.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _seconds(short: Measured, long: Measured, budget: Budget | None, epoch_steps: int) -> float:
    """Return the seconds of a training under a budget, with building and measuring the network.

    They are extrapolated linearly from two trainings of the network.
    """
    per_step = max(long.seconds - short.seconds, 0.0) / (STEPS[1] - STEPS[0])
    fixed = max(short.seconds - STEPS[0] * per_step, 0.0)
    if budget is None:
        return fixed
    if budget.seconds:
        return fixed + budget.seconds
    steps = (budget.steps or 0) + (budget.epochs or 0) * epoch_steps
    return fixed + steps * per_step
