"""A search on a Dask cluster, whatever is killed there, ends with the tables of a local one."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.e2e.test_kill import EXPERIMENT as KILLED
from tests.e2e.test_kill import TABLES
from tests.helpers import ROOT
from tests.helpers.dask_cluster import DaskCluster, hosts, running, wait_until

pytestmark = pytest.mark.slow

EXPERIMENT = KILLED.replace("{epochs: 1}", "{epochs: 4}").replace(
    "generations: 6", "generations: 4"
)

SCORED = (
    EXPERIMENT.replace("{name: train, recipe: {lr: 0.1, batch_size: 64}}", "{name: supernet}")
    .replace("budget: {epochs: 4}\n", "")
    .replace("{top: 2, seeds: 2}", "{top: 1, seeds: 1, budget: {epochs: 1}}")
)


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Run the command, or resume what it has begun."""
    file, run_dir = folder / "killed.yaml", folder / "run"
    if not file.exists():
        file.write_text(EXPERIMENT)
    begun = (run_dir / "config.yaml").exists()
    what = ["resume", str(run_dir)] if begun else ["run", str(file), "--out", str(run_dir)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.killed", "none", *what, *options],
        cwd=ROOT,
        env={**os.environ, "SUBMISSIONS": str(folder / "submissions")},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "stderr").open("ab"),
    )


def journaled(folder: Path) -> int:
    journal = folder / "run" / "journal"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def hashes(run_dir: Path) -> dict[str, str]:
    files = [*(run_dir / name for name in TABLES), *sorted((run_dir / "weights").iterdir())]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("local")
    assert start(folder, "--workers", "2").wait(timeout=300) == 0, (folder / "stderr").read_text()
    return hashes(folder / "run")


def finish(driver: subprocess.Popen[bytes], folder: Path) -> dict[str, str]:
    assert driver.wait(timeout=300) == 0, (folder / "stderr").read_text()
    return hashes(folder / "run")


def test_a_worker_killed_in_mid_training_and_one_that_joins_late_change_no_table(
    local: dict[str, str], tmp_path: Path
) -> None:
    with DaskCluster(tmp_path) as cluster:
        first, _ = cluster.start_worker(), cluster.start_worker()
        driver = start(tmp_path, "--address", cluster.address)
        wait_until(lambda: journaled(tmp_path) >= 4)
        [host] = hosts(first.pid)
        family = [host, *host.children(recursive=True)]
        first.kill()
        late = cluster.start_worker()
        wait_until(lambda: not running(family), 5)
        wait_until(lambda: hosts(late.pid) or driver.poll() is not None)
        assert hosts(late.pid), "the late worker was not used"
        assert finish(driver, tmp_path) == local
    told = (tmp_path / "stderr").read_text()
    assert "is gone; what it was doing is done again" in told
    assert "2 Dask workers, 2 evaluations at a time" in told


def test_a_scheduler_that_is_restarted_changes_no_table(
    local: dict[str, str], tmp_path: Path
) -> None:
    with DaskCluster(tmp_path) as cluster:
        cluster.start_worker()
        cluster.start_worker()
        driver = start(tmp_path, "--address", cluster.address)
        wait_until(lambda: journaled(tmp_path) >= 4)
        cluster.scheduler.kill()
        cluster.scheduler.wait()
        wait_until(lambda: "no Dask scheduler answers" in (tmp_path / "stderr").read_text())
        cluster.start_scheduler()
        cluster.start_worker()
        assert finish(driver, tmp_path) == local


@pytest.mark.parametrize("struck", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_killed_leaves_no_host_and_goes_on_at_the_same_cluster_another_and_here(
    local: dict[str, str], tmp_path: Path, struck: signal.Signals
) -> None:
    (tmp_path / "other").mkdir()
    with DaskCluster(tmp_path) as cluster, DaskCluster(tmp_path / "other") as other:
        worker = cluster.start_worker()
        other.start_worker()
        for goal, address in ((3, cluster.address), (8, cluster.address), (12, other.address)):
            driver = start(tmp_path, "--address", address)
            wait_until(lambda goal=goal: journaled(tmp_path) >= goal)  # type: ignore[misc]
            driver.send_signal(struck)
            assert driver.wait(timeout=10) == (-9 if struck is signal.SIGKILL else 130)
            wait_until(lambda: not hosts(worker.pid), 10)
        assert start(tmp_path).wait(timeout=60) == 2, "a folder alone leads to no cluster"
        assert finish(start(tmp_path, "--workers", "1"), tmp_path) == local


def test_ctrl_c_ends_a_driver_whose_scheduler_does_not_answer(tmp_path: Path) -> None:
    with DaskCluster(tmp_path) as cluster:
        cluster.start_worker()
        driver = start(tmp_path, "--address", cluster.address)
        wait_until(lambda: journaled(tmp_path) >= 1)
        cluster.scheduler.send_signal(signal.SIGSTOP)
        wait_until(lambda: "no Dask scheduler answers" in (tmp_path / "stderr").read_text(), 90)
        driver.send_signal(signal.SIGINT)
        assert driver.wait(timeout=8) == 130
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_what_the_driver_has_prepared_is_brought_to_the_workers(tmp_path: Path) -> None:
    """Scores with shared weights, which the driver has trained, and `evonas rank` after them."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "killed.yaml").write_text(SCORED)
    here = finish(start(tmp_path / "here", "--workers", "2"), tmp_path / "here")
    with DaskCluster(tmp_path) as cluster:
        cluster.start_worker()
        driver = start(tmp_path / "there", "--address", cluster.address)
        assert finish(driver, tmp_path / "there") == here
    rank = ["rank", str(tmp_path / "there" / "run"), "--sample", "3", "--epochs", "1"]
    subprocess.run([sys.executable, "-m", "evonas", *rank], cwd=ROOT, check=True)


def test_workers_with_the_folder_of_a_cache_share_it(tmp_path: Path) -> None:
    experiment = f"{EXPERIMENT}cache: {tmp_path / 'cache'}\n"
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "killed.yaml").write_text(experiment)
    with DaskCluster(tmp_path) as cluster:
        cluster.start_worker()
        there = finish(start(tmp_path / "there", "--address", cluster.address), tmp_path / "there")
    assert finish(start(tmp_path / "here", "--workers", "1"), tmp_path / "here") == there
    timings = pd.read_csv(tmp_path / "here" / "run" / "timings.csv")
    assert timings["from_cache"].all()


def test_the_quickstart_has_the_tables_of_a_local_run(tmp_path: Path) -> None:
    quickstart = ROOT / "experiments" / "quickstart.yaml"
    with DaskCluster(tmp_path) as cluster:
        cluster.start_worker()
        cluster.start_worker()
        for name, options in (("local", []), ("there", ["--address", cluster.address])):
            command = ["run", str(quickstart), "--out", str(tmp_path / name), *options]
            subprocess.run([sys.executable, "-m", "evonas", *command], cwd=ROOT, check=True)
    assert hashes(tmp_path / "local") == hashes(tmp_path / "there")
