"""Folders that version 0.1.0 wrote, and what becomes of them today (`tests/assets/0.1.0`)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from evonas import config, plots
from evonas.cli import app
from evonas.jobs import search
from evonas.records import tables

ASSETS = Path(__file__).resolve().parents[1] / "assets/0.1.0"
GROWING = ("evaluations.csv", "generations.csv", "fronts.csv", "journal")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """All of them, to be written to."""
    return shutil.copytree(ASSETS, tmp_path / "old")


def evonas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeeds(*arguments: str | Path) -> str:
    result = evonas(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def beginnings(run: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in names}


def assert_goes_on_from(run: Path, before: dict[str, bytes]) -> None:
    for name, content in before.items():
        assert (run / name).read_bytes().startswith(content), name


def assert_whole(run: Path, generations: int) -> None:
    """All generations and the finals are there, and the weights of the front and the winner."""
    assert len(tables.read(run / "generations.csv")) == generations
    assert not list((run / "scratch").iterdir())
    front = set(tables.read(run / "front.csv", text=("key",))["key"])
    assert {file.stem for file in (run / "weights").iterdir()} == front | {"winner"}
    assert tables.winner(run) is not None


def test_a_killed_search_goes_on_to_its_end(old: Path) -> None:
    run = old / "search"
    before = beginnings(run, (*GROWING, "swarm.csv"))
    assert len(tables.read(run / "generations.csv")) == 1
    assert list((run / "scratch").iterdir()), "else it does not show that the weights are found"
    [key] = tables.read(run / "front.csv", text=("key",))["key"]

    with search.resume(run) as resumed:
        assert (run / "weights" / f"{key}.safetensors").exists()
        assert beginnings(run, tuple(before)) == before
        for _ in resumed:
            pass
        resumed.finish()
    assert_goes_on_from(run, before)
    assert_whole(run, 3)
    written = (run / "config.yaml").read_text()
    assert "on_convergence: restart" in written
    assert "converged:" not in written


@pytest.mark.usefixtures("no_workers")
def test_a_search_with_an_sqlite_cache_is_told_so_and_goes_on_with_a_folder(old: Path) -> None:
    run = old / "cached"
    before = beginnings(run, GROWING)
    result = evonas("resume", run)
    assert result.exit_code == 2
    [line] = [line for line in result.stderr.splitlines() if line.startswith("evonas: ")]
    assert "is an SQLite file, a cache of evonas 0.1.0" in line
    assert "--set cache=FOLDER" in line
    assert beginnings(run, GROWING) == before

    cache = old / "folder"
    succeeds("resume", run, "--set", f"cache={cache}", "--set", "stop.generations=3")
    assert_goes_on_from(run, before)
    assert_whole(run, 3)
    assert list(cache.glob("*.json"))


def test_a_finished_search_is_shown(old: Path) -> None:
    shown = succeeds("show", old / "cached")
    assert "winner: g1-0-4-2-4-2" in shown
    assert "6 evaluations in 2 generations" in shown


def test_a_finished_search_is_drawn(old: Path) -> None:
    drawn = plots.draw(old / "cached", only=("front", "hypervolume"))
    assert set(drawn.figures) == {"front", "hypervolume"}


def test_an_old_run_and_a_new_one_of_the_same_settings_are_one_arm(old: Path) -> None:
    run, new = old / "search", old / "new"
    shutil.copytree(run, new)
    as_of_today = config.dump(config.load_run(run, ["seed=2"]))
    (new / "config.yaml").write_text(as_of_today)
    assert "converged: restart" in (run / "config.yaml").read_text()
    assert "on_convergence: restart" in as_of_today
    assert "recalibrate: 0" in as_of_today
    compared = succeeds("compare", run, new, "--out", old / "comparison")
    assert "1 arm, 2 runs" in compared


def test_a_full_training_goes_on_to_its_end(old: Path) -> None:
    training = old / "training"
    before = tables.read(training / "curve.csv")
    assert len(before) == 1
    succeeds("resume", training)
    after = tables.read(training / "curve.csv")
    assert len(after) == 3
    same = ["epoch", "lr", "train_loss"]
    assert after[same].head(1).equals(before[same])
    assert after["val_error"].isna().all(), "it is trained on all images, as it began"
    [row] = tables.read(training / "result.csv").to_dict("records")
    assert (row["epochs"], row["train_images"]) == (3, 1438)
    assert (training / "weights.safetensors").exists()


@pytest.mark.usefixtures("no_workers")
def test_a_supernets_training_goes_on_to_its_end(old: Path) -> None:
    run = old / "supernet"
    before = beginnings(run, ("supernet/curve.csv", "supernet/pool.csv"))
    assert len(tables.read(run / "supernet/curve.csv")) == 1
    succeeds("resume", run)
    assert_goes_on_from(run, before)
    assert len(tables.read(run / "supernet/curve.csv")) == 2
    assert (run / "supernet/weights.safetensors").exists()
    assert tables.winner(run) is not None


def test_a_benchmark_goes_on_where_a_run_is_missing(old: Path) -> None:
    runs = old / "bench/runs.csv"
    whole = runs.read_text()
    runs.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    succeeds("bench", old / "bench.yaml", "--out", old / "bench", "--workers", "1")
    assert runs.read_text() == whole
