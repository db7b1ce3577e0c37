"""The tables of a run folder, as the figures read them: each once, as far as it is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from evonas import files, registry, yamlfile
from evonas.core import Constraint, Objective, Status, UserError
from evonas.metrics import SCORED
from evonas.plots.style import NotYet, short
from evonas.records import guessing, results, tables
from evonas.records.archive import budget_ranks
from evonas.records.folder import check_run_folder
from genomes import Gene, SearchSpace

TEXT = (
    *("key", "genes", "parents", "origin", "status", "phase", "position"),
    *("gene", "choice", "statistic", "budget", "objective", "genome", "message"),
)
FLAGS = ("winner", "from_cache", "cached", "deterministic")
# Columns of whole numbers in which no value may be missing.
WHOLE = ("generation", "index", "epoch", "evaluations", "trained", "hits", "distinct")
STATUSES = [str(status) for status in Status if status is not Status.OK]


@dataclass(frozen=True, slots=True)
class Winner:
    """The winner of a run, or its best network so far."""

    key: str
    genes: tuple[int, ...]
    final: bool  # chosen by the finals; otherwise the best of the front so far

    @property
    def word(self) -> str:
        return "winner" if self.final else "best so far"


class Tables:
    """The tables of a run folder, whether the run is running, finished or killed.

    Each table is a property, which raises NotYet while the folder does not have it.
    """

    def __init__(self, path: Path) -> None:
        """Reads the experiment.

        Raises:
            UserError: `path` is not a run folder.
        """
        self.path = path
        check_run_folder(path)
        try:
            self.settings: dict[str, Any] = yamlfile.read(path / "config.yaml")
            self.objectives = tuple(Objective(**each) for each in self.settings["objectives"])
        except UserError as error:
            raise UserError(str(error), key=str(path / "config.yaml")) from None
        except (KeyError, TypeError, ValidationError):
            problem, hint = "has no valid objectives", "restore the file as evonas wrote it"
            raise UserError(problem, hint=hint, key=str(path / "config.yaml")) from None

    @cached_property
    def constraints(self) -> tuple[Constraint, ...]:
        """The constraints of the search."""
        try:
            return tuple(Constraint(**each) for each in self.settings.get("constraints") or ())
        except (TypeError, ValidationError):
            raise NotYet("the constraints in config.yaml are damaged") from None

    @property
    def title(self) -> str:
        """The run's name, and its seed."""
        name, seed = self.settings.get("name", self.path.name), self.settings.get("seed")
        after = "" if seed is None else f", seed {seed}"
        return short(str(name), 45 - len(after)) + after

    @property
    def scored(self) -> str:
        """How the search scored networks, in place of training them; "" if it did not."""
        return SCORED.get((self.settings.get("evaluator") or {}).get("name", ""), "")

    @property
    def done(self) -> str:
        """What was done with a candidate, in a word: without data nothing is trained."""
        return "scored" if self.scored else "trained" if self.settings.get("data") else "measured"

    @cached_property
    def verdict(self) -> str:
        """That the best, or the winner, is no better than guessing, if so."""
        try:
            parts = {"the best": guessing.of_search, "the winner": guessing.of_winner}
            bad = [word for word, of in parts.items() if of(self.path)]
        except (UserError, OSError, ValueError):
            return ""  # the figures that need the table say that it is damaged
        return f"{' and '.join(bad)}: {guessing.AT_CHANCE}" if bad else ""

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """One row for each candidate, in the order of their index."""
        names = [objective.name for objective in self.objectives]
        columns = ("generation", "index", "key", "genes", "parents", "origin", "status", *names)
        frame = self._read("evaluations", columns, optional=("budget",))
        return frame if "budget" in frame else frame.assign(budget="")

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """The evaluations with all their columns, for whoever shows each of them."""
        columns = ("generation", "index", "key", "genes", "parents", "origin", "status")
        frame = self._read("evaluations", columns, every=True)
        for name in ("budget", "genome", "cached"):
            if name not in frame:
                frame[name] = frame["genes"] if name == "genome" else ""
        return frame

    @cached_property
    def ended_well(self) -> pd.DataFrame:
        """The successful evaluations that have a finite value for every objective."""
        names = [objective.name for objective in self.objectives]
        well = self.evaluations["status"] == str(Status.OK)
        finite = np.isfinite(self.evaluations[names].to_numpy(dtype=np.float64)).all(axis=1)
        frame: pd.DataFrame = self.evaluations[well & finite]
        if frame.empty:
            raise NotYet("no evaluation has succeeded yet")
        return frame

    @cached_property
    def comparable(self) -> pd.DataFrame:
        """Those that ended well with the largest budget that any had until their generation's end.

        `rank` is the budget's: a best so far begins anew where it rises, as the front does.
        """
        try:
            ranks = budget_ranks(self.ended_well["budget"].tolist())
        except ValueError:
            raise NotYet("the budgets in evaluations.csv cannot be compared") from None
        frame = self.ended_well.assign(rank=ranks)
        largest = frame.groupby("generation")["rank"].max().cummax()
        comparable: pd.DataFrame = frame[frame["rank"] == frame["generation"].map(largest)]
        return comparable

    @cached_property
    def generations(self) -> pd.DataFrame:
        return self._read(
            "generations",
            (
                *("generation", "evaluations", "trained", "hits", *STATUSES),
                *("diversity", "distinct", "hypervolume"),
            ),
        )

    @cached_property
    def fronts(self) -> pd.DataFrame:
        names = (objective.name for objective in self.objectives)
        return self._read("fronts", ("generation", "key", *names))

    @cached_property
    def swarm(self) -> pd.DataFrame:
        """One row for each particle and generation of a particle swarm."""
        return self._read("swarm", ("generation", "particle", "speed", "position"))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row for each candidate and objective that a model predicted."""
        columns = ("generation", "key", "objective", "predicted", "uncertainty", "measured")
        return self._read("predictions", columns)

    @cached_property
    def predictor(self) -> pd.DataFrame:
        """One row for each generation and objective that a model predicted."""
        return self._read("predictor", ("generation", "objective", "rank_correlation", "noise"))

    @cached_property
    def probabilities(self) -> pd.DataFrame:
        """One row for each generation, gene and choice of a strategy that learns probabilities."""
        return self._read("probabilities", ("generation", "gene", "choice", "probability"))

    @cached_property
    def relaxation(self) -> pd.DataFrame:
        """One row for each generation, which is one epoch, of a search by gradient."""
        measures = ("train_loss", "alpha_loss", "entropy", "skips", "skip_share", "temperature")
        return self._read("relaxation", ("generation", "epoch", *measures))

    @cached_property
    def controller(self) -> pd.DataFrame:
        """One row for each generation of a controller."""
        return self._read("controller", ("generation", "reward", "baseline", "entropy"))

    @cached_property
    def supernet_curve(self) -> pd.DataFrame:
        """One row for each epoch of the supernet."""
        measures = ("train_loss", "pool_error", "pool_best", "keep", "temperature", "entropy")
        return self._read("supernet/curve", ("epoch", *measures))

    @cached_property
    def supernet_pool(self) -> pd.DataFrame:
        """One row for each network scored after an epoch of the supernet; may be empty."""
        return self._read("supernet/pool", ("epoch", "key", "val_error"), empty=True)

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """One row for each network that was both scored by the supernet and trained alone."""
        columns = ("key", "genes", "supernet_error", "alone_error", "status")
        return self._read("rank/networks", columns)

    @cached_property
    def rank_summary(self) -> pd.DataFrame:
        """One row for each statistic of the two errors."""
        columns = ("statistic", "value", "low", "high", "n", "budget")
        return self._read("rank/summary", columns)

    @cached_property
    def timings(self) -> pd.DataFrame:
        """One row for each training; `from_cache` marks those done by another run. May be empty."""
        columns = ("phase", "generation", "seconds")
        more = ("from_cache", "index", "key", "status", "epochs", "message")
        frame = self._read("timings", columns, optional=more, empty=True)
        if "from_cache" not in frame:
            frame["from_cache"] = False
        frame["from_cache"] = frame["from_cache"].astype(str) == "True"
        return frame.dropna(subset=["seconds"])

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """The genes of the space, from `space.json`."""
        try:
            space = json.loads(files.read(self.path / "space.json"))
            return tuple(Gene(gene["name"], tuple(gene["choices"])) for gene in space["genes"])
        except (OSError, ValueError, KeyError, TypeError):
            raise NotYet("space.json is missing or damaged") from None

    @cached_property
    def space(self) -> SearchSpace:
        """The space itself, for what `space.json` does not say."""
        params = self.settings.get("space")
        if not isinstance(params, dict):
            raise NotYet("the space in config.yaml is damaged")
        name = str(params.get("name"))
        if registry.is_own(str(name)):  # the user's file is not imported for a drawing
            return SearchSpace(str(name), self.genes)
        if name not in registry.names("spaces"):
            raise NotYet(registry.unknown("space", name, registry.names("spaces")))
        try:
            return registry.make_space(registry.space(name).Params(**params))
        except (TypeError, ValueError):
            raise NotYet("the space in config.yaml is damaged") from None

    @cached_property
    def finals(self) -> pd.DataFrame:
        """The finalists by key; without rows before the finals."""
        try:
            return results.finals(self.path)
        except UserError as error:
            raise NotYet(str(error)) from None

    @cached_property
    def full_trainings(self) -> pd.DataFrame:
        """The full trainings of the run's networks by key; without rows if there are none."""
        return results.full_trainings(self.path)

    @cached_property
    def winner(self) -> Winner:
        """The winner of the finals, or, before them, the first of the front."""
        try:
            named = None if tables.outdated(self.path) else tables.winner(self.path)
        except UserError as error:
            raise NotYet(str(error)) from None
        row = self._read("front", ("key", "genes")).iloc[0] if named is None else named
        genes = tuple(map(int, str(row["genes"]).split("-")))
        return Winner(str(row["key"]), genes, final=named is not None)

    def _read(
        self,
        name: str,
        columns: tuple[str, ...],
        optional: tuple[str, ...] = (),
        *,
        empty: bool = False,
        every: bool = False,
    ) -> pd.DataFrame:
        path = self.path / f"{name}.csv"
        try:
            frame = tables.read(path, None if every else (*columns, *optional), TEXT)
        except (FileNotFoundError, pd.errors.EmptyDataError):
            raise NotYet(f"there is no {name}.csv yet") from None
        except (OSError, ValueError) as error:
            raise NotYet(f"{name}.csv cannot be read: {' '.join(str(error).split())}") from None
        missing = [column for column in columns if column not in frame]
        if missing:
            raise NotYet(f"{name}.csv lacks the column {missing[0]}")
        for column in frame:
            if column in TEXT:
                frame[column] = frame[column].fillna("")
            elif column not in FLAGS:
                frame[column] = pd.to_numeric(frame[column], errors="coerce")
        whole = [column for column in WHOLE if column in columns and name != "timings"]
        frame = frame.dropna(subset=whole).astype(dict.fromkeys(whole, "int64"))
        if frame.empty and not empty:
            raise NotYet(f"{name}.csv has no rows yet")
        return frame
