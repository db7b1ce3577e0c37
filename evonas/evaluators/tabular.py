"""Answers from a table of trained networks, such as a tabular benchmark's."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field

from evonas.core import Candidate, Evaluation, Metric, Params, Requirement, Status, UserError
from evonas.evaluators import formula
from evonas.metrics import SIMULATED_SECONDS, named
from evonas.protocols import Need, Setting
from genomes import Genome, SearchSpace

SIMULATED = SIMULATED_SECONDS.name
Text = Annotated[str, Field(min_length=1)]


class TabularParams(Params):
    name: Literal["tabular"] = "tabular"
    path: Text
    """The table, a CSV file, as seen from the experiment file; `.gz` and the like are unpacked."""
    genome: Text = "genome"
    """The column with the genomes: one digit for each gene, or as the space writes them."""
    metrics: Annotated[dict[str, Text], Field(min_length=1, max_length=100)]
    """What the search may use, each a column or a formula of columns:
    `{val_error: 100 - val12, flops: flops}`."""
    cheap: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """The metrics that count as known without training, so that constraints on them spare the
    evaluation."""
    simulated_seconds: Text | None = None
    """How long an evaluation takes, a column or a formula; `stop.simulated_seconds` limits the
    sum."""

    def model_post_init(self, context: object) -> None:
        for name in self.cheap:
            if name not in self.metrics:
                allowed = ", ".join(self.metrics)
                raise Requirement(f"allowed: {allowed}", "cheap", f"{name!r} is not a metric")
        if SIMULATED in self.metrics:
            raise Requirement("choose another name", "metrics", f"{SIMULATED} has a key of its own")

    def anchored(self, folder: Path) -> Self:
        path = (folder / Path(self.path).expanduser()).resolve()
        return self.model_copy(update={"path": str(path)})


@dataclass(frozen=True, slots=True)
class Rows:
    """A table's rows by genes, and its metrics, an array each."""

    places: Mapping[tuple[int, ...], int]
    values: Mapping[str, np.ndarray]
    fingerprint: str


class Tabular:
    """Looks a genome up; the seed has no say.

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
        cheap = [metric.name for metric in self.metrics if metric.cheap]
        self._cheap = {name: self.rows.values[name] for name in cheap}

    @property
    def fingerprint(self) -> str:
        return self.rows.fingerprint

    def cheap(self, genome: Genome) -> dict[str, float]:
        place = self.rows.places.get(genome.genes)
        if place is None:
            return dict.fromkeys(self._cheap, 0.0)
        return {name: column.item(place) for name, column in self._cheap.items()}

    def most(self) -> dict[str, float]:
        """The table's most of each metric."""
        finite = {name: column[np.isfinite(column)] for name, column in self.rows.values.items()}
        return {name: float(column.max()) for name, column in finite.items() if len(column)}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        place = self.rows.places.get(candidate.genome.genes)
        if place is None:
            raise KeyError(f"the table has no row of {candidate.genome.text}")
        values = {name: column.item(place) for name, column in self.rows.values.items()}
        missing = [name for name, value in values.items() if not math.isfinite(value)]
        if missing:
            message = f"the table has no {', '.join(missing)} of {candidate.genome.text}"
            return Evaluation(candidate, values, Status.DIVERGED, message=message)
        return Evaluation(candidate, values)


def load(params: TabularParams, space: SearchSpace) -> Rows:
    """The rows of a table, read once a process.

    Raises:
        UserError: the file, a column or a genome cannot be read.
    """
    try:
        written = Path(params.path).stat().st_mtime_ns
    except OSError as error:
        raise UserError(
            f"evaluator.path: {params.path}: {error.strerror}; allowed: a CSV"
        ) from None
    frame, fingerprint = _read(params.path, written, params.genome)
    columns = {str(name): frame[name].to_numpy() for name in frame if name != params.genome}
    wanted = dict(params.metrics)
    if params.simulated_seconds:
        wanted[SIMULATED] = params.simulated_seconds
    values = {}
    for name, text in wanted.items():
        key = f"evaluator.{name}" if name == SIMULATED else f"evaluator.metrics.{name}"
        try:
            found = np.asarray(formula.compute(text, columns), dtype=np.float64)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None
        except (TypeError, ValueError):
            raise UserError(f"{key}: {text!r} holds text; allowed: columns of numbers") from None
        values[name] = np.broadcast_to(found, len(frame))
    seconds = values.get(SIMULATED, np.zeros(0))
    wrong = np.flatnonzero(~(np.isfinite(seconds) & (seconds >= 0)))
    if len(wrong):
        where = f"{params.path}, row {wrong[0] + 2}"
        raise UserError(
            f"evaluator.{SIMULATED}: {where}: {seconds[wrong[0]]:g}; allowed: 0 or more"
        )
    places: dict[tuple[int, ...], int] = {}
    for place, text in enumerate(frame[params.genome].tolist()):
        try:
            genes = _genes(str(text), space)
        except ValueError as error:
            where = f"{params.path}, row {place + 2}"
            raise UserError(f"evaluator.genome: {where}: {error}; allowed: genomes") from None
        if places.setdefault(genes, place) != place:
            where = f"{params.path}, row {place + 2}"
            raise UserError(f"evaluator.genome: {where}: {text} stands twice; allowed: once")
    return Rows(places, values, fingerprint)


@cache
def _read(path: str, written: int, genome: str) -> tuple[pd.DataFrame, str]:
    try:
        frame = pd.read_csv(path, dtype={genome: str})
        fingerprint = hashlib.blake2b(Path(path).read_bytes(), digest_size=8).hexdigest()
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"evaluator.path: {path}: {reason}; allowed: a CSV") from None
    if genome not in frame:
        shown = ", ".join(map(str, frame.columns[:30]))
        raise UserError(f"evaluator.genome: no column {genome!r} in {path}; allowed: {shown}")
    return frame, fingerprint


def _genes(text: str, space: SearchSpace) -> tuple[int, ...]:
    if len(text) == len(space.genes) and text.isascii() and text.isdigit():
        return space.genome(map(int, text)).genes
    return space.parse(text).genes
