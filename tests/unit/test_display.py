"""What a person sees: progress on a terminal and elsewhere, and what a run has cost."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from evonas import display
from evonas.display import Reading, counter, progress, show_run


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def screen(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[io.StringIO, bool]:
    written = io.StringIO()
    console = Console(file=written, force_terminal=request.param, width=120)
    monkeypatch.setattr(display, "Console", lambda **_: console)
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
        "stop: {generations: 1}\nfinalists: {top: 0}\nconstraints: []\n"
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


def test_a_run_with_a_supernet_has_scores_in_place_of_the_trainings_of_its_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_folder(tmp_path / "run")
    show_run(path)
    assert "; 3 trainings, including finalists; 0:00:03 of worker time" in capsys.readouterr().out
    (path / "supernet").mkdir()
    show_run(path)
    shown = capsys.readouterr().out
    assert "2 scored with shared weights; 1 training, including finalists; 0:00:03" in shown
