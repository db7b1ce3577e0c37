"""The network that a user names: a genome, or a word such as `winner` for one in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from evonas import config, files, pareto, registry
from evonas.core import Objective, UserError
from evonas.experiment import Experiment, TrainingRun
from evonas.records import tables
from evonas.records.folder import check_run_folder
from genomes import Genome, OtherSpace, SearchSpace, library

Settings = Experiment | TrainingRun  # both have a space

FORMS = "a key, genes, a genome in the space's notation, or a library name"
OTHERS = "choose another network with --genome best or --genome KEY"


@dataclass(frozen=True, slots=True)
class Choice:
    """A network that a user has named.

    Attributes:
        genome: the genome, in the spelling in which it was named.
        weights: the file of its trained weights; None if there are none.
    """

    space: SearchSpace
    genome: Genome
    weights: Path | None = None

    @property
    def key(self) -> str:
        """The network's key."""
        return self.space.key(self.genome)

    @property
    def canonical(self) -> Choice:
        """The same network in its canonical spelling, in which networks are trained."""
        return replace(self, genome=self.space.canonical(self.genome))


def is_folder(text: str) -> bool:
    """Return whether a text names a folder, even if it is too long to be a file name."""
    return os.path.isdir(text)


def settings_of(folder: Path) -> Settings:
    """Return the settings of the run, or the full training, in a folder.

    Raises:
        UserError: the folder has neither.
    """
    if (folder / "training.yaml").exists():
        files.check_folder(folder)
        return config.load_training(folder / "training.yaml")
    check_run_folder(folder)
    return config.load_run(folder)


def choose(what: Path | str, which: str | None = None, settings: Settings | None = None) -> Choice:
    """Return the network that a folder, or a genome, and a word determine.

    Args:
        what: the folder of a run or a full training; a text that names no folder is a genome.
        which: in a run, `winner` (the default); `best`, the first network of the front; `knee`, the
            network of the front that is farthest from the line between the front's ends; or any
            text that `read` accepts. A full training has a single network, named by `winner` or by
            its genome.
        settings: the settings to read a genome with; by default, those of the folder.

    Raises:
        UserError: there is no such network.
    """
    if isinstance(what, str) and not is_folder(what):
        if which is not None:
            raise UserError(
                f"{what} is a genome already",
                hint="leave out --genome, or give a run folder",
                key=f"--genome {which}",
            )
        return read(what, settings)
    folder = Path(what)
    settings = settings or settings_of(folder)
    if isinstance(settings, TrainingRun):
        return _of_training(folder, which or "winner", settings)
    return _of_run(folder, which or "winner", settings)


def read(text: str, settings: Settings | None = None) -> Choice:
    """Return the network of a text: a key, genes, a genome in the space's notation, or a name.

    A name is one of `genomes.library`.

    Args:
        settings: the settings with the network's space; None for the first space that can read the
            text with its default settings.

    Raises:
        UserError: the text is not a genome.
    """
    if settings is None:
        return Choice(*_in_any_space(text))
    return _read(text, settings, key=text, allowed=FORMS)


def _read(text: str, settings: Settings, *, key: str, allowed: str) -> Choice:
    """Read a text as `read` does; a mistake has `key` for its place, and suggests `allowed`."""
    space = registry.make_space(settings.space)
    try:
        return Choice(space, library.read(space, text))
    except ValueError as error:
        raise UserError(str(error), hint=f"or give {allowed}", key=key) from None


def _of_training(folder: Path, which: str, settings: TrainingRun) -> Choice:
    only = read(settings.genome, settings)
    if which != "winner" and (which in WORDS or read(which, settings).key != only.key):
        raise UserError(
            f"{folder} has a single network, {only.key}",
            hint="leave out --genome",
            key=f"--genome {which}",
        )
    weights = folder / "weights.safetensors"
    return replace(only, weights=weights if weights.exists() else None)


def _of_run(folder: Path, which: str, settings: Experiment) -> Choice:
    named = WORDS[which](folder, settings) if which in WORDS else which
    words = ", ".join(WORDS)
    choice = _read(named, settings, key=f"--genome {which}", allowed=f"{words}, {FORMS}")
    return replace(choice, weights=_weights(folder, which, choice))


def _weights(folder: Path, which: str, choice: Choice) -> Path | None:
    """Return the saved weights: the search keeps the front's, the finals keep the winner's."""
    names = [] if which == "winner" else [choice.key]
    winner = tables.winner(folder)
    names += ["winner"] if winner is not None and winner.get("key") == choice.key else []
    paths = (folder / "weights" / f"{files.short(name)}.safetensors" for name in names)
    return next((path for path in paths if path.exists()), None)


def _winner(folder: Path, settings: Experiment) -> str:
    winner = tables.winner(folder)
    if winner is not None:
        return str(winner.get("genes"))  # a damaged table may have none
    if settings.data is None:
        name = registry.name_of(settings.evaluator)
        raise UserError(
            f"{folder} has no winner, since the evaluator {name} does not train", hint=OTHERS
        )
    raise UserError(f"{folder} has no winner yet", hint=OTHERS)


def _best(folder: Path, settings: Experiment) -> str:
    return str(_front(folder, ())["genes"].iloc[0])


def _knee(folder: Path, settings: Experiment) -> str:
    """Return the network of the front's knee (`pareto.knee`)."""
    if len(settings.objectives) < 2:
        raise UserError(
            "a run with one objective has no knee", hint="use --genome best", key="--genome knee"
        )
    goals = settings.objectives[:2]
    front = _front(folder, goals)
    losses = np.column_stack([goal.sign * front[goal.name] for goal in goals])
    return str(front["genes"].iloc[pareto.knee(losses)])


WORDS: dict[str, Callable[[Path, Experiment], str]] = {
    "winner": _winner,
    "best": _best,
    "knee": _knee,
}


def _front(folder: Path, goals: tuple[Objective, ...]) -> pd.DataFrame:
    """Return `front.csv`, which must have at least one row."""
    path = folder / "front.csv"
    try:
        front = tables.read(path, text=("genes",))[["genes", *(goal.name for goal in goals)]]
    except (OSError, ValueError, KeyError):
        raise UserError(
            f"{path} is missing or damaged", hint=f"write it again with `evonas resume {folder}`"
        ) from None
    if front.empty:
        raise UserError(
            f"{folder} has no network on its front yet", hint=f"see `evonas show {folder}`"
        )
    return front


def _in_any_space(text: str) -> tuple[SearchSpace, Genome]:
    """Return a cell of the library, or a genome of the first space that can read the text."""
    if library.knows(text):
        try:
            return library.load(text)
        except ValueError as error:
            raise UserError(str(error), hint="see `evonas list genomes`") from None
    mistakes = []
    for name in registry.names("spaces"):
        try:
            space = registry.make_space(registry.space(name).Params())
        except ValidationError:
            continue  # it has no default settings
        try:
            return space, space.parse(text)
        except OtherSpace:
            continue
        except ValueError as error:  # the text has this space's form, so the reason is useful
            mistakes.append(str(error))
    reason = mistakes[0] if mistakes else "no space with its default settings can read it"
    raise UserError(
        f"{text} is neither a folder nor a genome: {reason}",
        hint="to read it in a space with other settings, add --experiment FILE",
    )
