"""The cache across runs: what is found again, what never is, and what it bears."""

from __future__ import annotations

import json
import platform
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evonas import provenance
from evonas.config import load
from evonas.core import Budget, Candidate, Evaluation, Status, UserError
from evonas.data.dataset import DataSet, split
from evonas.data.digits import Digits, DigitsParams
from evonas.evaluators import cached as cache
from evonas.evaluators import train as train_evaluator
from evonas.evaluators.cached import Cached
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.training.loop import Hardware
from evonas.training.recipe import Recipe
from genomes import NASBench201
from tests.caching import CANDIDATE, Kept

ROOT = Path(__file__).resolve().parents[2]
SPACE = NASBench201()
SMALL = Candidate(SPACE.parse("2-1-0-1-0-1"), budget=Budget(steps=6))


def folder_of(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    return folder


def run_of(tmp_path: Path, name: str, **settings: Any) -> tuple[Cached, Kept]:
    """One run's view of the cache that a test shares: the wrapper, and what is inside."""
    inner = Kept(folder_of(tmp_path, name), **settings)
    wrapped = Cached(inner, tmp_path / "cache.sqlite")
    wrapped.prepare(inner.folder)
    return wrapped, inner


def sql(tmp_path: Path, command: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(tmp_path / "cache.sqlite") as db:
        rows = db.execute(command).fetchall()
    db.close()
    return rows


def share(
    tmp_path: Path, count: int, seconds: float, name: str = "other"
) -> subprocess.Popen[bytes]:
    """A process of its own that answers seeds 0 to `count` - 1."""
    folder = folder_of(tmp_path, name)
    command = [sys.executable, "-m", "tests.caching", str(tmp_path / "cache.sqlite"), str(folder)]
    return subprocess.Popen([*command, str(count), str(seconds)], cwd=ROOT)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# What is found again


def test_a_second_run_finds_values_and_weights_and_trains_nothing(tmp_path: Path) -> None:
    first, one = run_of(tmp_path, "one")
    second, other = run_of(tmp_path, "other")
    trained, found = first.evaluate(CANDIDATE, 7), second.evaluate(CANDIDATE, 7)
    assert (one.trained, other.trained) == ([7], [])
    assert (trained.cost.from_cache, found.cost.from_cache) == (False, True)
    assert found == replace(trained, cost=found.cost)
    assert found.cost.training_seconds == 0
    assert (other.folder / "7.safetensors").read_bytes() == (7).to_bytes(8) * 1000


def test_another_seed_or_anything_else_of_the_identity_is_trained(tmp_path: Path) -> None:
    run_of(tmp_path, "one")[0].evaluate(CANDIDATE, 7)
    for seed, more in ((8, {}), (7, {"version": "2"})):
        wrapped, inner = run_of(tmp_path, f"{seed}{more}", **more)
        assert not wrapped.evaluate(CANDIDATE, seed).cost.from_cache
        assert inner.trained == [seed]


def test_what_is_kept_can_be_read_with_sqlite_alone(tmp_path: Path) -> None:
    run_of(tmp_path, "one")[0].evaluate(CANDIDATE, 7)
    [(identity, answer, created)] = sql(tmp_path, "SELECT identity, answer, created FROM trainings")
    assert json.loads(identity) == {"genes": "3-3-3-1-3-2", "seed": 7}
    assert json.loads(answer)["values"] == {"value": 0.007, "size": 15}
    assert created.startswith("20")


def test_a_real_training_is_found_with_the_same_values_and_weights(
    digits: DataSet, tmp_path: Path
) -> None:
    evaluations, weights = [], []
    for name in ("one", "other"):
        inner = evaluator_for(digits)
        wrapped = Cached(inner, tmp_path / "cache.sqlite")
        wrapped.prepare(folder_of(tmp_path, name))
        evaluations.append(wrapped.evaluate(SMALL, 3))
        file = inner.weights_file(SMALL, 3)
        assert file is not None
        weights.append(file.read_bytes())
    trained, found = evaluations
    assert [e.cost.from_cache for e in evaluations] == [False, True]
    assert (found.values, found.status, found.deterministic) == (trained.values, Status.OK, True)
    assert (found.cost.epochs, found.cost.steps) == (trained.cost.epochs, 6)
    assert weights[0] == weights[1]


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return split(Digits(DigitsParams()), DigitsParams())[0]


def evaluator_for(
    data: DataSet,
    hardware: Hardware | None = None,
    recipe: Recipe | None = None,
    **network: int,
) -> TrainEvaluator:
    return TrainEvaluator(
        TrainParams(recipe=recipe or Recipe()),
        space=SPACE,
        network={"channels": 4, "cells": 1, **network},
        data=data,
        hardware=hardware or Hardware(),
    )


def identity(evaluator: TrainEvaluator, candidate: Candidate = SMALL, seed: int = 3) -> str:
    return json.dumps(evaluator.identity(candidate, seed), sort_keys=True)


def test_an_identity_names_network_data_recipe_budget_seed_and_hardware(digits: DataSet) -> None:
    other_split = split(Digits(DigitsParams()), DigitsParams(split_seed=1))[0]
    base = evaluator_for(digits)
    changed = [
        identity(base),
        identity(evaluator_for(digits, channels=5)),
        identity(evaluator_for(digits, cells=2)),
        identity(evaluator_for(other_split)),
        identity(evaluator_for(replace(digits, flippable=True))),
        identity(evaluator_for(replace(digits, classes=11))),
        identity(evaluator_for(digits, recipe=Recipe(lr=0.05))),
        identity(evaluator_for(digits, recipe=Recipe(flip=False))),
        identity(evaluator_for(digits, Hardware(precision="bfloat16"))),
        identity(evaluator_for(digits, Hardware(channels_last=True))),
        identity(evaluator_for(digits, Hardware(threads=2))),
        identity(base, seed=4),
        identity(base, replace(SMALL, genome=SPACE.parse("2-1-0-1-0-2"))),
        identity(base, replace(SMALL, budget=Budget(steps=7))),
        identity(base, replace(SMALL, budget=Budget(epochs=6))),
        identity(base, replace(SMALL, budget=Budget(steps=6, horizon=12))),
    ]
    assert len(set(changed)) == len(changed)
    lineage = replace(SMALL, parents=("g0-0-0-0-0-1",), origin="mutation")
    assert identity(evaluator_for(digits), lineage) == changed[0]


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (provenance, "__version__", "9.9.9"),
        (torch, "__version__", "9.9.9"),
        (np, "__version__", "9.9.9"),
        (platform, "python_version", lambda: "9.9.9"),
        (provenance, "code", lambda *_: "other"),
        (train_evaluator, "_processor", lambda _: "other"),
    ],
)
def test_an_identity_names_versions_and_processor(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, value: object
) -> None:
    evaluator = evaluator_for(digits)
    before = identity(evaluator)
    monkeypatch.setattr(owner, name, value)
    assert identity(evaluator) != before


def test_the_code_counts_with_that_of_a_users_own_module(tmp_path: Path) -> None:
    mine = type(sys)("mine")
    mine.__file__ = str(tmp_path / "mine.py")
    digests = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mine", mine)
        for text in ("a = 1", "a = 2"):
            (tmp_path / "mine.py").write_text(text)
            provenance.code.cache_clear()
            digests.append(provenance.code("mine"))
    assert len({*digests, provenance.code()}) == 3


# What never is


@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_a_fault_is_not_kept(tmp_path: Path, fault: str) -> None:
    wrapped, inner = run_of(tmp_path, "one", fault=fault)
    for _ in range(2):
        if fault == "raises":
            with pytest.raises(ZeroDivisionError):
                wrapped.evaluate(CANDIDATE, 7)
        else:
            assert wrapped.evaluate(CANDIDATE, 7).status is Status.DIVERGED
    assert inner.trained == [7, 7]
    assert sql(tmp_path, "SELECT * FROM trainings") == []


def test_what_clock_or_memory_had_a_say_in_is_not_kept(tmp_path: Path) -> None:
    class Halved(Kept):
        def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
            return replace(super().evaluate(candidate, seed), deterministic=False)

    inner = Halved(folder_of(tmp_path, "one"))
    wrapped = Cached(inner, tmp_path / "cache.sqlite")
    wrapped.prepare(inner.folder)
    wrapped.evaluate(CANDIDATE, 7)
    timed, clock = run_of(tmp_path, "two")
    for _ in range(2):
        timed.evaluate(replace(CANDIDATE, budget=Budget(seconds=0.1)), 7)
    assert clock.trained == [7, 7]
    assert sql(tmp_path, "SELECT * FROM trainings") == []


def test_weights_too_big_for_sqlite_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LARGEST", 7_999)
    assert run_of(tmp_path, "one")[0].evaluate(CANDIDATE, 7).message == ""
    monkeypatch.setattr(cache, "LARGEST", 8_000)
    wrapped, inner = run_of(tmp_path, "two")
    wrapped.evaluate(CANDIDATE, 7)
    assert inner.trained == [7]
    assert run_of(tmp_path, "three")[0].evaluate(CANDIDATE, 7).cost.from_cache


# What it bears


@pytest.mark.parametrize(
    "damage",
    [
        "weights = zeroblob(8000)",
        "weights = NULL",
        "weights = 'text'",
        "answer = replace(answer, '0.007', '0.006')",
        "answer = NULL",
        "answer = CAST(x'FFFE' AS TEXT)",
        "answer = x'00', digest = 'mine'",
        "identity = '{}'",
        "digest = NULL",
    ],
)
def test_a_damaged_row_is_trained_again_and_mended(tmp_path: Path, damage: str) -> None:
    wrapped, inner = run_of(tmp_path, "one")
    wrapped.evaluate(CANDIDATE, 7)
    sql(tmp_path, f"UPDATE trainings SET {damage}")
    again = wrapped.evaluate(CANDIDATE, 7)
    assert (again.cost.from_cache, again.message) == (False, "")
    assert wrapped.evaluate(CANDIDATE, 7).cost.from_cache
    assert inner.trained == [7, 7]


def no_table(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (a)")
    db.close()


def newer(path: Path) -> None:
    cache.create(path)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("name,value\n" * 1000),
        lambda path: path.mkdir(),
        lambda path: path.parent.rmdir(),
        no_table,
        newer,
    ],
    ids=["text", "folder", "no folder", "another program's", "a newer version's"],
)
def test_what_is_no_cache_is_the_users_mistake_told_in_a_line(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = folder_of(tmp_path, "caches") / "cache.sqlite"
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(UserError, match=r"^cache: .*cache\.sqlite .*; allowed: ") as caught:
        Cached(Kept(tmp_path), path).prepare(tmp_path)
    assert "\n" not in str(caught.value)
    assert before is None or path.read_bytes() == before


def test_a_cache_that_fails_is_told_of_once_and_the_run_goes_on(tmp_path: Path) -> None:
    wrapped, inner = run_of(tmp_path, "one")
    wrapped.evaluate(CANDIDATE, 1)
    sql(tmp_path, "DROP TABLE trainings")
    found = [wrapped.evaluate(CANDIDATE, seed) for seed in (1, 2, 3)]
    assert all(e.status is Status.OK for e in found)
    assert "no such table" in found[0].message
    assert [e.message for e in found[1:]] == ["", ""]
    assert inner.trained == [1, 1, 2, 3]


def test_a_cache_that_stays_locked_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "PATIENCE", 0.1)
    wrapped, _ = run_of(tmp_path, "one")
    holder = sqlite3.connect(tmp_path / "cache.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    found = wrapped.evaluate(CANDIDATE, 1)
    holder.close()
    assert (found.status, found.values["value"]) == (Status.OK, 0.001)
    assert "locked" in found.message
    started = time.monotonic()
    assert share(tmp_path, 2, 0).wait(30) == 0
    assert time.monotonic() - started < 15, "what it had claimed was not let go"


def test_an_evaluator_without_an_identity_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "experiments" / "quickstart.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(f"{text}\ncache: mine.sqlite\n")
    assert load(tmp_path / "mine.yaml").cache == str(tmp_path / "mine.sqlite")
    monkeypatch.delattr(TrainEvaluator, "identity")
    with pytest.raises(UserError, match="cache: the evaluator train does not say"):
        load(tmp_path / "mine.yaml")


# Several processes


def test_processes_at_once_train_nothing_twice_and_meet_no_lock(tmp_path: Path) -> None:
    """They make the file at once too; each asserts that all answers and weights are right."""
    processes = {name: share(tmp_path, 60, 0.002, name) for name in "abc"}
    assert [process.wait(60) for process in processes.values()] == [0] * 3
    trained = [seed for name in processes for seed in Kept(tmp_path / name).trained]
    assert sorted(trained) == list(range(60))


def test_what_another_process_trains_is_waited_for(tmp_path: Path) -> None:
    other = share(tmp_path, 1, 0.5)
    wrapped, inner = run_of(tmp_path, "one")
    until(lambda: Kept(tmp_path / "other").trained)
    found = wrapped.evaluate(CANDIDATE, 0)
    assert (found.cost.from_cache, inner.trained) == (True, [])
    assert other.wait(30) == 0


def test_a_wait_has_an_end_and_so_has_that_for_a_process_that_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped, inner = run_of(tmp_path, "one")
    other = share(tmp_path, 1, 60)
    until(lambda: Kept(tmp_path / "other").trained)
    monkeypatch.setattr(cache, "WAIT", 0.1)
    assert not wrapped.evaluate(CANDIDATE, 0).cost.from_cache
    sql(tmp_path, "DELETE FROM trainings")
    monkeypatch.setattr(cache, "WAIT", 60)
    other.kill()
    started = time.monotonic()
    wrapped.evaluate(CANDIDATE, 0)
    assert time.monotonic() - started < 10
    assert inner.trained == [0, 0]
    other.wait()


def test_a_cache_whose_writer_was_killed_stays_whole(tmp_path: Path) -> None:
    wrapped, inner = run_of(tmp_path, "one")

    def rows() -> int:
        return int(sql(tmp_path, "SELECT count(*) FROM trainings")[0][0])

    for goal in (10, 40):
        other = share(tmp_path, 100_000, 0)
        until(lambda goal=goal: rows() >= goal)  # type: ignore[misc]
        other.send_signal(signal.SIGKILL)
        assert other.wait() == -signal.SIGKILL
        assert sql(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    kept = rows()
    assert all(wrapped.evaluate(CANDIDATE, seed).cost.from_cache for seed in range(kept))
    assert not wrapped.evaluate(CANDIDATE, kept).cost.from_cache
    assert inner.trained == [kept]
