"""Published cells and networks by name, each with its source and its published figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from genomes.darts import Darts
from genomes.genome import Genome
from genomes.nasbench201 import NASBench201
from genomes.space import SearchSpace
from genomes.stages import Stages

SPACES = {"darts/v1": Darts, "nasbench201/v1": NASBench201, "stages/v1": Stages}


@dataclass(frozen=True, slots=True)
class Published:
    """A published cell, or a network.

    Attributes:
        space: the name of its space.
        genome: its text form in that space, with the space's default settings.
        source: the publication, and where the cell was taken from.
        figures: the published results, as written there: `data`, `params`, `test_error`; none for
            a network that is scaled to small images.
    """

    name: str
    space: str
    genome: str
    source: str
    figures: dict[str, str]


@cache
def library() -> dict[str, Published]:
    """Return all of them by name, in alphabetical order."""
    found = {}
    for file in sorted(files(__name__).iterdir(), key=lambda file: file.name):
        name, _, suffix = file.name.rpartition(".")
        if suffix == "json":
            read = json.loads(file.read_text(encoding="utf-8"))
            found[name] = Published(
                name, read["space"], read["genome"], read["source"], read["published"]
            )
    return found


def knows(text: str) -> bool:
    """Return whether a text is a name, or a name and a size, such as `vgg6@12`."""
    return _parts(text)[0] in library()


def load(text: str) -> tuple[SearchSpace, Genome]:
    """Return the space and the genome of a name, as `read` takes it.

    Raises:
        KeyError: there is no such name.
        ValueError: the size is not one of the space's.
    """
    space = SPACES[library()[_parts(text)[0]].space]()
    return space, read(space, text)


def read(space: SearchSpace, text: str) -> Genome:
    """Return the genome that a text stands for: a name, or what `space.parse` reads.

    A network that comes in several sizes can have one of them after its name: `vgg6@12` has 12
    channels in its first layer. In a space with other settings, it is the nearest genome.

    Raises:
        ValueError: the text is neither, names a cell of another space, or a network that the
            space's settings leave out.
    """
    name, size = _parts(text)
    published = library().get(name)
    if published is None:
        return space.parse(text)
    if published.space != space.name:
        raise ValueError(f"{name} is a genome of {published.space}, not of {space.name}")
    try:
        return space.nearest(published.genome, size)
    except ValueError as error:
        raise ValueError(f"{text.strip()}: {error}") from None


def _parts(text: str) -> tuple[str, str]:
    name, _, size = text.strip().partition("@")
    return name, size
