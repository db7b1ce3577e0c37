"""Networks of NAS-Bench-201 cells and what they cost, against the benchmark's own figures."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from evonas.networks.decode import decode
from evonas.networks.nasbench201 import Cell
from evonas.networks.ops import relu_conv_bn
from evonas.networks.profile import Profile, profile
from genomes import Genome, NASBench201
from genomes.nasbench201 import CONV_1X1, CONV_3X3, NONE, POOL, SKIP
from tests.helpers.tables import genes_of, nasbench201, needs_table

SPACE = NASBench201()
CIFAR = (3, 32, 32)
COUNTS = [(n3, n1) for n3 in range(7) for n1 in range(7 - n3)]


def written(digits: str) -> Genome:
    return SPACE.genome(genes_of(digits))


def samples(count: int, seed: int) -> list[Genome]:
    rng = np.random.default_rng(seed)
    return [SPACE.sample(rng) for _ in range(count)]


def has_path(genome: Genome) -> bool:
    return any(SPACE.live(genome))


def benchmark_profile(genome: Genome, classes: int) -> Profile:
    """As the benchmark counts: the full network, every edge of it, dead or not."""
    return profile(decode(SPACE, genome, classes=classes, prune=False), CIFAR)


@pytest.mark.parametrize(("n3", "n1"), COUNTS)
def test_costs_have_the_closed_form_of_the_benchmark(n3: int, n1: int) -> None:
    rng = np.random.default_rng([n3, n1])
    weightless = rng.choice([NONE, SKIP, POOL], 6 - n3 - n1)
    genes = rng.permutation([CONV_3X3] * n3 + [CONV_1X1] * n1 + weightless.tolist())
    assert benchmark_profile(SPACE.genome(genes), classes=10) == Profile(
        params=72656 + 650 + 243040 * n3 + 28000 * n1,
        flops=7782400 + 650 + 35389440 * n3 + 3932160 * n1,
    )


@needs_table
@pytest.mark.parametrize(
    ("classes", "count"), [(10, 60), (100, 30), pytest.param(10, 400, marks=pytest.mark.slow)]
)
def test_costs_are_those_of_the_table(classes: int, count: int) -> None:
    rows = nasbench201().sample(count, random_state=classes)
    for genes, params, flops in zip(
        rows["genome"], rows[f"params_cifar{classes}"], rows[f"flops_cifar{classes}"], strict=True
    ):
        assert benchmark_profile(written(genes), classes) == Profile(params, flops), genes


def test_the_size_of_the_images_changes_flops_and_not_params() -> None:
    network = decode(SPACE, SPACE.largest(), channels=4, cells=1)
    small, large = profile(network, (3, 16, 16)), profile(network, (3, 32, 32))
    assert small.params == large.params
    classifier = 16 * 10 + 10
    assert 4 * (small.flops - classifier) == large.flops - classifier


def test_a_profile_counts_a_bias_as_one_addition_an_output() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, kernel_size=3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 5 * 6, 7),
    )
    convolution = (5 * 6) * 4 * (3 * 3 * 3) + (5 * 6) * 4
    linear = 7 * 120 + 7
    params = (4 * 27 + 4) + (4 + 4) + (7 * 120 + 7)
    assert profile(network, (3, 5, 6)) == Profile(params, convolution + linear)


def test_a_profile_counts_grouped_strided_and_biasless_convolutions() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 8, kernel_size=3, stride=2, padding=1, groups=4, bias=False),
        nn.Conv2d(8, 2, kernel_size=1),
    )
    assert profile(network, (4, 7, 7)).flops == 16 * 8 * 9 + (16 * 2 * 8 + 16 * 2)


@pytest.mark.parametrize("prune", [True, False])
def test_profile_params_are_those_of_the_network(prune: bool) -> None:
    for genome in samples(20, seed=5):
        network = decode(SPACE, genome, channels=4, cells=2, prune=prune)
        assert profile(network, CIFAR).params == sum(p.numel() for p in network.parameters())


def test_a_profile_leaves_frozen_parameters_out() -> None:
    network = nn.Linear(3, 2)
    network.bias.requires_grad_(False)
    assert profile(network, (1, 1, 3)).params == 6


@pytest.mark.parametrize("training", [True, False])
def test_a_profile_leaves_the_network_and_the_generator_as_they_were(training: bool) -> None:
    network = decode(SPACE, SPACE.largest(), channels=4, cells=1).train(training)
    before, generator = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    profile(network, CIFAR)
    assert all(module.training == training for module in network.modules())
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_profile_leaves_each_module_in_its_own_mode() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout())
    network[1].eval()  # a frozen batch norm inside a network in training
    profile(network, (3, 4, 4))
    assert [module.training for module in network] == [True, False, True]


def test_a_failed_profile_leaves_the_network_as_it_was() -> None:
    network = decode(SPACE, SPACE.largest(), channels=4, cells=1, in_channels=1)
    with pytest.raises(RuntimeError):
        profile(network, (3, 8, 8))
    assert all(module.training for module in network.modules())
    assert not any(module._forward_hooks for module in network.modules())


def test_pruning_builds_the_live_edges_and_no_others() -> None:
    for genome in samples(100, seed=6):
        network = decode(SPACE, genome, channels=2, cells=2)
        live = {
            SPACE.genes[i].name: SPACE.choice(genome, i)
            for i, lives in enumerate(SPACE.live(genome))
            if lives
        }
        convolutions = sum(op.startswith("nor_conv") for op in live.values())
        cells = [module for module in network.modules() if isinstance(module, Cell)]
        assert len(cells) == 6
        for cell in cells:
            assert set(cell.edges) == set(live)
            assert sum(isinstance(m, nn.Conv2d) for m in cell.modules()) == convolutions


def test_without_pruning_every_edge_is_built() -> None:
    network = decode(SPACE, written("023040"), channels=2, cells=1, prune=False)
    for cell in network.modules():
        if isinstance(cell, Cell):
            assert list(cell.edges) == [gene.name for gene in SPACE.genes]
            assert sum(isinstance(module, nn.Conv2d) for module in cell.modules()) == 2


def test_pruning_does_not_change_what_is_computed_where_no_dead_convolution_is_read() -> None:
    """A dead edge that leads nowhere is never read, and one without input carries zeros.

    But a dead convolution without input, on the way to the output, adds its batch norm's bias to
    a full network; pruning takes that away, and so these genomes are left out here.
    """
    checked = 0
    for genome in samples(150, seed=7):
        if not has_path(genome) or reads_a_constant(genome):
            continue
        pruned = random_norms(decode(SPACE, genome, channels=2, cells=1))
        full = random_norms(decode(SPACE, genome, channels=2, cells=1, prune=False))
        full.load_state_dict(full.state_dict() | pruned.state_dict())
        images = torch.rand(2, 3, 9, 9)
        with torch.no_grad():
            assert torch.equal(pruned.eval()(images), full.eval()(images)), genome
        checked += SPACE.live(genome) != tuple(op != NONE for op in genome.genes)
    assert checked > 20


def test_a_dead_convolution_without_input_adds_a_constant_where_it_is_built() -> None:
    genome = written("000130")  # the input, and a convolution of node 1, which has no input
    pruned = random_norms(decode(SPACE, genome, channels=2, cells=1))
    full = random_norms(decode(SPACE, genome, channels=2, cells=1, prune=False))
    full.load_state_dict(full.state_dict() | pruned.state_dict())
    images = torch.rand(2, 3, 9, 9)
    with torch.no_grad():
        assert not torch.allclose(pruned.eval()(images), full.eval()(images))


def reads_a_constant(genome: Genome) -> bool:
    """Whether a convolution reads a node that nothing reaches."""
    reached = {"0"}
    for edge, op in zip(SPACE.genes, genome.genes, strict=True):
        source, target = edge.name.split(">")
        if op != NONE and source in reached:
            reached.add(target)
        elif op in (CONV_1X1, CONV_3X3):
            return True
    return False


def random_norms(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return network


def test_a_node_without_input_is_absent_and_what_reads_it_adds_nothing() -> None:
    def pick(gene: str, candidates: Mapping[str, Any]) -> Any:
        ops = {"1>3": "nor_conv_3x3", "0>3": "skip_connect"}  # nothing leads into node 1
        return candidates[ops[gene]]() if gene in ops else None

    cell = Cell(pick, channels=2)
    nn.init.ones_(cell.edges["1>3"][2].bias)  # which it would add to a node of zeros
    x = torch.rand(1, 2, 4, 4)
    assert torch.equal(cell(x), x)


def test_a_cell_without_a_path_gives_nothing() -> None:
    assert Cell(lambda gene, candidates: None, channels=2)(torch.rand(1, 2, 4, 4)) is None


@pytest.mark.parametrize("digits", ["000000", "330000", "000033", "033040"])
def test_a_network_without_a_path_gives_the_classifiers_bias(digits: str) -> None:
    network = decode(SPACE, written(digits), channels=2, cells=1, classes=7)
    logits = network(torch.rand(4, 3, 8, 8))
    assert torch.equal(logits, network.classifier.bias.expand(4, 7))
    logits.sum().backward()
    assert network.classifier.bias.grad is not None


def test_a_cell_sums_what_its_edges_carry() -> None:
    x = torch.randn(2, 3, 6, 6)
    ops = {"0>1": "nor_conv_1x1", "1>2": "avg_pool_3x3", "0>3": "skip_connect"}
    ops |= {"1>3": "skip_connect", "2>3": "nor_conv_3x3"}
    cell = Cell(lambda gene, candidates: candidates[ops[gene]]() if gene in ops else None, 3).eval()

    def by_hand(edge: str, value: torch.Tensor) -> torch.Tensor:
        weight, norm = cell.edges[edge][1].weight, cell.edges[edge][2]
        value = functional.conv2d(value.relu(), weight, padding=weight.shape[-1] // 2)
        return value / torch.sqrt(torch.tensor(1 + norm.eps))  # fresh: mean 0, variance 1

    node1 = by_hand("0>1", x)
    padded = functional.pad(node1, (1, 1, 1, 1))
    inside = functional.pad(torch.ones_like(node1), (1, 1, 1, 1))
    node2 = functional.avg_pool2d(padded, 3, 1) / functional.avg_pool2d(inside, 3, 1)
    with torch.no_grad():
        assert torch.allclose(cell(x), x + node1 + by_hand("2>3", node2), atol=1e-5)


def test_relu_conv_bn_comes_in_that_order() -> None:
    kinds = [type(module) for module in relu_conv_bn(2, 4, 3)]
    assert kinds == [nn.ReLU, nn.Conv2d, nn.BatchNorm2d]
    assert relu_conv_bn(2, 4, 3, stride=2)(torch.rand(1, 2, 9, 9)).shape == (1, 4, 5, 5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 31, 31)], ids=str)
def test_every_network_runs_forward_and_backward(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(2, *shape), torch.tensor([0, 4])
    for genome in [*samples(25, seed=8), *map(written, ("000000", "000400", "333333"))]:
        network = decode(SPACE, genome, channels=4, cells=1, in_channels=shape[0], classes=5)
        logits = network(images)
        assert logits.shape == (2, 5)
        functional.cross_entropy(logits, labels).backward()
        learns = network if has_path(genome) else network.classifier
        grads = [parameter.grad for parameter in learns.parameters()]
        assert all(grad is not None and grad.isfinite().all() for grad in grads), genome


def test_channels_double_from_stage_to_stage_and_each_has_its_cells() -> None:
    network = decode(SPACE, written("000200"), channels=4, cells=3)
    widths = [
        cell.edges["0>3"][1].out_channels for cell in network.modules() if isinstance(cell, Cell)
    ]
    assert widths == [4, 4, 4, 8, 8, 8, 16, 16, 16]


@pytest.mark.parametrize(
    "params",
    [{"channels": 0}, {"cells": 0}, {"channels": 4.0}, {"depth": 3}, {"channels": True}],
    ids=str,
)
def test_decode_refuses_parameters_out_of_range_or_unknown(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        decode(SPACE, written("333132"), **params)


def test_decode_draws_its_weights_from_torchs_global_generator() -> None:
    def first_weight(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        network = decode(SPACE, written("333132"), channels=2, cells=1)
        return next(network.parameters()).detach()

    assert torch.equal(first_weight(1), first_weight(1))
    assert not torch.equal(first_weight(1), first_weight(2))
