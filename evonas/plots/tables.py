"""What the figures read: a run folder's tables, each once, as far as they are written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from evonas import registry, yamlfile
from evonas.core import Objective, Status, UserError
from evonas.plots.style import NotYet
from evonas.records import tables
from evonas.records.folder import check_run_folder
from genomes import Gene, SearchSpace

TEXT = (
    *("key", "genes", "parents", "origin", "status", "phase", "position"),
    *("gene", "choice", "statistic", "budget"),
)
FLAGS = ("winner", "from_cache")
# And never missing.
WHOLE = ("generation", "index", "epoch", "evaluations", "trained", "hits", "distinct")
STATUSES = [str(status) for status in Status if status is not Status.OK]


@dataclass(frozen=True, slots=True)
class Winner:
    """The network that the run has come to so far."""

    key: str
    genes: tuple[int, ...]
    final: bool  # named by the finals; else the best of the front so far

    @property
    def word(self) -> str:
        return "winner" if self.final else "best so far"


class Tables:
    """A run folder, running, finished or killed.

    Every table is a property that raises NotYet where the folder does not have it yet.
    """

    def __init__(self, path: Path) -> None:
        """Reads the experiment.

        Raises:
            UserError: `path` is no run folder.
        """
        self.path = path
        check_run_folder(path)
        try:
            self.settings: dict[str, Any] = yamlfile.read(path / "config.yaml")
            self.objectives = tuple(Objective(**given) for given in self.settings["objectives"])
        except UserError as error:
            raise UserError(f"{path / 'config.yaml'}: {error}") from None
        except (KeyError, TypeError, ValidationError):
            raise UserError(
                f"{path / 'config.yaml'} has no objectives; allowed: the file as evonas wrote it"
            ) from None

    @cached_property
    def evaluations(self) -> pd.DataFrame:
        """A row a candidate, in the order of their index."""
        names = [objective.name for objective in self.objectives]
        columns = ("generation", "index", "key", "genes", "parents", "origin", "status", *names)
        return self._read("evaluations", columns)

    @cached_property
    def ended_well(self) -> pd.DataFrame:
        """Of the evaluations, those with a value for every objective."""
        names = [objective.name for objective in self.objectives]
        well = self.evaluations["status"] == str(Status.OK)
        finite = np.isfinite(self.evaluations[names].to_numpy(dtype=np.float64)).all(axis=1)
        frame: pd.DataFrame = self.evaluations[well & finite]
        if frame.empty:
            raise NotYet("no evaluation has ended well yet")
        return frame

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
        """A row a particle and generation, of a particle swarm."""
        return self._read("swarm", ("generation", "particle", "speed", "position"))

    @cached_property
    def probabilities(self) -> pd.DataFrame:
        """A row a generation, gene and choice, of a strategy that draws or derives by them."""
        return self._read("probabilities", ("generation", "gene", "choice", "probability"))

    @cached_property
    def relaxation(self) -> pd.DataFrame:
        """A row a generation, which is an epoch, of a search by gradient."""
        told = ("train_loss", "alpha_loss", "entropy", "skips", "skip_share", "temperature")
        return self._read("relaxation", ("generation", "epoch", *told))

    @cached_property
    def controller(self) -> pd.DataFrame:
        """A row a generation of a controller."""
        return self._read("controller", ("generation", "reward", "baseline", "entropy"))

    @cached_property
    def supernet_curve(self) -> pd.DataFrame:
        """A row an epoch of the supernet."""
        told = ("train_loss", "pool_error", "pool_best", "keep", "temperature", "entropy")
        return self._read("supernet/curve", ("epoch", *told))

    @cached_property
    def supernet_pool(self) -> pd.DataFrame:
        """A row a network that was scored after an epoch of the supernet; maybe none."""
        return self._read("supernet/pool", ("epoch", "key", "val_error"), empty=True)

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """A row a network that the supernet has scored and that was trained alone."""
        columns = ("key", "genes", "supernet_error", "alone_error", "status")
        return self._read("rank/networks", columns)

    @cached_property
    def rank_summary(self) -> pd.DataFrame:
        """A row a statistic of both errors."""
        columns = ("statistic", "value", "low", "high", "n", "budget")
        return self._read("rank/summary", columns)

    @cached_property
    def timings(self) -> pd.DataFrame:
        """A row a training, none if no candidate was worth one; `from_cache`: by another run."""
        columns = ("phase", "generation", "seconds")
        frame = self._read("timings", columns, optional=("from_cache",), empty=True)
        if "from_cache" not in frame:
            frame["from_cache"] = False
        frame["from_cache"] = frame["from_cache"].astype(str) == "True"
        return frame.dropna(subset=["seconds"])

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        """The space's, from `space.json`."""
        try:
            told = json.loads((self.path / "space.json").read_text())
            return tuple(Gene(gene["name"], tuple(gene["choices"])) for gene in told["genes"])
        except (OSError, ValueError, KeyError, TypeError):
            raise NotYet("space.json is missing or damaged") from None

    @cached_property
    def space(self) -> SearchSpace:
        """The space itself, for what only it knows."""
        given = self.settings.get("space")
        if not isinstance(given, dict):
            raise NotYet("the space in config.yaml is damaged")
        name = str(given.get("name"))
        if registry.is_own(str(name)):  # its file is not imported for a drawing
            return SearchSpace(str(name), self.genes)
        if name not in registry.names("spaces"):
            raise NotYet(registry.unknown("space", name, registry.names("spaces")))
        try:
            return registry.make_space(registry.space(name).Params(**given))
        except (TypeError, ValueError):
            raise NotYet("the space in config.yaml is damaged") from None

    @cached_property
    def winner(self) -> Winner:
        """The winner of the finals, or, before them, the first of the front."""
        try:
            named = tables.winner(self.path)
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
    ) -> pd.DataFrame:
        path = self.path / f"{name}.csv"
        try:
            frame = tables.read(path, (*columns, *optional), TEXT)
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
