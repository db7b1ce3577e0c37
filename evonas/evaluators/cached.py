"""Trainings found again across runs, in one SQLite file that runs share."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import quote

from evonas.core import (
    Candidate,
    Cost,
    Evaluation,
    Evaluator,
    SearchFailed,
    Status,
    UserError,
    weights_name,
)
from evonas.evaluators import worker
from evonas.loop import describe
from evonas.records.files import weights_left, write_atomic
from genomes import Genome

PATIENCE = 60.0  # seconds, with SQLite's locks, each of which is held for milliseconds
WAIT = 600.0  # seconds, for a training that another process has in hand
LARGEST = 900_000_000  # bytes of weights; a row of SQLite's ends at 1e9
FORMAT = (0x65766E61, 1)  # the file's application_id and user_version
TABLE = """
CREATE TABLE trainings (
    key TEXT PRIMARY KEY, identity TEXT, answer TEXT, created TEXT, digest TEXT, weights BLOB
)"""
ALLOWED = "a cache that evonas has made, or a new file in a folder that it may write in"


class Identified(Evaluator, Protocol):
    """An evaluator that says what its answers depend on, so that they can be found again."""

    def identity(self, candidate: Candidate, seed: int) -> Mapping[str, Any]:
        """All that has a say in the answer, as plain data: equal identities, equal answers."""


class Cached:
    """Looks a training up before it begins, and keeps it when it has ended well.

    It stands inside the worker, so that a look-up is made when a training would begin, and of
    several runs at once each finds what another has just trained. What another process has in
    hand is waited for, ten minutes at most: a wait is not the candidate's, and no timeout counts
    it. Kept is what ended well and would end so again; faults, and what clock or memory had a
    say in, never are. Weights are kept too, 4 bytes a parameter.

    A cache never ends a run: one that cannot be read or written is told of in the `message` of
    the evaluation at hand, and left alone by this process from then on.
    """

    def __init__(self, evaluator: Identified, path: Path) -> None:
        self.evaluator = evaluator
        self.path = path
        self.run_dir: Path | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.evaluator.metrics

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return self.evaluator.cheap(genome)

    def prepare(self, run_dir: Path) -> None:
        """Makes the cache, if it is not there.

        Raises:
            UserError: it cannot be used.
        """
        create(self.path)
        self.run_dir = run_dir
        self.evaluator.prepare(run_dir)

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        if candidate.budget is not None and not candidate.budget.deterministic:
            return self.evaluator.evaluate(candidate, seed)
        identity = json.dumps(self.evaluator.identity(candidate, seed), sort_keys=True)
        assert self.run_dir is not None, "prepare first"
        store = store_of(self.path, os.getpid())
        try:
            with worker.unwatched():
                known = store.get(identity)
                if known is None:
                    store.claim(identity)
                    known = store.get(identity)  # trained while we waited
            if known is not None:
                evaluation = _restored(candidate, seed, known, self.run_dir)
            else:
                evaluation = self.evaluator.evaluate(candidate, seed)
                if evaluation.status is Status.OK and evaluation.deterministic:
                    with worker.unwatched():
                        store.put(identity, evaluation, weights_left(self.run_dir, evaluation))
        finally:
            store.release()
        if store.trouble and evaluation.status is Status.OK:
            evaluation = replace(evaluation, message=store.trouble)
            store.trouble = ""
        return evaluation


@dataclass(frozen=True, slots=True)
class Kept:
    """What a cache has of a training."""

    values: dict[str, float]
    epochs: float
    steps: int
    weights: bytes | None


class Store:
    """One process's hold on a cache; after a first error it finds and keeps nothing.

    Write-ahead logging lets processes read while one writes, and outlives a kill of any of them.
    It needs memory shared between them: all on one machine, the file not on a network file system.

    Attributes:
        trouble: what went wrong, until someone has been told.
    """

    def __init__(self, path: Path) -> None:
        self.trouble = ""
        self._db: sqlite3.Connection | None = None
        self._claims: IO[bytes] | None = None
        with self._or_without():
            # A file of its own: to open SQLite's and close it would let go of SQLite's locks.
            self._claims = lock_file(path).open("ab")
            self._db = _connect(path, "rw")

    def get(self, identity: str) -> Kept | None:
        """What is kept under an identity; what is damaged is not there."""
        with self._or_without():
            if self._db is None:
                return None
            row = self._db.execute(
                "SELECT answer, digest, weights FROM trainings WHERE key = ? AND identity = ?",
                (_key(identity), identity),
            ).fetchone()
            if row is None:
                return None
            answer, digest, weights = row
            plain = isinstance(answer, str) and isinstance(weights, bytes | None)
            if plain and digest == _digest(identity, answer, weights):
                return Kept(**json.loads(answer), weights=weights)
        return None

    def put(self, identity: str, evaluation: Evaluation, file: Path | None) -> None:
        """Keeps an evaluation and the weights it has left, in one transaction.

        A row that is there already is the same, or damaged; it is written again. Weights too big
        for SQLite are left out, and their training with them.
        """
        with self._or_without():
            if self._db is None or (file is not None and file.stat().st_size > LARGEST):
                return
            weights = None if file is None else file.read_bytes()
            answer = json.dumps(
                {
                    "values": dict(evaluation.values),
                    "epochs": evaluation.cost.epochs,
                    "steps": evaluation.cost.steps,
                },
                default=float,
            )
            self._db.execute(
                "INSERT OR REPLACE INTO trainings VALUES (?, ?, ?, datetime('now'), ?, ?)",
                (_key(identity), identity, answer, _digest(identity, answer, weights), weights),
            )

    def claim(self, identity: str) -> None:
        """Takes a training in hand, if need be after the process that has it, or after `WAIT`.

        A claim is a lock on one byte of a file, which the kernel frees when a process dies.
        """
        end = time.monotonic() + WAIT
        while self._claims is not None:
            with self._or_without():
                try:
                    fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(identity))
                except (BlockingIOError, PermissionError):  # either, by POSIX
                    if time.monotonic() < end:
                        time.sleep(0.05)
                        continue
                return

    def release(self) -> None:
        """Lets go of what this process has claimed."""
        if self._claims is not None:
            with self._or_without():
                fcntl.lockf(self._claims, fcntl.LOCK_UN)

    @contextmanager
    def _or_without(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self.trouble = f"the cache is left alone from here on: {describe(error)}"
            for each in (self._db, self._claims):
                if each is not None:
                    each.close()  # and with it, what was claimed is free
            self._db = self._claims = None


@cache
def store_of(path: Path, process: int) -> Store:
    """A process's hold on a cache, taken when it is first needed."""
    return Store(path)


def create(path: Path) -> None:
    """Makes a cache, or sees that what is there is one.

    Raises:
        UserError: it is something else, or cannot be opened and written.
    """
    try:
        with closing(_connect(path, "rwc")) as db:
            db.execute("BEGIN IMMEDIATE")
            pragmas = ("application_id", "user_version")
            found = tuple(db.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas)
            if found == (0, 0) and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                db.execute(TABLE)
                for name, value in zip(pragmas, FORMAT, strict=True):
                    db.execute(f"PRAGMA {name} = {value}")
            elif found != FORMAT:
                raise UserError(f"cache: {path} is another program's; allowed: {ALLOWED}")
            db.execute("COMMIT")
            _log_ahead(db)
        lock_file(path).touch()
    except (sqlite3.Error, OSError, ValueError) as error:
        raise UserError(f"cache: {path} cannot be used: {error}; allowed: {ALLOWED}") from None


def lock_file(path: Path) -> Path:
    """The file whose bytes are locked while trainings are in hand; it holds nothing."""
    return path.with_name(f"{path.name}-lock")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None)
    db.text_factory = lambda text: text.decode(errors="replace")  # damage shows in the digest
    db.execute("PRAGMA synchronous = NORMAL")
    return db


def _log_ahead(db: sqlite3.Connection) -> None:
    """The one lock that SQLite does not wait for by itself."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def _restored(candidate: Candidate, seed: int, known: Kept, run_dir: Path) -> Evaluation:
    """The evaluation of a training that was found, its weights left as a training leaves them."""
    cost = Cost(epochs=known.epochs, steps=known.steps, from_cache=True)
    evaluation = Evaluation(candidate, known.values, cost=cost)
    if known.weights is None:
        return evaluation
    name = weights_name(seed, candidate.budget.text if candidate.budget else "")
    try:
        write_atomic(run_dir / "scratch" / name, known.weights)
    except OSError as error:  # a full disk is no fault of the network's, nor of the cache's
        raise SearchFailed(f"weights cannot be written: {error}") from None
    return replace(evaluation, weights=name)


def _key(identity: str) -> str:
    return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()


def _byte(identity: str) -> int:
    """A place of its own in a file, among 2**60."""
    return int(_key(identity)[:15], 16)


def _digest(identity: str, answer: str, weights: bytes | None) -> str:
    digest = hashlib.blake2b(json.dumps([identity, answer]).encode(), digest_size=16)
    digest.update(b"" if weights is None else b"weights" + weights)
    return digest.hexdigest()
