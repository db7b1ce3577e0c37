"""The journal: every finished training, on disk before anything else sees it."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from evonas.core import Evaluation, Question, weights_name

log = logging.getLogger(__name__)


class Journal:
    """The answers of a run, one JSON object per line, in order of arrival.

    Each line is written with one system call, so a kill leaves at most one torn line, at the end,
    which is cut off when the journal is opened again.
    """

    def __init__(self, path: Path) -> None:
        self._answers: dict[Question, Evaluation] = {}
        self.added = 0  # in this process
        if path.exists():
            self._read(path)
        self._file = path.open("ab", buffering=0)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, question: Question) -> Evaluation | None:
        return self._answers.get(question)

    def add(self, question: Question, evaluation: Evaluation) -> None:
        record = {
            "key": question.key,
            "seed": question.seed,
            "budget": question.budget,
            **evaluation.to_plain(),
        }
        self._append(json.dumps(record).encode() + b"\n")
        self._answers[question] = evaluation
        self.added += 1

    def sync(self) -> None:
        """Flush the journal to the disk, not only to the operating system."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _append(self, line: bytes) -> None:
        """Write the whole line or, on a full disk, none of it."""
        size = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) or 0 :]
        except OSError:
            os.ftruncate(self._file.fileno(), size)
            raise

    def _read(self, path: Path) -> None:
        with path.open("r+b") as file:
            content = file.read()
            end = content.rfind(b"\n") + 1
            file.truncate(end)
        for number, line in enumerate(content[:end].splitlines(), 1):
            try:
                record = json.loads(line)
                question = Question(record["key"], record["seed"], record["budget"])
                if "weights" not in record:  # as version 0.1.0 wrote it
                    named = weights_name(question.seed, question.budget)
                    record["weights"] = named if question.budget else ""
                self._answers[question] = Evaluation.from_plain(record)
            except (ValueError, KeyError, TypeError) as error:
                log.warning("%s, line %d is damaged; skipped: %s", path, number, error)
