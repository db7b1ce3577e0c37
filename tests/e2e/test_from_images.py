"""From a folder of images to a front, with a limit on size and some time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from evonas import config
from evonas.cli import app
from tests.helpers.pictures import folder_of_digits

HOURS = 0.01
IMPORTS = "import torch, pandas, matplotlib.pyplot"


def slack() -> float:
    """Return how many seconds longer than its hours a run may take on this machine as it is now.

    A run of a minute is mostly imports, which take three seconds where nothing else runs.
    """
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return 15 * (time.perf_counter() - started)


def command(*arguments: str | Path | float) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


@pytest.mark.slow
@pytest.mark.usefixtures("no_workers")
def test_init_makes_an_experiment_of_a_folder_that_runs_as_it_is_and_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of_digits(Path("my pictures"))
    status, told = command("init", "x.yaml", "--images", "my pictures", "--max-params", "50k")
    assert status == 0, told
    assert "90 images of 3 classes, read grey at 8x8" in told
    status, told = command("validate", "x.yaml", "--data")
    assert "54 training, 18 validation and 18 test images, 1x8x8, of 3 classes" in told
    experiment = config.load(Path("x.yaml"))
    assert (experiment.hours, experiment.stop.seconds) == (1.0, 2160.0)
    assert [(each.name, each.max) for each in experiment.constraints] == [("params", 50_000)]
    assert [each.name for each in experiment.objectives] == ["val_error", "params"]

    started = time.perf_counter()
    few = ("--set", f"hours={HOURS}", "--set", "parallel.workers=1", "--set", "budget.steps=2")
    status, told = command("run", "x.yaml", "--out", "run", *few)
    assert status == 0, told
    took = time.perf_counter() - started
    assert took < 3600 * HOURS + slack()
    evaluations = pd.read_csv("run/evaluations.csv")
    trained = evaluations[evaluations["status"] == "ok"]
    assert (trained["params"] <= 50_000).all()
    decided = config.load_run(Path("run")).finalists.budget
    assert decided is not None
    assert decided.seconds is not None
    assert pd.read_csv("run/finalists.csv")["winner"].sum() == 1
    assert json.loads(Path("run/environment.json").read_text())["deterministic"] is False
    journal = Path("run/journal").read_text().splitlines()
    arrived = [json.loads(line)["arrived"] for line in journal]
    assert arrived == sorted(arrived)  # one clock for the search and its finals

    ended = [Path("run", name).read_bytes() for name in ("evaluations.csv", "finalists.csv")]
    assert command("resume", "run")[0] == 0
    names = ("evaluations.csv", "finalists.csv")
    assert [Path("run", name).read_bytes() for name in names] == ended


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "objectives"),
    [
        (("--max-flops", "2M", "--max-params", 30000), ["val_error", "params"]),
        (("--max-flops", "2M"), ["val_error", "flops"]),
        (("--max-memory", "256k", "--max-flops", "2M"), ["val_error", "flops"]),
        (("--max-memory", "256k"), ["val_error", "peak_memory"]),
    ],
)
def test_what_is_limited_is_made_small(
    limits: tuple[str | int, ...], objectives: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "x.yaml"
    pictures = folder_of_digits(tmp_path / "pictures", 2, 10)
    status, told = command("init", path, "--images", pictures, *limits, "--hours", 0.02)
    assert status == 0, told
    experiment = config.load(path)
    assert [each.name for each in experiment.objectives] == objectives
    bounds = {each.name: each.max for each in experiment.constraints}
    expected = {"flops": 2_000_000, "params": 30_000, "peak_memory": 256_000}
    assert {name: expected[name] for name in bounds} == bounds
    assert len(bounds) == len(limits) // 2
    assert experiment.stop.seconds == pytest.approx(0.6 * 72)


@pytest.mark.slow
def test_the_images_say_their_size_and_colours(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    pictures = folder_of_digits(tmp_path / "pictures", 2, 10, scale=3, colour=True)
    (pictures / "test").mkdir()
    (pictures / "digit0").rename(pictures / "0")
    status, told = command("init", path, "--images", pictures, "--max-params", "50k")
    assert (status, "class test has 0 images" in told) == (2, True), told
    (pictures / "test").rmdir()
    status, told = command("init", path, "--images", pictures, "--max-params", "50k")
    assert (status, "read in colour at 24x24" in told) == (0, True), told
    assert config.load(path).data.model_dump()["size"] == 24  # type: ignore[union-attr]  # it has data


def search_command(folder: Path, run: Path, hours: float) -> list[str]:
    return [
        *(sys.executable, "-m", "evonas", "search", str(folder), "--max-params", "50k"),
        *("--hours", str(hours), "--out", str(run), "--workers", "1"),
    ]


@pytest.mark.slow
def test_search_ends_near_its_hours_also_if_it_is_killed_and_resumed(tmp_path: Path) -> None:
    pictures, run = folder_of_digits(tmp_path / "pictures"), tmp_path / "run"
    hours = 0.02
    started = time.monotonic()
    process = subprocess.Popen(search_command(pictures, run, hours), start_new_session=True)
    while not (run / "evaluations.csv").exists() and process.poll() is None:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = (run / "evaluations.csv").read_bytes()
    resume = [sys.executable, "-m", "evonas", "resume", str(run)]
    told = subprocess.run(resume, check=True, capture_output=True, text=True).stdout
    took = time.monotonic() - started
    assert took < 3600 * hours + slack()
    assert f"evonas export {run}" in told
    assert (run / "evaluations.csv").read_bytes().startswith(before)
    assert (run / "figures" / "front.png").exists()
    assert config.load(tmp_path / "run.yaml").hours == hours


@pytest.mark.usefixtures("no_workers")
def test_search_makes_a_front_and_says_what_comes_next(tmp_path: Path) -> None:
    pictures, run = folder_of_digits(tmp_path / "pictures", 2, 10), tmp_path / "run"
    asked = ("search", pictures, "--max-params", "50k", "--hours", 0.003, "--out", run)
    status, told = command(*asked, "--workers", 1, "--seed", 3)
    assert status == 0, told
    for line in (
        "winner: ",
        f"evonas export {run}",
        f"evonas train {run}",
        f"evonas run {run}.yam",
    ):
        assert line in told
    assert config.load_run(run).seed == 3
    status, told = command(*asked)
    assert (status, "already exists; resume it with" in told) == (2, True), told


@pytest.mark.slow
@pytest.mark.usefixtures("no_workers")
def test_an_image_that_only_the_run_comes_to_read_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evonas.data.looking.LOOKED_AT", (1, 2))
    pictures, run = folder_of_digits(tmp_path / "pictures", 2, 10), tmp_path / "run"
    (pictures / "digit0" / "004.png").write_text("no picture")
    asked = ("search", pictures, "--max-params", "50k", "--hours", 0.003, "--out", run)
    status, told = command(*asked, "--workers", 1)
    assert (status, "004.png cannot be read: it is in no known format" in told) == (2, True), told
    assert not (tmp_path / "run.yaml").exists()


def test_a_wrong_folder_is_told_in_a_line(tmp_path: Path) -> None:
    pictures = folder_of_digits(tmp_path / "pictures", 2, 10)
    picture = pictures / "digit0" / "000.png"
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "b").mkdir()
    folder_of_digits(tmp_path / "alone", 1, 10)
    folder_of_digits(tmp_path / "few", 2, 3)
    damaged = folder_of_digits(tmp_path / "damaged", 2, 10)
    (damaged / "digit1" / "003.png").write_bytes(picture.read_bytes()[:60])
    for folder, expected in (
        (tmp_path / "empty", "too few sub-folders in"),
        (tmp_path / "alone", "too few sub-folders in"),
        (tmp_path / "texts", "class a has 0 images; each class must have at least 5"),
        (tmp_path / "few", "class digit0 has 3 images; each class must have at least 5"),
        (damaged, "003.png cannot be read: "),
        (picture, "000.png is not a folder; give a folder with"),
        (tmp_path / "nowhere", "nowhere is not a folder; give a folder with"),
    ):
        for asked in (
            ("init", tmp_path / "x.yaml", "--images", folder),
            ("search", folder, "--out", tmp_path / "run"),
        ):
            status, told = command(*asked, "--max-params", "50k", "--hours", 0.01)
            assert (status, expected in told, len(told.splitlines())) == (2, True, 1), told
    assert not (tmp_path / "x.yaml").exists()


def test_wrong_options_are_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evonas.jobs.allotment.DRAWN", 9)
    pictures = folder_of_digits(tmp_path / "pictures", 2, 10)
    path = tmp_path / "x.yaml"
    images = ("init", path, "--images", pictures)
    for asked, expected in (
        (images, "a limit is missing; say how large a network may be"),
        ((*images, "--max-params", 9), "raise the limits, or choose another space"),
        ((*images, "--max-params", "5k", "--data", "npz"), "--images: cannot be given with --data"),
        ((*images, "--max-params", "5k", "--space", "chian"), "did you mean 'chain'?"),
        ((*images, "--max-params", "5k", "--space", "table"), "has no networks to train"),
        ((*images, "--max-params", "5k", "--space", "my.py:x"), "evonas init --data image_folder"),
        (("init", path, "--hours", 1), "--hours: needs --images"),
        (("search", pictures), "a limit is missing"),
    ):
        status, told = command(*asked)
        assert (status, expected in told, len(told.splitlines())) == (2, True, 1), told
    for number in ("0", "-1", "1.5", "many"):
        status, told = command(*images, "--max-params", number)
        assert (status, "is not a whole number of at least 1" in told) == (2, True), told
    assert not path.exists()
