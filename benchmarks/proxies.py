"""Compares evonas's zero-cost proxies with published ones, and all of them with accuracy.

The cells are of NAS-Bench-201, drawn from those that the table of published proxies has
(NAS-Bench-Suite-Zero, Krishnakumar et al., 2022). Their networks have 16 channels and 5 cells a
stage, as there. Ours look at 64 CIFAR-10 images, drawn once; weights have the same seed everywhere.
Two tables come out: Spearman's correlation of ours with the published, and that of each proxy,
params and FLOPs with the validation accuracy after 200 epochs, each with its 95 % interval over
resamples of the cells. Call it again to continue after a kill, or with more cells. It also writes
`cells.csv.gz`, both tables in one, for `benchmarks/nasbench201_warm_start.yaml`.

    python benchmarks/proxies.py --published nb201_zero_cost.csv.gz --accuracy nasbench201.csv.gz
        --images cifar10.npz [--cells 200] [--of 1000] [--out DIR]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from evonas import markdown
from evonas.data.dataset import split
from evonas.data.npz import Npz, NpzParams
from evonas.networks.decode import decode
from evonas.networks.proxies import BATCH, PROXIES, measured
from evonas.training.batches import resident
from genomes import NASBench201

SPACE = NASBench201()
SEED = 0
RESAMPLES = 1000
TOGETHER = ("nwot", "synflow", "jacov")
Array = NDArray[np.float64]


def measure_all(genomes: Sequence[str], images: Path, path: Path) -> pd.DataFrame:
    """Measures the proxies of the cells that the file lacks, a row each, with their seconds."""
    columns = ["genome", *PROXIES, *(f"{name}_seconds" for name in PROXIES)]
    if not path.exists():
        path.write_text(",".join(columns) + "\n")
    done = set(pd.read_csv(path, dtype={"genome": str})["genome"])
    params = NpzParams(name="npz", path=str(images))
    data = resident(split(Npz(params), params)[0], torch.device("cpu"))
    rows = np.random.default_rng(SEED).permutation(len(data.train))[:BATCH]
    batch, labels = data.normalised(data.train.images[rows]), data.train.labels[rows]
    for text in genomes:
        if text in done:
            continue
        genome = SPACE.genome(map(int, text))
        values, seconds = {}, {}
        for name in PROXIES:
            started = time.process_time()
            values |= measured(partial(decode, SPACE, genome), [name], batch, labels, SEED)
            seconds[name] = time.process_time() - started
        cells = [
            text,
            *(f"{v!r}" for v in values.values()),
            *(f"{s:.3f}" for s in seconds.values()),
        ]
        with path.open("a") as file:
            file.write(",".join(cells) + "\n")
    return pd.read_csv(path, dtype={"genome": str}).set_index("genome").loc[list(genomes)]


def correlation(a: pd.Series, b: pd.Series) -> str:
    """Spearman's correlation, and its 95 % interval over resamples of the cells."""
    values = np.column_stack([a, b])
    rng = np.random.default_rng(SEED)
    again = [
        spearmanr(values[rng.integers(len(values), size=len(values))]).statistic
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(again, [2.5, 97.5])
    return f"{spearmanr(values).statistic:.3f} ({low:.3f} to {high:.3f})"


def together(table: pd.DataFrame) -> pd.Series:
    """The mean of the ranks by several proxies, as a warm start has it; more is better."""
    return pd.Series(rankdata(table[list(TOGETHER)], axis=0).mean(axis=1), table.index)


def text(ours: pd.DataFrame, published: pd.DataFrame, accuracy: pd.DataFrame) -> str:
    """Both tables as Markdown."""
    first = [
        (
            name,
            correlation(ours[name], published.loc[ours.index, name]),
            f"{ours[f'{name}_seconds'].mean():.2f}",
        )
        for name in PROXIES
    ]
    val = accuracy["val200_cifar10"]
    few = val.loc[ours.index]
    second = [
        (
            name,
            correlation(published[name], val),
            correlation(published.loc[ours.index, name], few),
            correlation(ours[name], few),
        )
        for name in PROXIES
    ]
    label = f"mean rank of {', '.join(TOGETHER)}"
    some = together(published.loc[ours.index])
    second.append(
        (
            label,
            correlation(together(published), val),
            correlation(some, few),
            correlation(together(ours), few),
        )
    )
    for name in ("params", "flops"):
        size = accuracy[f"{name}_cifar10"]
        of_few = correlation(size.loc[ours.index], few)
        second.append((name, correlation(size, val), of_few, of_few))
    n, m = len(published), len(ours)
    parts = [
        f"Spearman's correlation of evonas's proxies with the published, {m} cells",
        markdown.table(["proxy", "correlation", "seconds a cell"], first),
        "Spearman's correlation with the validation accuracy after 200 epochs on CIFAR-10",
        markdown.table(
            ["", f"published, {n:,} cells", f"published, {m} of them", f"evonas's, the same {m}"],
            second,
        ),
        f"In brackets: the 95 % interval over {RESAMPLES:,} resamples of the cells. Seconds of one "
        "core.",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--published", type=Path, required=True)
    parser.add_argument("--accuracy", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--of", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/proxies"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    zero_cost, accuracy = (
        pd.read_csv(path, dtype={"genome": str}).set_index("genome")
        for path in (given.published, given.accuracy)
    )
    both = accuracy.join(zero_cost[[f"{name}_cifar10" for name in PROXIES]], how="inner")
    both.to_csv(given.out / "cells.csv.gz")
    order = np.random.default_rng(SEED).permutation(len(zero_cost))[: given.of]
    drawn = zero_cost.iloc[order]
    published = pd.DataFrame({name: drawn[f"{name}_cifar10"] for name in PROXIES})
    genomes = published.index[: given.cells]
    ours = measure_all(list(genomes), given.images, given.out / "proxies.csv")
    ours = ours.fillna(-np.inf)  # undefined, as of a cell without a way through
    written = text(ours, published, accuracy.loc[published.index])
    (given.out / "proxies.md").write_text(written)
    print(written)


if __name__ == "__main__":
    main()
