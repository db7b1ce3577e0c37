"""A supernet holds every network of its space: the same outputs, and nothing computed in vain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

import evonas
from evonas import registry
from evonas.core import UserError
from evonas.networks.decode import decode
from evonas.networks.ops import conv_bn_relu
from evonas.oneshot.mixture import Mixture, dropped, fair, gumbel_softmax, path, softmax
from evonas.oneshot.supernet import MixedOp, SlicedSupernet, Supernet, supernet
from evonas.own import OwnSpace
from evonas.protocols import Pick
from genomes import Genome, SearchSpace

ENDS: dict[str, int] = {"in_channels": 1, "classes": 10}
SIZES: dict[str, dict[str, Any]] = {
    "nasbench201": {"channels": 4, "cells": 1},
    "darts": {"channels": 4, "cells": 3},
    "chain": {},
    "channels": {},
    "own": {},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "chain": {"stages": [[4, 2, 1], [8, 2, 2]], "expansions": [1, 2], "stem": 4},
    "channels": {"stages": 4, "widths": [4, 8, 12]},
}


@evonas.space
def tiny(pick: Pick, *, in_channels: int, classes: int, channels: int = 4) -> nn.Module:
    layers: list[nn.Module] = [conv_bn_relu(in_channels, channels, 3)]
    for i in range(3):
        candidates = {
            "conv3": lambda: conv_bn_relu(channels, channels, 3),
            "conv5": lambda: conv_bn_relu(channels, channels, 5),
            "skip": nn.Identity,
        }
        layers.append(pick(f"layer{i}", candidates))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )


def space_of(name: str) -> SearchSpace:
    if name == "own":
        return OwnSpace(tiny, {})
    return registry.make_space(registry.space(name).Params(**SETTINGS.get(name, {})))


def genomes(space: SearchSpace, count: int) -> Iterator[Genome]:
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield space.sample(rng)


def made(name: str) -> tuple[SearchSpace, Supernet | SlicedSupernet]:
    space = space_of(name)
    torch.manual_seed(0)
    return space, supernet(space, **ENDS, **SIZES[name])


@pytest.fixture
def cells() -> tuple[SearchSpace, Supernet]:
    space, shared = made("nasbench201")
    assert isinstance(shared, Supernet)
    return space, shared


@pytest.mark.parametrize("name", SIZES)
def test_the_path_of_a_genome_is_its_decoded_network(name: str) -> None:
    """In train mode too, where it also moves the statistics of the batch norms alike."""
    space, shared = made(name)
    images = torch.randn(6, 1, 8, 8)
    for genome in genomes(space, 20):
        network = decode(space, genome, **ENDS, **SIZES[name])
        state = {key: tensor.clone() for key, tensor in shared.inherited(genome).items()}
        network.load_state_dict(state)
        shared.take(genome)
        for training in (True, False):
            shared.train(training)
            network.train(training)
            torch.testing.assert_close(shared(images), network(images), rtol=0, atol=1e-6)
        for key, tensor in shared.inherited(genome).items():
            torch.testing.assert_close(tensor, network.state_dict()[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SIZES)
def test_a_path_trains_its_own_weights_and_no_others(name: str) -> None:
    space, shared = made(name)
    shared.train()
    for genome in genomes(space, 5):
        before = {key: tensor.clone() for key, tensor in shared.inherited(genome).items()}
        everything = {key: tensor.clone() for key, tensor in shared.state_dict().items()}
        shared.take(genome)
        optimizer = torch.optim.SGD(shared.parameters(), lr=0.1)
        optimizer.zero_grad()
        shared(torch.randn(6, 1, 8, 8)).square().sum().backward()
        optimizer.step()
        moved = {
            key for key, t in shared.inherited(genome).items() if not torch.equal(t, before[key])
        }
        assert any("classifier" in key or key.startswith("6.") for key in moved)
        changed = sum(
            int((tensor != everything[key]).sum()) for key, tensor in shared.state_dict().items()
        )
        own = sum(
            int((tensor != before[key]).sum()) for key, tensor in shared.inherited(genome).items()
        )
        assert changed == own


def test_ops_of_weight_0_are_not_computed(cells: tuple[SearchSpace, Supernet]) -> None:
    space, shared = cells
    counts: Counter[str] = Counter()
    for name, mixed in shared.mixed_ops().items():
        for k, op in enumerate(mixed.ops):
            op.register_forward_hook(lambda *_, at=f"{name}.{k}": counts.update([at]))
    images = torch.randn(2, 1, 8, 8)
    for genome in genomes(space, 20):
        counts.clear()
        shared.take(genome)
        shared(images)
        live = sum(space.live(genome))
        assert sum(counts.values()) == 3 * live, "one op for each live edge of each of three cells"
    counts.clear()
    alphas = {gene: torch.zeros(5) for gene in shared.ops}
    shared.mix(gumbel_softmax(alphas, 1.0, torch.Generator().manual_seed(0)))
    shared(images)
    assert sum(counts.values()) <= 3 * 6
    counts.clear()
    shared.mix(softmax(alphas))
    shared(images)
    assert sum(counts.values()) == 3 * 6 * 4, "all but none, which carries nothing"


def test_a_mixed_op_is_the_weighted_sum_of_its_ops(cells: tuple[SearchSpace, Supernet]) -> None:
    _, shared = cells
    mixed = next(iter(shared.mixed_ops().values())).eval()
    x = torch.randn(2, 4, 8, 8)
    weights = [0.1, 0.2, 0.3, 0.25, 0.15]
    shared.mix({mixed.gene: list(enumerate(weights))})
    found = mixed(x)
    assert found is not None
    expected = sum(w * op(x) for w, op in zip(weights, mixed.ops, strict=True))
    torch.testing.assert_close(found, expected)
    shared.mix({})
    assert mixed(x) is None
    shared.mix({mixed.gene: [(0, 1.0)]})
    assert mixed(x) is None, "none carries nothing"


def test_path_is_one_hot_where_it_is_live() -> None:
    space = space_of("nasbench201")
    genome = space.parse("3-0-4-0-1-0")  # of 0>2, 0>3 and 2>3 nothing is live, of 1>2 neither
    assert path(space, genome) == {"0>1": ((3, 1.0),), "1>3": ((1, 1.0),)}


def test_gumbel_softmax_draws_as_often_as_the_softmax_says() -> None:
    alphas = {"g": torch.tensor([1.0, 0.0, -1.0, 0.5])}
    generator = torch.Generator().manual_seed(5)
    draws = 20_000
    counts = Counter(gumbel_softmax(alphas, 0.7, generator)["g"][0][0] for _ in range(draws))
    expected = alphas["g"].softmax(dim=0).double() * draws
    expected *= draws / expected.sum()
    assert chisquare([counts[k] for k in range(4)], expected.numpy()).pvalue > 0.001
    wrong = torch.full((4,), draws / 4).numpy()
    assert chisquare([counts[k] for k in range(4)], wrong).pvalue < 1e-6


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_gumbel_softmax_has_weight_1_and_the_gradient_of_a_softmax(temperature: float) -> None:
    alpha = torch.tensor([0.3, -0.2, 1.1], dtype=torch.float64, requires_grad=True)
    state = torch.Generator().manual_seed(3).get_state()
    generator = torch.Generator()
    generator.set_state(state)
    ((drawn, weight),) = gumbel_softmax({"g": alpha}, temperature, generator)["g"]
    assert isinstance(weight, Tensor)
    assert weight.item() == pytest.approx(1.0)
    weight.backward()
    generator.set_state(state)
    noise = -torch.log(-torch.log(torch.rand(3, generator=generator, dtype=torch.float64)))
    h = ((alpha.detach().log_softmax(0) + noise) / temperature).softmax(0)
    assert drawn == int(h.argmax())
    # dh_k / d alpha_i; the log-softmax adds a constant to all, which a softmax does not see.
    expected = h[drawn] * (torch.eye(3, dtype=torch.float64)[drawn] - h) / temperature
    torch.testing.assert_close(alpha.grad, expected)


@pytest.mark.parametrize("temperature", [0.3, 3.0])
def test_soft_mixing_weighs_all_ops_by_the_softmax_that_hard_mixing_has_the_gradient_of(
    temperature: float,
) -> None:
    alpha = torch.tensor([0.5, -0.3, 0.1], dtype=torch.float64, requires_grad=True)
    hard, soft = (
        gumbel_softmax({"g": alpha}, temperature, torch.Generator().manual_seed(1), soft=soft)["g"]
        for soft in (False, True)
    )
    weights = torch.stack([torch.as_tensor(weight) for _, weight in soft])
    assert [choice for choice, _ in soft] == [0, 1, 2]
    assert weights.sum().item() == pytest.approx(1.0)
    [(drawn, straight)] = hard
    assert drawn == int(weights.argmax())
    one, other = (
        torch.autograd.grad(weight, alpha, retain_graph=True)[0]  # type: ignore[arg-type]  # a tensor
        for weight in (weights[drawn], straight)
    )
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("keep", [1.0, 0.7, 0.4, 0.25])
def test_path_dropout_keeps_each_op_with_its_probability_and_never_none(keep: float) -> None:
    rng = np.random.default_rng(0)
    choices = {"a": 4, "b": 5}
    n = 8000
    counts = {gene: np.zeros(count) for gene, count in choices.items()}
    for _ in range(n):
        mixture = dropped(choices, keep, rng)
        for gene, terms in mixture.items():
            assert terms
            assert sum(float(weight) for _, weight in terms) == pytest.approx(1)
            for k, _ in terms:
                counts[gene][k] += 1
    for gene, found in counts.items():
        spread = 4 * np.sqrt(keep * (1 - keep) / n) + 1e-9
        assert np.abs(found / n - keep).max() < spread, gene


def test_less_than_one_op_cannot_be_kept() -> None:
    rng = np.random.default_rng(0)
    assert all(len(dropped({"a": 5}, 0.01, rng)["a"]) == 1 for _ in range(200))


def test_fair_paths_use_each_op_as_often_as_any_other() -> None:
    rng = np.random.default_rng(0)
    paths = fair({"a": 5, "b": 5, "c": 2}, rng)
    assert len(paths) == 5
    for gene in "ab":
        assert sorted(chosen[gene] for chosen in paths) == [0, 1, 2, 3, 4]
    counts = Counter(chosen["c"] for chosen in paths)
    assert set(counts.values()) == {2, 3}
    assert fair({"a": 5}, rng) != fair({"a": 5}, rng)


def test_a_node_without_a_live_input_is_absent(cells: tuple[SearchSpace, Supernet]) -> None:
    space, shared = cells
    dead = space.parse("0-0-3-0-3-3")
    shared.take(dead)
    shared.eval()
    network = decode(space, dead, **ENDS, **SIZES["nasbench201"])
    network.load_state_dict(shared.inherited(dead))
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(shared(images), network.eval()(images))


def test_spaces_without_a_supernet_say_so() -> None:
    with pytest.raises(UserError, match=r"space\.name: macro has no supernet"):
        supernet(space_of("macro"), **ENDS)

    def wide(pick: Pick, *, in_channels: int, classes: int) -> nn.Module:
        width = pick("width", {"narrow": 4, "wide": 8})
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.LazyLinear(classes))

    with pytest.raises(UserError, match="its gene width chooses no op"):
        supernet(OwnSpace(wide, {}), **ENDS)


def test_candidates_that_do_not_fit_are_told_of() -> None:
    def uneven(pick: Pick, *, in_channels: int, classes: int) -> nn.Module:
        op = pick("op", {"same": nn.Identity, "half": lambda: nn.MaxPool2d(2)})
        return nn.Sequential(op, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, classes))

    space = OwnSpace(uneven, {})
    shared = supernet(space, **ENDS)
    assert isinstance(shared, Supernet)
    shared.mix(softmax({"op": torch.zeros(2)}))
    with pytest.raises(UserError, match="candidates of op give outputs of 2x1x8x8 and 2x1x4x4"):
        shared(torch.randn(2, 1, 8, 8))
    shared.take(space.genome([1]))
    assert shared(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_a_slice_is_the_first_channels_of_the_largest() -> None:
    space, shared = made("channels")
    assert isinstance(shared, SlicedSupernet)
    small, large = space.parse("4:4:4:4"), space.parse("12:12:12:12")
    weights = shared.inherited(large)["body.0.0.weight"]
    torch.testing.assert_close(shared.inherited(small)["body.0.0.weight"], weights[:4, :1])
    assert "body.1.shortcut.0.weight" not in shared.inherited(large)  # as wide as what it reads
    for genome in genomes(space, 50):
        expected = decode(space, genome, **ENDS).state_dict()
        found = shared.inherited(genome)
        assert {k: t.shape for k, t in found.items()} == {k: t.shape for k, t in expected.items()}


def test_the_same_gene_at_several_places_has_weights_of_its_own_at_each() -> None:
    _, shared = made("nasbench201")
    assert isinstance(shared, Supernet)
    places = [mixed for mixed in shared.mixed_ops().values() if mixed.gene == "0>1"]
    assert len(places) == 3
    assert all(isinstance(mixed, MixedOp) for mixed in places)
    weights = [next(iter(mixed.ops[3].parameters())) for mixed in places]
    assert weights[0] is not weights[1]


def test_the_strongest_pair_of_inputs_is_that_of_the_two_strongest_edges() -> None:
    space = space_of("darts")
    weights = {gene.name: [0.1] * 7 for gene in space.genes if len(gene.choices) == 7}
    weights["normal/0>3"] = [0, 0, 0, 0.9, 0, 0, 0]
    weights["normal/2>3"] = [0, 0.8, 0, 0, 0, 0, 0]
    genome = space.strongest(weights)
    names = [gene.name for gene in space.genes]
    chosen = {name: space.choice(genome, i) for i, name in enumerate(names)}
    assert chosen["normal/3"] == "0,2"
    assert chosen["normal/0>3"] == "sep_conv_3x3"
    assert chosen["normal/2>3"] == "avg_pool_3x3"
    assert chosen["normal/2"] == "0,1"


def test_a_mixture_is_computed_until_the_next(cells: tuple[SearchSpace, Supernet]) -> None:
    space, shared = cells
    shared.eval()
    images = torch.randn(2, 1, 8, 8)
    convolutions: Mixture = dict.fromkeys(shared.ops, ((3, 1.0),))
    shared.mix(convolutions)
    first = shared(images)
    torch.testing.assert_close(first, shared(images))
    shared.take(space.parse("3-3-3-3-3-3"))
    torch.testing.assert_close(first, shared(images))
    shared.take(space.parse("1-1-1-1-1-1"))
    assert not torch.equal(first, shared(images))
