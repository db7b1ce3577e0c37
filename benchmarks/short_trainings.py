"""Tells what short trainings are worth, with batch norms as they end and measured anew.

Networks of nasbench201 (8 channels, one cell a stage), drawn at random, are trained on the digits
for 12 epochs (192 steps), and again for fewer steps, each time with a whole schedule, or with the
first part of one of `--horizon` steps, which ends at a high learning rate. For each number of
steps, the table has the mean validation error and Kendall's tau with the errors after 12 epochs,
with its 95 % interval over resamples of the networks: first with the batch norms' moving averages,
then with statistics measured anew on 20 batches, as `recipe.recalibrate` does.

    python benchmarks/short_trainings.py [--networks 40] [--steps 16 32 48 64 100 150]
        [--horizon 192] [--out DIR]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from evonas.core import Budget, derive_seed
from evonas.data.dataset import split
from evonas.data.digits import Digits, DigitsParams
from evonas.jobs.rank import agreement
from evonas.networks.decode import decode
from evonas.training.batches import resident
from evonas.training.loop import Hardware, measure, seeded, train
from evonas.training.norms import recalibrate
from evonas.training.recipe import Recipe
from genomes import Genome
from genomes.nasbench201 import NASBench201

LONG = Budget(epochs=12)
SPACE = NASBench201()
RECIPE = Recipe()
DATA = resident(split(Digits(DigitsParams()), DigitsParams())[0], torch.device("cpu"))


def errors(genome: Genome, budget: Budget) -> tuple[float, float]:
    """Validation errors after a training: as it ends, and with statistics measured anew."""
    seed = derive_seed(0, SPACE.key(genome), budget.text)
    with seeded(seed, "cpu"):
        network = decode(SPACE, genome, in_channels=1, channels=8, cells=1)
        train(network, DATA, RECIPE, budget, seed, Hardware())
    told = measure(network, DATA.val, DATA, Hardware(), 256)["error"]
    recalibrate(network, DATA, RECIPE.batch_size, RECIPE.recalibrate, Hardware())
    return told, measure(network, DATA.val, DATA, Hardware(), 256)["error"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--steps", type=int, nargs="+", default=[16, 32, 48, 64, 100, 150])
    parser.add_argument("--horizon", type=int)
    parser.add_argument("--out", type=Path, default=Path("results/short_trainings"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    networks: dict[str, Genome] = {}
    while len(networks) < given.networks:
        genome = SPACE.canonical(SPACE.sample(rng))
        networks[SPACE.key(genome)] = genome
    rows = []
    for key, genome in networks.items():
        row = {"key": key, "long": errors(genome, LONG)[0]}
        for steps in given.steps:
            row[f"{steps} ends"], row[f"{steps} anew"] = errors(
                genome, Budget(steps=steps, horizon=given.horizon)
            )
        rows.append(row)
    frame = pd.DataFrame(rows)
    given.out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(given.out / "errors.csv", index=False)
    lines = [
        "| steps | error as it ends | tau | error anew | tau |",
        "| --: | --: | --: | --: | --: |",
    ]
    for steps in given.steps:
        cells = [str(steps)]
        for which in ("ends", "anew"):
            short = frame[f"{steps} {which}"]
            tau = agreement(short.to_numpy(), frame["long"].to_numpy(), 0)[0]
            cells += [f"{short.mean():.3f}", f"{tau.value:.2f} ({tau.low:.2f} to {tau.high:.2f})"]
        lines.append(f"| {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    (given.out / "short_trainings.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
