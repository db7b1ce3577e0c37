"""Loggers: what a run tells TensorBoard, MLflow, Weights & Biases or a function of the user's.

They are told of each evaluation as its answer arrives, and of each generation once it is recorded.
A logger is never asked anything, and its failure ends nothing: it is told once, in the log and on
the terminal, and the logger is left out until the run is resumed.

`logged.json` says how much each has been told. It is written after each generation and at the end,
once the loggers have stored what they were told. After a kill a logger is told again what came
after that, except for what its own store has; what the journal knows already is never evaluated for
a logger's sake.
"""

from __future__ import annotations

import json
import logging
import math
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError

from evonas import files, interrupts, registry
from evonas.core import Evaluation, Question, UserError

Event = Literal["evaluation", "generation"]
LOGGED = "logged.json"

log = logging.getLogger("evonas.loggers")  # `display` shows it on the terminal too


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a logger has come.

    Attributes:
        evaluation, generation: how many of each it has been told of.
        id: what its store calls the run; "" if it gives no names.
    """

    evaluation: int = 0
    generation: int = 0
    id: str = ""

    def after(self, record: Record) -> Mark:
        """Return the mark once a record has been told."""
        if record.event == "evaluation":
            return replace(self, evaluation=record.number + 1)
        return replace(self, generation=record.number + 1)


@dataclass(frozen=True, slots=True)
class Described:
    """What a logger may know of a run before it begins.

    Attributes:
        path: the run folder.
        name: the experiment's name.
        settings: the experiment as plain data.
    """

    path: Path
    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that a run tells.

    Attributes:
        event: what has happened.
        run: the run folder.
        number: which one, counted from 0: evaluations in the order in which their answers arrived,
            generations as in `generations.csv`.
        metrics: finite numbers by name: what was measured, or the columns of `generations.csv`.
        about: of an evaluation, `key`, `genome`, `budget`, `status`, `message`, `seconds` and
            `epochs`; nothing of a generation.
    """

    event: Event
    run: Path
    number: int
    metrics: Mapping[str, float]
    about: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return the record as a new dict, which whoever gets it may change."""
        return {
            "event": self.event,
            "run": str(self.run),
            "number": self.number,
            "metrics": dict(self.metrics),
            **self.about,
        }


class Logger(Protocol):
    """What takes a run's records. Made as `Class(described, mark)`; anything may raise.

    Attributes:
        PACKAGES: what must be installed.
        mark: how far it had come when it was made, by the mark that it got or by its own store.
    """

    PACKAGES: ClassVar[tuple[str, ...]]
    mark: Mark

    def write(self, record: Record) -> None:
        """Take a record."""

    def flush(self) -> None:
        """Store what was taken, so that a kill does not lose it."""

    def close(self, *, finished: bool) -> None:
        """End; `finished` if the run has its result."""


class Loggers:
    """The loggers of a run, which none of them can end.

    Args:
        names: as the experiment lists them.
        strict: whether a logger that cannot be made is refused, as in a run that begins.

    Raises:
        UserError: one cannot be made, and this is strict.
    """

    def __init__(self, names: Sequence[str], described: Described, *, strict: bool = False) -> None:
        self._path = described.path
        self._loggers: dict[str, Logger] = {}
        self._marks = _marks(self._path / LOGGED)
        self._next = 0  # the number of the next evaluation
        self.finished = False
        for name in names:
            mark = self._marks.get(name, Mark())
            with self._guarded(name, strict=strict):
                self._loggers[name] = _class(name)(described, mark)
                self._marks[name] = self._loggers[name].mark
        self._write_marks()

    def __bool__(self) -> bool:
        return bool(self._loggers)

    def begin(
        self,
        evaluations: Sequence[tuple[Question, Evaluation]],
        generations: Sequence[Mapping[str, Any]],
    ) -> None:
        """Tell what the run had recorded before and a kill kept from a logger.

        Args:
            evaluations: all of the search so far, in the order in which they arrived.
            generations: all rows of `generations.csv`.
        """
        self._next = len(evaluations)
        for name, mark in self._marks.items():  # a damaged journal may have lost some
            self._marks[name] = replace(mark, evaluation=min(mark.evaluation, self._next))
        for number, (question, evaluation) in enumerate(evaluations):
            self._tell(self._of_evaluation(number, question, evaluation))
        for row in generations:
            self._tell(self._of_generation(row))
        self._flush()

    def evaluation(self, question: Question, evaluation: Evaluation) -> None:
        """Tell of an answer of the search that has just arrived."""
        self._tell(self._of_evaluation(self._next, question, evaluation))
        self._next += 1

    def generation(self, row: Mapping[str, Any], *, complete: bool = True) -> None:
        """Tell of a generation that is recorded, by its row; an incomplete one is told again."""
        self._tell(self._of_generation(row), marked=complete)
        self._flush()

    def close(self) -> None:
        """End all loggers; `finished` says whether the run has its result."""
        self._flush()
        for name, logger in list(self._loggers.items()):
            with self._guarded(name):
                logger.close(finished=self.finished)
        self._loggers.clear()

    def _of_evaluation(self, number: int, question: Question, evaluation: Evaluation) -> Record:
        about = {
            "key": question.key,
            "genome": evaluation.candidate.genome.text,
            "budget": question.budget,
            "status": str(evaluation.status),
            "message": evaluation.message,
            "seconds": evaluation.cost.seconds,
            "epochs": evaluation.cost.epochs,
        }
        values = {} if evaluation.status.failed else evaluation.values
        return Record("evaluation", self._path, number, _finite(values), about)

    def _of_generation(self, row: Mapping[str, Any]) -> Record:
        metrics = _finite({name: value for name, value in row.items() if name != "generation"})
        return Record("generation", self._path, int(row["generation"]), metrics)

    def _tell(self, record: Record, *, marked: bool = True) -> None:
        for name, logger in list(self._loggers.items()):
            if record.number < getattr(self._marks[name], record.event):
                continue
            with self._guarded(name):
                logger.write(record)
                if marked:
                    self._marks[name] = self._marks[name].after(record)

    def _flush(self) -> None:
        for name, logger in list(self._loggers.items()):
            with self._guarded(name):
                logger.flush()
        self._write_marks()

    def _write_marks(self) -> None:
        if self._marks:
            plain = {name: asdict(mark) for name, mark in self._marks.items()}
            files.write_atomic(self._path / LOGGED, json.dumps(plain, indent=2) + "\n")

    @contextmanager
    def _guarded(self, name: str, *, strict: bool = False) -> Iterator[None]:
        """Leave a logger out if what is done within raises anything, and tell it.

        The global generators stay as they are: what is drawn after it must not depend on it.
        """
        with _same_generators():
            try:
                yield
            except BaseException as error:  # a user's function may raise anything
                if interrupts.is_real(error) or (strict and isinstance(error, UserError)):
                    raise
                self._loggers.pop(name, None)
                text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                log.warning("the logger %s failed and is left out; the run goes on: %s", name, text)


class Logged:
    """Answers of a search that loggers are told of as they arrive (`loop.Answers`)."""

    def __init__(self, answers: Any, loggers: Loggers) -> None:
        self._answers, self._loggers = answers, loggers

    def get(self, question: Question) -> Evaluation | None:
        found: Evaluation | None = self._answers.get(question)
        return found

    def add(self, question: Question, evaluation: Evaluation) -> None:
        self._answers.add(question, evaluation)
        self._loggers.evaluation(question, evaluation)


def check_names(names: Sequence[str]) -> None:
    """Raise UserError for a name of no logger, or one that is listed twice."""
    known = registry.names("loggers")
    for i, name in enumerate(names):
        key = f"logging.{i}"
        if not registry.is_own(name) and name not in known:
            raise UserError(registry.unknown("logger", name, [*known, "FILE.py:NAME"]), key=key)
        if name in names[:i]:
            raise UserError(f"{name} is listed twice", hint="list it once", key=key)


def check_installed(names: Iterable[str]) -> None:
    """Raise UserError, with the line that installs it, if a logger's package is missing."""
    for i, name in enumerate(names):
        missing = [package for package in _class(name).PACKAGES if find_spec(package) is None]
        if missing:
            problem = f"{name} needs {', '.join(missing)}, which is not installed"
            raise UserError(problem, hint=f"pip install 'evonas[{name}]'", key=f"logging.{i}")


def _class(name: str) -> Any:
    if not registry.is_own(name):
        return registry.load("loggers", name)
    from evonas.loggers.own import OwnLogger

    return OwnLogger.named(name)


def _marks(path: Path) -> dict[str, Mark]:
    """Return the marks of a file; none if it is missing or damaged."""
    try:
        return TypeAdapter(dict[str, Mark]).validate_json(files.read(path))
    except (OSError, ValidationError):
        return {}


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = {n: float(v) for n, v in values.items() if isinstance(v, int | float | np.number)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


@contextmanager
def _same_generators() -> Iterator[None]:
    state = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch = sys.modules.get("torch")
    of_torch = torch.get_rng_state() if torch else None
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        if torch:
            torch.set_rng_state(of_torch)
