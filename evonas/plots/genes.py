"""The composition of the population: how often each gene takes each of its choices."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from evonas.plots.style import SMALL, WIDTH, Drawing, NotYet, generation_ticks, spell
from evonas.plots.tables import Tables
from genomes import Gene

COLUMNS = 200  # more are not distinguishable in a printed column
ROW = 0.1  # inches: a line of the smallest text
TALLEST = 9.0


def ops(tables: Tables) -> Drawing:
    """Draws a heat map: a row for each choice, grouped by gene, and a column for each generation,
    or for several generations.
    """
    genes = tables.genes
    data = shares(tables, genes)
    bins = data[["first_generation", "last_generation"]].drop_duplicates().to_numpy()
    edges = np.append(bins[:, 0], bins[-1, 1] + 1) - 0.5
    heights = data["share"].to_numpy().reshape(len(bins), -1).T  # (choices, bins)

    gap = 0.6  # rows between genes
    starts = np.cumsum([0.0, *(len(gene.choices) + gap for gene in genes)])
    rows = starts[-1] - gap
    height = min(rows * ROW, TALLEST)
    figure = Figure(figsize=(WIDTH, height + 0.85), layout="constrained")
    ax = figure.subplots()
    ticks: list[float] = []
    labels: list[str] = []
    below = 0
    for gene, start in zip(genes, starts, strict=False):
        count = len(gene.choices)
        image = ax.pcolormesh(
            edges,
            start + np.arange(count + 1),
            heights[below : below + count],
            cmap="cividis",
            vmin=0,
            vmax=heights.max(),
            rasterized=True,
        )
        below += count
        ticks += [start + i + 0.5 for i in range(count)]
        labels += [spell(choice) for choice in gene.choices]
    ax.set_ylim(rows, 0)
    ax.set_xlim(edges[0], edges[-1])
    if rows * ROW <= TALLEST:
        ax.set_yticks(ticks, labels)
    else:
        ax.set_yticks([])
        ax.set_ylabel("the choices of each gene, in the order of space.json")
    names = ax.secondary_yaxis("right")
    middles = [start + len(gene.choices) / 2 for gene, start in zip(genes, starts, strict=False)]
    names.set_yticks(middles, [gene.name for gene in genes])
    for axis in (ax, names):
        axis.tick_params(axis="y", length=0, labelsize=SMALL - 0.5)
        for spine in axis.spines.values():
            spine.set_visible(False)
    ax.set_xticks(*generation_ticks(bins[0, 0], bins[-1, 1]))
    ax.set_xlabel("generation")
    percent = FuncFormatter(lambda value, _: f"{100 * value:g}")
    label = "share of candidates (%)"
    place = {"location": "top", "aspect": 40, "pad": 0.1 / height}
    figure.colorbar(image, ax=ax, label=label, format=percent, **place)
    return Drawing(figure, data)


def shares(tables: Tables, genes: tuple[Gene, ...], most: int = COLUMNS) -> pd.DataFrame:
    """For each gene and choice, the share of a generation's candidates that took it.

    Args:
        most: the largest number of columns; if there are more generations, several share one.
    """
    texts = tables.evaluations["genes"]
    choices = np.array([len(gene.choices) for gene in genes])
    try:
        values = np.array("-".join(texts).split("-"), dtype=np.int64).reshape(-1, len(genes))
    except ValueError:
        values = choices[None]
    if len(values) != len(texts) or (values >= choices).any():
        raise NotYet("the genes in evaluations.csv do not match space.json")
    generations = tables.evaluations["generation"].to_numpy()
    present = np.unique(generations)
    per = -(-len(present) // most)  # generations in each column
    which = np.searchsorted(present, generations) // per
    offsets = np.concatenate([[0], np.cumsum(choices)[:-1]])
    columns = values + offsets
    bins, total = int(which.max()) + 1, int(choices.sum())
    flat = np.bincount((which[:, None] * total + columns).ravel(), minlength=bins * total)
    counts = np.bincount(which, minlength=bins)
    shares = flat.reshape(bins, total) / counts[:, None]
    pairs = [(gene.name, choice) for gene in genes for choice in gene.choices]
    return pd.DataFrame(
        {
            "first_generation": np.repeat(present[::per], total),
            "last_generation": np.repeat(
                [group[-1] for group in np.split(present, range(per, len(present), per))], total
            ),
            "gene": [gene for gene, _ in pairs] * bins,
            "choice": [choice for _, choice in pairs] * bins,
            "share": shares.ravel(),
        }
    )
