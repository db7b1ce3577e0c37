"""Which network a user means: by its text, or by a word for one of a folder's."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from evonas import config, registry
from evonas.config import Experiment, TrainingRun
from evonas.core import Objective, UserError
from evonas.records import tables
from evonas.records.folder import check_run_folder
from genomes import Genome, OtherSpace, SearchSpace, library

Settings = Experiment | TrainingRun  # which both say what the space is

FORMS = "winner, best, knee, a key, genes, a genome as the space writes it, or a library name"


@dataclass(frozen=True, slots=True)
class Choice:
    """A network that a user has named.

    Attributes:
        genome: in the spelling that it was found in.
        weights: the file of its trained weights; None where there are none.
    """

    space: SearchSpace
    genome: Genome
    weights: Path | None = None

    @property
    def key(self) -> str:
        return self.space.key(self.genome)

    @property
    def canonical(self) -> Choice:
        """The same network in its canonical spelling, which is the one that is trained."""
        return replace(self, genome=self.space.canonical(self.genome))


def is_folder(text: str) -> bool:
    """Whether a text names a folder; one may be too long for a name, which `Path` refuses."""
    return os.path.isdir(text)


def settings_of(folder: Path) -> Settings:
    """What a run, or a full training, was made with.

    Raises:
        UserError: the folder is neither's.
    """
    if (folder / "training.yaml").exists():
        return config.load_training(folder / "training.yaml")
    check_run_folder(folder)
    return config.load(folder / "config.yaml")


def choose(what: Path | str, which: str | None = None, settings: Settings | None = None) -> Choice:
    """The network of a run's folder, of a full training's folder, or of a text.

    Args:
        what: a folder; a text that names no folder is a genome.
        which: of a run, `winner` (if not given), `best`, the first of its front, `knee`, the one
            of its front that is farthest from the line between the front's ends, or whatever
            `read` takes. A full training has one network, which `winner` and its genome name.
        settings: what a text is read with; of a folder its own, which need not be given.

    Raises:
        UserError: there is no such network.
    """
    if isinstance(what, str) and not is_folder(what):
        if which is not None:
            raise UserError(
                f"{what} is a genome itself",
                hint="leave it out, or name a run folder",
                key=f"--genome {which}",
            )
        return read(what, settings)
    folder = Path(what)
    settings = settings or settings_of(folder)
    if isinstance(settings, TrainingRun):
        return _of_training(folder, which or "winner", settings)
    return _of_run(folder, which or "winner", settings)


def read(text: str, settings: Settings | None = None) -> Choice:
    """The network that a text stands for: a key, genes, as the space writes it, or a library name.

    Args:
        settings: whose space to read it in; None for the first that can, with its default settings.

    Raises:
        UserError: it is no genome.
    """
    if settings is None:
        return Choice(*_in_any_space(text))
    space = registry.make_space(settings.space)
    try:
        return Choice(space, library.read(space, text))
    except ValueError as error:
        raise UserError(f"{text} is no genome of {settings.name}: {error}") from None


def _of_training(folder: Path, which: str, settings: TrainingRun) -> Choice:
    only = read(settings.genome, settings)
    if which != "winner" and (which in WORDS or read(which, settings).key != only.key):
        raise UserError(
            f"--genome {which}: {folder} has one network, {only.key}", hint="leave out --genome"
        )
    weights = folder / "weights.safetensors"
    return replace(only, weights=weights if weights.exists() else None)


def _of_run(folder: Path, which: str, settings: Experiment) -> Choice:
    named = WORDS[which](folder, settings) if which in WORDS else which
    try:
        choice = read(named, settings)
    except UserError as error:
        raise UserError(f"--genome {error}", hint=f"allowed: {FORMS}") from None
    return replace(choice, weights=_weights(folder, which, choice))


def _weights(folder: Path, which: str, choice: Choice) -> Path | None:
    """Those of the search, which keeps its front's, or of the finals, which keep the winner's."""
    names = [] if which == "winner" else [choice.key]
    winner = tables.winner(folder)
    names += ["winner"] if winner is not None and winner["key"] == choice.key else []
    files = (folder / "weights" / f"{name}.safetensors" for name in names)
    return next((file for file in files if file.exists()), None)


def _winner(folder: Path, settings: Experiment) -> str:
    winner = tables.winner(folder)
    if winner is not None:
        return str(winner["genes"])
    if settings.data is None:
        name = registry.name_of(settings.evaluator)
        raise UserError(
            f"{folder} has no winner, since the evaluator {name} trains nothing",
            hint="allowed: --genome best, or a key",
        )
    raise UserError(f"{folder} has no winner yet; allowed: --genome best, or a key")


def _best(folder: Path, settings: Experiment) -> str:
    return str(_front(folder, ())["genes"].iloc[0])


def _knee(folder: Path, settings: Experiment) -> str:
    """Of the front, the network farthest from the line between the best of the first two goals.

    Both objectives are scaled to the front's range (Das, 1999, of two objectives).
    """
    if len(settings.objectives) < 2:
        raise UserError("--genome knee: one objective has no front; allowed: best")
    goals = settings.objectives[:2]
    front = _front(folder, goals)
    losses = np.column_stack([goal.sign * front[goal.name] for goal in goals])
    low, high = losses.min(axis=0), losses.max(axis=0)
    unit = (losses - low) / np.where(high > low, high - low, 1.0)
    return str(front["genes"].iloc[int(unit.sum(axis=1).argmin())])


WORDS: dict[str, Callable[[Path, Experiment], str]] = {
    "winner": _winner,
    "best": _best,
    "knee": _knee,
}


def _front(folder: Path, goals: tuple[Objective, ...]) -> pd.DataFrame:
    """`front.csv`, which has a row at least."""
    path = folder / "front.csv"
    try:
        front = tables.read(path, text=("genes",))[["genes", *(goal.name for goal in goals)]]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{path} is missing or damaged") from None
    if front.empty:
        raise UserError(f"{folder} has no network on its front yet")
    return front


def _in_any_space(text: str) -> tuple[SearchSpace, Genome]:
    """A cell of the library, or a genome of the first space that can read it."""
    if text in library.library():
        return library.load(text)
    mistakes = []
    for name in registry.names("spaces"):
        try:
            space = registry.make_space(registry.space(name).Params())
        except ValidationError:
            continue  # not known without its settings
        try:
            return space, space.parse(text)
        except OtherSpace:
            continue
        except ValueError as error:  # it has the form of this space: the reason is of use
            mistakes.append(str(error))
    reason = mistakes[0] if mistakes else "no space with its default settings can read it"
    raise UserError(
        f"{text} is neither a folder nor a genome: {reason}",
        hint="to read it in a space with other settings, add --experiment FILE",
    )
