"""The finals, without a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evonas.core import Candidate, Evaluation, Metric, Objective, SearchFailed, Stop
from evonas.jobs.finalists import run_finals
from evonas.jobs.search import Run
from evonas.loop import Desk, evolve
from evonas.protocols import Setting
from evonas.records import tables
from evonas.records.run import RunFolder
from evonas.strategies.genetic import Genetic, GeneticParams
from genomes import Genome, NASBench201

SPACE = NASBench201()
ERROR = Objective(name="val_error")
EXPERIMENT: Any = SimpleNamespace(
    finalists=SimpleNamespace(top=2, seeds=2, budget=None, by="measured", best_seed=True),
    objectives=(ERROR,),
    budget=None,
)


class Leaving:
    """Leaves the text of a genome as its weights."""

    metrics = (Metric("val_error"),)
    fingerprint = ""

    def __init__(self, run_dir: Path) -> None:
        self.scratch = run_dir / "scratch"
        self.trained = 0

    def cheap(self, genome: Genome) -> dict[str, float]:
        return {}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        self.trained += 1
        (self.scratch / f"{seed}").write_text(candidate.genome.text)
        found = Evaluation(candidate, {"val_error": (seed % 997) / 997})
        return replace(found, weights=f"{seed}")


class Search:
    """A search in a folder, opened anew as a resume does."""

    def __init__(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.folder = RunFolder(
            path, space=SPACE, metrics=("val_error",), objectives=(ERROR,), references=(1.0,)
        )
        self.evaluator = Leaving(path)
        self.desk = Desk(self.evaluator, SPACE, answers=self.folder.journal, seed=9)

    def goes_on(self, generations: int) -> None:
        strategy = Genetic(GeneticParams(population=8), Setting(SPACE, (ERROR,), seed=4))
        if self.folder.strategy is not None:
            strategy.load_state_dict(self.folder.strategy)
        stop, since = Stop(generations=generations), self.folder.archive.position
        for found in evolve(strategy, self.desk, stop=stop, since=since):
            Run._outdate_finals(self)  # type: ignore[arg-type]  # it needs path and folder alone
            self.folder.record(found, strategy.state_dict())

    def finals(self, test: Callable[[Genome, Path], tuple[float, int]] | None = None) -> None:
        run_finals(self.folder, EXPERIMENT, self.desk, test or (lambda *_: (0.25, 100)))
        self.folder.clean_scratch()
        for file in (self.path / "scratch").iterdir():
            file.unlink()


def held(path: Path) -> dict[str, bytes]:
    files = (path / "finalists.csv", path / "weights" / "winner.safetensors")
    return {file.name: file.read_bytes() for file in files}


def test_the_old_winner_stays_until_the_new_finals_are_whole(tmp_path: Path) -> None:
    run = Search(tmp_path / "run")
    run.goes_on(1)
    run.finals()
    before = held(run.path)
    assert not tables.outdated(run.path)

    run = Search(run.path)
    run.goes_on(4)
    assert held(run.path) == before
    assert tables.outdated(run.path)

    def killed(genome: Genome, weights: Path) -> tuple[float, int]:
        raise SearchFailed("killed while testing")

    with pytest.raises(SearchFailed):
        Search(run.path).finals(killed)
    assert held(run.path) == before
    assert tables.outdated(run.path)

    Search(run.path).finals()
    whole = Search(tmp_path / "whole")
    whole.goes_on(4)
    whole.finals()
    assert held(run.path) == held(whole.path) != before
    assert not tables.outdated(run.path)


def cut_off_a_row(text: bytes) -> bytes:
    return b"".join(text.splitlines(keepends=True)[:-1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-30],
        lambda text: text[: len(text) // 3],
        lambda text: text.replace(b"True", b"False"),
        lambda text: text.replace(b"0.", b"0.1"),
        lambda text: b"",
        lambda text: bytes(range(256)),
        cut_off_a_row,
    ],
)
def test_a_damaged_table_of_finalists_is_made_again(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    run = Search(tmp_path)
    run.goes_on(1)
    run.finals()
    before = held(tmp_path)
    table = tmp_path / "finalists.csv"
    table.write_bytes(damage(table.read_bytes()))
    again = Search(tmp_path)
    again.finals()
    assert held(tmp_path) == before
    assert again.evaluator.trained == 0
