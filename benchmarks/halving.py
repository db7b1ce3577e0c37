"""Measures how many epochs a search needs for a hypervolume, with halving and without.

Both arms search `nasbench201` cells on Fashion-MNIST by `genetic`, for the validation error and the
parameters; the whole budget is 9 epochs. With halving, the population is three times as large, so
that a generation costs about as much: of 36 networks, 36, 12 and 4 are trained for 1, 3 and 9
epochs, for 84 epochs in all, and without, 12 for 108. Each run ends when it has spent `--epochs`.
Only networks trained for 9 epochs count for the hypervolume. For each seed it is asked after how
many epochs each arm has the hypervolume that both reach, the smaller one of the two at the end.
Call it again to continue after a kill.

Result so far, of one seed with `--seeds 1 --images 600 --epochs 216`, in which an epoch is 7 steps:
halving needed 156 epochs for a hypervolume of 0.551, and 72 sufficed without. More is not known.

    python benchmarks/halving.py [--seeds 5] [--epochs 324] [--images 2000] [--out DIR]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from evonas import config, pareto
from evonas.core import Budget
from evonas.jobs import search
from evonas.plots.style import CATEGORIES, WIDTH, rendered, styled

WHOLE = Budget(epochs=9)
ARMS = {
    "genetic": "{name: genetic, population: 12}",
    "genetic, halved": "{name: halving, strategy: {name: genetic, population: 36}}",
}
EXPERIMENT = """
name: halving
space: {name: nasbench201, channels: 4, cells: 1}
data: {name: fashion_mnist}
strategy: {name: random}
evaluator: {name: train}
budget: {epochs: 9}
objectives: [{name: val_error}, {name: params}]
stop: {generations: 10000}
finalists: {top: 0}
parallel: {workers: 1, device: cpu}
"""


def run(arm: str, seed: int, given: argparse.Namespace, folder: Path) -> None:
    """Search until the epochs are spent; go on where an earlier call was killed."""
    if (folder / "config.yaml").exists():
        opened = search.resume(folder)
    else:
        (given.out / "halving.yaml").write_text(EXPERIMENT)
        changes = [f"strategy={ARMS[arm]}", f"seed={seed}", f"data.subset={given.images}"]
        opened = search.start(config.load(given.out / "halving.yaml", changes), folder)
    with opened as running:
        if spent(folder) >= given.epochs:
            return
        for _ in running:
            if spent(folder) >= given.epochs:
                break


def spent(folder: Path) -> float:
    """Return the epochs that a run has trained."""
    path = folder / "timings.csv"
    return float(pd.read_csv(path)["epochs"].sum()) if path.exists() else 0.0


def curve(folder: Path) -> pd.DataFrame:
    """Return the epochs spent after each training, and the hypervolume by then.

    Losses are the error, and the parameters as a share of the largest network's; the reference
    point is 1 for both.
    """
    timings = pd.read_csv(folder / "timings.csv")
    rows = pd.read_csv(folder / "evaluations.csv").set_index("index")
    largest = config.load_run(folder).objectives[1].reference
    points: list[list[float]] = []
    volumes = []
    for index in timings["index"]:
        row = rows.loc[index]
        if row["budget"] == WHOLE.text and row["status"] == "ok":
            points.append([row["val_error"], row["params"] / largest])
        volumes.append(pareto.hypervolume(np.array(points), (1.0, 1.0)) if points else 0.0)
    seconds = timings["training_seconds"].cumsum()
    epochs = timings["epochs"].cumsum()
    return pd.DataFrame({"epochs": epochs, "hypervolume": volumes, "training_seconds": seconds})


def results(curves: dict[tuple[str, int], pd.DataFrame]) -> pd.DataFrame:
    """Return a row for each seed: the epochs of each arm to the hypervolume that both reach."""
    rows = []
    for seed in sorted({seed for _, seed in curves}):
        of_seed = {arm: curves[arm, seed] for arm in ARMS}
        target = min(each["hypervolume"].iloc[-1] for each in of_seed.values())
        row: dict[str, object] = {"seed": seed, "hypervolume": target}
        needed = {}
        for arm, each in of_seed.items():
            reached = each[each["hypervolume"] >= target].iloc[0]
            needed[arm] = float(reached["epochs"])
            row[f"{arm}: at the end"] = each["hypervolume"].iloc[-1]
            row[f"{arm}: epochs"] = needed[arm]
            row[f"{arm}: training_seconds"] = reached["training_seconds"]
        row["ratio"] = needed["genetic"] / needed["genetic, halved"]
        rows.append(row)
    return pd.DataFrame(rows)


def lines(rows: pd.DataFrame) -> Iterator[str]:
    """Markdown with a line for each seed, and the geometric mean of the ratios."""
    yield "| seed | hypervolume | genetic, epochs | halved, epochs | ratio |"
    yield "| --: | --: | --: | --: | --: |"
    for row in rows.to_dict("records"):
        cells = [f"{row['seed']}", f"{row['hypervolume']:.4f}"]
        cells += [f"{row[f'{arm}: epochs']:.0f}" for arm in ARMS]
        yield f"| {' | '.join(cells)} | {row['ratio']:.2f} |"
    mean = float(np.exp(np.log(rows["ratio"]).mean()))
    low, high = rows["ratio"].min(), rows["ratio"].max()
    yield ""
    yield f"Geometric mean of {len(rows)} ratios: {mean:.2f} ({low:.2f} to {high:.2f})."
    ends = [f"{arm} {rows[f'{arm}: at the end'].mean():.4f}" for arm in ARMS]
    yield f"Mean hypervolume at the end: {', '.join(ends)}."


def figure(curves: dict[tuple[str, int], pd.DataFrame]) -> Figure:
    """Draws the hypervolume by epochs: a thin line for each run, a thick one for the mean."""
    drawn = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    ax = drawn.subplots()
    last = min(each["epochs"].iloc[-1] for each in curves.values())
    grid = np.arange(0, last + 1)
    for arm, colour in zip(ARMS, CATEGORIES, strict=False):
        heights = []
        for (of, _), each in curves.items():
            if of == arm:
                at = np.searchsorted(each["epochs"], grid, side="right") - 1
                found = each["hypervolume"].to_numpy()[np.maximum(at, 0)]
                heights.append(np.where(at >= 0, found, 0.0))
                ax.plot(grid, heights[-1], color=colour, lw=0.4, alpha=0.5)
        ax.plot(grid, np.mean(heights, axis=0), color=colour, label=arm)
    low = min(each["hypervolume"][each["hypervolume"] > 0].min() for each in curves.values())
    ax.set_ylim(low - 0.01, None)
    ax.set_xlabel("epochs trained")
    ax.set_ylabel("hypervolume")
    ax.legend()
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="runs of each arm")
    parser.add_argument("--epochs", type=int, default=324, help="the epochs of each run")
    parser.add_argument("--images", type=int, default=2000, help="of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=Path("results/halving"), help="a folder")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    curves = {}
    for seed in range(given.seeds):
        for arm in ARMS:
            folder = given.out / f"{arm.replace(', ', '-')}-{seed}"
            run(arm, seed, given, folder)
            curves[arm, seed] = curve(folder)
            end = curves[arm, seed].iloc[-1]
            print(
                f"{arm}, seed {seed}: {end['hypervolume']:.4f} in {end['epochs']:.0f}", flush=True
            )
    rows = results(curves)
    rows.to_csv(given.out / "results.csv", index=False)
    text = "\n".join(lines(rows)) + "\n"
    (given.out / "results.md").write_text(text)
    with styled():
        drawn = figure(curves)
        for kind in ("png", "svg"):
            (given.out / f"halving.{kind}").write_bytes(rendered(drawn, kind))
    print(text)


if __name__ == "__main__":
    main()
