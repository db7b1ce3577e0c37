"""Published cells by name, each with where it comes from and what was published of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from genomes.darts import Darts
from genomes.genome import Genome
from genomes.nasbench201 import NASBench201
from genomes.space import SearchSpace

SPACES = {"darts/v1": Darts, "nasbench201/v1": NASBench201}


@dataclass(frozen=True, slots=True)
class Published:
    """A cell of the library.

    Attributes:
        space: name of the space it belongs to.
        genome: as that space writes it.
        source: the publication, and where the cell was taken from.
        figures: what was published of it, as it was written there: `data`, `params`, `test_error`.
    """

    name: str
    space: str
    genome: str
    source: str
    figures: dict[str, str]


@cache
def library() -> dict[str, Published]:
    """All cells, by name, in alphabetical order."""
    cells = {}
    for file in sorted(files(__name__).iterdir(), key=lambda file: file.name):
        name, _, ending = file.name.rpartition(".")
        if ending == "json":
            entry = json.loads(file.read_text(encoding="utf-8"))
            cells[name] = Published(
                name, entry["space"], entry["genome"], entry["source"], entry["published"]
            )
    return cells


def load(name: str) -> tuple[SearchSpace, Genome]:
    """A cell and its space.

    Raises:
        KeyError: none of this name.
    """
    published = library()[name]
    space = SPACES[published.space]()
    return space, space.parse(published.genome)


def read(space: SearchSpace, text: str) -> Genome:
    """The genome that a text stands for: a name of the library, or what `space.parse` reads.

    Raises:
        ValueError: it is neither, or the name of a cell of another space.
    """
    published = library().get(text.strip())
    if published is None:
        return space.parse(text)
    if published.space != space.name:
        raise ValueError(f"{text} is a cell of {published.space}, not of {space.name}")
    return space.parse(published.genome)
