"""Loggers: what they are told, once, and that no failure of one disturbs a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from evonas import config, loggers
from evonas.core import UserError
from evonas.jobs.search import start
from tests.helpers import tabular

TABLES = ("evaluations", "generations", "fronts", "front")
OWN = """
import json, random

def log(record):
    random.random()
    with open(record["run"] + "/../told.jsonl", "a") as file:
        file.write(json.dumps(record) + chr(10))

def broken(record):
    raise ValueError("no room")
"""


def experiment(folder: Path, *names: str) -> Path:
    (folder / "own.py").write_text(OWN)
    path = tabular.write_experiment(folder)
    path.write_text(path.read_text() + f"logging: [{', '.join(names)}]\n")
    return path


def run(folder: Path, *names: str) -> tuple[Path, str]:
    out = folder / "run"
    result = tabular.evonas("run", experiment(folder, *names), "--out", out)
    assert result.exit_code == 0, result.output
    return out, result.output


def resume(out: Path, *arguments: str | Path) -> None:
    result = tabular.evonas("resume", out, *arguments)
    assert result.exit_code == 0, result.output


def tables(folder: Path) -> list[bytes]:
    return [(folder / f"{name}.csv").read_bytes() for name in TABLES]


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]


def numbers(records: list[dict[str, Any]], event: str) -> list[int]:
    return [record["number"] for record in records if record["event"] == event]


def test_an_own_function_is_told_each_thing_once_over_resumes_and_changes_no_table(
    tmp_path: Path,
) -> None:
    (tmp_path / "plain").mkdir()
    plain = tabular.run(tmp_path / "plain")
    out, _ = run(tmp_path, "own.py:log")
    assert tables(out) == tables(plain)
    first = told(tmp_path)
    rows = pd.read_csv(out / "generations.csv")
    assert numbers(first, "generation") == [0, 1]
    last = [each for each in first if each["event"] == "generation"][-1]
    assert last["metrics"]["hypervolume"] == rows["hypervolume"].iloc[-1]
    assert first[0]["status"] == "ok"
    assert set(first[0]["metrics"]) == {"loss", "size"}

    resume(out, "--set", "stop.generations=4", "--plugin", tmp_path / "own.py")
    for event in ("evaluation", "generation"):
        found = numbers(told(tmp_path), event)
        assert found == list(range(len(found)))
    assert len((out / "journal").read_text().splitlines()) == len(
        numbers(told(tmp_path), "evaluation")
    )


def test_what_a_kill_kept_from_a_logger_is_told_on_resume(tmp_path: Path) -> None:
    with start(config.load(experiment(tmp_path, "own.py:log")), tmp_path / "run") as search:
        for _ in search:
            break
    (tmp_path / "run" / loggers.LOGGED).unlink()  # killed before it was written
    (tmp_path / "told.jsonl").unlink()
    resume(tmp_path / "run", "--plugin", tmp_path / "own.py")
    records = told(tmp_path)
    assert numbers(records, "generation") == [0, 1]
    assert numbers(records, "evaluation") == list(range(len(numbers(records, "evaluation"))))


def test_a_logger_that_fails_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain = tabular.run(tmp_path / "plain")
    out, said = run(tmp_path, "own.py:broken", "own.py:log")
    assert said.count("no room") == 1
    assert (out / "log.txt").read_text().count("no room") == 1
    assert numbers(told(tmp_path), "generation") == [0, 1]
    assert tables(out) == tables(plain)


def test_tensorboard_reads_back_each_step_once_after_a_resume(tmp_path: Path) -> None:
    accumulating = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out, _ = run(tmp_path, "tensorboard")
    resume(out, "--set", "stop.generations=3")
    marks = json.loads((out / loggers.LOGGED).read_text())
    assert marks["tensorboard"]["generation"] == 3
    (out / loggers.LOGGED).write_text("{}")  # all is told again, and hides what was there
    resume(out, "--set", "stop.generations=4")

    read = accumulating.EventAccumulator(str(out / "tensorboard" / "generation"))
    read.Reload()
    scalars = read.Scalars("generation/hypervolume")
    assert [each.step for each in scalars] == [0, 1, 2, 3]
    assert [each.value for each in scalars] == pytest.approx(
        pd.read_csv(out / "generations.csv")["hypervolume"]
    )
    read = accumulating.EventAccumulator(str(out / "tensorboard" / "evaluation"))
    read.Reload()
    steps = [each.step for each in read.Scalars("evaluation/loss")]
    assert steps == list(range(len((out / "journal").read_text().splitlines())))


@pytest.mark.slow  # MLflow takes seconds to import and to make its database
def test_mlflow_reads_back_each_step_once_after_a_resume(tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    pytest.importorskip("alembic")
    out, said = run(tmp_path, "mlflow")
    assert "failed" not in said
    (out / loggers.LOGGED).write_text(  # as if killed before the last generation was marked
        json.dumps(
            {"mlflow": {"id": json.loads((out / loggers.LOGGED).read_text())["mlflow"]["id"]}}
        )
    )
    resume(out, "--set", "stop.generations=4")
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{out / 'mlruns' / 'mlflow.db'}")
    [found] = client.search_runs([client.get_experiment_by_name("quick").experiment_id])
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["strategy.name"] == "random"
    history = client.get_metric_history(found.info.run_id, "generation/hypervolume")
    assert [each.step for each in history] == [0, 1, 2, 3]
    assert [each.value for each in history] == pytest.approx(
        pd.read_csv(out / "generations.csv")["hypervolume"]
    )
    steps = [each.step for each in client.get_metric_history(found.info.run_id, "evaluation/loss")]
    assert steps == list(range(len((out / "journal").read_text().splitlines())))


class FakeRun:
    def __init__(self, id: str) -> None:
        self.id, self.logged, self.ended = id, list[dict[str, Any]](), list[int]()

    def define_metric(self, name: str, **options: object) -> None:
        pass

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


def test_wandb_goes_on_with_its_run_and_sends_nothing_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[FakeRun] = []
    options: list[dict[str, Any]] = []

    def init(**given: Any) -> FakeRun:
        options.append(given)
        runs.append(FakeRun(given["id"]))
        return runs[-1]

    fake = SimpleNamespace(init=init, Settings=lambda **given: given, __spec__=object())
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    out, _ = run(tmp_path, "wandb")
    resume(out, "--set", "stop.generations=3")
    assert options[0]["mode"] == "offline"
    assert options[0]["settings"]["symlink"] is False
    assert runs[0].id == runs[1].id
    assert [each.ended for each in runs] == [[0], [0]]
    logged = [each["generation"] for part in runs for each in part.logged if "generation" in each]
    assert logged == [0, 1, 2]


def test_a_missing_package_is_refused_with_the_line_that_installs_it_and_a_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    path = experiment(tmp_path, "wandb")
    with pytest.raises(UserError, match=r"logging\.0.*pip install 'evonas\[wandb\]'"):
        config.load(path)
    assert config.load(path, written=True).logging == ("wandb",)
    with pytest.raises(UserError, match="unknown logger 'tensorbord'"):
        config.load(experiment(tmp_path, "tensorbord"))
    with pytest.raises(UserError, match="listed twice"):
        config.load(experiment(tmp_path, "mlflow", "mlflow"))
