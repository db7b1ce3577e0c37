"""Supernets and relaxations killed between any two writes end as those that were not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evonas.cli import app
from evonas.oneshot.training import SupernetTraining
from tests.e2e.test_kill import EXPERIMENT, Search
from tests.helpers.killed import SHARED

pytestmark = pytest.mark.usefixtures("no_workers")

SEARCHES = {
    "darts": "{name: darts, epochs: 4, recipe: {batch_size: 32}}",
    "gdas": "{name: gdas, epochs: 4, alpha_lr: 0.1, recipe: {batch_size: 32}}",
    "controller": "{name: controller, population: 3}",
}
SAMPLINGS = ("uniform", "fair", "dropout", "learned")
CUTS = ("before_checkpoint:1", "after_evaluations:1", "in_checkpoint:2")
SHARED_CUTS = (
    *(f"{place}:{1 + i % 2}" for i, place in enumerate(SHARED[:2])),
    *(f"{place}:1" for place in (*SHARED[2:], "before_checkpoint")),
)
TABLES = (
    *("evaluations.csv", "generations.csv", "fronts.csv", "front.csv", "finalists.csv"),
    *("probabilities.csv", "relaxation.csv", "controller.csv"),
    *("supernet/curve.csv", "supernet/pool.csv", "supernet/weights.safetensors"),
)


def experiment(strategy: str) -> str:
    """Few generations of it, and finals of one network."""
    text = EXPERIMENT.replace("{name: genetic, population: 6, elites: 2}", strategy)
    text = text.replace("generations: 6", "generations: 4")
    return text.replace("{top: 2, seeds: 2}", "{top: 1, seeds: 1, budget: {epochs: 1}}")


def shared(sampling: str) -> str:
    text = experiment("{name: nsga2, population: 4}").replace("budget: {epochs: 1}\n", "")
    settings = f"epochs: 3, sampling: {sampling}, pool: 2, recalibrate: 2"
    return text.replace("name: train, recipe", f"name: supernet, {settings}, recipe")


def left(search: Search) -> dict[str, bytes]:
    folder = search.run_dir
    return {name: (folder / name).read_bytes() for name in TABLES if (folder / name).exists()}


def undisturbed(folder: Path, text: str) -> dict[str, bytes]:
    """In the process of the tests, which has loaded torch already."""
    folder.mkdir()
    search = Search(folder, 1, text)
    words = ["run", str(folder / "killed.yaml"), "--out", str(search.run_dir), "--workers", "1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return left(search)


def killed(folder: Path, text: str, moments: Sequence[str]) -> dict[str, bytes]:
    folder.mkdir()
    search = Search(folder, 1, text, here=True)
    for moment in moments:
        assert search.start(moment).wait(timeout=120) == -9, (folder / "stderr").read_text()
    assert search.start().wait(timeout=300) == 0, (folder / "stderr").read_text()
    questions = search.questions()
    assert len(questions) == len(set(questions)), "something was journaled twice"
    return left(search)


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        pytest.param("gdas", CUTS[2:], id="gdas, one cut"),
        *(pytest.param(name, CUTS, id=name, marks=pytest.mark.slow) for name in SEARCHES),
    ],
)
def test_a_strategy_with_a_model_of_its_own_is_resumed_exactly(
    name: str, moments: Sequence[str], tmp_path: Path
) -> None:
    text = experiment(SEARCHES[name])
    whole = undisturbed(tmp_path / "whole", text)
    assert "probabilities.csv" in whole
    assert killed(tmp_path / "cut", text, moments) == whole


@pytest.mark.parametrize(
    ("sampling", "moments"),
    [
        pytest.param("uniform", SHARED_CUTS[1:2], id="uniform, one cut"),
        *(pytest.param(way, SHARED_CUTS, id=way, marks=pytest.mark.slow) for way in SAMPLINGS),
    ],
)
def test_a_supernet_is_resumed_exactly(
    sampling: str, moments: Sequence[str], tmp_path: Path
) -> None:
    """At the end of an epoch, and then the search that scores with it."""
    text = shared(sampling)
    whole = undisturbed(tmp_path / "whole", text)
    assert "supernet/weights.safetensors" in whole
    assert killed(tmp_path / "cut", text, moments) == whole


def test_interrupted_in_the_supernet_s_training_it_tells_the_epochs_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Search(tmp_path, 1, shared("uniform"))
    whole = SupernetTraining.epoch

    def epoch(training: SupernetTraining) -> dict[str, Any]:
        if training.epochs == 2:
            raise KeyboardInterrupt
        return whole(training)

    monkeypatch.setattr(SupernetTraining, "epoch", epoch)
    out = tmp_path / "run"
    done = CliRunner().invoke(app, ["run", str(tmp_path / "killed.yaml"), "--out", str(out)])
    assert done.exit_code == 130
    told = f"interrupted; 2 epochs of the supernet saved. To continue: evonas resume {out}\n"
    assert told in done.output
