"""What a person sees: progress on a terminal and elsewhere, and what a run has cost."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from evonas import display
from evonas.core import Candidate, Evaluation, Generation, Objective, Question, Stop
from evonas.display import Reading, counter, progress, show_run
from evonas.records.archive import Archive
from genomes import Genome
from tests.helpers import ROOT


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def screen(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[io.StringIO, bool]:
    written = io.StringIO()
    console = Console(file=written, force_terminal=request.param, width=120)
    monkeypatch.setattr(display, "_Console", lambda **_: console)
    return written, request.param


def test_progress_tells_name_time_left_counts_and_text(screen: tuple[io.StringIO, bool]) -> None:
    written, on_terminal = screen
    now = [Reading(4)]  # of an earlier process
    with progress("mine", "evaluations", lambda: now[0]) as tell:
        now[0] = Reading(6, 10, "generation 3/5 · best [loss] 0.5")
        tell()
        tell()
    text = written.getvalue()
    for part in ("mine", "6/10 evaluations", "generation 3/5 · best [loss] 0.5", "0:00:00 left"):
        assert part in text
    assert on_terminal == ("\x1b[" in text)
    assert on_terminal or len(text.splitlines()) == 2


def test_a_counter_shows_nothing_before_it_is_told_nor_without_a_terminal(
    screen: tuple[io.StringIO, bool],
) -> None:
    written, on_terminal = screen
    with counter("shared weights", "epochs"):
        pass
    assert "shared weights" not in written.getvalue()
    with counter("shared weights", "epochs") as tell:
        tell(1, 3)
        tell(2, 3)
    assert ("2/3 epochs" in written.getvalue()) == on_terminal
    assert on_terminal or written.getvalue() == ""


def test_the_time_left_is_that_of_the_mean_since_this_process_began() -> None:
    now = [Reading(5, 20)]
    line = display._Line("mine", "epochs", lambda: now[0])
    clock = 100.0
    line.get_time = lambda: clock
    [task] = line.tasks
    task.start_time, task._get_time = 90.0, line.get_time
    left = display._Left()
    assert str(left.render(task)) == "time left: -"
    now[0] = Reading(10, 20)
    line.read()
    assert str(left.render(task)) == "0:00:20 left"  # 5 took 10 s
    now[0] = Reading(10, 40)
    line.read()
    assert str(left.render(task)) == "0:01:00 left"  # more than was thought
    now[0] = Reading(40, 40)
    line.read()
    assert str(left.render(task)) == ""


def run_folder(path: Path) -> Path:
    path.mkdir()
    (path / "config.yaml").write_text(
        "evaluator: {name: train}\ndata: {name: digits}\nstop: {generations: 1}\n"
        "finalists: {top: 0}\nconstraints: []\n"
    )
    columns = {"key": ["g1", "g2"], "generation": 0, "seed": 0, "status": "ok"}
    flags = {"cached": False, "deterministic": True, "val_error": [0.1, 0.2]}
    pd.DataFrame({**columns, **flags}).to_csv(path / "evaluations.csv", index=False)
    pd.DataFrame({"key": ["g1"], "seed": 0, "val_error": 0.1}).to_csv(
        path / "front.csv", index=False
    )
    timings = {"phase": ["search"] * 2 + ["finalists"], "seconds": 1.0, "status": "ok"}
    pd.DataFrame({**timings, "message": None}).to_csv(path / "timings.csv", index=False)
    return path


@pytest.mark.parametrize(
    ("evaluator", "how"), [("supernet", "with shared weights"), ("proxy", "before any training")]
)
def test_a_run_with_scores_has_them_in_place_of_the_trainings_of_its_search(
    evaluator: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_folder(tmp_path / "run")
    show_run(path)
    assert "; 3 trainings, including finalists; 0:00:03 of worker time" in capsys.readouterr().out
    config = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(config.replace("name: train", f"name: {evaluator}"))
    show_run(path)
    shown = capsys.readouterr().out
    assert f"2 scored {how}; 1 training, including finalists; 0:00:03" in shown


def test_without_data_nothing_is_called_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_folder(tmp_path / "run")
    config = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(config.replace("data: {name: digits}", "data: null"))
    show_run(path)
    shown = capsys.readouterr().out
    assert "training" not in shown
    assert "; 3 measurements; 0:00:03 of worker time" in shown
    assert "winner: none, since nothing was trained: the front is the result" in shown


def experiment_folder(path: Path, error: float, test_error: float = 0.92) -> Path:
    """A finished run of two networks, ten classes and 360 images, its winner trained in full."""
    run_folder(path)
    (path / "config.yaml").write_text(
        "space: {name: nasbench201}\ndata: {name: digits, subset: 900}\nbudget: {epochs: 1}\n"
        "evaluator: {name: train}\nobjectives: [{name: val_error, goal: min}]\n"
        "stop: {generations: 1}\nfinalists: {top: 3, seeds: 3, budget: {epochs: 4}}\n"
        "constraints: []\n"
    )
    part = {"images": 360, "majority": 0.1}
    (path / "environment.json").write_text(json.dumps({"parts": {"val": part, "test": part}}))
    columns = {"key": ["g1", "g2"], "generation": 0, "seed": 0, "status": "ok", "params": 5000}
    flags = {"cached": False, "deterministic": True, "val_error": [error, 0.95]}
    pd.DataFrame({**columns, **flags}).to_csv(path / "evaluations.csv", index=False)
    pd.DataFrame({"key": ["g1"], "seed": 0, "val_error": error, "params": 5000}).to_csv(
        path / "front.csv", index=False
    )
    finals = {"key": ["g2", "g1"], "genome": "-", "seeds": 3, "failed": [1, 0], "params": 5000}
    finals |= {"val_error": [0.123, 0.2], "val_error_std": 0.0111, "winner": [True, False]}
    tested = {"test_error": [test_error, None], "test_error_se": [0.014, None]}
    pd.DataFrame({**finals, **tested}).to_csv(path / "finalists.csv", index=False)
    full = path.with_name(f"{path.name}-g2")
    full.mkdir()
    (full / "training.yaml").write_text("space: {name: nasbench201}\ndata: {name: digits}\n")
    result = {"key": ["g2"], "epochs": 30, "test_error": 0.0101, "test_error_se": 0.005}
    pd.DataFrame({**result, "test_images": 360}).to_csv(full / "result.csv", index=False)
    return path


def test_the_front_table_has_a_row_for_each_network_with_finals_and_full_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_run(experiment_folder(tmp_path / "run", 0.187))
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines() if line.strip().startswith("g")]
    assert rows == [
        ["g1", "0.1870", "5,000", "0.2000", "±", "0.0111", "-"],
        ["g2", "*", "0.9500", "5,000", "0.1230", "±", "0.0111,", "1", "failed", "0.0101"],
    ]
    words = " ".join(shown.split())
    assert "1 network; 1 finalist behind it" in words
    assert "key search params finals full" in words
    assert (
        "* winner; search: one training for 1 epoch; finals: mean ± standard deviation over 3 "
        "seeds for 4 epochs; full: a training for 30 epochs on all but the test images" in words
    )
    assert "retrained with 2 seeds of 3 (the others failed) for 4 epochs" in words
    assert "in full, for 30 epochs: test accuracy 0.9899 ± 0.0050" in words


@pytest.mark.parametrize(
    ("error", "test_error", "verdicts"), [(0.896, 0.9, 2), (0.5, 0.9, 1), (0.3, 0.3, 0)]
)
def test_show_says_that_results_are_no_better_than_guessing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: float,
    test_error: float,
    verdicts: int,
) -> None:
    show_run(experiment_folder(tmp_path / "run", error, test_error))
    shown = capsys.readouterr().out
    assert shown.count("no better than guessing") == verdicts
    best = "the validation error 0.8960, the best of 2 networks, can be had by naming the commonest"
    assert (best in shown) == (error == 0.896)


@pytest.mark.parametrize("error", [0.896, 0.5])
def test_the_live_line_says_that_the_best_is_no_better_than_guessing(
    tmp_path: Path, error: float
) -> None:
    path = experiment_folder(tmp_path / "run", error)
    values = {"val_error": error}
    archive = Archive([Objective(name="val_error")], [1.0])
    genome = Genome("a/v1", (0,))
    answer = Evaluation(Candidate(genome), values)
    archive.add(Generation(0, (Question("g1", 0),), (answer,), (False,)))
    folder = SimpleNamespace(archive=archive, journal=SimpleNamespace(added=0))
    experiment = SimpleNamespace(objectives=archive.objectives, stop=Stop(generations=4))
    run: Any = SimpleNamespace(path=path, folder=folder, experiment=experiment)
    text = display.of_search(run)().text
    assert ("best val_error 0.896, no better than guessing" in text) == (error == 0.896)


def test_one_of_anything_is_told_in_the_singular(screen: tuple[io.StringIO, bool]) -> None:
    with progress("mine", "evaluations", lambda: Reading(1, 1)) as tell:
        tell()
    assert "1/1 evaluation" in screen[0].getvalue()
    assert "1/1 evaluations" not in screen[0].getvalue()


@pytest.mark.parametrize("answered", [4, 9])
def test_the_live_line_counts_the_trainings_of_the_finalists_by_themselves(
    screen: tuple[io.StringIO, bool], answered: int
) -> None:
    questions = [Question(f"g{i}", i) for i in range(9)]
    answers = dict.fromkeys(questions[:4], "ok")  # those of an earlier process
    run: Any = SimpleNamespace(
        finals=lambda: questions, folder=SimpleNamespace(journal=SimpleNamespace(get=answers.get))
    )
    with progress("mine: finalists", "trainings", display.of_finals(run)) as tell:
        answers.update(dict.fromkeys(questions[:answered], "ok"))
        tell()
    assert f"{answered}/9 trainings" in screen[0].getvalue()


def test_there_is_no_line_where_nothing_is_trained_again() -> None:
    run: Any = SimpleNamespace(finals=list, folder=SimpleNamespace(journal=None))
    assert display.of_finals(run)() is None


def test_a_winner_without_words_of_its_own_is_shown_by_its_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = experiment_folder(tmp_path / "run", 0.187)
    finals = pd.read_csv(path / "finalists.csv").assign(genome="1-0", genes="1-0")
    finals.to_csv(path / "finalists.csv", index=False)
    genes = [{"name": "width", "choices": ["8", "16"]}, {"name": "act", "choices": ["ReLU"]}]
    (path / "space.json").write_text(json.dumps({"genes": genes}))
    show_run(path)
    assert "winner: g2, width=16, act=ReLU, 5,000 params" in capsys.readouterr().out


def long_keys(path: Path) -> Path:
    """A finished run whose keys are longer than a line has room for."""
    experiment_folder(path, 0.187)
    genome = "stem16 | conv5 x4 w8 e4 se hswish /2 | separable3 x2 w2 se hswish | head0"
    for name in ("evaluations", "front", "finalists"):
        frame = pd.read_csv(path / f"{name}.csv")
        genomes = frame["key"].map({"g1": genome, "g2": genome.replace("16", "24")})
        frame = frame.drop(columns="genome", errors="ignore")
        frame.insert(1, "genome", genomes)
        frame["key"] = frame["key"] + "-0" * 23
        frame.to_csv(path / f"{name}.csv", index=False)
    return path


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_front_table_fits_the_terminal_whatever_the_keys(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: int,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    show_run(long_keys(Path("run")))
    shown = capsys.readouterr().out
    assert not re.search(r"\x1b\[[\d;]*3\dm", shown)  # bold and italic are no colours
    table = [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()]
    table = table[: next(i for i, line in enumerate(table) if line.startswith("* winner"))]
    assert all(len(line) <= columns for line in table)
    [second] = [line for line in table if "stem24" in line or "g2-0-0" in line]
    assert ("g2" + "-0" * 23 + " *" in second) == (columns == 200)
    assert ("…" in second) == (columns < 200)
    assert any(line.split()[-1:] == ["0.9500"] for line in table) == (columns == 40)


def test_eighty_columns_are_enough_for_the_table_of_a_usual_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    reference = ROOT / "results" / "reference" / "fashion_mnist" / "genetic"
    reference = Path(shutil.copytree(reference, tmp_path / "run"))  # away from the full training
    winner = pd.read_csv(reference / "finalists.csv")["key"].iloc[0]
    show_run(reference)
    lines = capsys.readouterr().out.splitlines()
    [head] = [line.split() for line in lines if line.startswith("  key")]
    assert head == ["key", "search", "params", "flops", "model", "finals"]
    [row] = [line for line in lines if line.startswith(f"  {winner} * ")]
    assert row.count("±") == 2
