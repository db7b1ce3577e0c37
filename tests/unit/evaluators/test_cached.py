"""The cache across runs: what is found again, what never is, and what it bears."""

from __future__ import annotations

import json
import os
import platform
import shutil
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

from evonas import provenance, registry
from evonas.config import load
from evonas.core import Budget, Candidate, Evaluation, SearchFailed, Status, UserError
from evonas.data.dataset import DataSet, split
from evonas.data.digits import Digits, DigitsParams
from evonas.evaluators import cached as cache
from evonas.evaluators import train as train_evaluator
from evonas.evaluators.cached import Cached, create
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.files import write_atomic
from evonas.protocols import Setting, TrainingSetting
from evonas.training.loop import Hardware
from evonas.training.recipe import Recipe
from genomes import NASBench201
from tests.helpers import ROOT
from tests.helpers.caching import CANDIDATE, Kept, content

SPACE = NASBench201()
SMALL = Candidate(SPACE.parse("2-1-0-1-0-1"), budget=Budget(steps=6))


def folder_of(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    return folder


def run_of(tmp_path: Path, name: str, **settings: Any) -> tuple[Cached, Kept]:
    """One run's view of the cache that a test shares: the wrapper, and what is inside."""
    inner = Kept(folder_of(tmp_path, name), **settings)
    create(tmp_path / "cache")
    wrapped = Cached(inner, tmp_path / "cache", inner.folder)
    return wrapped, inner


def records(tmp_path: Path) -> list[Path]:
    """What the cache has, a file a training."""
    return sorted((tmp_path / "cache").glob("*.json"))


def record(tmp_path: Path) -> Path:
    """The one training that the cache has."""
    [path] = records(tmp_path)
    return path


def share(
    tmp_path: Path, count: int, seconds: float, name: str = "other"
) -> subprocess.Popen[bytes]:
    """A process of its own that answers seeds 0 to `count` - 1."""
    folder = folder_of(tmp_path, name)
    command = [sys.executable, "-m", "tests.helpers.caching", str(tmp_path / "cache"), str(folder)]
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
    assert found == replace(trained, cost=found.cost, weights=found.weights)
    assert found.cost.training_seconds == 0
    assert (other.folder / "scratch" / found.weights).read_bytes() == content(7)


def test_another_seed_or_anything_else_of_the_identity_is_trained(tmp_path: Path) -> None:
    run_of(tmp_path, "one")[0].evaluate(CANDIDATE, 7)
    for seed, more in ((8, {}), (7, {"version": "2"})):
        wrapped, inner = run_of(tmp_path, f"{seed}{more}", **more)
        assert not wrapped.evaluate(CANDIDATE, seed).cost.from_cache
        assert inner.trained == [seed]


def test_what_is_kept_is_a_json_file_and_the_weights_beside_it(tmp_path: Path) -> None:
    run_of(tmp_path, "one")[0].evaluate(CANDIDATE, 7)
    told = json.loads(record(tmp_path).read_text())
    assert told.pop("digest")
    assert told == {
        "identity": {"genes": "3-3-3-1-3-2", "seed": 7},
        "values": {"value": 0.007, "size": 15},
        "epochs": 0.0,
        "steps": 0,
        "weights": True,
    }
    assert record(tmp_path).with_suffix(".safetensors").read_bytes() == content(7)


def test_an_evaluator_that_leaves_no_weights_is_found_without_any(tmp_path: Path) -> None:
    class Weightless(Kept):
        def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
            return replace(super().evaluate(candidate, seed), weights="")

    inner = Weightless(folder_of(tmp_path, "one"))
    create(tmp_path / "cache")
    wrapped = Cached(inner, tmp_path / "cache", inner.folder)
    found = [wrapped.evaluate(CANDIDATE, 7) for _ in range(2)]
    assert [(e.cost.from_cache, e.weights) for e in found] == [(False, ""), (True, "")]


def test_two_identities_that_share_a_key_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_key", lambda _: "key")
    wrapped, inner = run_of(tmp_path, "one")
    found = [wrapped.evaluate(CANDIDATE, seed) for seed in (7, 8, 8, 7)]
    assert [e.values["value"] for e in found] == [0.007, 0.008, 0.008, 0.007]
    assert inner.trained == [7, 8, 7]  # the one place has what came last
    assert [e.message for e in found] == [""] * 4


def test_a_real_training_is_found_with_the_same_values_and_weights(
    digits: DataSet, tmp_path: Path
) -> None:
    evaluations, weights = [], []
    for name in ("one", "other"):
        inner = evaluator_for(digits)
        wrapped = folder = folder_of(tmp_path, name)
        list(inner.prepare(folder))
        create(tmp_path / "cache")
        wrapped = Cached(inner, tmp_path / "cache", folder)
        evaluations.append(wrapped.evaluate(SMALL, 3))
        weights.append((folder / "scratch" / evaluations[-1].weights).read_bytes())
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
        Setting(
            SPACE,
            training=TrainingSetting(
                {"channels": 4, "cells": 1, **network}, data, hardware or Hardware()
            ),
        ),
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
    assert records(tmp_path) == []


def test_what_clock_or_memory_had_a_say_in_is_not_kept(tmp_path: Path) -> None:
    class Halved(Kept):
        def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
            return replace(super().evaluate(candidate, seed), deterministic=False)

    inner = Halved(folder_of(tmp_path, "one"))
    create(tmp_path / "cache")
    wrapped = Cached(inner, tmp_path / "cache", inner.folder)
    wrapped.evaluate(CANDIDATE, 7)
    timed, clock = run_of(tmp_path, "two")
    for _ in range(2):
        timed.evaluate(replace(CANDIDATE, budget=Budget(seconds=0.1)), 7)
    assert clock.trained == [7, 7]
    assert records(tmp_path) == []


# What it bears


def without_weights(path: Path) -> None:
    path.with_suffix(".safetensors").unlink()


def other_weights(path: Path) -> None:
    path.with_suffix(".safetensors").write_bytes(bytes(8000))


def cut_weights(path: Path) -> None:
    path.with_suffix(".safetensors").write_bytes(content(7)[:4000])


def without_record(path: Path) -> None:
    path.unlink()


def cut_record(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def changed(key: str, value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return change


def written(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


@pytest.mark.parametrize(
    "damage",
    [
        without_weights,
        other_weights,
        cut_weights,
        without_record,
        cut_record,
        changed("values", {"value": 0.006, "size": 15}),
        changed("steps", 1),
        changed("identity", {}),
        changed("weights", False),
        changed("digest", None),
        written(b""),
        written(b"\xff\xfe"),
        written(b"[]"),
        written(b"{}"),
        written(b"7"),
        written(b'{"weights": true}'),
    ],
)
def test_a_damaged_place_is_trained_again_and_mended(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    wrapped, inner = run_of(tmp_path, "one")
    wrapped.evaluate(CANDIDATE, 7)
    damage(record(tmp_path))
    again = wrapped.evaluate(CANDIDATE, 7)
    assert (again.cost.from_cache, again.message) == (False, "")
    found = wrapped.evaluate(CANDIDATE, 7)
    assert found.cost.from_cache
    assert (inner.folder / "scratch" / found.weights).read_bytes() == content(7)
    assert inner.trained == [7, 7]


def older(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA application_id = 0x65766E61")
        db.execute("CREATE TABLE trainings (key TEXT PRIMARY KEY)")
    db.close()


def newer(path: Path) -> None:
    path.mkdir()
    (path / "evonas-cache-v2").touch()


def theirs(path: Path) -> None:
    path.mkdir()
    (path / "holidays.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (older, "is an SQLite file, a cache of evonas 0.1.0, not a folder"),
        (lambda path: path.write_text("name,value\n" * 1000), "is a file, not a folder"),
        (theirs, "holds other files, and no evonas-cache-v1"),
        (newer, "holds other files, and no evonas-cache-v1"),
        (lambda path: path.parent.rmdir(), "cannot be used: FileNotFoundError"),
    ],
    ids=["version 0.1.0's", "text", "another folder", "a newer version's", "no folder"],
)
def test_what_is_no_cache_is_the_users_mistake_told_in_a_line(
    tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    path = folder_of(tmp_path, "caches") / "cache"
    spoil(path)
    before = contents(path.parent)
    with pytest.raises(UserError) as caught:
        create(path)
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"cache: {path} {says}")
    assert "; name a new folder" in line
    assert contents(path.parent) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cache_that_may_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.create(tmp_path / "cache")
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path / "cache")
    with pytest.raises(UserError, match="cannot be read and written; name a new folder"):
        run_of(tmp_path, "one")


def test_an_empty_folder_becomes_a_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    assert not run_of(tmp_path, "one")[0].evaluate(CANDIDATE, 7).cost.from_cache
    assert run_of(tmp_path, "other")[0].evaluate(CANDIDATE, 7).cost.from_cache


def without_a_cache(path: Path) -> None:
    shutil.rmtree(path)


def with_a_file_instead(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def with_folders_as_records(path: Path) -> None:
    for file in path.glob("*.json"):
        file.unlink()
        file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_a_cache, "FileNotFoundError"),
        (with_a_file_instead, "NotADirectoryError"),
        (with_folders_as_records, "is a folder, not a plain file"),
    ],
)
def test_a_cache_that_fails_is_told_of_once_and_the_run_goes_on(
    tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    wrapped, inner = run_of(tmp_path, "one")
    wrapped.evaluate(CANDIDATE, 1)
    spoil(tmp_path / "cache")
    before = contents(tmp_path / "cache")
    found = [wrapped.evaluate(CANDIDATE, seed) for seed in (1, 2, 3)]
    assert all(e.status is Status.OK for e in found)
    assert says in found[0].message
    assert [e.message for e in found[1:]] == ["", ""]
    assert inner.trained == [1, 1, 2, 3]
    assert contents(tmp_path / "cache") == before, "it was not left alone"


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_what_cannot_be_stored_is_told_of_and_its_claim_let_go(tmp_path: Path, suffix: str) -> None:
    """The first process finds the place barred; for the second it is free, and not locked."""
    wrapped, inner = run_of(tmp_path, "one")
    wrapped.evaluate(CANDIDATE, 0)
    barred = record(tmp_path).with_suffix(suffix)
    record(tmp_path).unlink()
    barred.unlink(missing_ok=True)
    inner.after = lambda: barred.mkdir()  # while it trains
    found = wrapped.evaluate(CANDIDATE, 0)
    assert (found.status, found.values["value"]) == (Status.OK, 0.0)
    assert "IsADirectoryError" in found.message
    barred.rmdir()
    started = time.monotonic()
    assert share(tmp_path, 2, 0).wait(30) == 0
    assert time.monotonic() - started < 15, "what it had claimed was not let go"
    assert Kept(tmp_path / "other").trained == [0, 1]


def test_a_trouble_is_told_with_the_next_answer_that_is_well(tmp_path: Path) -> None:
    wrapped, inner = run_of(tmp_path, "one", fault="nan")
    shutil.rmtree(tmp_path / "cache")
    assert wrapped.evaluate(CANDIDATE, 1).message == "the loss was NaN"
    inner.fault = ""
    found = [wrapped.evaluate(CANDIDATE, seed).message for seed in (2, 3)]
    assert "the cache is no longer used" in found[0]
    assert found[1] == ""


def test_weights_that_a_full_disk_does_not_take_end_the_search(tmp_path: Path) -> None:
    run_of(tmp_path, "one")[0].evaluate(CANDIDATE, 7)
    wrapped, inner = run_of(tmp_path, "other")
    shutil.rmtree(inner.folder / "scratch")
    with pytest.raises(SearchFailed, match="weights cannot be written"):
        wrapped.evaluate(CANDIDATE, 7)


def test_an_evaluator_without_an_identity_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "experiments" / "quickstart.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(f"{text}\ncache: mine\n")
    assert load(tmp_path / "mine.yaml").cache == str(tmp_path / "mine")

    class Anonymous:
        Params = TrainEvaluator.Params
        needs = TrainEvaluator.needs
        metrics_of = TrainEvaluator.metrics_of
        test = TrainEvaluator.test

    monkeypatch.setattr(registry, "evaluator", lambda name: Anonymous)
    with pytest.raises(UserError, match=r"cache: .* train, which does not support a cache"):
        load(tmp_path / "mine.yaml")


# Several processes


def test_processes_at_once_train_nothing_twice_and_meet_no_lock(tmp_path: Path) -> None:
    """They make the cache at once too; each asserts that all answers and weights are right."""
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
    assert records(tmp_path) == [], "the one that has it in hand stores it"
    monkeypatch.setattr(cache, "WAIT", 60)
    other.kill()
    started = time.monotonic()
    wrapped.evaluate(CANDIDATE, 0)
    assert time.monotonic() - started < 10
    assert inner.trained == [0, 0]
    assert wrapped.evaluate(CANDIDATE, 0).cost.from_cache
    other.wait()


def test_a_cache_whose_writer_was_killed_stays_whole(tmp_path: Path) -> None:
    wrapped, inner = run_of(tmp_path, "one")
    for goal in (10, 40):
        other = share(tmp_path, 100_000, 0)
        until(lambda goal=goal: len(records(tmp_path)) >= goal)  # type: ignore[misc]
        other.send_signal(signal.SIGKILL)
        assert other.wait() == -signal.SIGKILL
    kept = len(records(tmp_path))
    assert all(wrapped.evaluate(CANDIDATE, seed).cost.from_cache for seed in range(kept))
    assert not wrapped.evaluate(CANDIDATE, kept).cost.from_cache
    assert inner.trained == [kept]


def test_a_kill_between_weights_and_record_costs_the_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, data: bytes | str) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write_atomic(path, data)

    wrapped, inner = run_of(tmp_path, "one")
    with monkeypatch.context() as patch:
        patch.setattr(cache, "write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            wrapped.evaluate(CANDIDATE, 7)
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1
    found = [wrapped.evaluate(CANDIDATE, 7) for _ in range(2)]
    assert [e.cost.from_cache for e in found] == [False, True]
    assert inner.trained == [7, 7]
