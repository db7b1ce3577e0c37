"""The fault policy, with real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from evonas.core import Candidate, Evaluation, SearchFailed, Status
from evonas.evaluators import pool
from evonas.evaluators.parallel import InWorkers
from evonas.evaluators.pool import Workers
from evonas.jobs.search import Run
from genomes import NASBench201
from tests.helpers import ROOT
from tests.helpers.faults import Counting, DiesInItsFirstTest, die, struck_once

SPACE = NASBench201()
GENOMES = [f"{i}-3-3-0-0-{j}" for i in range(4) for j in range(2)]
TASKS = [(Candidate(SPACE.parse(text)), 100 + i) for i, text in enumerate(GENOMES)]


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Workers]]:
    made: list[Workers] = []
    yield made
    for each in made:
        each.close()


def answers(
    made: list[Workers], evaluator: Counting, folder: Path, *, count: int = 2, timeout: float = 60
) -> dict[str, Evaluation]:
    workers = Workers(folder / "scratch", count)
    made.append(workers)
    dispatcher = InWorkers(evaluator, workers, timeout=timeout)
    return dict(zip(GENOMES, all_answers(dispatcher, TASKS), strict=True))


def all_answers(dispatcher: InWorkers, tasks: Sequence[tuple[Candidate, int]]) -> list[Evaluation]:
    futures = [dispatcher.submit(*task) for task in tasks]
    done = {dispatcher.next_done() for _ in futures}
    assert done == set(futures)
    return [future.result() for future in futures]


@pytest.mark.parametrize("count", [1, 2])
def test_answers_are_the_same_in_one_process_and_in_many(
    workers: list[Workers], tmp_path: Path, count: int
) -> None:
    found = answers(workers, Counting(), tmp_path, count=count)
    here = Counting()
    for text, (candidate, seed) in zip(GENOMES, TASKS, strict=True):
        assert found[text].values == here.evaluate(candidate, seed).values
        assert found[text].status is Status.OK
    used = {evaluation.cost.worker for evaluation in found.values()}
    assert len(used) <= count
    assert psutil.Process().pid not in used


@pytest.mark.parametrize(
    ("fault", "count"),
    [
        *(("raises", 2), ("leaves", 2), ("interrupts", 2), ("closes", 1), ("dies", 2)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("segfaults", 2), ("exits", 1), ("exits", 2))
        ),
    ],
)
def test_only_the_guilty_one_crashes(
    workers: list[Workers], tmp_path: Path, fault: str, count: int
) -> None:
    notes = tmp_path / "notes"
    guilty = GENOMES[3]
    found = answers(workers, Counting({guilty: fault}, notes=notes), tmp_path, count=count)
    assert {text for text, e in found.items() if e.status is not Status.OK} == {guilty}
    assert found[guilty].status is Status.CRASHED
    assert found[guilty].message
    calls = Counter(notes.read_text().split())
    assert calls[guilty] == 3  # once among the others, then twice alone
    assert sum(calls.values()) <= len(GENOMES) + 2 + (count - 1)


def test_a_crash_that_does_not_come_again_is_forgiven(
    workers: list[Workers], tmp_path: Path
) -> None:
    unlucky = GENOMES[2]
    evaluator = Counting({unlucky: "exits"}, notes=tmp_path / "notes", once=True)
    found = answers(workers, evaluator, tmp_path)
    assert found[unlucky].status is Status.OK
    assert found[unlucky].cost.attempts == 2


@pytest.mark.parametrize("fault", ["hangs", "slow"])
def test_a_hang_is_a_timeout_even_in_c_and_is_not_tried_again(
    workers: list[Workers], tmp_path: Path, fault: str
) -> None:
    notes = tmp_path / "notes"
    guilty = GENOMES[1]
    evaluator = Counting({guilty: fault}, seconds=0.05, notes=notes)
    found = answers(workers, evaluator, tmp_path, timeout=1.5)
    assert found[guilty].status is Status.TIMEOUT
    assert not found[guilty].deterministic
    assert "1.5" in found[guilty].message
    assert found[guilty].cost.seconds >= 1.5
    assert all(e.status is Status.OK for text, e in found.items() if text != guilty)
    assert Counter(notes.read_text().split())[guilty] == 1


@pytest.mark.slow
def test_many_faults_at_once_are_told_apart(workers: list[Workers], tmp_path: Path) -> None:
    faults = dict(zip(GENOMES, ["raises", "exits", "hangs", "dies"], strict=False))
    found = answers(workers, Counting(faults), tmp_path, timeout=2)
    assert [found[text].status for text in GENOMES[:4]] == [
        Status.CRASHED,
        Status.CRASHED,
        Status.TIMEOUT,
        Status.CRASHED,
    ]
    assert "ZeroDivisionError" in found[GENOMES[0]].message
    assert "EXIT(7)" in found[GENOMES[1]].message
    assert "SIGKILL" in found[GENOMES[3]].message
    assert all(found[text].status is Status.OK for text in GENOMES[4:])
    assert all(found[text].cost.seconds > 0 for text in GENOMES)
    assert found[GENOMES[2]].cost.started > 0
    assert not list((tmp_path / "scratch").glob("trace-*"))


def test_one_evaluation_after_the_other_uses_the_same_workers(
    workers: list[Workers], tmp_path: Path
) -> None:
    workers.append(Workers(tmp_path / "scratch", 1))
    parallel = InWorkers(Counting(), workers[0])
    used = {all_answers(parallel, [task])[0].cost.worker for task in TASKS[:4]}
    assert len(used) == 1


@pytest.mark.parametrize("fault", ["stops", "sleeps unwatched"])
def test_a_worker_that_cannot_watch_itself_does_not_outlive_the_timeout(
    workers: list[Workers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("evonas.evaluators.worker.GRACE", 0.5)
    guilty = GENOMES[1]
    found = answers(workers, Counting({guilty: fault}), tmp_path, timeout=1.5)
    assert {text for text, e in found.items() if e.status is not Status.OK} == {guilty}
    assert found[guilty].status is Status.TIMEOUT


def test_an_answer_of_the_user_s_own_classes_reaches_the_driver_in_plain_types(
    workers: list[Workers], tmp_path: Path
) -> None:
    found = answers(workers, Counting({GENOMES[1]: "unreadable"}), tmp_path)
    assert found[GENOMES[1]].values == {"value": 0.5, "size": 1}
    assert all(evaluation.status is Status.OK for evaluation in found.values())


def test_warnings_go_to_the_log_of_the_run(
    workers: list[Workers], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.txt").touch()
    found = answers(workers, Counting({GENOMES[1]: "warns"}), tmp_path, count=1)
    assert found[GENOMES[1]].status is Status.OK
    assert "UserWarning: a library's advice" in (tmp_path / "log.txt").read_text()
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_is_moved_is_no_candidate_s_fault(
    workers: list[Workers], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    workers.append(Workers(folder / "scratch", 1))
    dispatcher = InWorkers(Counting(), workers[0])
    assert all_answers(dispatcher, TASKS[:1])[0].status is Status.OK
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(SearchFailed, match=f"{folder} is no longer there"):
        all_answers(dispatcher, TASKS[1:])


@pytest.mark.parametrize("fault", ["unpicklable", "full disk"])
def test_what_cannot_be_sent_back_is_a_crash_and_a_full_disk_is_not(
    workers: list[Workers], tmp_path: Path, fault: str
) -> None:
    guilty = GENOMES[1]
    if fault == "full disk":
        with pytest.raises(SearchFailed, match="No space left"):
            answers(workers, Counting({guilty: fault}), tmp_path)
    else:
        found = answers(workers, Counting({guilty: fault}), tmp_path)
        assert found[guilty].status is Status.CRASHED
        assert sum(e.status is Status.OK for e in found.values()) == len(GENOMES) - 1


def test_closing_leaves_no_process_behind(workers: list[Workers], tmp_path: Path) -> None:
    found = answers(workers, Counting(), tmp_path)
    used = {evaluation.cost.worker for evaluation in found.values()}
    workers[0].close()
    end = time.monotonic() + 5
    while any(psutil.pid_exists(pid) for pid in used) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in used)


DRIVER = """
import sys
from pathlib import Path
from evonas.core import Candidate
from evonas.evaluators.parallel import InWorkers
from evonas.evaluators.pool import Workers
from genomes import NASBench201
from tests.helpers.faults import Counting

folder, fault = Path(sys.argv[1]), sys.argv[2]
space = NASBench201()
texts = ["1-1-1-1-1-1", "2-2-2-2-2-2", "3-3-3-3-3-3", "4-4-4-4-4-4"]
evaluator = Counting(dict.fromkeys(texts, fault), notes=folder / "notes")
tasks = [(Candidate(space.parse(text)), 1) for text in texts]
dispatcher = InWorkers(evaluator, Workers(folder / "scratch", 2))
for task in tasks:
    dispatcher.submit(*task)
dispatcher.next_done()
"""


@pytest.mark.parametrize("fault", ["slow", "hangs"])
def test_workers_end_within_seconds_of_their_driver_whatever_they_do(
    tmp_path: Path, fault: str
) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), fault], cwd=ROOT)
    notes = tmp_path / "notes"
    end = time.monotonic() + 60
    while not notes.exists() or len(notes.read_text().split()) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    family = psutil.Process(driver.pid).children(recursive=True)
    assert len(family) >= 2
    driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive
    assert len(notes.read_text().split()) == 2  # what was queued is not begun


@pytest.mark.parametrize(
    "struck",
    [
        *(signal.SIGKILL, signal.SIGINT),
        *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGTERM, signal.SIGSEGV)),
    ],
)
def test_what_a_worker_was_doing_when_it_died_is_done_again(
    workers: list[Workers], tmp_path: Path, struck: signal.Signals
) -> None:
    """Of the winner's test and of benchmarks, which no candidate's fault policy covers."""
    two = Workers(tmp_path / "scratch", 2)
    workers.append(two)
    calls = [(tmp_path / f"note-{number // 10}", struck, number) for number in range(20)]
    assert list(pool.results(two, struck_once, calls)) == list(range(20))


def test_workers_that_keep_dying_are_told_in_a_line(workers: list[Workers], tmp_path: Path) -> None:
    two = Workers(tmp_path / "scratch", 2)
    workers.append(two)
    with pytest.raises(SearchFailed, match=r"workers died 3 times in a row \(SIGKILL"):
        list(pool.results(two, die, [(number,) for number in range(4)]))


def test_the_test_of_a_winner_outlives_its_worker(workers: list[Workers], tmp_path: Path) -> None:
    two = Workers(tmp_path / "scratch", 2)
    workers.append(two)
    evaluator, test = DiesInItsFirstTest(tmp_path / "note"), range(100)
    run: Any = SimpleNamespace(parts=SimpleNamespace(evaluator=evaluator, test=test), _workers=two)
    assert Run._test(run, TASKS[0][0].genome, tmp_path / "weights") == (0.25, 100)


def test_workers_with_calls_that_were_not_sent_yet_end_without_a_traceback(
    workers: list[Workers], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    one = Workers(tmp_path / "scratch", 1)
    workers.append(one)
    one.submit(int).result()
    for _ in range(3):
        one.submit(time.sleep, 10)
    one.close()
    assert raised == []
