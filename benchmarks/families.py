"""Compares differentiable, one-shot, evolutionary and random search in the same time.

Each arm searches `nasbench201` cells like an experiment of `experiments/digits_*.yaml`, but longer.
Arms whose length the clock decides get the average time of the others with the same seed.
Finalists are trained on their own, with the same budget in all arms. The chosen networks are also
looked up in a table of NAS-Bench-201, if one is given. Call it again to continue after a kill. On a
shared machine, run it on a core that nothing else uses.

    python benchmarks/families.py --data digits [--seeds 5] [--table nasbench201.csv.gz] [--out DIR]
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from evonas import config
from evonas.jobs import search
from evonas.plots.style import CATEGORIES, GREY, WIDTH, rendered, styled
from genomes.nasbench201 import NASBench201

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
# The experiment of each arm, the key of its length, and its length by data.
ARMS = {
    "darts, first order": ("digits_darts", "strategy.epochs", {"digits": 400, "fashion_mnist": 32}),
    "darts, second order": (
        "digits_darts_second",
        "strategy.epochs",
        {"digits": 150, "fashion_mnist": 12},
    ),
    "gdas": ("digits_gdas", "strategy.epochs", {"digits": 900, "fashion_mnist": 85}),
    "spos, nsga2": ("digits_spos", "evaluator.epochs", {"digits": 210, "fashion_mnist": 40}),
}
CLOCKED = {
    "controller": "{name: controller}",
    "nsga2": "{name: nsga2, population: 10}",
    "random": "{name: random, population: 10}",
}
SETTINGS = {
    "digits": ["space.channels=16", "space.cells=1"],
    "fashion_mnist": [
        *("data={name: fashion_mnist, subset: 10000}", "space.channels=8", "space.cells=1"),
        *("parallel.timeout=1200", "finalists={top: 3, seeds: 1, budget: {epochs: 8}}"),
    ],
}
SCORED = {"digits": 65, "fashion_mnist": 20}  # generations of the search with a supernet
ENDLESS = 100_000


def run(data: str, arm: str, seed: int, limit: float | None, folder: Path) -> dict[str, object]:
    """Runs one search to its end, or until the clock ends it, and its finals."""
    shutil.rmtree(folder, ignore_errors=True)  # from a kill, after which the time is not known
    overrides = [*SETTINGS[data], f"seed={seed}", "parallel.workers=1"]
    if limit is None:
        name, key, lengths = ARMS[arm]
        overrides.append(f"{key}={lengths[data]}")
        generations = SCORED[data] if key == "evaluator.epochs" else lengths[data]
    else:
        name, generations = "digits_random", ENDLESS
        overrides.append(f"strategy={CLOCKED[arm]}")
    overrides.append(f"stop={{generations: {generations}}}")
    settings = config.load(EXPERIMENTS / f"{name}.yaml", overrides)
    with search.start(settings, folder) as running:
        started = time.perf_counter()
        for _ in running.prepare():
            pass
        for _ in running:
            seconds = time.perf_counter() - started
            if limit is not None and seconds >= limit:
                break
        seconds = time.perf_counter() - started
        running.finish()
    return {"data": data, "arm": arm, "seed": seed, "seconds": round(seconds, 1), **told(folder)}


def told(folder: Path) -> dict[str, object]:
    """The results of a run."""
    evaluations = pd.read_csv(folder / "evaluations.csv", dtype={"genes": str})
    finalists = pd.read_csv(folder / "finalists.csv", dtype={"genes": str})
    winner = finalists[finalists["winner"]].iloc[0]
    return {
        "evaluations": len(evaluations),
        "networks": int(evaluations["key"].nunique()),
        "winner": winner["genes"],
        "params": int(winner["params"]),
        "val_error": float(winner["val_error"]),
        "test_accuracy": 1 - float(winner["test_error"]),
        "test_se": float(winner["test_error_se"]),
        "last": str(evaluations["genes"].iloc[-1]),
    }


def looked_up(rows: pd.DataFrame, table: Path) -> pd.DataFrame:
    """Adds test accuracies on CIFAR-10 after 200 epochs, in percent: of the chosen network and, for
    the differentiable methods, of the last one derived, which they would report as their result.
    """
    known = pd.read_csv(table, dtype={"genome": str}).set_index("genome")["test200_cifar10"]
    space = NASBench201()
    for column in ("winner", "last"):
        genes = [space.canonical(space.parse(text)).text for text in rows[column]]
        rows[f"cifar10_{column}"] = [float(known[text.replace("-", "")]) for text in genes]
    derived = rows["arm"].str.startswith(("darts", "gdas"))
    rows.loc[~derived, "cifar10_last"] = float("nan")
    return rows


def lines(rows: pd.DataFrame) -> Iterator[str]:
    """Markdown with a line for each arm: means and standard errors over seeds."""
    columns = {
        "test_accuracy": "test accuracy",
        "params": "parameters",
        "networks": "networks measured",
        "seconds": "search, s",
        "cifar10_winner": "the chosen on CIFAR-10, %",
        "cifar10_last": "the last derived on CIFAR-10, %",
    }
    there = {name: title for name, title in columns.items() if name in rows}
    yield "| data | arm | seeds | " + " | ".join(there.values()) + " |"
    yield "| --- | --- | --: |" + " --: |" * len(there)
    for (data, arm), group in rows.groupby(["data", "arm"], sort=False):
        cells = []
        for name in there:
            mean, error = group[name].mean(), group[name].sem()
            digits = 4 if name == "test_accuracy" else 2 if "cifar" in name else 0
            shown = "" if pd.isna(mean) else f"{mean:,.{digits}f}"
            small = pd.isna(error) or name in ("networks", "seconds")
            cells.append(shown if small or not shown else f"{shown} ± {error:,.{digits}f}")
        yield f"| {data} | {arm} | {len(group)} | " + " | ".join(cells) + " |"


def figure(rows: pd.DataFrame) -> Figure:
    """Draws the test accuracy of the chosen networks: a dot for each seed, a bar for the mean."""
    sets = list(rows["data"].unique())
    colours = dict(zip((*ARMS, *CLOCKED), CATEGORIES * 2, strict=False)) | {"random": GREY}
    arms = {
        data: [a for a in colours if a in set(rows.loc[rows["data"] == data, "arm"])]
        for data in sets
    }
    heights = [0.25 * len(arms[data]) + 0.45 for data in sets]
    drawn = Figure(figsize=(WIDTH, 0.5 + sum(heights)), layout="constrained")
    axes = drawn.subplots(len(sets), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, data in zip(axes, sets, strict=True):
        part = rows[rows["data"] == data]
        for place, arm in enumerate(arms[data]):
            accuracy = 100 * part.loc[part["arm"] == arm, "test_accuracy"]
            colour = colours[arm]
            ax.plot(accuracy, [place] * len(accuracy), "o", color=colour, alpha=0.6, mew=0)
            ax.plot([accuracy.mean()] * 2, [place - 0.3, place + 0.3], color=colour, lw=2)
        ax.set_yticks(range(len(arms[data])), arms[data])
        ax.invert_yaxis()
        ax.locator_params(axis="x", nbins=6)
        ax.grid(axis="x", lw=0.3)
        minutes = part["seconds"].mean() / 60
        seeds = part["seed"].nunique()
        ax.set_title(f"{data}: {seeds} seeds, {minutes:.1f} minutes a search", fontsize=7)
        ax.set_xlabel("test accuracy (%)")
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", choices=list(SETTINGS), default="digits")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--clocked", nargs="*", default=["random"], choices=list(CLOCKED))
    parser.add_argument("--table", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/families"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "runs.csv"
    for seed in range(given.seeds):
        for arm in (*ARMS, *given.clocked):
            rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["data", "arm"])
            here = rows[(rows["data"] == given.data) & (rows.get("seed") == seed)]
            if (here["arm"] == arm).any():
                continue
            limit = None
            if arm in CLOCKED:
                limit = float(here.loc[here["arm"].isin(ARMS), "seconds"].mean())
            place = given.out / f"{given.data}-{arm.replace(', ', '-').replace(' ', '_')}-{seed}"
            row = run(given.data, arm, seed, limit, place)
            made = pd.DataFrame([row])
            rows = pd.concat([rows, made], ignore_index=True) if len(rows) else made
            rows.to_csv(path, index=False)
            print(row, flush=True)
    rows = pd.read_csv(path)
    if given.table is not None:
        rows = looked_up(rows, given.table)
    text = "\n".join(lines(rows)) + "\n"
    (given.out / "table.md").write_text(text)
    with styled():
        drawn = figure(rows)
        for kind in ("png", "svg"):
            (given.out / f"families.{kind}").write_bytes(rendered(drawn, kind))
    print(text)


if __name__ == "__main__":
    main()
