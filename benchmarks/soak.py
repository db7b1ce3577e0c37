"""Signals at measured places of every kind of run, which must then end like an undisturbed one.

    make soak [SECONDS=1200]
    python benchmarks/soak.py [--seconds N] [--seed N] [--jobs search,bench,...] [--folder DIR]

A place is a number of lines in the journal and the tables, of epochs, and of figures, counted in an
undisturbed run and drawn from those ahead; the signal comes up to 0.3 s after the run reaches it.
It goes to the driver, to a worker, or to the whole process group. Each run is struck ten times,
and continued where that ends it; then it goes on to its end.

Counted are tables that differ, trainings journaled twice, wrong exit statuses, tracebacks on the
screen, processes and shared memory left behind. The status is 1 if there are any.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from evonas.markdown import table

EXPERIMENT = """
name: soak
seed: 3
space: {name: nasbench201, channels: 4, cells: 1}
data: {name: digits, subset: 300}
strategy: STRATEGY
evaluator: {name: train, recipe: {lr: 0.1, batch_size: 64}}
budget: {epochs: 1}
objectives: [{name: val_error}, {name: params}]
stop: {generations: 4}
finalists: {top: 2, seeds: 2}
training: {epochs: 12}
parallel: {workers: 2, timeout: 300}
"""
STRATEGIES = {
    "search": "{name: genetic, population: 6, elites: 2}",
    "aging": "{name: aging, population: 6, tournament_size: 3}",
    "controller": "{name: controller, population: 4}",
    "darts": "{name: darts, epochs: 4, recipe: {batch_size: 32}}",
    "gdas": "{name: gdas, epochs: 4, recipe: {batch_size: 32}}",
    "supernet": "{name: nsga2, population: 4}",
}
SHARED = "{name: supernet, epochs: 6, pool: 2, recalibrate: 2, recipe: {lr: 0.1, batch_size: 64}}"
BENCH = """
name: soak
space: {name: table, genes: {a: [x, y, z], b: [x, y, z], c: [x, y, z], d: [x, y, z]}}
table: {path: table.csv, metrics: {loss: loss}}
objectives: [{name: loss}]
protocol: {queries: 60}
seeds: 200
strategies: {ga: {name: genetic, population: 6}, aging: {name: aging, population: 5}}
"""
JOBS = (*STRATEGIES, "train", "rank", "bench")
PER_RUN = 10  # signals
LIMIT = 300.0  # seconds for a command on a busy machine
SOON = 30.0  # seconds in which a signal must have ended a driver

ENDING = {"KILL": -9, "SEGV": -11, "TERM": 130, "INT": 130, "INT twice": 130}
ACTIONS = (
    *(("driver", name) for name in (*ENDING, "STOP and CONT")),
    *(("group", name) for name in ("KILL", "TERM", "INT", "INT twice", "STOP and CONT")),
    *(("worker", name) for name in ("KILL", "TERM", "SEGV", "INT", "STOP and CONT")),
)
LINES = ("journal", "evaluations.csv", "curve.csv", "runs.csv", "supernet/curve.csv")
UNREPEATABLE = ("timings.csv", "cost.csv", "latency.csv")


@dataclass
class Soak:
    """What has happened so far."""

    rng: random.Random
    interrupted: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # phase, who, what
    faults: list[str] = field(default_factory=list)
    runs: int = 0
    early: int = 0  # signals before Python ran any line of evonas
    pids: set[str] = field(default_factory=set)  # of all drivers


@dataclass
class Job:
    """A kind of run: its commands, its folder, and what an undisturbed one has left.

    Attributes:
        begins: the arguments of the command that begins it.
        resumes: whether `evonas resume` continues it; else the same command does.
    """

    name: str
    folder: Path
    begins: list[str]
    resumes: bool = True
    copied: Path | None = None  # the run that it works in, which is given to each round anew
    total: int = 0
    digests: dict[str, str] = field(default_factory=dict)

    def fresh(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.copied is not None:
            shutil.copytree(self.copied, self.folder)

    def start(self) -> subprocess.Popen[str]:
        begun = any((self.folder / name).exists() for name in ("config.yaml", "training.yaml"))
        arguments = ["resume", str(self.folder)] if self.resumes and begun else self.begins
        return subprocess.Popen(
            [sys.executable, "-m", "evonas", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=(self.folder.parent / f"{self.name}.stderr").open("w"),
            text=True,
            start_new_session=True,
            # A shell has its background jobs ignore it, which is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def stderr(self) -> str:
        return (self.folder.parent / f"{self.name}.stderr").read_text()

    def progress(self) -> int:
        """Return how many lines and figures there are."""
        folders = [self.folder, self.folder / "rank"]
        files = [folder / name for folder in folders for name in LINES]
        lines = sum(file.read_bytes().count(b"\n") for file in files if file.exists())
        return lines + len(list(self.folder.glob("figures/*.png")))

    def phase(self) -> str:
        if list(self.folder.glob("figures/*")) and self.name != "rank":
            return "figures"
        finals = (self.folder / "config.yaml").exists() and self.name != "rank"
        if finals and (self.folder / "generations.csv").exists():
            done = (self.folder / "generations.csv").read_bytes().count(b"\n") - 1
            finals = done == 4
            return "finals" if finals else self.name
        return self.name if self.progress() else "start"

    def left(self) -> dict[str, str]:
        """Return the digest of each table without its columns of times."""
        digests = {}
        for file in sorted(self.folder.rglob("*.csv")):
            name = str(file.relative_to(self.folder))
            if file.name in UNREPEATABLE or "figures" in name:
                continue
            frame = pd.read_csv(file, dtype=str)
            frame = frame[[column for column in frame if "seconds" not in column]]
            if file.name == "runs.csv":
                frame = frame.sort_values(["strategy", "seed"])
            digests[name] = hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()
        return digests


def jobs(folder: Path, names: list[str]) -> Iterator[Job]:
    """Yield each job once its undisturbed run, and those it builds on, have ended."""
    for name in (*STRATEGIES, "train", "rank", "bench"):
        needed = name in names or (name == "search" and "train" in names)
        needed |= name == "supernet" and "rank" in names
        if not needed:
            continue
        out = folder / name
        if name in STRATEGIES:
            text = EXPERIMENT.replace("STRATEGY", STRATEGIES[name])
            if name == "supernet":
                text = text.replace("{name: train, recipe: {lr: 0.1, batch_size: 64}}", SHARED)
                text = text.replace("\nbudget: {epochs: 1}", "")
                text = text.replace("seeds: 2}", "seeds: 2, budget: {epochs: 1}}")
            (folder / f"{name}.yaml").write_text(text)
            job = Job(name, out, ["run", f"{folder / name}.yaml", "--out", str(out)])
        elif name == "train":
            job = Job(name, out, ["train", str(folder / "search-whole"), "--out", str(out)])
        elif name == "rank":
            arguments = ["rank", str(out), "--sample", "6", "--epochs", "1"]
            job = Job(name, out, arguments, False, folder / "supernet-whole")
        else:
            write_bench(folder)
            arguments = ["bench", str(folder / "bench.yaml"), "--out", str(out), "--workers", "2"]
            job = Job(name, out, arguments, False)
        whole = folder / f"{name}-whole"
        if whole.exists():
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(whole, out)
        else:
            job.fresh()
            if job.start().wait(LIMIT):
                raise SystemExit(f"{name}: the undisturbed run ended badly\n{job.stderr()}")
            shutil.copytree(out, whole)
        job.total, job.digests = job.progress(), job.left()
        print(f"{name}: {job.total} places, {len(job.digests)} tables", flush=True)
        if name in names:
            yield job


def write_bench(folder: Path) -> None:
    rng = np.random.default_rng(0)
    genomes = [f"{i:04d}" for i in range(10_000) if max(map(int, f"{i:04d}")) < 3]
    frame = pd.DataFrame({"genome": genomes, "loss": rng.random(len(genomes))})
    frame.to_csv(folder / "table.csv", index=False)
    (folder / "bench.yaml").write_text(BENCH)


def strike(soak: Soak, job: Job, driver: subprocess.Popen[str]) -> tuple[str, str] | None:
    """Send a signal at a drawn place.

    Returns:
        The name of the signal, if it must end the driver, and what was done; None if the driver
        had ended before.
    """
    # Not too far on, so that the places of one run are spread over all of it.
    goal = min(job.progress() + soak.rng.randrange(2 * job.total // PER_RUN), job.total)
    while driver.poll() is None and job.progress() < goal:
        time.sleep(0.01)
    time.sleep(soak.rng.random() * 0.3)
    if driver.poll() is not None:
        return None
    workers = [each.pid for each in members(driver) if is_worker(each)]
    who, what = soak.rng.choice([each for each in ACTIONS if workers or each[0] != "worker"])
    soak.interrupted[job.phase(), who, what] += 1
    target = soak.rng.choice(workers) if who == "worker" else driver.pid
    for number in numbers(what):
        try:
            (os.killpg if who == "group" else os.kill)(target, number)
        except ProcessLookupError:
            break
        time.sleep(soak.rng.random() * (1.0 if "STOP" in what else 0.1))
    place = f"{job.name}, {goal} of {job.total}: {what} to the {who}"
    return what if who != "worker" and what in ENDING else "", place


def settle(soak: Soak, job: Job, driver: subprocess.Popen[str], ends: str, place: str) -> bool:
    """Wait for a driver, and check how it ended; return whether its run is complete."""
    expected = ENDING.get(ends)
    try:
        status = driver.wait(LIMIT if expected is None else SOON)
    except subprocess.TimeoutExpired:
        soak.faults.append(f"{place}: still there after a while")
        os.killpg(driver.pid, signal.SIGKILL)
        status = driver.wait()
    early = before_evonas(status, job.stderr())
    soak.early += early
    if not early and status not in (0, expected):  # a signal may come when it is about to end
        soak.faults.append(f"{place}: status {status}\n{job.stderr()[-2000:]}")
    _, alive = psutil.wait_procs(members(driver), timeout=10)
    if alive := [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]:
        soak.faults.append(f"{place}: left behind {alive}")
    if not early and re.search("Traceback|Warning", job.stderr()):
        soak.faults.append(f"{place}:\n{job.stderr()[-2000:]}")
    soak.pids.add(str(driver.pid))
    return status == 0


def before_evonas(status: int, stderr: str) -> bool:
    """Return whether a signal came while Python itself was starting, before it ran evonas."""
    by_default = status == -signal.SIGTERM and not stderr
    return by_default or ("KeyboardInterrupt" in stderr and "evonas" not in stderr)


def members(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes of a driver's session, itself included."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == driver.pid:
                found.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return found


def is_worker(process: psutil.Process) -> bool:
    try:
        return "popen_loky" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def numbers(what: str) -> list[signal.Signals]:
    names = {"INT twice": ["INT", "INT"], "STOP and CONT": ["STOP", "CONT"]}.get(what, [what])
    return [signal.Signals[f"SIG{name}"] for name in names]


def round_of(soak: Soak, job: Job) -> None:
    """Disturb one run some times, let it end, and compare what it leaves."""
    job.fresh()
    soak.runs += 1
    left, known = PER_RUN, len(soak.faults)
    complete = False
    while not complete:
        driver = job.start()
        ends, place = "", f"{job.name}, left alone"
        while left and not ends and (struck := strike(soak, job, driver)):
            left -= 1
            ends, place = struck
        complete = settle(soak, job, driver, ends, place)
        if not complete and not ends and len(soak.faults) > known:
            return  # it ended by itself, and badly
    # What a kill of joblib's cleaner has left, the next start deletes.
    for entry in os.listdir("/dev/shm"):
        if soak.pids & set(entry.replace("-", "_").split("_")):
            soak.faults.append(f"{job.name}: left behind /dev/shm/{entry}")
    after = job.left()
    for name in after.keys() | job.digests.keys():
        if after.get(name) != job.digests.get(name):
            soak.faults.append(f"{job.name}: {name} differs")
    for journal in job.folder.rglob("journal"):
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        asked = Counter((line["key"], line["seed"], line["budget"]) for line in lines)
        if twice := asked.total() - len(asked):
            soak.faults.append(f"{job.name}: {twice} trainings journaled twice")


def report(soak: Soak) -> str:
    phases = sorted({phase for phase, _, _ in soak.interrupted})
    rows = []
    for who, what in ACTIONS:
        counts = [soak.interrupted[phase, who, what] for phase in phases]
        rows.append([f"{what} to the {who}", *(str(n or "") for n in counts), str(sum(counts))])
    sums = [sum(n for (p, _, _), n in soak.interrupted.items() if p == each) for each in phases]
    rows.append(["all", *map(str, sums), str(soak.interrupted.total())])
    text = table(["signal", *phases, "all"], rows)
    faults = "\n".join(soak.faults) or "none"
    total = soak.interrupted.total()
    counts = f"{total} interruptions of {soak.runs} runs, {soak.early} of them before evonas ran"
    return f"{text}\n\n{counts}; faults: {faults}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--folder", type=Path, help="kept, and undisturbed runs in it reused")
    options = parser.parse_args()
    names = options.jobs.split(",")
    if unknown := set(names) - set(JOBS):
        parser.error(f"no jobs: {', '.join(unknown)}; allowed: {', '.join(JOBS)}")
    soak = Soak(random.Random(options.seed))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        ready = list(jobs(folder, names))
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            for job in ready:
                if time.monotonic() < end:
                    known = len(soak.faults)
                    round_of(soak, job)
                    print(job.name, soak.interrupted.total(), *soak.faults[known:], flush=True)
    print(report(soak))
    raise SystemExit(bool(soak.faults))


if __name__ == "__main__":
    main()
