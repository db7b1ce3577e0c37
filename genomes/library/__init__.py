"""Published cells by name, each with its source and its published figures."""

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
    """A published cell.

    Attributes:
        space: the name of its space.
        genome: its text form in that space.
        source: the publication, and where the cell was taken from.
        figures: the published results, as written there: `data`, `params`, `test_error`.
    """

    name: str
    space: str
    genome: str
    source: str
    figures: dict[str, str]


@cache
def library() -> dict[str, Published]:
    """Return all cells by name, in alphabetical order."""
    cells = {}
    for file in sorted(files(__name__).iterdir(), key=lambda file: file.name):
        name, _, suffix = file.name.rpartition(".")
        if suffix == "json":
            cell = json.loads(file.read_text(encoding="utf-8"))
            cells[name] = Published(
                name, cell["space"], cell["genome"], cell["source"], cell["published"]
            )
    return cells


def load(name: str) -> tuple[SearchSpace, Genome]:
    """Return the space and the genome of a cell.

    Raises:
        KeyError: no cell has this name.
    """
    published = library()[name]
    space = SPACES[published.space]()
    return space, space.parse(published.genome)


def read(space: SearchSpace, text: str) -> Genome:
    """Return the genome that a text stands for: a cell's name, or what `space.parse` reads.

    Raises:
        ValueError: the text is neither, or names a cell of another space.
    """
    published = library().get(text.strip())
    if published is None:
        return space.parse(text)
    if published.space != space.name:
        raise ValueError(f"{text} is a cell of {published.space}, not of {space.name}")
    return space.parse(published.genome)
