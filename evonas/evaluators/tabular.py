"""Answers from a table of trained networks, such as a tabular benchmark's."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from evonas.core import (
    Budget,
    Candidate,
    Evaluation,
    Metric,
    Params,
    Requirement,
    Status,
    UserError,
)
from evonas.evaluators import csvfile, formula
from evonas.evaluators.csvfile import CsvFile
from evonas.metrics import SIMULATED_SECONDS, named, refused
from evonas.mistakes import printable
from evonas.protocols import Need, Setting
from genomes import Genome, SearchSpace

SIMULATED = SIMULATED_SECONDS.name
Text = Annotated[str, Field(min_length=1)]


class Fidelity(Params):
    """What the table has of trainings that are shorter than the run's budget."""

    metrics: Annotated[dict[str, Text], Field(min_length=1, max_length=100)]
    """The metrics that are others than after the whole budget, each a column or a formula."""
    simulated_seconds: Text | None = None
    """How long such an evaluation takes, as a column or a formula; required if
    `simulated_seconds` is given for the whole budget. One that goes on costs the difference."""


class TabularParams(Params):
    name: Literal["tabular"] = "tabular"
    path: Text
    """The table, a CSV file, relative to the experiment file. It may be separated by commas,
    semicolons or tabs, and compressed by gzip, bzip2, xz or zip."""
    join: Annotated[tuple[Text, ...], Field(max_length=20, strict=False)] = ()
    """More such files, with further columns for the genomes of `path`. A genome that one of them
    lacks has empty cells there. A column that several have must be equal in them."""
    genome: Text = "genome"
    """The column with the genomes: one digit for each gene, or as the space writes them."""
    metrics: Annotated[dict[str, Text], Field(min_length=1, max_length=100)]
    """The metrics that the search may use, each a column or a formula of columns:
    `{val_error: 100 - val12, flops: flops}`."""
    cheap: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """The metrics that count as known without training: a network that violates a constraint on one
    of them is not evaluated."""
    simulated_seconds: Text | None = None
    """How long an evaluation takes, as a column or a formula. `stop.simulated_seconds` limits the
    sum."""
    fidelities: Annotated[dict[str, Fidelity], Field(max_length=100)] = Field(default_factory=dict)
    """What the table has of shorter trainings, by budget, for a strategy such as `halving`:
    `{epochs=12: {metrics: {val_error: 100 - val12}}}`. All else is what `budget` gives."""

    def model_post_init(self, context: object) -> None:
        for name in self.cheap:
            if name not in self.metrics:
                allowed = ", ".join(self.metrics)
                raise Requirement(f"allowed: {allowed}", "cheap", f"{name!r} is not a metric")
        for name in self.metrics:
            if mistake := refused(name):
                raise Requirement(mistake.hint, "metrics", mistake.problem)
        if SIMULATED in self.metrics:
            raise Requirement("choose another name", "metrics", f"{SIMULATED} has a key of its own")
        for text, fidelity in self.fidelities.items():
            self._check_fidelity(text, fidelity)

    def _check_fidelity(self, text: str, fidelity: Fidelity) -> None:
        def refused(problem: str, hint: str) -> Requirement:
            return Requirement(hint, "fidelities", f"{text}: {problem}")

        try:
            budget = Budget.from_text(text)
        except ValueError:
            raise refused("is no budget", "write it like epochs=12 or steps=100") from None
        if budget.text != text or budget.horizon or not budget.deterministic:
            raise refused("is not the length of a training", "write it like epochs=12 or steps=100")
        changing = [name for name in self.metrics if name not in self.cheap]
        for name in fidelity.metrics:
            if name not in changing:
                allowed = f"allowed: {', '.join(changing)}"
                raise refused(f"{name!r} does not depend on the budget", allowed)
        if (fidelity.simulated_seconds is None) != (self.simulated_seconds is None):
            raise refused(f"{SIMULATED} must be given for all budgets or none", "give it for both")

    def check_fidelities(self, rungs: Sequence[Budget], section: str) -> None:
        """Check that there are values for all budgets of a strategy (`protocols.HasFidelities`).

        Raises:
            UserError: there are none for one of them.
        """
        for rung in rungs[:-1]:
            if _length(rung) not in self.fidelities:
                raise UserError(
                    f"has no values for {_length(rung)}, a rung of the strategy",
                    hint="add them, or choose the strategy's factor and min_budget accordingly",
                    key=f"{section}.fidelities",
                )

    def anchored(self, folder: Path) -> Self:
        path, *join = (
            str((folder / Path(each).expanduser()).resolve()) for each in (self.path, *self.join)
        )
        return self.model_copy(update={"path": path, "join": tuple(join)})


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table by genes, and its metrics, an array each.

    Attributes:
        shorter: the metrics after shorter trainings, by the length of these.
    """

    places: Mapping[tuple[int, ...], int]
    values: Mapping[str, np.ndarray]
    fingerprint: str
    shorter: Mapping[str, Mapping[str, np.ndarray]]


class Tabular:
    """Looks a genome up in a table; the seed changes nothing.

    Equal networks may have trained differently, so a value belongs to a genome, not to a network:
    a search on a table goes by genome (`genomes.Verbatim`).
    """

    Params = TabularParams
    needs: ClassVar[frozenset[Need]] = frozenset({Need.GENOMES})

    @staticmethod
    def metrics_of(params: TabularParams) -> tuple[Metric, ...]:
        seconds = [SIMULATED_SECONDS] if params.simulated_seconds else []
        return (
            *(replace(named(name), cheap=name in params.cheap) for name in params.metrics),
            *seconds,
        )

    def __init__(self, params: TabularParams, setting: Setting) -> None:
        self.params = params
        self.metrics = self.metrics_of(params)
        self.rows = load(params, setting.space)
        self.whole = _length(setting.budget) if setting.budget else ""
        self._cheap = [metric.name for metric in self.metrics if metric.cheap]

    @property
    def fingerprint(self) -> str:
        return self.rows.fingerprint

    def has(self, genome: Genome) -> bool:
        """Return whether the table has a row for a genome."""
        return genome.genes in self.rows.places

    def cheap(self, genome: Genome) -> dict[str, float]:
        return self.cheap_at(Candidate(genome))

    def cheap_at(self, candidate: Candidate) -> dict[str, float]:
        """Return the cheap metrics; a training that goes on counts only what it adds."""
        place = self.rows.places.get(candidate.genome.genes)
        if place is None:
            return dict.fromkeys(self._cheap, 0.0)
        columns = self._columns(candidate.budget)
        values = {name: columns[name].item(place) for name in self._cheap}
        if candidate.after is not None and SIMULATED in values:
            before = self._columns(candidate.after)[SIMULATED].item(place)
            values[SIMULATED] = max(values[SIMULATED] - before, 0.0)
        return values

    def most(self) -> dict[str, float]:
        """Return the largest value of each metric in the table."""
        finite = {name: column[np.isfinite(column)] for name, column in self.rows.values.items()}
        return {name: float(column.max()) for name, column in finite.items() if len(column)}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        place = self.rows.places.get(candidate.genome.genes)
        if place is None:
            raise KeyError(f"the table has no row for {candidate.genome.text}")
        columns = self._columns(candidate.budget)
        values = {name: column.item(place) for name, column in columns.items()}
        values |= self.cheap_at(candidate)
        missing = [name for name, value in values.items() if not math.isfinite(value)]
        if missing:
            message = f"the table has no {', '.join(missing)} for {candidate.genome.text}"
            return Evaluation(candidate, values, Status.DIVERGED, message=message)
        return Evaluation(candidate, values)

    def _columns(self, budget: Budget | None) -> Mapping[str, np.ndarray]:
        """Return the metrics after a training under a budget.

        Raises:
            KeyError: the table has none.
        """
        if budget is None or not self.rows.shorter or _length(budget) == self.whole:
            return self.rows.values
        if _length(budget) not in self.rows.shorter:
            raise KeyError(f"the table has no values for {budget.text}")
        return self.rows.shorter[_length(budget)]


def _length(budget: Budget) -> str:
    """Return `epochs=12` for 12 epochs of any schedule."""
    return budget.text.partition("/")[0]


def load(params: TabularParams, space: SearchSpace) -> Rows:
    """Read a table, once per process.

    Raises:
        UserError: the file, a column or a genome cannot be read.
    """
    table = _file(params.path, params.genome)
    places = _places(table, space)
    joined = [_joined(params, i, places, space) for i in range(len(params.join))]
    columns = csvfile.Columns(csvfile.Part(table), *joined)
    values = _computed(params, table, columns, "evaluator")
    shorter = {
        text: {**values, **_computed(fidelity, table, columns, f"evaluator.fidelities.{text}")}
        for text, fidelity in params.fidelities.items()
    }
    fingerprint = table.fingerprint
    if joined:
        digests = [fingerprint, *(part.file.fingerprint for part in joined)]
        fingerprint = hashlib.blake2b(" ".join(digests).encode(), digest_size=8).hexdigest()
    return Rows(places, values, fingerprint, shorter)


def _file(path: str, genome: str) -> CsvFile:
    try:
        changed = Path(path).stat().st_mtime_ns
    except (OSError, ValueError) as error:
        raise csvfile.unreadable(path, error) from None
    return csvfile.read(path, changed, genome)


def _joined(
    params: TabularParams, i: int, places: Mapping[tuple[int, ...], int], space: SearchSpace
) -> csvfile.Part:
    """Return a further file, whose rows are found by the genomes of the first."""
    key = f"evaluator.join.{i}"
    try:
        file = _file(params.join[i], params.genome)
        there = _places(file, space)
    except UserError as error:
        raise UserError(*(replace(mistake, key=key) for mistake in error.mistakes)) from None
    rows = np.array([there.get(genes, -1) for genes in places])
    if (rows < 0).all():
        problem = f"no genome of {params.path} is in {file.path}"
        raise UserError(problem, hint="name a table of the same networks", key=key)
    return csvfile.Part(file, rows)


def _computed(
    params: TabularParams | Fidelity, table: CsvFile, columns: csvfile.Columns, section: str
) -> dict[str, np.ndarray]:
    """Return the metrics that some settings state, (rows,) each."""
    formulas = dict(params.metrics)
    if params.simulated_seconds:
        formulas[SIMULATED] = params.simulated_seconds
    values = {}
    for name, text in formulas.items():
        key = f"{section}.{name}" if name == SIMULATED else f"{section}.metrics.{name}"
        try:
            column = np.asarray(formula.compute(text, columns), dtype=np.float64)
        except UserError as error:
            raise error.within(key) from None
        values[name] = np.broadcast_to(column, len(table.frame))
    seconds = values.get(SIMULATED, np.zeros(0))
    wrong = np.flatnonzero(~(np.isfinite(seconds) & (seconds >= 0)))
    if len(wrong):
        problem = f"is {seconds[wrong[0]]:g} in {table.line(wrong[0])}"
        raise UserError(problem, hint="must be 0 or more", key=f"{section}.{SIMULATED}")
    return values


def _places(table: CsvFile, space: SearchSpace) -> dict[tuple[int, ...], int]:
    """Return the row of each genome, by genes."""
    places: dict[tuple[int, ...], int] = {}
    for place, cell in enumerate(table.frame[table.genome].tolist()):
        text = cell.strip() if isinstance(cell, str) else ""
        try:
            genes = _genes(text, space)
        except ValueError as error:
            raise _no_genome(table, place, text, error, space) from None
        if places.setdefault(genes, place) != place:
            problem = f"{text} is listed twice, again in {table.line(place)}"
            raise UserError(problem, hint="list it once", key="evaluator.genome")
    return places


def _no_genome(
    table: CsvFile, place: int, text: str, error: ValueError, space: SearchSpace
) -> UserError:
    line, key = table.line(place), "evaluator.genome"
    if not text:
        return UserError(f"no genome in {line}", hint="give each row a genome", key=key)
    lost = text.isdigit() and len(text) < len(space.genes)
    zeros = f"write {len(space.genes)} genes; a spreadsheet may have dropped zeros at the beginning"
    hint = zeros if lost else printable(str(error))
    return UserError(f"{text[:50]!r} in {line} is no genome", hint=hint, key=key)


def _genes(text: str, space: SearchSpace) -> tuple[int, ...]:
    if len(text) == len(space.genes) and text.isascii() and text.isdigit():
        return space.genome(map(int, text)).genes
    return space.parse(text).genes
