"""The evonas command, killed with SIGKILL: `python -m tests.helpers.killed MOMENT ...`.

A moment is `WHERE:N`, the N-th time that the run comes to a place between two writes, or `none`.
Every training that the driver hands out is noted in the file that SUBMISSIONS names. With HERE=1 it
hands out none, and trains in its own process.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from evonas.cli import app, finishing
from evonas.evaluators import pool, worker
from evonas.oneshot.training import SupernetTraining
from evonas.records import checkpoint, journal, run, tables
from tests.helpers.here import instead_of_workers

PLACES = (
    *("in_journal_line", "after_journal_line", "after_evaluations", "after_generations"),
    *("after_fronts", "before_checkpoint", "in_checkpoint", "after_checkpoint"),
)


# Between the writes of a supernet's training.
SHARED = ("before_epoch", "in_shared_checkpoint", "before_shared_weights", "before_shared_cleaning")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nth(n: int, then: Callable[[], None]) -> Callable[[], None]:
    calls = 0

    def step() -> None:
        nonlocal calls
        calls += 1
        if calls == n:
            then()

    return step


def before(owner: Any, name: str, step: Callable[..., None]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        step(*args)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, step: Callable[..., None]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        step(*args)
        return result

    setattr(owner, name, wrapped)


def half_a_line(self: journal.Journal, *_: Any) -> None:
    self._file.write(b'{"key": "g1-1-1-1-1-1", "se')
    kill()


def aim(where: str, n: int) -> None:
    step = nth(n, kill)

    def at_table(name: str) -> Callable[..., None]:
        return lambda table, rows: step() if table.path.name == f"{name}.csv" else None

    if where == "in_journal_line":
        steps = [0]

        def torn(self: journal.Journal, *rest: Any) -> None:
            steps[0] += 1
            if steps[0] == n:
                half_a_line(self)

        before(journal.Journal, "add", torn)
    elif where == "after_journal_line":
        after(journal.Journal, "add", lambda *_: step())
    elif where in ("after_evaluations", "after_generations", "after_fronts"):
        after(tables.Table, "append", at_table(where.removeprefix("after_")))
    elif where == "before_checkpoint":
        before(checkpoint, "save", lambda *_: step())
    elif where == "in_checkpoint":
        # Written aside, not yet renamed.
        before(Path, "replace", lambda path, *_: step() if "generation-" in path.name else None)
    elif where == "after_checkpoint":
        before(run.RunFolder, "_keep_weights", lambda *_: step())
    elif where == "before_epoch":
        before(SupernetTraining, "epoch", lambda *_: step())
    elif where == "in_shared_checkpoint":
        before(Path, "replace", lambda path, *_: step() if "checkpoint.pt" in path.name else None)
    elif where == "before_shared_weights":
        before(
            Path,
            "replace",
            lambda path, *_: step() if path.name == ".weights.safetensors.part" else None,
        )
    elif where == "before_shared_cleaning":
        before(Path, "unlink", lambda path, *_: step() if path.name == "checkpoint.pt" else None)
    else:
        raise ValueError(where)


def note_submissions(notes: Path) -> None:
    def note(workers: pool.Workers, function: Any, *arguments: Any) -> None:
        if function is worker.work:
            _, candidate, seed, *_ = arguments
            with notes.open("a") as file:
                file.write(f"{seed} {candidate.budget and candidate.budget.text}\n")

    before(pool.Workers, "submit", note)


if __name__ == "__main__":
    moment, *arguments = sys.argv[1:]
    # Takes seconds, and comes after all that a kill could harm.
    finishing.draw = lambda run_dir, only=(), *, pdf=False: None
    note_submissions(Path(os.environ["SUBMISSIONS"]))
    if moment != "none":
        place, _, count = moment.partition(":")
        aim(place, int(count))
    with instead_of_workers() if os.environ.get("HERE") == "1" else nullcontext():
        app(arguments)
