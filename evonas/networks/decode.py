"""Decoding a genome to a network."""

from __future__ import annotations

from typing import Any

from torch import nn

from evonas import registry
from evonas.core import by_name
from genomes import Genome, SearchSpace


def decode(
    space: SearchSpace,
    genome: Genome,
    *,
    in_channels: int = 3,
    classes: int = 10,
    prune: bool = True,
    **params: Any,
) -> nn.Module:
    """Return the network of a genome, with fresh weights from torch's global generator.

    Args:
        in_channels: the channels of the images, (n, in_channels, height, width).
        prune: leave out what is dead. Otherwise every gene's choice is built and computed, as
            benchmarks count it.
        params: the network's settings, such as `channels`, with their defaults; those of the space
            itself are taken from the space.

    Raises:
        ValueError: a setting is out of range (pydantic's error, which is a ValueError).
    """
    blueprint = registry.blueprint_of(space)
    if blueprint.build is None:
        raise ValueError(f"{space.name} has no networks to build")
    settings = blueprint.settings(space, params)
    pick = picker(space, genome, prune=prune)
    network: nn.Module = blueprint.build(pick, in_channels=in_channels, classes=classes, **settings)
    return network


def picker(space: SearchSpace, genome: Genome, *, prune: bool = True) -> Any:
    """Return a `pick` that builds what the genome chose, and gives None where that is dead."""
    chosen = {gene.name: space.choice(genome, i) for i, gene in enumerate(space.genes)}
    live = dict(zip(chosen, space.live(genome), strict=True))

    def pick(gene: str, candidates: Any) -> Any:
        if prune and not live[gene]:
            return None
        candidate = by_name(candidates)[chosen[gene]]
        return candidate() if callable(candidate) else candidate

    return pick
