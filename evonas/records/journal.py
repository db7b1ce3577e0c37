"""The journal: every finished training, on disk before anything else sees it."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from evonas import files
from evonas.core import Evaluation, Question, weights_name

DIGEST = b', "digest": "'  # before the last entry of a line, and the digest of all before it

log = logging.getLogger(__name__)


class Journal:
    """The answers of a run, one JSON object per line, in order of arrival.

    Each line is written with one system call, so a kill leaves at most one torn line, at the end,
    which is cut off when the journal is opened again. It ends with a digest of itself; a line that
    does not match its own is left out, and what it answered is evaluated again. The lines of older
    versions have none. It also says when the answer arrived, on the search's own clock, which
    stands still between a kill and a resume and, unless the run has `hours`, during the finals.
    """

    def __init__(self, path: Path) -> None:
        self._answers: dict[Question, Evaluation] = {}
        self._arrived: dict[Question, float] = {}
        self._clock, self._started = 0.0, math.inf
        self.added = 0  # in this process
        if path.exists():
            self._read(path)
        self._clock = max(self._arrived.values(), default=0.0)
        self._file = files.opened(path, "ab")

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, question: Question) -> Evaluation | None:
        return self._answers.get(question)

    def items(self) -> list[tuple[Question, Evaluation]]:
        """Return all questions and their answers, in the order in which these arrived."""
        return list(self._answers.items())

    def arrived(self, question: Question) -> float:
        """Return when an answer arrived, in seconds of the search; 0 in an older journal."""
        return self._arrived.get(question, 0.0)

    def start_clock(self, since: float | None = None) -> None:
        """Let the search's clock run, from where it stood at the last answer before a resume.

        Args:
            since: the time from which on it runs, by `time.monotonic`; by default, now.
        """
        self._started = min(self._started, time.monotonic() if since is None else since)

    def stop_clock(self) -> None:
        """Stop the search's clock."""
        self._clock, self._started = self.seconds(), math.inf

    def seconds(self) -> float:
        """Return the time on the search's clock."""
        return self._clock + max(time.monotonic() - self._started, 0.0)

    def add(self, question: Question, evaluation: Evaluation) -> None:
        arrived = round(self.seconds(), 3)
        record = {
            "key": question.key,
            "seed": question.seed,
            "budget": question.budget,
            "arrived": arrived,
            **evaluation.to_plain(),
        }
        body = json.dumps(record).encode()
        files.write(self._file, body[:-1] + DIGEST + _digest(body) + b'"}\n')
        self._answers[question] = evaluation
        self._arrived[question] = arrived
        self.added += 1

    def sync(self) -> None:
        """Flush the journal to the disk, not only to the operating system."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _read(self, path: Path) -> None:
        content = files.read(path)
        end = content.rfind(b"\n") + 1
        if end < len(content):
            files.cut(path, end)
        signed = False
        for number, line in enumerate(content[:end].splitlines(), 1):
            try:
                signed = _check_digest(line, signed=signed)
                question, answer, arrived = _answer(json.loads(line))
                self._answers[question], self._arrived[question] = answer, arrived
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                reason = str(error).partition("\n")[0]
                log.warning("%s, line %d is damaged; skipped: %s", path, number, reason)


class _Line(BaseModel):
    """What a line has, and the types of it."""

    model_config = ConfigDict(strict=True)

    key: str
    seed: int
    budget: str
    genome: dict[str, Any]
    values: dict[str, float]
    cost: dict[str, float | bool]
    message: str
    deterministic: bool
    weights: str = ""
    arrived: float = 0.0


def _answer(record: dict[str, Any]) -> tuple[Question, Evaluation, float]:
    _Line.model_validate(record)
    question = Question(record["key"], record["seed"], record["budget"])
    if "weights" not in record:  # as version 0.1.0 wrote it
        named = weights_name(question.seed, question.budget)
        record["weights"] = named if question.budget else ""
    return question, Evaluation.from_plain(record), record.get("arrived", 0.0)


def _check_digest(line: bytes, *, signed: bool) -> bool:
    """Return whether a line has a digest, as all have after the first that has one.

    Raises:
        ValueError: it has none in spite of that, or another line's.
    """
    body, mark, digest = line.rpartition(DIGEST)
    if (signed and not mark) or (mark and digest != _digest(body + b"}") + b'"}'):
        raise ValueError("its digest does not match")
    return bool(mark) or signed


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).hexdigest().encode()
