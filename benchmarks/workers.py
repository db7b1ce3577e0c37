"""Measures what a second worker brings, what it costs in memory, and what a run spends on itself.

    python benchmarks/workers.py [--data DIR] [--parts speed memory growth] [--out FILE]

`speed`: the search of `--experiment` with one worker and with two, in turns. Tables must be equal,
byte for byte. Of the workers' time from the first training of the search to the last, it tells the
share of training and evaluating, of waiting for the last training of a generation, and of all else
(the run's own cost). `memory`: what one worker and two hold beyond a worker that has only imported
what it needs, with all of Fashion-MNIST (proportional set sizes, in which shared pages are divided
among those that have them, without the pages of program files; Linux only). `growth`: a worker's
resident size in a row of trainings.

The machine must be idle. Results are printed, and written to a JSON file with `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from evonas import config
from evonas.core import Budget, Candidate
from evonas.evaluators.parallel import InWorkers
from evonas.evaluators.pool import Workers
from evonas.evaluators.train import TrainEvaluator
from evonas.experiment import Experiment
from evonas.jobs import machine
from evonas.jobs.parts import build
from evonas.jobs.search import start
from evonas.loop import Desk
from evonas.networks.decode import decode
from evonas.training.batches import resident
from evonas.training.loop import warm_up
from genomes import SearchSpace

ROOT = Path(__file__).resolve().parents[1]
TABLES = ("evaluations", "generations", "fronts", "front")


def main(given: argparse.Namespace) -> None:
    measured: dict[str, Any] = {"machine": machine.environment(deterministic=True)}
    for part in given.parts:
        measured[part] = {"speed": speed, "memory": memory, "growth": growth}[part](given)
        print(f"{part}: {json.dumps(measured[part], indent=2)}", flush=True)
    if given.out is not None:
        given.out.write_text(json.dumps(measured, indent=2) + "\n")


def speed(given: argparse.Namespace) -> dict[str, Any]:
    """Trainings an hour with one worker and with two, and where the workers' time goes."""
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    tables: list[list[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(given.rounds):
            for workers, shares in found.items():
                path = Path(folder) / f"{turn}-{workers}"
                with start(_experiment(given, given.experiment, workers), path) as run:
                    for _ in run:
                        pass
                tables.append([(path / f"{name}.csv").read_bytes() for name in TABLES])
                shares.append(_shares(pd.read_csv(path / "timings.csv"), workers))
    one, two = (
        {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        for rows in found.values()
    )
    return {
        "one worker": one,
        "two workers": two,
        "ratio": two["trainings an hour"] / one["trainings an hour"],
        "equal tables": all(each == tables[0] for each in tables),
    }


def _shares(timings: pd.DataFrame, workers: int) -> dict[str, float]:
    """Trainings an hour, and the shares of the workers' time."""
    ends = timings["started"] + timings["seconds"]
    span = ends.max() - timings["started"].min()
    last = ends.groupby(timings["generation"]).max()
    # From the last training of a worker in a generation to the last one of all.
    idle = (last - ends.groupby([timings["generation"], timings["worker"]]).max()).sum()
    evaluating = timings["seconds"].sum()
    return {
        "trainings an hour": 3600 * len(timings) / span,
        "training and evaluating": evaluating / (workers * span),
        "waiting for the last": idle / (workers * span),
        "own cost": 1 - (evaluating + idle) / (workers * span),
    }


def memory(given: argparse.Namespace) -> dict[str, Any]:
    """Bytes of one worker and of two, beyond a worker that has imported what it needs."""
    experiment = "experiments/fashion_mnist.yaml"
    overrides = ["data.subset=60000", "data.val=0.02", "evaluator.recipe.recalibrate=0"]
    found: dict[int, int] = {}
    for count in (1, 2):
        one = _experiment(given, experiment, count, overrides)
        sizes: list[int] = []
        for _ in _trainings(one, 4 * count, Budget(steps=4), sizes):
            pass
        found[count] = sizes[-1] - sizes[0]
    images = 60_000 * 28 * 28
    return {"one worker": found[1], "two workers": found[2], "ratio": found[2] / found[1]} | {
        "images": images
    }


def growth(given: argparse.Namespace) -> dict[str, Any]:
    """A worker's resident size after some trainings."""
    after = sorted({30, given.trainings // 2, given.trainings})
    experiment = _experiment(given, given.experiment, 1)
    sizes = {}
    for done, pids in _trainings(experiment, after[-1], Budget(steps=given.steps)):
        if done in after:
            sizes[done] = max(psutil.Process(pid).memory_info().rss for pid in pids)
    return {"resident": sizes, "ratio": sizes[after[-1]] / sizes[30]}


def _trainings(
    experiment: Experiment, count: int, budget: Budget, sizes: list[int] | None = None
) -> Any:
    """Train random networks in workers, and yield how many are done, and the workers so far.

    Args:
        sizes: where to put the workers' memory, once they have their imports, and at the end.
    """
    parts = build(experiment)
    space, rng = parts.setting.space, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        workers = machine.workers(Path(folder) / "traces", experiment.parallel)
        with closing(workers):
            everyone = _in_each(workers, _import, type(parts.evaluator), space)
            if sizes is not None:
                sizes.append(sum(map(_proportional, everyone)))
            desk = Desk(parts.evaluator, space, dispatcher=InWorkers(parts.evaluator, workers))
            batch = [
                desk.question(Candidate(space.sample(rng), budget=budget), number)
                for number in range(count)
            ]
            for asked in batch:
                desk.put(asked)
            for done, asked in enumerate(batch, 1):
                desk.wait(asked)
                yield done, everyone
            if sizes is not None:
                _in_each(workers, _read_all, parts.evaluator)
                sizes.append(sum(map(_proportional, everyone)))


def _in_each(workers: Workers, function: Callable[..., Any], *arguments: Any) -> list[int]:
    """Call a function in each worker; return the workers."""
    pids: set[int] = set()
    while len(pids) < workers.count:
        futures = [workers.submit(_slowly, function, *arguments) for _ in range(workers.count)]
        pids = {future.result() for future in futures}
    return sorted(pids)


def _slowly(function: Callable[..., Any], *arguments: Any) -> int:
    function(*arguments)
    time.sleep(1)  # so that no worker answers twice
    return os.getpid()


def _import(evaluator: type[TrainEvaluator], space: SearchSpace) -> None:
    """Import what a training needs, and build a network."""
    warm_up()
    decode(space, space.sample(np.random.default_rng(0)))


def _read_all(evaluator: TrainEvaluator) -> None:
    """Look at all images, as a long training does."""
    resident(evaluator.data, torch.device("cpu")).train.images.max()


def _proportional(pid: int) -> int:
    """Bytes of a process, without the pages of program files."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    counted = [line for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))]
    return sum(1024 * int(line.split()[1]) for line in counted)


def _experiment(
    given: argparse.Namespace, path: str, workers: int, overrides: Sequence[str] = ()
) -> Experiment:
    settings = [*overrides, "finalists.top=0", f"parallel.workers={workers}"]
    if given.data is not None and "fashion" in path:
        settings.append(f"data.path={given.data.resolve()}")
    experiment = config.load(ROOT / path, [*settings, *(given.set if not overrides else [])])
    return experiment.model_copy(update={"parallel": machine.resolve(experiment.parallel)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder of Fashion-MNIST's four idx files")
    parser.add_argument(
        "--parts", nargs="+", default=["speed", "memory", "growth"], help="what to measure"
    )
    parser.add_argument(
        "--experiment", default="experiments/fashion_mnist.yaml", help="the search, for speed"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], help="its settings to change, such as stop.generations=2"
    )
    parser.add_argument("--rounds", type=int, default=1, help="searches with each count of workers")
    parser.add_argument("--trainings", type=int, default=300, help="for growth")
    parser.add_argument("--steps", type=int, default=20, help="of each training, for growth")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    if not sys.platform.startswith("linux"):
        parser.error("memory is measured on Linux only")
    main(parser.parse_args())
