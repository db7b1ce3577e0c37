"""An evaluator whose answers can be kept, and a process that shares a cache; without torch.

`python -m tests.helpers.caching CACHE FOLDER COUNT SECONDS` answers seeds 0 to COUNT - 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evonas.core import Candidate, Evaluation, Status
from evonas.evaluators.cached import Cached, create
from genomes import NASBench201
from tests.helpers.faults import Counting, misbehave

CANDIDATE = Candidate(NASBench201().parse("3-3-3-1-3-2"))


class Kept(Counting):
    """Costs nothing, or seconds, leaves weights in a folder, and notes there what it trains."""

    def __init__(
        self, folder: Path, *, seconds: float = 0.0, fault: str = "", **identity: Any
    ) -> None:
        super().__init__(seconds=seconds)
        self.folder = folder
        (folder / "scratch").mkdir(exist_ok=True)
        self.fault = fault
        self.more = identity
        self.after: Callable[[], None] = lambda: None  # at the end of each training

    @property
    def trained(self) -> list[int]:
        notes = self.folder / "trained"
        return [int(line) for line in notes.read_text().split()] if notes.exists() else []

    def identity(self, candidate: Candidate, seed: int) -> Mapping[str, Any]:
        return {"genes": candidate.genome.text, "seed": seed, **self.more}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        with (self.folder / "trained").open("a") as file:
            file.write(f"{seed}\n")
        misbehave(self.fault)
        found = super().evaluate(candidate, seed)
        if self.fault == "nan":
            return Evaluation(candidate, {}, Status.DIVERGED, message="the loss was NaN")
        name = f"{seed}.weights"
        (self.folder / "scratch" / name).write_bytes(content(seed))
        self.after()
        return replace(found, weights=name)


def content(seed: int) -> bytes:
    """The weights of a training."""
    return seed.to_bytes(8) * 1000


def main(path: str, folder: str, count: str, seconds: str) -> None:
    create(Path(path))
    cached = Cached(Kept(Path(folder), seconds=float(seconds)), Path(path), Path(folder))
    for seed in range(int(count)):
        evaluation = cached.evaluate(CANDIDATE, seed)
        assert evaluation.status is Status.OK
        assert not evaluation.message, evaluation.message
        assert evaluation.values["value"] == (seed % 1000) / 1000
        assert (Path(folder) / "scratch" / evaluation.weights).read_bytes() == content(seed)


if __name__ == "__main__":
    main(*sys.argv[1:])
