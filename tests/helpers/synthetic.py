"""Run folders of any size in seconds: tables that fit together, of a search that trained nothing.

The search is a plain one: parents by tournament, uniform crossover, mutation. An error falls with
each gene that is as a hidden best genome has it; a size grows with the sum of the genes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml

from evonas.core import Blueprint, Params, Status
from evonas.pareto import hypervolume, is_on_front
from evonas.records.tables import front_columns
from genomes import Gene, SearchSpace
from genomes.operators import mean_hamming

CHOICES = ("none", "skip_connect", "conv_3x3", "conv_5x5", "avg_pool_3x3")
STATUSES = [str(status) for status in Status]


class Long(SearchSpace):
    """Twelve decisions in a row: 244,140,625 genomes, each a network of its own."""

    def __init__(self) -> None:
        super().__init__("long/v1", [Gene(f"layer{i}", CHOICES) for i in range(12)])


class LongParams(Params):
    name: Literal["long"] = "long"


LONG = Blueprint(LongParams, Long, None)


def write_run(
    path: Path,
    *,
    space: SearchSpace,
    name: str,
    generations: int,
    population: int,
    objectives: Sequence[str] = ("val_error", "params"),
    failing: float = 0.0,
    finals: bool = True,
    seed: int = 0,
) -> None:
    """Writes all tables of a run, `config.yaml` and `space.json`.

    Args:
        name: of the space in the registry.
        objectives: some of val_error, params, flops.
        failing: the share of evaluations that fail, by each status in turn.
        finals: name a winner.
    """
    path.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    table = _evaluations(space, generations, population, failing, rng)
    table.to_csv(path / "evaluations.csv", index=False)
    trained = table[~table["cached"]]
    well = trained[trained["status"] == "ok"]
    fronts = _fronts(well, generations, list(objectives))
    fronts.to_csv(path / "fronts.csv", index=False)
    best = fronts[fronts["generation"] == generations - 1]["key"]
    front = well.drop_duplicates("key").set_index("key").loc[best].reset_index()
    front = front.sort_values(list(objectives), kind="stable")
    front[[*front_columns(objectives)]].to_csv(path / "front.csv", index=False)
    _generations(table, fronts, objectives).to_csv(path / "generations.csv", index=False)
    if finals:
        chosen = front.head(3)[["key", "genome", "genes", *objectives]]
        chosen.assign(winner=[True, False, False][: len(chosen)]).to_csv(
            path / "finalists.csv", index=False
        )
    timings = trained[["generation", "index", "key", "seed", "budget", "status"]].copy()
    timings.insert(0, "phase", "search")
    timings["seconds"] = rng.gamma(4, 5, len(timings)).round(4)
    timings["message"] = ""
    timings.to_csv(path / "timings.csv", index=False)
    references = {"val_error": 1.0, "params": 100_000.0, "flops": 1e7}
    config = {
        "name": "synthetic",
        "space": {"name": name},
        "objectives": [{"name": o, "goal": "min", "reference": references[o]} for o in objectives],
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    genes = [{"name": gene.name, "choices": list(gene.choices)} for gene in space.genes]
    (path / "space.json").write_text(json.dumps({"name": space.name, "genes": genes}))


def _evaluations(
    space: SearchSpace,
    generations: int,
    population: int,
    failing: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    count, choices = len(space.genes), np.array(space.choices)
    ideal = rng.integers(0, choices)
    parts: list[pd.DataFrame] = []
    genes = rng.integers(0, choices, (population, count))
    parents, origin = [""] * population, "sampled"
    for generation in range(generations):
        texts = ["-".join(map(str, row)) for row in genes.tolist()]
        error = 0.03 + 0.8 * (genes != ideal).mean(axis=1) ** 2 + 0.01 * rng.random(population)
        status = np.full(population, "ok", dtype=object)
        failed = rng.random(population) < failing
        status[failed] = rng.choice(STATUSES[1:], failed.sum())
        keys = [space.key(space.genome(row)) for row in genes.tolist()]
        columns: dict[str, Any] = {
            "generation": generation,
            "key": keys,
            "genome": texts,
            "genes": texts,
            "parents": parents,
            "origin": origin,
            "budget": "epochs=1",
            "seed": 1,
            "status": status,
            "val_error": np.where(status == "ok", error, np.nan),
            "params": np.where(status == "ok", 10_000 + 500 * genes.sum(axis=1), np.nan),
            "flops": np.where(status == "ok", 1e5 + 7e3 * (genes**2).sum(axis=1), np.nan),
        }
        parts.append(pd.DataFrame(columns))
        ranked = np.where(status == "ok", error, np.inf)
        rivals = rng.integers(0, population, (2, population, 3))
        fathers, mothers = np.take_along_axis(
            rivals, ranked[rivals].argmin(axis=2)[..., None], axis=2
        )[..., 0]
        parents = [f"{keys[i]} {keys[j]}" for i, j in zip(fathers, mothers, strict=True)]
        genes = np.where(rng.random(genes.shape) < 0.5, genes[fathers], genes[mothers])
        mutated = rng.random(genes.shape) < 1 / count
        genes = np.where(mutated, rng.integers(0, choices, genes.shape), genes)
        origin = "crossover+mutation"
    table = pd.concat(parts, ignore_index=True)
    table.insert(1, "index", np.arange(len(table)))
    table.insert(table.columns.get_loc("status") + 1, "cached", table["key"].duplicated())
    # An answer that is known already is the first one again.
    first = table.drop_duplicates("key").set_index("key")
    for column in ("status", "val_error", "params", "flops"):
        table[column] = table["key"].map(first[column])
    return table


def _fronts(well: pd.DataFrame, generations: int, objectives: list[str]) -> pd.DataFrame:
    parts: list[pd.DataFrame] = []
    front = well.iloc[:0]
    groups = dict(list(well.groupby("generation")))
    for generation in range(generations):
        if generation in groups:
            everything = pd.concat([front, groups[generation]])
            front = everything[is_on_front(everything[objectives].to_numpy(dtype=np.float64))]
        parts.append(front[["key", *objectives]].assign(generation=generation))
    return pd.concat(parts, ignore_index=True)[["generation", "key", *objectives]]


def _generations(
    table: pd.DataFrame, fronts: pd.DataFrame, objectives: Sequence[str]
) -> pd.DataFrame:
    references = [{"val_error": 1.0, "params": 1e5, "flops": 1e7}[name] for name in objectives]
    grouped = table.groupby("generation")
    counts = pd.crosstab(table["generation"], table["status"])
    frame = pd.DataFrame({"evaluations": grouped.size(), "hits": grouped["cached"].sum()})
    frame["trained"] = frame["evaluations"] - frame["hits"]
    for status in STATUSES[1:]:
        frame[status] = counts.get(status, 0)
    genes = np.array([text.split("-") for text in table["genes"]], dtype=np.int64)
    starts = np.cumsum(frame["evaluations"])[:-1]
    frame["diversity"] = [mean_hamming(part) for part in np.split(genes, starts)]
    frame["distinct"] = grouped["key"].nunique()
    front = dict(list(fronts.groupby("generation")))
    frame["hypervolume"] = [
        hypervolume(front[g][list(objectives)].to_numpy(dtype=np.float64), references)
        if g in front
        else 0.0
        for g in frame.index
    ]
    return frame.reset_index()
