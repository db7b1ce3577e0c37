"""By how much a run's winner is better than the best network that its search began with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evonas import yamlfile
from evonas.markdown import counted
from evonas.records import tables

CHANCE = 0.05  # a difference with a larger p is told as one that chance may have made


def compared(path: Path) -> str:
    """Return a sentence that compares the winner with the best seed, by the tables of the finals.

    Their trainings are paired by number, and p is that of a two-sided paired t-test. Nothing is
    said of a run without seeds, or whose finals have none.
    """
    winner = tables.winner(path)
    if winner is None or "origin" not in winner.index:
        return ""
    if winner["origin"] == "seed":
        return "it is one of the seeds: the search found nothing better than what it began with"
    finalists = tables.read(path / "finalists.csv", text=("genome", "origin"))
    seeds = finalists[finalists["origin"] == "seed"]
    if seeds.empty:
        return ""
    seed = seeds.iloc[0]  # they are ranked
    goal = yamlfile.read(path / "config.yaml")["objectives"][0]
    ours, theirs = (_by_seed(row, goal["name"]) for row in (winner, seed))
    gain = float(np.mean(theirs) - np.mean(ours)) * (-1 if goal.get("goal") == "max" else 1)
    side = "better" if gain > 0 else "worse" if gain < 0 else "different"
    text = f"{goal['name']} {abs(gain):.4f}"
    if len(ours) != len(theirs) or len(ours) < 2:
        return f"{text} {side} than that of the best seed, {seed['genome']}"
    differences = theirs - ours
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    p = _p(differences)
    chance = ", which may be chance" if p >= CHANCE else ""
    return (
        f"{text} ± {error:.4f} {side} than that of the best seed, {seed['genome']} "
        f"({counted(len(ours), 'training')} each, p = {p:.2g}{chance})"
    )


def _by_seed(row: pd.Series[Any], name: str) -> NDArray[np.float64]:
    return np.array([float(value) for value in str(row[f"{name}_by_seed"]).split()])


def _p(differences: NDArray[np.float64]) -> float:
    from scipy.stats import ttest_1samp  # slow to import, and most commands do not come here

    if not differences.any():
        return 1.0
    return float(ttest_1samp(differences, 0.0).pvalue) if np.ptp(differences) else 0.0
