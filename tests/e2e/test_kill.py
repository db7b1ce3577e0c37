"""A search on real images, killed anywhere, leaves the tables of one that never was."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers import ROOT
from tests.helpers.killed import PLACES

# Torn lines, and rows beyond the last checkpoint, which is torn too.
FEW = ("in_journal_line", "in_checkpoint")
TABLES = ("evaluations.csv", "generations.csv", "fronts.csv", "front.csv", "finalists.csv")
EXPERIMENT = """
name: killed
seed: 3
space: {name: nasbench201, channels: 4, cells: 1}
data: {name: digits, subset: 300}
strategy: {name: genetic, population: 6, elites: 2}
evaluator: {name: train, recipe: {lr: 0.1, batch_size: 64}}
budget: {epochs: 1}
objectives: [{name: val_error}, {name: params}]
stop: {generations: 6}
finalists: {top: 2, seeds: 2}
"""


class Search:
    """The command in a process of its own, and what it leaves behind.

    Args:
        here: it trains in that process, not in workers.
    """

    def __init__(
        self, folder: Path, workers: int, experiment: str = EXPERIMENT, *, here: bool = False
    ) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.workers = workers
        self.here = here
        self.notes = folder / "submissions"
        (folder / "killed.yaml").write_text(experiment)

    def start(self, moment: str = "none") -> subprocess.Popen[bytes]:
        if (self.run_dir / "config.yaml").exists():
            command = ["resume", str(self.run_dir)]
        else:
            command = ["run", str(self.folder / "killed.yaml"), "--out", str(self.run_dir)]
        options = ["--workers", str(self.workers)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.killed", moment, *command, *options],
            cwd=ROOT,
            env={**os.environ, "SUBMISSIONS": str(self.notes), "HERE": str(int(self.here))},
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "stderr").open("ab"),
        )

    def journaled(self) -> int:
        journal = self.run_dir / "journal"
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def hashes(self) -> dict[str, str]:
        return {
            name: hashlib.sha256((self.run_dir / name).read_bytes()).hexdigest() for name in TABLES
        }

    def submissions(self) -> int:
        return len(self.notes.read_text().split("\n")) - 1

    def questions(self) -> list[tuple[str, int, str]]:
        lines = (self.run_dir / "journal").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [(record["key"], record["seed"], record["budget"]) for record in records]


def workers_of(driver: int) -> list[psutil.Process]:
    return psutil.Process(driver).children(recursive=True)


def assert_gone_within(seconds: float, processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert not alive, f"outlived their driver by {seconds} s: {alive}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Search:
    search = Search(tmp_path_factory.mktemp("undisturbed"), workers=2)
    assert search.start().wait(timeout=300) == 0, (search.folder / "stderr").read_text()
    return search


def kill_at_random(search: Search, rng: random.Random) -> bool:
    """Kills the driver a moment after some trainings have ended; False if it was done before."""
    driver = search.start()
    goal = search.journaled() + rng.randrange(3)
    while search.journaled() < goal and driver.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3 * rng.random())  # a generation takes about a second
    if driver.poll() is not None:
        return False
    family = workers_of(driver.pid)
    driver.kill()
    driver.wait()
    assert_gone_within(5, family)
    return True


@pytest.mark.parametrize(
    ("workers", "places", "at_random"),
    [
        pytest.param(2, FEW, 1, id="two workers"),
        pytest.param(1, PLACES, 5, id="one worker, every place", marks=pytest.mark.slow),
        pytest.param(2, PLACES, 5, id="two workers, every place", marks=pytest.mark.slow),
    ],
)
def test_a_killed_search_ends_with_the_tables_of_one_of_two_workers_that_was_not(
    undisturbed: Search, tmp_path: Path, workers: int, places: tuple[str, ...], at_random: int
) -> None:
    """Some kills at random, and between them one at each place between two writes."""
    rng = random.Random(workers)
    search = Search(tmp_path, workers)
    random_kills = 0
    for i, place in enumerate(places):
        if i < at_random - 1:
            random_kills += kill_at_random(search, rng)
        driver = search.start(f"{place}:1")
        assert driver.wait(timeout=120) == -9, (search.folder / "stderr").read_text()
    random_kills += kill_at_random(search, rng)
    assert random_kills == at_random
    assert search.start().wait(timeout=300) == 0, (search.folder / "stderr").read_text()

    assert search.hashes() == undisturbed.hashes()
    questions = search.questions()
    assert len(questions) == len(set(questions)), "a training was journaled twice"
    assert set(questions) == set(undisturbed.questions())
    lost = search.submissions() - len(questions)
    in_flight = random_kills + sum("journal" in place for place in places)
    assert lost <= in_flight * workers, "more was trained again than was in flight"


def test_an_undisturbed_search_hands_out_each_training_once(undisturbed: Search) -> None:
    assert undisturbed.submissions() == len(undisturbed.questions())


def test_a_finished_search_resumed_changes_nothing(undisturbed: Search) -> None:
    before = undisturbed.hashes()
    trained = undisturbed.submissions()
    assert undisturbed.start().wait(timeout=120) == 0
    assert undisturbed.hashes() == before
    assert undisturbed.submissions() == trained
