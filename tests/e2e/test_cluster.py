"""Evaluations on a Dask cluster; its scheduler and workers are threads of this process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import LocalCluster

from evonas import config, plugins
from evonas.core import Candidate, Evaluation, SearchFailed, Status, UserError
from evonas.evaluators import cluster, host
from evonas.evaluators.cluster import Cluster, OnCluster
from evonas.evaluators.parallel import InWorkers
from evonas.evaluators.pool import Workers
from evonas.jobs.search import resume
from evonas.protocols import Evaluator
from genomes import NASBench201
from tests.helpers import ROOT
from tests.helpers.dask_cluster import DaskCluster, hosts, wait_until
from tests.helpers.faults import Counting, KillsItsDaskWorker, LeavesWeights

SPACE = NASBench201()
GENOMES = [f"{i}-3-3-0-0-{j}" for i in range(4) for j in range(2)]
TASKS = [(Candidate(SPACE.parse(text)), 100 + i) for i, text in enumerate(GENOMES)]


@pytest.fixture
def dask() -> Iterator[LocalCluster]:
    options: dict[str, Any] = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    with LocalCluster(n_workers=1, threads_per_worker=2, silence_logs=50, **options) as made:
        yield made


def answers(
    address: str, evaluator: Evaluator, folder: Path, *, timeout: float | None = 60
) -> dict[str, Evaluation]:
    """Evaluate all genomes on a cluster, and take leave of it."""
    (folder / "scratch").mkdir(exist_ok=True)
    connected = Cluster(address)
    try:
        dispatcher = OnCluster(evaluator, connected, folder, timeout=timeout)
        futures = [dispatcher.submit(*task) for task in TASKS]
        assert {dispatcher.next_done() for _ in futures} == set(futures)
        return {text: future.result() for text, future in zip(GENOMES, futures, strict=True)}
    finally:
        connected.close()


def test_a_cluster_s_answers_are_this_process_s_and_bring_their_weights(
    dask: LocalCluster, tmp_path: Path
) -> None:
    found = answers(dask.scheduler_address, LeavesWeights(), tmp_path)
    here = Counting()
    for text, (candidate, seed) in zip(GENOMES, TASKS, strict=True):
        assert found[text].values == here.evaluate(candidate, seed).values
        assert (tmp_path / "scratch" / found[text].weights).read_text() == text
    assert len({evaluation.cost.worker for evaluation in found.values()}) <= 2
    wait_until(lambda: not hosts(psutil.Process().pid), 5)
    assert not list(Path(dask.workers[0].local_directory).glob("evonas-*"))


@pytest.mark.slow
def test_one_that_exits_and_one_that_hangs_are_blamed_alone(
    dask: LocalCluster, tmp_path: Path
) -> None:
    faults = {GENOMES[3]: "exits", GENOMES[5]: "hangs"}
    found = answers(dask.scheduler_address, Counting(faults), tmp_path, timeout=1.5)
    statuses = {text: e.status for text, e in found.items() if e.status is not Status.OK}
    assert statuses == {GENOMES[3]: Status.CRASHED, GENOMES[5]: Status.TIMEOUT}
    assert "EXIT(7)" in found[GENOMES[3]].message


@pytest.mark.slow
def test_a_full_disk_of_a_worker_ends_the_search_and_names_the_worker(
    dask: LocalCluster, tmp_path: Path
) -> None:
    evaluator = Counting({GENOMES[1]: "full disk"})
    with pytest.raises(SearchFailed, match=r"^tcp://.*: weights cannot be written: No space left"):
        answers(dask.scheduler_address, evaluator, tmp_path)


@pytest.mark.slow
def test_no_worker_is_told_and_waited_for_and_one_that_joins_late_is_used(
    dask: LocalCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="evonas.cluster")
    dask.scale(0)
    wait_until(lambda: not dask.scheduler.workers)

    def join() -> None:
        wait_until(lambda: "no Dask worker yet; waiting for one: dask worker tcp" in caplog.text)
        dask.scale(1)
        wait_until(lambda: "1 Dask worker, 2 evaluations at a time" in caplog.text)
        dask.scale(2)

    threading.Thread(target=join).start()
    found = answers(dask.scheduler_address, Counting(seconds=2), tmp_path)
    assert "2 Dask workers, 4 evaluations at a time" in caplog.text
    assert len({evaluation.cost.worker for evaluation in found.values()}) > 2


def test_a_worker_of_other_versions_is_refused_in_one_line(
    dask: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = host.versions()
    monkeypatch.setattr(host, "processor_and_versions", lambda: ("", {**there, "torch": "0.1"}))
    with pytest.raises(
        UserError, match=r"^parallel.address: tcp://\S+ has torch 0.1 \(here: \S+\);"
    ):
        Cluster(dask.scheduler_address)
    monkeypatch.undo()
    connected = Cluster(dask.scheduler_address)  # the next one is found late
    connected.refuse(next(iter(dask.scheduler.workers)), "has another evonas")
    assert connected.threads() == {}
    connected.close()


def test_a_host_that_cannot_begin_ends_the_search_if_there_is_no_other(
    dask: LocalCluster, tmp_path: Path
) -> None:
    with pytest.raises(
        SearchFailed, match=r"cannot evaluate: RuntimeError: ValueError: not in this"
    ):
        answers(dask.scheduler_address, CannotArrive(), tmp_path)


def test_no_scheduler_is_the_user_s_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT", 0.2)
    with pytest.raises(UserError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        Cluster("tcp://127.0.0.1:9")


def test_a_run_folder_alone_leads_to_no_cluster(tmp_path: Path) -> None:
    there = "parallel={backend: dask, address: 'tcp://127.0.0.1:9'}"
    experiment = config.load(ROOT / "experiments" / "quickstart.yaml", [there])
    (tmp_path / "config.yaml").write_text(config.dump(experiment))
    with pytest.raises(UserError, match=r"add --address tcp://127\.0\.0\.1:9"), resume(tmp_path):
        pytest.fail("it has gone on")


OWN = """
from typing import ClassVar
from evonas.core import Evaluation, Metric, Params
from helping import VALUE

class Own:
    Params: ClassVar = Params
    metrics = (Metric("value"), Metric("there"))
    fingerprint = ""

    def cheap(self, genome):
        return {}

    def evaluate(self, candidate, seed):
        return Evaluation(candidate, {"value": VALUE, "there": float("/evonas-" in __file__)})
"""


def test_the_user_s_own_files_are_brought_to_the_workers_with_their_helpers(
    dask: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "_allowed", {})
    file = tmp_path / "own.py"
    file.write_text(OWN)
    (tmp_path / "helping.py").write_text("VALUE = 0.5\n")
    plugins.allow([str(file)])
    found = answers(dask.scheduler_address, plugins.load(f"{file}:Own")(), tmp_path)
    assert {tuple(e.values.values()) for e in found.values()} == {(0.5, 1.0)}
    file.write_text(OWN + "\n")
    with pytest.raises(UserError, match=r"own\.py changed while evonas was running"):
        answers(dask.scheduler_address, Counting(), tmp_path)


def test_what_is_submitted_while_another_thread_waits_is_begun_at_once(tmp_path: Path) -> None:
    workers = Workers(tmp_path / "scratch", 2)
    dispatcher = InWorkers(Counting({GENOMES[0]: "slow"}), workers)
    dispatcher.submit(*TASKS[0])
    done: list[Future[Evaluation]] = []
    waiting = threading.Thread(target=lambda: done.append(dispatcher.next_done()))
    waiting.start()
    wait_until(lambda: (tmp_path / "scratch" / "trace-0").exists())
    time.sleep(0.2)
    later = dispatcher.submit(*TASKS[1])
    try:
        waiting.join(10)
        assert done == [later]
    finally:
        workers.close()
        waiting.join()


@pytest.mark.slow
def test_a_candidate_that_ends_its_dask_worker_each_time_is_blamed_alone(tmp_path: Path) -> None:
    with DaskCluster(tmp_path) as made:
        for _ in range(2):
            made.start_worker("--nanny", "--nthreads", "2")  # it is started again
        found = answers(made.address, KillsItsDaskWorker(GENOMES[3]), tmp_path)
    failed = {text: e for text, e in found.items() if e.status is not Status.OK}
    assert list(failed) == [GENOMES[3]]
    assert failed[GENOMES[3]].status is Status.CRASHED
    assert failed[GENOMES[3]].message == "its Dask worker was lost 5 times"


class CannotArrive(Counting):
    """An evaluator that no other process can unpickle."""

    def __reduce__(self) -> Any:
        from tests.helpers.faults import unreadable

        return unreadable, ()
