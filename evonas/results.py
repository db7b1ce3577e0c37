"""What the functions of `evonas.api` and those beside it return, as people look at it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from evonas import config
from evonas.core import FAILURES, Objective, Status, UserError
from evonas.experiment import Experiment
from evonas.markdown import counted
from evonas.records import tables
from evonas.records.folder import check_run_folder
from genomes import Genome, SearchSpace

ROWS = 10  # of the tables in a notebook
TEXT = ("key", "genome", "genes", "parents", "origin", "budget")  # whatever they look like


class Shown:
    """An object with a line that sums it up, and a table for notebooks."""

    def _line(self) -> str:
        raise NotImplementedError

    def _table(self) -> pd.DataFrame:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._line()}>"

    def _repr_html_(self) -> str:
        """Return the line and the first rows of the table, as notebooks show them."""
        shown, count = self._table(), len(self._table())
        more = f"<p>and {count - ROWS} more</p>" if count > ROWS else ""
        title = f"<p><b>{type(self).__name__}</b>: {html.escape(self._line())}</p>"
        return title + shown.head(ROWS).to_html(index=False) + more


@dataclass(frozen=True, repr=False)
class SearchResult(Shown):
    """The result of a search; the tables are like those of a run folder.

    Attributes:
        evaluations: one row per candidate, in ask order; the last column, `message`, says why a
            candidate failed.
        generations: one row per generation.
        front: the non-dominated candidates, sorted by the first objective, best first.
        genomes: the genomes of the front, in the same order.
        space: the space that was searched; `space.build(genome)` is a genome's network.
        objectives: the goals of the search.
        tracebacks: the traceback of what each failed candidate raised, by its key.
    """

    evaluations: pd.DataFrame
    generations: pd.DataFrame
    front: pd.DataFrame
    genomes: tuple[Genome, ...]
    space: SearchSpace
    objectives: tuple[Objective, ...]
    tracebacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def best(self) -> Genome | None:
        """The best genome by the first objective; None if the front is empty."""
        return self.genomes[0] if self.genomes else None

    def _line(self) -> str:
        return f"{_evaluated(self.evaluations)}, {_best(self.front, self.objectives)}"

    def _table(self) -> pd.DataFrame:
        return self.front


class RunResult(Shown):
    """A run in its folder, whose tables are read when they are first asked for.

    `evonas.RunResult("results/mine-seed0")` opens a run that was made before.

    Attributes:
        path: the run folder.
        evaluations, generations, front: as in a `SearchResult`.
        finalists: one row per finalist, the winner first; empty without finals.

    Raises:
        UserError: the folder is not a run's, or a table in it is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        check_run_folder(self.path)

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        return self._read("evaluations")

    @cached_property
    def generations(self) -> pd.DataFrame:
        return self._read("generations")

    @cached_property
    def front(self) -> pd.DataFrame:
        return self._read("front")

    @cached_property
    def finalists(self) -> pd.DataFrame:
        return self._read("finalists")

    @cached_property
    def experiment(self) -> Experiment:
        """The settings of the run."""
        return config.load_run(self.path)

    @property
    def winner(self) -> pd.Series[Any] | None:
        """The winner's row of the finalists; None if there is none."""
        return tables.winner(self.path)

    @property
    def best(self) -> Genome:
        """The winner's genome; without finals, that of the first network of the front.

        Raises:
            UserError: the front is empty.
        """
        from evonas.jobs.choice import choose

        return choose(self.path, "best" if self.winner is None else "winner").genome

    def network(self, which: str = "winner") -> Any:
        """Return a network of the run with its trained weights, a torch module.

        Args:
            which: `winner`, `best`, `knee` or a key, as for `evonas export`.

        Raises:
            UserError: there is no such network, or its weights are not there.
        """
        from evonas.export.network import trained

        return trained(self.path, which).build()

    def figure(self, name: str) -> Any:
        """Return a figure of the run as an object of matplotlib, which a notebook shows.

        Args:
            name: that of a file of `evonas plot`, such as `front`, `objectives` or `cell`.

        Raises:
            UserError: there is no such figure, or not yet.
        """
        from evonas.plots import figure

        return figure(self.path, name)

    def _read(self, name: str) -> pd.DataFrame:
        file = self.path / f"{name}.csv"
        if not file.exists():
            return pd.DataFrame()
        try:
            return tables.read(file, text=TEXT)
        except (OSError, ValueError):
            hint = f"write it again with `evonas resume {self.path}`"
            raise UserError(f"{file} is damaged", hint=hint) from None

    def _line(self) -> str:
        winner = self.winner
        if winner is None:
            last = _best(self.front, self.experiment.objectives)
        else:
            last = f"winner {winner['genome']}: test_error {winner['test_error']:.4g}"
        return f"{self.path}, {_evaluated(self.evaluations)}, {last}"

    def _table(self) -> pd.DataFrame:
        return self.front if self.finalists.empty else self.finalists


def _evaluated(evaluations: pd.DataFrame) -> str:
    """Return `96 evaluations in 8 generations (3 failed)`."""
    if evaluations.empty:
        return "no evaluations"
    statuses = evaluations["status"]
    counts = {
        "failed": statuses.isin(FAILURES).sum(),
        "infeasible": (statuses == Status.INFEASIBLE).sum(),
    }
    parts = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    generations = counted(evaluations["generation"].nunique(), "generation")
    text = f"{counted(len(evaluations), 'evaluation')} in {generations}"
    return f"{text} ({parts})" if parts else text


def _best(front: pd.DataFrame, objectives: tuple[Objective, ...]) -> str:
    """Return `front of 5, best 0-3-1: loss 0.25`."""
    if front.empty:
        return "an empty front"
    row = front.iloc[0]
    genome = str(row["genome"])
    shown = genome if len(genome) <= 60 else f"{genome[:57]}..."
    values = ", ".join(f"{goal.name} {row[goal.name]:.4g}" for goal in objectives)
    return f"front of {len(front)}, best {shown}: {values}"
