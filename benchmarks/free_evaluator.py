"""Measures how many evaluations per second the engine can do when an evaluation costs nothing.

    python benchmarks/free_evaluator.py [--evaluations 4000] [--population 100]

Everything in a run is on: the genetic strategy, journal, tables, checkpoints, fsync and all; only
the training is left out. One process, one thread. The space has 5,260 networks; after about 4,000,
finding a new one takes many tries, which is the strategy's time and counts too.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from evonas.core import Candidate, Evaluation, Metric, Objective, Stop
from evonas.loop import Desk, evolve
from evonas.protocols import Setting
from evonas.records.run import RunFolder
from evonas.strategies.genetic import Genetic, GeneticParams
from genomes import Genome, NASBench201


class Free:
    """Gives two objectives that are computed from the genes and the seed."""

    metrics = (Metric("val_error"), Metric("params"))
    fingerprint = ""

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {"params": 1 + sum(gene == 3 for gene in genome.genes)}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        values = {"val_error": (seed % 9973) / 9973, **self.cheap(candidate.genome)}
        return Evaluation(candidate, values)


def measure(evaluations: int, population: int, folder: Path) -> float:
    """The seconds that a run of this many evaluations takes."""
    space = NASBench201()
    space.key(space.genome([0] * 6))  # its table of keys is made once per process
    objectives = (Objective(name="val_error"), Objective(name="params"))
    evaluator = Free()
    run = RunFolder(
        folder,
        space=space,
        metrics=evaluator.metrics,
        objectives=objectives,
        references=(1.0, 7.0),
    )
    strategy = Genetic(GeneticParams(population=population), Setting(space, objectives))
    started = time.perf_counter()
    for generation in evolve(
        strategy, Desk(evaluator, space, answers=run.journal), stop=Stop(evaluations=evaluations)
    ):
        run.record(generation, strategy.state_dict())
    seconds = time.perf_counter() - started
    run.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=4_000)
    parser.add_argument("--population", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(arguments.evaluations, arguments.population, Path(folder))
    rate = arguments.evaluations / seconds
    print(
        f"{arguments.evaluations:,} evaluations, population {arguments.population}: "
        f"{seconds:.2f} s, {rate:,.0f} per second (Python {platform.python_version()}, n=1)"
    )


if __name__ == "__main__":
    main()
