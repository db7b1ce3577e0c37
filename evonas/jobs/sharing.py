"""How many processes share a GPU, found by training networks in 1, 2, 4 and 8 of them at once."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

from evonas.core import Budget, Candidate
from evonas.evaluators.train import TrainEvaluator
from evonas.evaluators.worker import USABLE
from evonas.experiment import Experiment
from evonas.jobs import machine
from evonas.jobs.parts import build
from evonas.loop import guarded
from evonas.metrics import FLOPS
from genomes import Genome

COUNTS = (1, 2, 4, 8)
RISE = 1.15  # how many times as many images per second twice as many processes must train
SECONDS = (0.5, 3.0)  # of the trainings that load and fill, and of the one that is timed
SAMPLE = 9  # networks, of which the largest and the middle one are trained

log = logging.getLogger("evonas")


@dataclass(frozen=True, slots=True)
class Reading:
    """What some processes at once on a GPU have shown.

    Attributes:
        rate: the images that all of them together train per second.
        memory: what a process needs of the GPU with the largest network, in bytes.
        total: the memory of the GPU, in bytes; 0 without a GPU.
    """

    rate: float
    memory: int = 0
    total: int = 0


def measured(
    experiment: Experiment, seconds: Sequence[float] = SECONDS
) -> tuple[Experiment, dict[str, float]]:
    """Decide how many processes share each GPU.

    The networks are trained on the first GPU; the others are taken to be like it.

    Args:
        experiment: resolved, with `per_device: auto`.

    Returns:
        The experiment with `per_device` and `workers`, and the images per second by the number of
        processes, which is empty for an evaluator other than `train`: it gets one process.

    Raises:
        UserError: the data cannot be read, or a part does not accept the setting.
    """
    found, rates = 1, {}
    gpus = machine.gpus(experiment.parallel.device)
    evaluator = build(experiment).evaluator
    if isinstance(evaluator, TrainEvaluator):

        def read(count: int) -> Reading:
            device = f"cuda:{gpus[0]}" if gpus else "cpu"
            one = _with(experiment, device=device, workers=count, per_device=count)
            return _reading(one, evaluator, largest_and_middle(evaluator), seconds)

        found, readings = chosen(read, joblib.cpu_count() // max(1, len(gpus)))
        rates = {str(count): round(reading.rate, 1) for count, reading in readings.items()}
        told = ", ".join(f"{rate:.0f} in {count}" for count, rate in rates.items())
        log.info("images per second by processes on a GPU: %s; it gets %d", told, found)
    return _with(experiment, workers=found * max(1, len(gpus)), per_device=found), rates


def chosen(read: Callable[[int], Reading], limit: int) -> tuple[int, dict[int, Reading]]:
    """Return how many processes a GPU gets: more, as long as they fit and more images are trained.

    Args:
        read: trains in so many processes at once.
        limit: the largest number of processes.
    """
    best, readings = 1, {1: read(1)}
    for count in COUNTS[1:]:
        if count > limit or count * readings[1].memory > USABLE * readings[1].total:
            break
        readings[count] = read(count)
        if readings[count].rate <= RISE * readings[best].rate:
            break
        best = count
    return best, readings


def largest_and_middle(evaluator: TrainEvaluator) -> list[Candidate]:
    """Return the network that needs most, as far as a sample shows, and one of the middle."""
    space, rng = evaluator.space, np.random.default_rng(0)
    genomes = [space.canonical(space.sample(rng)) for _ in range(SAMPLE)]
    genomes.sort(key=partial(_flops, evaluator))
    largest = space.largest()
    return [Candidate(genomes[-1] if largest is None else largest), Candidate(genomes[SAMPLE // 2])]


def _flops(evaluator: TrainEvaluator, genome: Genome) -> float:
    try:
        return evaluator.cheap(genome)[FLOPS.name]
    except Exception:  # a user's network may raise anything; the search tells it
        return 0.0


def _with(experiment: Experiment, **update: Any) -> Experiment:
    parallel = experiment.parallel.model_copy(update=update)
    return experiment.model_copy(update={"parallel": parallel})


def _reading(
    experiment: Experiment,
    evaluator: TrainEvaluator,
    candidates: Sequence[Candidate],
    seconds: Sequence[float],
) -> Reading:
    """Train the candidates in as many processes at once as the experiment says."""
    count, limit = int(experiment.parallel.workers), experiment.parallel.timeout
    with (
        tempfile.TemporaryDirectory(prefix="evonas-") as folder,
        closing(machine.workers(Path(folder) / "traces", experiment.parallel)) as workers,
    ):
        try:
            for some, each in ((candidates, seconds[0]), (candidates[-1:], seconds[1])):
                futures = [workers.submit(_trained, evaluator, some, each) for _ in range(count)]
                readings = [future.result(limit) for future in futures]
        except (BrokenProcessPool, TimeoutError):  # so many do not fit, or a network is at fault
            return Reading(0.0)
    return Reading(
        sum(reading.rate for reading in readings),
        max(reading.memory for reading in readings),
        max(reading.total for reading in readings),
    )


def _trained(evaluator: TrainEvaluator, candidates: Sequence[Candidate], seconds: float) -> Reading:
    """Train candidates one after the other, in a worker, and read the rate of the last one."""
    for candidate in candidates:
        timed = replace(candidate, budget=Budget(seconds=seconds))
        cost = guarded(evaluator, timed, 0).cost
    rate = cost.steps * evaluator.batch_size / cost.training_seconds if cost.steps else 0.0
    if evaluator.hardware.device == "cpu":
        return Reading(rate)
    free, total = torch.cuda.mem_get_info()
    # What is in use between two trainings is CUDA's own, and the images.
    return Reading(rate, torch.cuda.max_memory_reserved() + total - free, total)
