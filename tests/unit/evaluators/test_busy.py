"""Workers that stay busy, share the images, and give back what they no longer need."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from evonas.core import Budget, Candidate, Evaluation, Metric
from evonas.data.dataset import Images, split
from evonas.data.digits import Digits, DigitsParams
from evonas.evaluators import worker
from evonas.evaluators.parallel import InWorkers
from evonas.evaluators.pool import Workers
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.protocols import Setting, TrainingSetting
from evonas.training.batches import Resident
from evonas.training.loop import Hardware
from genomes import NASBench201, SearchSpace
from tests.helpers.faults import Counting

SPACE = NASBench201()
GENOMES = ["1-0-0-0-0-0", "0-0-0-0-0-2", "3-3-0-0-0-0", "0-0-0-0-4-4", "2-0-0-0-0-1", "0-3-3-3-0-0"]


class Foreseen(Counting):
    """Takes as long as its genes add up to, and says so."""

    def effort(self, candidate: Candidate) -> float:
        if candidate.genome.text == "3-3-0-0-0-0":
            raise ValueError("it cannot be built")
        return float(sum(candidate.genome.genes))


class Two:
    """Two processes that are always done after a moment; `sent` is what they were given."""

    count = 2

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent: list[str] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        _, candidate, *_ = arguments
        self.sent.append(candidate.genome.text)
        future: Future[Any] = Future()
        Timer(0.05, future.set_result, [Evaluation(candidate, {"value": 1.0})]).start()
        return future

    def trace(self, number: int) -> Path:
        return self.folder / f"{number}"

    def renew(self) -> None: ...

    def kill(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("evaluator", "in_order", "places"),
    [
        # While the first two are trained: 9 and 8 before 3, and last what cannot be foreseen.
        (Foreseen(), False, [0, 1, 5, 3, 4, 2]),
        (Foreseen(), True, range(6)),
        (Counting(), False, range(6)),
    ],
)
def test_what_takes_longest_goes_first_where_that_is_known(
    tmp_path: Path, evaluator: Counting, in_order: bool, places: list[int]
) -> None:
    executor = Two(tmp_path)
    dispatcher = InWorkers(evaluator, executor, in_order=in_order)
    futures = [dispatcher.submit(Candidate(SPACE.parse(text)), 0) for text in GENOMES]
    assert {dispatcher.next_done() for _ in futures} == set(futures)
    assert executor.sent == [GENOMES[place] for place in places]


class Depth:
    """A user's metric that is known without training."""

    metric, modules = Metric("depth", cheap=True), ()

    def measure(self, **arguments: Any) -> float:
        raise AssertionError("the user's code is run in the driver")


class Theirs(NASBench201):
    """A space of someone else's."""


@pytest.mark.parametrize(
    ("space", "metrics", "budget", "expected"),
    [
        (SPACE, (), Budget(epochs=3), 3),
        (SPACE, (), None, 0),
        (SPACE, (Depth(),), Budget(epochs=3), 0),
        (Theirs(), (), Budget(epochs=3), 0),
    ],
)
def test_the_work_of_a_training_is_foreseen_without_running_the_user_s_code(
    space: SearchSpace, metrics: tuple[Depth, ...], budget: Budget | None, expected: int
) -> None:
    data = split(Digits(DigitsParams()), DigitsParams())[0]
    training = TrainingSetting({"channels": 4, "cells": 1}, data, Hardware(), metrics)
    evaluator = TrainEvaluator(TrainParams(), Setting(space, training=training))
    genome = space.parse("3-3-3-1-3-2")
    flops = 144_810 if expected else 0
    assert evaluator.effort(Candidate(genome, budget=budget)) == expected * flops


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(tmp_path / "scratch", 1)
    yield workers
    workers.close()


def test_a_worker_trains_on_the_memory_that_it_shares_and_writes_to_none_of_it(
    one: Workers,
) -> None:
    data = split(Digits(DigitsParams()), DigitsParams())[0].train
    many = Images(np.tile(data.images, (20, 1, 1, 1)), np.tile(data.labels, 20))
    assert many.images.nbytes > 1e6  # what is smaller is sent

    def shared(part: Images) -> tuple[bool, bool, int]:
        part.images[0] = 99  # as a network of the user's may
        resident = Resident.of(part, torch.device("cpu"))
        here = resident.images.data_ptr() == part.images.__array_interface__["data"][0]
        return here, part.images.flags.writeable, int(resident.images[0].sum())

    def read(part: Images) -> int:
        return int(part.images[0].sum())

    before = int(many.images[0].sum())
    assert one.submit(shared, many).result() == (True, False, 99 * 64)
    assert one.submit(read, many).result() == before == int(many.images[0].sum())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc's allocator")
def test_a_worker_gives_back_the_memory_of_a_training(one: Workers, tmp_path: Path) -> None:
    class Hungry:
        metrics, fingerprint = (), ""

        def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
            pieces = [bytearray(100_000) for _ in range(2000)]
            for piece in pieces:
                piece[::4096] = b"1" * len(piece[::4096])
            worker.kept = pieces[-1]  # type: ignore[attr-defined]  # what lies above the others
            return Evaluation(candidate, {})

    def resident() -> int:
        return int(psutil.Process().memory_info().rss)

    before = one.submit(resident).result()
    candidate = Candidate(SPACE.parse(GENOMES[0]))
    one.submit(worker.work, Hungry(), candidate, 0, tmp_path / "trace", None).result()
    assert one.submit(resident).result() < before + 50e6
