"""Whether the results in a folder are better than guessing, by its tables and its facts alone.

The guess is the commonest class of the images that a network is scored on. Nothing is said of a
folder that does not know them: that of a table, and of an older version.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evonas.binomial import beats_guessing
from evonas.core import Status
from evonas.data.dataset import Images
from evonas.markdown import counted
from evonas.metrics import VAL_ERROR
from evonas.records import tables
from evonas.records.folder import environment

AT_CHANCE = "no better than guessing"  # on the live line, in figures, and in the sentences below
WORDS = {"val": "validation", "test": "test"}


def parts_of(**parts: Images | None) -> dict[str, dict[str, Any]]:
    """Return how many images each part has, their shape, and the share of the commonest class."""
    return {
        name: {
            "images": len(images),
            "majority": float(np.bincount(images.labels).max()) / len(images),
            "shape": list(images.images.shape[1:]),
        }
        for name, images in parts.items()
        if images is not None and len(images)
    }


@dataclass(frozen=True, slots=True)
class Guess:
    """What naming the commonest class of a part would score.

    Attributes:
        part: `val` or `test`.
        majority: the share of that class among the images of the part.
    """

    part: str
    images: int
    majority: float

    def verdict(self, error: float | None, networks: int = 1) -> str:
        """Return a sentence if an error is no better than this guess; else nothing.

        Args:
            networks: the number of networks of which it is the best.
        """
        if error is None or not 0 <= error <= 1:
            return ""
        if beats_guessing(error, self.images, self.majority, networks):
            return ""
        best = f", the best of {counted(networks, 'network')}," if networks > 1 else ""
        return (
            f"{AT_CHANCE}: the {WORDS[self.part]} error {error:.4f}{best} can be had by naming the "
            f"commonest class of the {counted(self.images, 'image')} ({1 - self.majority:.4f}) "
            "or by luck; train longer, or check learning rate and labels"
        )


def guess(path: Path, part: str) -> Guess | None:
    """Return the guess for a part of a folder's images; None if the folder does not know them."""
    try:
        known = environment(path)["parts"][part]
        return Guess(part, int(known["images"]), float(known["majority"]))
    except (KeyError, TypeError, ValueError):
        return None


def of_search(path: Path) -> str:
    """Return the verdict on the network of the front with the fewest errors of validation."""
    val = guess(path, "val")
    files = [path / f"{name}.csv" for name in ("front", "evaluations")]
    if val is None or not all(file.exists() for file in files):
        return ""
    front = tables.read(files[0], (VAL_ERROR.name,))
    if front.empty or VAL_ERROR.name not in front:
        return ""
    asked = tables.read(files[1], ("key", "status"), text=("key", "status"))
    networks = asked["key"][asked["status"] == str(Status.OK)].nunique()
    return val.verdict(float(front[VAL_ERROR.name].min()), networks)


def of_winner(path: Path) -> str:
    """Return the verdict on the winner's test."""
    test, winner = guess(path, "test"), tables.winner(path)
    if test is None or winner is None or "test_error" not in winner:
        return ""
    return test.verdict(float(winner["test_error"]))


def of_training(path: Path) -> str:
    """Return the verdict on the test of a full training."""
    test, result = guess(path, "test"), path / "result.csv"
    if test is None or not result.exists():
        return ""
    return test.verdict(float(tables.read(result)["test_error"].iloc[0]))
