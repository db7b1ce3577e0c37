"""Genomes that share a key compute the same function; that is what makes a key a cache's key."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evonas.networks.decode import decode
from evonas.networks.nasbench201 import Cell
from genomes import Genome, NASBench201

SPACE = NASBench201()
IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CONVOLUTIONS = ("nor_conv_1x1", "nor_conv_3x3")


def pairs_of_one_network(count: int, *, convolutions: int = 0) -> list[tuple[Genome, Genome]]:
    """Different genomes with the same key, with at least so many live convolutions."""
    spellings = defaultdict(list)
    for genes in itertools.product(range(5), repeat=6):
        genome = SPACE.genome(genes)
        if sum(map(len, live_convolutions(genome).values())) >= convolutions:
            spellings[SPACE.key(genome)].append(genome)
    several = [genomes for genomes in spellings.values() if len(genomes) > 1]
    rng = np.random.default_rng(0)
    chosen = [several[i] for i in rng.choice(len(several), count, replace=False)]
    return [tuple(g[i] for i in rng.choice(len(g), 2, replace=False)) for g in chosen]


def live_convolutions(genome: Genome) -> dict[str, list[str]]:
    """The edges that hold a live convolution, by its kind."""
    edges: dict[str, list[str]] = {kind: [] for kind in CONVOLUTIONS}
    for i, live in enumerate(SPACE.live(genome)):
        if live and SPACE.choice(genome, i) in edges:
            edges[SPACE.choice(genome, i)].append(SPACE.genes[i].name)
    return edges


def network_of(genome: Genome, seed: int) -> nn.Module:
    """Random weights; batch norms too, or they would hide what they shift and scale."""
    torch.manual_seed(seed)
    network = decode(SPACE, genome, channels=4, cells=1, in_channels=1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return network


def test_canonical_networks_of_one_key_agree_when_they_share_weights() -> None:
    for number, (one, other) in enumerate(pairs_of_one_network(100)):
        ours = network_of(SPACE.canonical(one), seed=2 * number)
        theirs = network_of(SPACE.canonical(other), seed=2 * number + 1)
        theirs.load_state_dict(ours.state_dict())
        for mode in (False, True):
            assert torch.equal(ours.train(mode)(IMAGES), theirs.train(mode)(IMAGES)), (one, other)


def test_spellings_of_one_network_agree_under_some_assignment_of_weights() -> None:
    for number, (one, other) in enumerate(pairs_of_one_network(40, convolutions=1)):
        assert agree_somehow(one, other, seed=number), (one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("300020", "200030", id="3x3-then-1x1-and-1x1-then-3x3"),
        pytest.param("300040", "400030", id="pooled-after-and-before"),
        pytest.param("100310", "110311", id="the-input-added-once-and-twice"),
        pytest.param("300330", "303003", id="beside-and-after"),
    ],
)
def test_no_assignment_of_weights_makes_different_networks_agree(one: str, other: str) -> None:
    genomes = [SPACE.genome(map(int, digits)) for digits in (one, other)]
    assert not agree_somehow(*genomes, seed=0)


def agree_somehow(one: Genome, other: Genome, seed: int) -> bool:
    """Whether two networks, as they stand, agree with one's weights put somewhere in the other."""
    ours, theirs = network_of(one, seed).double().eval(), network_of(other, seed).double().eval()
    images = IMAGES.double()
    with torch.no_grad():
        expected = ours(images)
        for weights in assignments(ours, live_convolutions(one), live_convolutions(other)):
            theirs.load_state_dict(weights)
            if torch.allclose(theirs(images), expected, rtol=0, atol=1e-9):
                return True
    return False


def assignments(
    network: nn.Module, ours: dict[str, list[str]], theirs: dict[str, list[str]]
) -> Iterator[dict[str, Tensor]]:
    """The network's weights, with those of each edge named for an edge of the same kind.

    The cells of all stages share their genes, so they share the assignment.
    """
    cells = [name for name, module in network.named_modules() if isinstance(module, Cell)]
    orders = (itertools.permutations(ours[kind]) for kind in CONVOLUTIONS)
    for order in itertools.product(*orders):
        places = {
            f"{cell}.edges.{source}": f"{cell}.edges.{target}"
            for cell in cells
            for kind, sources in zip(CONVOLUTIONS, order, strict=True)
            for source, target in zip(sources, theirs[kind], strict=True)
        }
        yield {renamed(name, places): value for name, value in network.state_dict().items()}


def renamed(name: str, places: dict[str, str]) -> str:
    """`body.0.edges.0>1.1.weight`, with the edge it is of replaced."""
    edge, _, rest = name.partition(">")
    edge, rest = f"{edge}>{rest[:1]}", rest[1:]
    return places[edge] + rest if edge in places else name
