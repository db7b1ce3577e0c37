"""Compares NSGA-II with random search on the darts and macro spaces: digits, 100 trainings.

Runs `experiments/digits_space_darts.yaml` and `digits_space_macro.yaml` with both strategies. Runs
with the same seed begin with the same networks, and train a network that both meet with the same
seed, so they are compared in pairs. Call it again to continue after a kill.

    python benchmarks/nsga2_on_spaces.py [--seeds 5] [--trainings 100] [--out DIR]
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator
from math import prod
from pathlib import Path

import pandas as pd
import yaml
from scipy.stats import ttest_rel

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
SPACES = ("darts", "macro")
STRATEGIES = ("nsga2", "random")
POPULATION = 10


def run(space: str, strategy: str, seed: int, trainings: int, folder: Path) -> None:
    """Runs the search, or resumes it."""
    if (folder / "config.yaml").exists():
        command = ["resume", str(folder)]
    else:
        experiment = EXPERIMENTS / f"digits_space_{space}.yaml"
        command = ["run", str(experiment), "--out", str(folder), "--seed", str(seed)]
        for setting in (
            f"name={space}_{strategy}",
            f"strategy={{name: {strategy}, population: {POPULATION}}}",
            f"stop={{evaluations: {trainings}}}",
        ):
            command += ["--set", setting]
    subprocess.run(["evonas", *command], check=True)


def figures(folder: Path) -> dict[str, float]:
    """The results of a run: its front, its most accurate network, and its winner's test error."""
    objectives = yaml.safe_load((folder / "config.yaml").read_text())["objectives"]
    box = prod(objective["reference"] for objective in objectives)
    generations = pd.read_csv(folder / "generations.csv")
    front = pd.read_csv(folder / "front.csv")
    finalists = pd.read_csv(folder / "finalists.csv")
    winner = finalists[finalists["winner"]].iloc[0]
    return {
        "trained": int(generations["trained"].sum()),
        "hypervolume": float(generations["hypervolume"].iloc[-1]) / box,
        "val_error": float(front["val_error"].min()),
        "params_of_it": int(front.loc[front["val_error"].idxmin(), "params"]),
        "winner_params": int(winner["params"]),
        "test_error": float(winner["test_error"]),
    }


def compared(rows: pd.DataFrame) -> Iterator[str]:
    """A line of Markdown for each space and measure: means, and the difference in pairs."""
    yield "| space | measure | nsga2 | random | nsga2 - random, in pairs | better in | p |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    better = {"hypervolume": 1, "val_error": -1, "test_error": -1, "winner_params": -1}
    for space in rows["space"].unique():
        pairs = rows[rows["space"] == space].pivot_table(index="seed", columns="strategy")
        for measure, sign in better.items():
            ours, theirs = (pairs[measure][strategy] for strategy in STRATEGIES)
            difference = ours - theirs
            error = difference.std() / len(difference) ** 0.5
            wins, ties = int((sign * difference > 0).sum()), int((difference == 0).sum())
            p = ttest_rel(ours, theirs).pvalue
            yield (
                f"| {space} | {measure} | {ours.mean():,.4g} | {theirs.mean():,.4g} | "
                f"{difference.mean():+,.3g} ± {error:,.2g} | {wins} of {len(pairs)}"
                f"{f', {ties} equal' if ties else ''} | {p:.3f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trainings", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("results/nsga2_on_spaces"))
    given = parser.parse_args()
    rows = []
    for space in SPACES:
        for seed in range(given.seeds):
            for strategy in STRATEGIES:
                folder = given.out / f"{space}-{strategy}-{seed}"
                run(space, strategy, seed, given.trainings, folder)
                rows.append({"space": space, "strategy": strategy, "seed": seed, **figures(folder)})
    table = pd.DataFrame(rows)
    table.to_csv(given.out / "runs.csv", index=False)
    text = "\n".join(compared(table)) + "\n"
    (given.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
