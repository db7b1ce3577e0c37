"""Misbehaviour on purpose; in a module of its own, so that workers can import it, without torch."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from evonas.core import Candidate, Evaluation, Metric, SearchFailed
from evonas.evaluators.worker import SHARE, claim_slot, start
from genomes import Genome


class Counting:
    """Costs nothing, answers with the genome's own digits, and notes each call in a file."""

    metrics = (Metric("value"), Metric("size"))
    fingerprint = ""

    def __init__(
        self,
        faults: Mapping[str, str] | None = None,
        seconds: float = 0.0,
        notes: Path | None = None,
        once: bool = False,
    ) -> None:
        self.faults = dict(faults or {})
        self.seconds = seconds
        self.notes = notes
        self.once = once

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {"size": sum(genome.genes)}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        text = candidate.genome.text
        seen_before = False
        if self.notes is not None:
            seen_before = self.notes.exists() and text in self.notes.read_text().split()
            with self.notes.open("a") as file:
                file.write(f"{text}\n")
        if not (self.once and seen_before):
            misbehave(self.faults.get(text, ""))
        time.sleep(self.seconds)
        if self.faults.get(text) == "unreadable":
            return OwnAnswer(candidate, {Text("value"): 0.5, "size": 1}, message=Text("fine"))
        if self.faults.get(text) == "unpicklable":
            return Evaluation(candidate, {"value": 1.0}, message=threading.Lock())  # type: ignore[arg-type]
        value = (seed % 1000) / 1000
        return Evaluation(candidate, {"value": value, "size": sum(candidate.genome.genes)})


class DiesInItsFirstTest(Counting):
    """Its process is killed when it first measures a winner, which only a note remembers."""

    def __init__(self, note: Path) -> None:
        super().__init__()
        self.note = note

    def test(self, genome: Genome, weights: Path, test: Sequence[int]) -> dict[str, float]:
        return {"error": struck_once(self.note, signal.SIGKILL, len(test)) / 400}


class LeavesWeights(Counting):
    """Leaves a file with each answer, in the run folder that it is prepared in."""

    def prepare(self, run_dir: Path) -> Iterator[tuple[int, int]]:
        self.scratch = run_dir / "scratch"
        self.scratch.mkdir(exist_ok=True)
        yield from ()

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        (self.scratch / f"{seed}.safetensors").write_text(candidate.genome.text)
        return replace(super().evaluate(candidate, seed), weights=f"{seed}.safetensors")


class KillsItsDaskWorker(Counting):
    """Ends the process that asked for it from another machine, for one genome."""

    def __init__(self, guilty: str) -> None:
        super().__init__(seconds=0.1)
        self.guilty = guilty

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        if candidate.genome.text == self.guilty:
            host = psutil.Process(os.getppid())
            os.kill(host.ppid(), signal.SIGKILL)
            time.sleep(600)
        return super().evaluate(candidate, seed)


def unreadable(*_: object) -> None:
    raise ValueError("not in this process")


class Text(str):
    """A text that cannot be unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[()]]:
        return unreadable, ()


class OwnAnswer(Evaluation):
    """An evaluation that cannot be unpickled."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[()]]:
        return unreadable, ()


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def struck_once(note: Path, struck: int, number: int) -> int:
    """Sends itself a signal in the first call that finds no note."""
    if not note.exists():
        note.touch()
        os.kill(os.getpid(), struck)
        time.sleep(0.2)
    return number


def misbehave(fault: str) -> None:
    if fault == "raises":
        raise ZeroDivisionError("no such luck")
    if fault == "exits":
        os._exit(7)
    if fault == "leaves":
        sys.exit("gone")
    if fault == "dies":
        die()
    if fault == "segfaults":
        ctypes.string_at(0)
    if fault == "hangs":
        ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock: no Python thread runs
    if fault == "interrupts":
        raise KeyboardInterrupt
    if fault == "closes":
        raise GeneratorExit
    if fault == "warns":
        warnings.warn("a library's advice", stacklevel=1)
    if fault == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fault == "sleeps unwatched":
        faulthandler.cancel_dump_traceback_later()
        time.sleep(600)
    if fault == "full disk":
        raise SearchFailed("weights cannot be written: No space left on device")
    if fault == "slow":
        time.sleep(600)


def claim(folder: Path, workers: int, told: Connection) -> None:
    told.send(claim_slot(folder, workers))
    told.recv()  # holds the slot until it is let go


def see(folder: Path, told: Connection) -> None:
    start(os.getppid(), folder, 2, ("1", "3"), {}, 2)
    told.send((os.environ["CUDA_VISIBLE_DEVICES"], os.environ[SHARE]))
    told.recv()
