"""What every space and its networks promise: each contract raises AssertionError.

from evonas.testing import spaces

@pytest.mark.parametrize("contract", spaces.CONTRACTS, ids=lambda each: each.__name__)
def test_mine_keeps_its_promises(contract):
    contract(spaces.maker(MINE, MineParams(channels=4)))
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from evonas.core import Blueprint, Params
from evonas.networks.decode import picker
from evonas.networks.profile import Profile, profile
from evonas.oneshot.supernet import SlicedSupernet, Supernet
from evonas.testing.contract import contract, global_generators
from genomes import Genome, SearchSpace

SAMPLES, NETWORKS = 100, 4
SHAPES = ((1, 9, 7), (3, 8, 8), (2, 5, 5))  # (channels, height, width)
CLASSES = 3


@dataclass(frozen=True)
class Make:
    """Makes a space and its networks anew; see `maker`."""

    blueprint: Blueprint
    params: Params

    def __call__(self) -> SearchSpace:
        return self.blueprint.make_space(self.params)

    def sample(self, count: int = SAMPLES) -> list[Genome]:
        space, rng = self(), np.random.default_rng(0)
        return [space.sample(rng) for _ in range(count)]

    def settings(self) -> dict[str, Any]:
        return self.blueprint.settings(self(), self.params.model_dump(exclude={"name"}))

    def network(self, genome: Genome, channels: int = 3, seed: int = 0) -> nn.Module:
        """The network of a genome, whose weights are drawn from a seed."""
        assert self.blueprint.build is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network: nn.Module = self.blueprint.build(
                picker(self(), genome), in_channels=channels, classes=CLASSES, **self.settings()
            )
        return network

    def size(self, genome: Genome) -> Profile:
        return profile(self.network(genome), SHAPES[1])


def maker(blueprint: Blueprint, params: Params) -> Make:
    """Makes spaces and networks of these settings; small ones, since networks are built."""
    return Make(blueprint, params)


@contract
def genes_and_choices_are_named_once(make: Make) -> None:
    """Each gene has a name of its own, and each of its choices too; size counts all genomes."""
    space = make()
    names = [gene.name for gene in space.genes]
    assert len(set(names)) == len(names) > 0, f"genes are named twice: {names}"
    for gene in space.genes:
        assert len(set(gene.choices)) == len(gene.choices) > 0, f"the choices of {gene.name}"
    assert space.size == math.prod(len(gene.choices) for gene in space.genes), "size is wrong"


@contract
def the_space_is_the_same_every_time(make: Make) -> None:
    """The same settings make the same name and genes, in a worker too."""
    first, second = make(), make()
    for other in (second, pickle.loads(pickle.dumps(first))):
        assert (first.name, first.genes) == (other.name, other.genes), "two spaces differ"
    title, _, version = first.name.partition("/")
    assert "" not in (title, version), f"{first.name!r} is not NAME/VERSION"


@contract
def a_sample_is_a_genome_of_the_space(make: Make) -> None:
    """What is sampled has genes within their choices, and comes from the generator given."""
    space, before = make(), global_generators()
    for genome in make.sample():
        assert space.genome(genome.genes) == genome, f"{genome} is of another space"
    assert make.sample() == make.sample(), "two generators of one seed give other samples"
    assert before == global_generators(), "it draws from a global generator"


@contract
def text_is_read_back(make: Make) -> None:
    """`parse` reads what `describe` writes, genes, and keys."""
    space = make()
    for genome in make.sample():
        for text in (space.describe(genome), genome.text):
            assert space.parse(text) == genome, f"{text} is read as another genome"
        key = space.key(genome)
        assert space.key(space.parse(key)) == key, f"{key} is read as another network"


@contract
def a_key_names_the_canonical_genome(make: Make) -> None:
    """`canonical` is a genome of the space that stays as it is, and has the key of all others."""
    space = make()
    for genome in make.sample():
        canonical, key = space.canonical(genome), space.key(genome)
        assert space.genome(canonical.genes) == canonical, f"{canonical} is of another space"
        assert space.canonical(canonical) == canonical, f"{canonical} has a canonical genome"
        assert key == space.key(canonical), f"{genome.text} has a key of its own"
        assert key.split() == [key], f"the key {key!r} is not one word"


@contract
def a_dead_gene_has_no_say(make: Make) -> None:
    """`live` has a flag for each gene, and a choice of one that is dead either way is the same
    network."""
    space, rng = make(), np.random.default_rng(1)
    for genome in make.sample():
        live = space.live(genome)
        assert len(live) == len(space.genes), f"{len(live)} flags, {len(space.genes)} genes"
        dead = [i for i, alive in enumerate(live) if not alive]
        if dead:
            genes = list(genome.genes)
            place = int(rng.choice(dead))
            genes[place] = (genes[place] + 1) % space.choices[place]
            other = space.genome(genes)
            same = space.live(other)[place] or space.key(other) == space.key(genome)
            assert same, f"gene {place} of {genome.text} is dead, but the key depends on it"


@contract
def a_graph_can_be_drawn(make: Make) -> None:
    """The edges of a drawing are between its nodes."""
    space = make()
    for genome in make.sample():
        graph = space.graph(genome)
        if graph is None:  # a table of its genes is drawn
            continue
        nodes = set(graph.nodes)
        assert len(nodes) == len(graph.nodes) > 0, "a node is named twice"
        ends = {end for edge in graph.edges for end in (edge.source, edge.target)}
        unknown = (ends | {*graph.inputs, *graph.outputs}) - nodes
        assert not unknown, f"no node of the drawing: {sorted(unknown)}"


@contract
def settings_are_merged_once(make: Make) -> None:
    """The networks' settings are all of the model's, and those of the space are the space's."""
    space, blueprint = make(), make.blueprint
    if not blueprint.has_networks:
        return
    settings = make.settings()
    assert settings == make.params.model_dump(exclude={"name"}), "the settings are not those given"
    for key in blueprint.space_keys:
        other = {**settings, key: "another"}
        assert blueprint.settings(space, other)[key] == settings[key], f"{key} is not the space's"


@contract
def networks_take_images_of_any_size(make: Make) -> None:
    """A network gives finite logits, (n, classes), for odd sizes and any number of channels."""
    if not make.blueprint.has_networks:
        return
    for genome in make.sample(NETWORKS):
        for shape in SHAPES:
            network = make.network(genome, channels=shape[0]).eval()
            logits = network(torch.ones(2, *shape))
            assert logits.shape == (2, CLASSES), f"{tuple(logits.shape)} logits for {shape}"
            assert logits.isfinite().all(), "logits are not finite"


@contract
def a_seed_makes_the_network(make: Make) -> None:
    """All weights come from torch's generator, so one seed gives one network."""
    if not make.blueprint.has_networks:
        return
    for genome in make.sample(NETWORKS):
        one, two = (make.network(genome).state_dict() for _ in range(2))
        assert one.keys() == two.keys(), "two networks of one genome differ"
        assert all(torch.equal(one[name], two[name]) for name in one), "weights are not by the seed"


@contract
def equal_keys_are_equally_large(make: Make) -> None:
    """A genome and its canonical one build networks of as many parameters and FLOPs."""
    if not make.blueprint.has_networks:
        return
    space = make()
    spelled = [genome for genome in make.sample() if space.canonical(genome) != genome]
    for genome in spelled[:NETWORKS]:
        sizes = make.size(genome), make.size(space.canonical(genome))
        assert sizes[0] == sizes[1], f"{genome.text} is {sizes[0]}, its canonical one {sizes[1]}"


@contract
def no_network_is_larger_than_the_largest(make: Make) -> None:
    """`largest`, if it is known, is a genome of the space, and no sample has more parameters."""
    space = make()
    largest = space.largest()
    if largest is None:
        return
    assert space.genome(largest.genes) == largest, f"{largest} is of another space"
    if make.blueprint.has_networks:
        most = make.size(largest)
        for genome in make.sample(2 * NETWORKS):
            size = make.size(genome)
            assert size.params <= most.params, f"{genome.text} has more parameters"
            assert size.flops <= most.flops, f"{genome.text} has more FLOPs"


@contract
def a_path_of_the_supernet_is_the_network(make: Make) -> None:
    """Where weights are shared, a genome's path computes what its network does with them."""
    shares = make.blueprint.shares
    if shares is None:
        return
    space, ends = make(), {"in_channels": 3, "classes": CLASSES}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = (
            Supernet(space, make.blueprint, make.settings(), **ends)
            if shares == "ops"
            else SlicedSupernet(space, make.settings(), **ends)
        )
        images = torch.randn(2, *SHAPES[1])
    for genome in map(space.canonical, make.sample(NETWORKS)):
        supernet.take(genome)
        network = make.network(genome)
        network.load_state_dict(supernet.inherited(genome))
        with torch.no_grad():
            shared, alone = supernet.eval()(images), network.eval()(images)
        assert torch.allclose(shared, alone, atol=1e-5), f"the path of {genome.text} differs"


CONTRACTS: tuple[Callable[[Make], None], ...] = (
    genes_and_choices_are_named_once,
    the_space_is_the_same_every_time,
    a_sample_is_a_genome_of_the_space,
    text_is_read_back,
    a_key_names_the_canonical_genome,
    a_dead_gene_has_no_say,
    a_graph_can_be_drawn,
    settings_are_merged_once,
    networks_take_images_of_any_size,
    a_seed_makes_the_network,
    equal_keys_are_equally_large,
    no_network_is_larger_than_the_largest,
    a_path_of_the_supernet_is_the_network,
)
