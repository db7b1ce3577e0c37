"""The cache: a folder in which runs share their trainings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from evonas import files
from evonas.core import (
    Candidate,
    Cost,
    Evaluation,
    Metric,
    SearchFailed,
    Status,
    UserError,
    weights_name,
)
from evonas.evaluators import worker
from evonas.files import write_atomic
from evonas.loop import checked, error_text
from evonas.protocols import Evaluator, Foresees, Identified, Prepares
from evonas.records.files import weights_left
from genomes import Genome

WAIT = 600.0  # seconds, for another process that is training the same network
MARKER = "evonas-cache-v1"  # an empty file that marks a folder as a cache, and names its format

_troubles: dict[Path, str] = {}  # the caches that this process no longer uses, and the reason


class IdentifiedEvaluator(Evaluator, Identified, Protocol):
    """An evaluator that can identify its trainings."""


class Cached:
    """Looks each training up before it begins, and stores it afterwards.

    It runs inside the worker, so several runs at once share trainings as they finish. Only
    successful, reproducible trainings are stored, with their weights: never a fault, nor a training
    that depended on time or memory. Waiting for another process that trains the same network
    (`WAIT` seconds at most) does not count towards the timeout.

    A cache never ends a run. If it cannot be read or written, the `message` of one evaluation says
    so, and this process no longer uses it.
    """

    def __init__(self, evaluator: IdentifiedEvaluator, path: Path, run_dir: Path) -> None:
        self.evaluator = evaluator
        self.path = path.absolute()  # a network may change the working directory
        self.run_dir = run_dir.absolute()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return self.evaluator.metrics

    @property
    def fingerprint(self) -> str:
        return self.evaluator.fingerprint

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return self.evaluator.cheap(genome)

    def effort(self, candidate: Candidate) -> float:
        return self.evaluator.effort(candidate) if isinstance(self.evaluator, Foresees) else 0.0

    def prepare(self, run_dir: Path) -> Iterator[tuple[int, int]]:
        self.run_dir = run_dir.absolute()
        if isinstance(self.evaluator, Prepares):
            yield from self.evaluator.prepare(run_dir)

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        timed = candidate.budget is not None and not candidate.budget.deterministic
        if timed or self.path in _troubles:
            evaluation = self.evaluator.evaluate(candidate, seed)
        else:
            evaluation = self._looked_up_or_trained(candidate, seed)
        if _troubles.get(self.path) and evaluation.status is Status.OK:
            evaluation = replace(evaluation, message=_troubles[self.path])
            _troubles[self.path] = ""
        return evaluation

    def _looked_up_or_trained(self, candidate: Candidate, seed: int) -> Evaluation:
        place = Place(self.path, self.evaluator.identity(candidate, seed))
        budget = candidate.budget.text if candidate.budget else ""
        file = self.run_dir / "scratch" / weights_name(seed, budget)
        hit = None
        try:
            with self._or_without(), worker.unwatched():
                hit = place.read(candidate, file)
                if hit is None:
                    place.claim()
                    hit = place.read(candidate, file)  # stored while this process waited
            if hit is not None:
                return hit
            names = [metric.name for metric in self.metrics]
            evaluation = checked(self.evaluator.evaluate(candidate, seed), names)
            reproducible = evaluation.status is Status.OK and evaluation.deterministic
            if reproducible and place.lock.is_locked:  # only the holder of the lock writes
                with self._or_without(), worker.unwatched():
                    place.write(evaluation, weights_left(self.run_dir, evaluation))
            return evaluation
        finally:
            with self._or_without():
                place.lock.release()

    @contextmanager
    def _or_without(self) -> Iterator[None]:
        """Let the evaluation continue without the cache after an error in it."""
        try:
            yield
        except (OSError, UserError, NotImplementedError) as error:
            # A link or folder in place of a file; no locks on this disk.
            reason = str(error) if isinstance(error, UserError) else error_text(error)
            _troubles[self.path] = f"the cache is no longer used: {reason}"


class Place:
    """The place of a training in a cache: `KEY.json`, `KEY.safetensors` and `KEY.lock`.

    The process that trains holds the lock; the kernel frees it if the process dies. The record is
    written after the weights, and its digest covers both: after a kill in between, or damage to
    either, the place counts as empty.
    """

    def __init__(self, cache: Path, identity: Mapping[str, Any]) -> None:
        self.marker = cache / MARKER
        self.identity = json.loads(json.dumps(identity, sort_keys=True))
        key = _key(json.dumps(self.identity))
        self.record = cache / f"{key}.json"
        self.weights = cache / f"{key}.safetensors"
        self.lock = FileLock(cache / f"{key}.lock")

    def read(self, candidate: Candidate, file: Path) -> Evaluation | None:
        """Return the stored evaluation, and write its weights to a file, as a training would.

        Returns:
            None if nothing is stored, or the record is damaged or belongs to another training.

        Raises:
            SearchFailed: the file cannot be written.
        """
        try:
            record = json.loads(files.read(self.record))
            weights = files.read(self.weights) if record["weights"] else None
            digest = record.pop("digest")
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return None
        if digest != _digest(record, weights) or record["identity"] != self.identity:
            return None
        if weights is not None:
            try:
                write_atomic(file, weights)
            except OSError as error:  # a full disk: neither the network nor the cache is at fault
                raise SearchFailed(f"weights cannot be written: {error}") from None
        return Evaluation(
            candidate,
            record["values"],
            cost=Cost(epochs=record["epochs"], steps=record["steps"], from_cache=True),
            weights="" if weights is None else file.name,
        )

    def claim(self) -> None:
        """Take the lock, waiting for the process that holds it; after `WAIT`, go without it."""
        files.refuse_unless_plain(Path(self.lock.lock_file))
        self.marker.stat()  # a deleted cache must not be created again in part
        with suppress(Timeout):
            self.lock.acquire(timeout=WAIT)

    def write(self, evaluation: Evaluation, file: Path | None) -> None:
        """Store an evaluation and the file of its weights, in place of an earlier record."""
        weights = None if file is None else files.read(file)
        if weights is not None:
            write_atomic(self.weights, weights)
        text = json.dumps(
            {
                "identity": self.identity,
                "values": dict(evaluation.values),
                "epochs": evaluation.cost.epochs,
                "steps": evaluation.cost.steps,
                "weights": weights is not None,
            },
            default=float,
        )
        record = json.loads(text)
        signed = {**record, "digest": _digest(record, weights)}
        write_atomic(self.record, json.dumps(signed, indent=2) + "\n")


def create(path: Path) -> None:
    """Create a cache, or check that a folder is one.

    Raises:
        UserError: the path is something else, or cannot be read and written.
    """
    try:
        if path.is_file():
            with files.opened(path.resolve()) as file:
                sqlite = file.read(15) == b"SQLite format 3"
            what = "an SQLite file, a cache of evonas 0.1.0" if sqlite else "a file"
            raise _refused(f"{path} is {what}, not a folder")
        if not path.exists():
            files.make_folder(path)
        if any(path.iterdir()) and not (path / MARKER).exists():
            raise _refused(f"{path} holds other files, and no {MARKER}")
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise _refused(f"{path} cannot be read and written")
        with suppress(FileExistsError):  # another process may be faster
            files.create(path / MARKER, "")
    except (OSError, ValueError) as error:
        raise _refused(f"{path} cannot be used: {error_text(error)}") from None


def _refused(problem: str) -> UserError:
    hint = "name a new folder or an existing cache (when resuming: --set cache=FOLDER)"
    return UserError(problem, hint=hint, key="cache")


def _key(identity: str) -> str:
    return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()


def _digest(record: Mapping[str, Any], weights: bytes | None) -> str:
    digest = hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=16)
    digest.update(b"" if weights is None else b"weights" + weights)
    return digest.hexdigest()
