"""A Dask cluster of real processes on this machine."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.helpers import ROOT


class DaskCluster:
    """A scheduler, and workers without the nanny that would start them again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.start_scheduler()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for process in (*self.workers, self.scheduler):
            process.send_signal(signal.SIGCONT)
            process.terminate()  # a host, which ends with its worker, cleans up behind it
        for process in (*self.workers, self.scheduler):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start_scheduler(self) -> None:
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]
        self.scheduler = self._start("scheduler", *options)

    def start_worker(self, *options: str) -> subprocess.Popen[bytes]:
        local = ["--local-directory", str(self.folder), "--no-dashboard", "--nthreads", "1"]
        worker = self._start("worker", self.address, *local, *(options or ["--no-nanny"]))
        self.workers.append(worker)
        return worker

    def log(self) -> str:
        return (self.folder / "dask.log").read_text()

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        with (self.folder / "dask.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{what}", *options],
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended; nobody may have waited for an orphan that has."""
    alive = []
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            if each.status() != psutil.STATUS_ZOMBIE:
                alive.append(each)
    return alive


def hosts(pid: int) -> list[psutil.Process]:
    """The hosts below a process."""
    try:
        family = running(psutil.Process(pid).children(recursive=True))
        return [each for each in family if "host import serve" in " ".join(each.cmdline())]
    except psutil.NoSuchProcess:
        return []


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
