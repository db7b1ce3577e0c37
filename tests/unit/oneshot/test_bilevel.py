"""The differentiable methods: exact gradients, exact resumes, and what they tell of themselves."""

from __future__ import annotations

import copy
import io
import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evonas import registry
from evonas.core import Candidate, Evaluation, Metric, Objective, SearchFailed, Stop, UserError
from evonas.data.dataset import DataSet, split
from evonas.data.digits import Digits
from evonas.loop import Desk, Memory, evolve
from evonas.oneshot.bilevel import Relaxed
from evonas.oneshot.darts import DartsSearch, DartsSearchParams, unrolled
from evonas.oneshot.gdas import Gdas, GdasParams
from evonas.protocols import Setting, TrainingSetting
from evonas.training.loop import Hardware
from evonas.training.recipe import Recipe
from genomes.nasbench201 import NASBench201

SPACE = NASBench201()
RECIPE = Recipe(lr=0.05, batch_size=16, clip=5.0)
METHODS: dict[str, tuple[type[Relaxed], dict[str, Any]]] = {
    "darts, first order": (DartsSearch, {"params": DartsSearchParams(epochs=3, recipe=RECIPE)}),
    "darts, second order": (
        DartsSearch,
        {"params": DartsSearchParams(epochs=3, recipe=RECIPE, order="second")},
    ),
    "gdas": (Gdas, {"params": GdasParams(epochs=3, recipe=RECIPE, alpha_lr=0.1)}),
    "gdas, soft": (
        Gdas,
        {"params": GdasParams(epochs=3, recipe=RECIPE, alpha_lr=0.1, mixing="soft")},
    ),
}


SECOND = "darts, second order"  # which takes three times as long
QUICK = [pytest.param(m, marks=[pytest.mark.slow] if m == SECOND else []) for m in METHODS]


@pytest.fixture(scope="module")
def data() -> DataSet:
    params = Digits.Params(subset=160)
    return split(Digits(params), params)[0]


def made(
    data: DataSet,
    method: str,
    *,
    space: str = "nasbench201",
    seed: int = 1,
    network: Mapping[str, Any] | None = None,
    objectives: tuple[str, ...] = ("a",),
    **changes: Any,
) -> Relaxed:
    kind, given = METHODS[method]
    params = given["params"].model_copy(update=changes)
    sizes = {"nasbench201": {"channels": 4, "cells": 1}, "darts": {"channels": 2, "cells": 3}}
    settings = registry.space(space).Params(**(network or sizes.get(space, {})))
    return kind(
        params,
        Setting(
            registry.make_space(settings),
            tuple(Objective(name=name) for name in objectives),
            seed=seed,
            training=TrainingSetting(settings.model_dump(exclude={"name"}), data, Hardware()),
        ),
    )


class Blank:
    """An evaluator for which all are equal."""

    metrics = (Metric("a"),)
    fingerprint = ""

    def cheap(self, genome: Any) -> dict[str, float]:
        return {}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        return Evaluation(candidate, {"a": 1.0})


def searched(strategy: Relaxed) -> list[Any]:
    found = []
    for generation in evolve(
        strategy, Desk(Blank(), strategy.space, answers=Memory()), stop=Stop(generations=9)
    ):
        [evaluation] = generation.evaluations
        found.append((evaluation.candidate.genome.text, strategy.trace()))
    return found


# The problem of the paper in small: a linear network whose two inputs are weighted by alphas.
def problem() -> tuple[list[Tensor], list[Tensor], Any, Any]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    w, v = draw(4, 3).requires_grad_(), draw(3, 2).requires_grad_()
    alpha, beta = draw(2).requires_grad_(), draw(2).requires_grad_()
    x, y, other_x, other_y = draw(16, 4), draw(16, 2), draw(16, 4), draw(16, 2)

    def loss(a: Tensor, b: Tensor, w: Tensor, v: Tensor, x: Tensor, y: Tensor) -> Tensor:
        mixed = a.softmax(0)[0] * torch.tanh(x @ w) + a.softmax(0)[1] * (x @ w)
        out = b.softmax(0)[0] * (mixed @ v) + b.softmax(0)[1] * torch.sin(mixed @ v)
        return (out - y).square().mean()

    def train(*weights: Tensor) -> Tensor:
        return loss(alpha, beta, *(weights or (w, v)), x, y)

    def valid(*weights: Tensor) -> Tensor:
        return loss(alpha, beta, *(weights or (w, v)), other_x, other_y)

    return [w, v], [alpha, beta], train, valid


def test_the_second_order_gradient_is_that_of_the_unrolled_step() -> None:
    weights, alphas, train, valid = problem()
    xi = 0.1
    kept = [weight.detach().clone() for weight in weights]
    loss, found = unrolled(train, valid, weights, alphas, xi)
    step = torch.autograd.grad(train(), weights, create_graph=True)
    moved = [weight - xi * slope for weight, slope in zip(weights, step, strict=True)]
    exact = torch.autograd.grad(valid(*moved), alphas)
    torch.testing.assert_close(loss, valid(*moved).detach())
    for ours, theirs in zip(found, exact, strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 1e-3
    first = torch.autograd.grad(valid(), alphas)
    assert (first[0] - exact[0]).norm() / exact[0].norm() > 0.05, "the orders hardly differ here"
    for weight, before in zip(weights, kept, strict=True):
        torch.testing.assert_close(weight.detach(), before, rtol=0, atol=0)


def test_without_a_step_the_second_order_is_the_first() -> None:
    weights, alphas, train, valid = problem()
    _, found = unrolled(train, valid, weights, alphas, 0.0)
    for ours, theirs in zip(found, torch.autograd.grad(valid(), alphas), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("method", QUICK)
def test_a_search_of_one_seed_is_the_same_and_of_another_is_not(data: DataSet, method: str) -> None:
    first, second = searched(made(data, method)), searched(made(data, method))
    assert first == second
    assert len(first) == 3, "an epoch a generation, and the end after the last"
    assert searched(made(data, method, seed=2)) != first


@pytest.mark.parametrize("method", METHODS)
def test_weights_and_alphas_are_trained_on_images_that_are_mixed_and_changed(
    data: DataSet, method: str
) -> None:
    given = {"mixup": 0.2, "cutmix": 1.0, "rand_augment": 2, "warm_up": 0.2}
    mixed = RECIPE.model_copy(update=given)
    plain, *both = (
        made(data, method, recipe=recipe).relaxation.train_epoch()
        for recipe in (RECIPE, mixed, mixed)
    )
    assert both[0] == both[1]
    for name in ("train_loss", "alpha_loss"):
        assert math.isfinite(both[0][name])
        assert both[0][name] != plain[name]


@pytest.mark.parametrize("method", QUICK)
def test_a_resume_from_a_checkpoint_is_exact(data: DataSet, method: str) -> None:
    whole = searched(made(data, method))
    for done in (1, 2):
        strategy = made(data, method)
        for _ in range(done):
            strategy.tell([Evaluation(strategy.ask()[0], {"a": 1.0})])
        buffer = io.BytesIO()
        torch.save(strategy.state_dict(), buffer)
        strategy.ask()  # what it trains on with is no part of the state
        buffer.seek(0)
        resumed = made(data, method)
        resumed.ask()
        resumed.load_state_dict(torch.load(buffer, weights_only=True))
        rest = []
        while asked := resumed.ask():
            resumed.tell([Evaluation(asked[0], {"a": 1.0})])
            rest.append((asked[0].genome.text, resumed.trace()))
        assert rest == whole[done:]


@pytest.mark.parametrize("method", METHODS)
def test_generators_and_threads_of_others_are_left_alone(data: DataSet, method: str) -> None:
    torch.set_num_threads(2)  # another number than a search's own
    before = (torch.random.get_rng_state(), random.getstate(), 2)
    numbers = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002  # the global one
    searched(made(data, method))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (random.getstate(), torch.get_num_threads()) == before[1:]
    assert np.random.get_state()[1].tolist() == numbers  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize("method", METHODS)
def test_some_epochs_lower_the_loss_and_move_the_alphas(method: str) -> None:
    """The loss on images that only the alphas are trained on; without steps it stays within 1 %."""
    sampled = method.startswith("gdas")  # a path at a time, so it takes longer
    params = Digits.Params(subset=300 if sampled else 160)
    data = split(Digits(params), params)[0]
    epochs = 6 if sampled else 4
    recipe = RECIPE.model_copy(update={"lr": 0.1})
    strategy = made(data, method, epochs=epochs, alpha_lr=0.1, recipe=recipe)
    before = copy.deepcopy(strategy.relaxation.probabilities())
    losses = [trace["relaxation"][0]["alpha_loss"] for _, trace in searched(strategy)]
    assert sum(losses[-2:]) < 0.98 * sum(losses[:2])
    after = strategy.relaxation.probabilities()
    moved = max(abs(p - q) for g in before for p, q in zip(before[g], after[g], strict=True))
    assert moved > 0.03


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_relaxation_learns(method: str) -> None:
    """The loss on images that only the alphas are trained on falls, and the alphas move."""
    params = Digits.Params(subset=800)
    more = split(Digits(params), params)[0]
    strategy = made(more, method, epochs=12, alpha_lr=0.05)
    before = copy.deepcopy(strategy.relaxation.probabilities())
    losses = []
    while asked := strategy.ask():
        strategy.tell([Evaluation(asked[0], {"a": 1.0})])
        losses.append(strategy.trace()["relaxation"][0]["alpha_loss"])
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    after = strategy.relaxation.probabilities()
    moved = max(abs(p - q) for g in before for p, q in zip(before[g], after[g], strict=True))
    assert moved > 0.05


def test_in_the_warm_up_the_weights_alone_are_trained(data: DataSet) -> None:
    strategy = made(data, "darts, first order", warm_up=2)
    first = strategy.relaxation.probabilities()
    weights = [p.detach().clone() for p in strategy.relaxation.supernet.parameters()]  # type: ignore[attr-defined]
    for epoch in range(3):
        strategy.tell([Evaluation(strategy.ask()[0], {"a": 1.0})])
        row = strategy.trace()["relaxation"][0]
        assert math.isnan(row["alpha_loss"]) == (epoch < 2)
        assert (strategy.relaxation.probabilities() == first) == (epoch < 2)
    now = strategy.relaxation.supernet.parameters()  # type: ignore[attr-defined]
    assert any(not torch.equal(a, b) for a, b in zip(weights, now, strict=True))


def test_scales_of_batch_norms_within_candidates_are_fixed(data: DataSet) -> None:
    strategy = made(data, "darts, first order")
    relaxation: Any = strategy.relaxation
    norms = [
        (name, module)
        for name, module in relaxation.supernet.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    inside = [module for name, module in norms if ".ops." in name]
    outside = [module for name, module in norms if ".ops." not in name]
    strategy.tell([Evaluation(strategy.ask()[0], {"a": 1.0})])
    assert inside
    assert all(module.weight.eq(1).all() and module.bias.eq(0).all() for module in inside)
    assert all(not module.weight.eq(1).all() for module in outside)


def test_the_temperature_falls_in_a_line(data: DataSet) -> None:
    strategy = made(data, "gdas", temperature=4.0, temperature_end=1.0)
    told = [row["relaxation"][0]["temperature"] for _, row in searched(strategy)]
    assert told == [4.0, 2.5, 1.0]


def test_the_trace_tells_entropy_and_skips_of_the_derived_genome(data: DataSet) -> None:
    strategy = made(data, "darts, first order")
    for text, trace in searched(strategy):
        [row] = trace["relaxation"]
        genome = strategy.space.parse(text)
        live = strategy.space.live(genome)
        chosen = [strategy.space.choice(genome, i) for i in range(6) if live[i]]
        assert row["skips"] == chosen.count("skip_connect")
        assert row["skip_share"] == pytest.approx(row["skips"] / max(len(chosen), 1), abs=1e-6)
        by_gene: dict[str, list[float]] = {}
        for each in trace["probabilities"]:
            by_gene.setdefault(each["gene"], []).append(each["probability"])
        assert all(sum(ps) == pytest.approx(1, abs=1e-5) for ps in by_gene.values())
        entropy = np.mean([-sum(p * math.log(p) for p in ps) for ps in by_gene.values()])
        assert row["entropy"] == pytest.approx(float(entropy), abs=1e-4)
        best = {gene: int(np.argmax(ps)) for gene, ps in by_gene.items()}
        assert genome.genes == tuple(best[gene.name] for gene in strategy.space.genes)


def test_too_many_skips_end_the_search(data: DataSet) -> None:
    """DARTS+: what would be derived with more is not asked for."""
    strategy = made(data, "darts, first order", epochs=9, max_skips=0, warm_up=1)
    relaxation: Any = strategy.relaxation
    skip = ("none", "skip_connect", "nor_conv_1x1").index("skip_connect")
    asked = 0
    while candidates := strategy.ask():
        asked += 1
        strategy.tell([Evaluation(candidates[0], {"a": 1.0})])
        with torch.no_grad():
            for gene, alpha in relaxation.alphas.items():
                alpha.zero_()[skip if asked == 3 and gene == "0>3" else 3] = 9.0
    assert asked == 3
    assert strategy.ask() == []


def test_a_supernet_may_be_smaller_than_what_it_finds(data: DataSet) -> None:
    small: Any = made(data, "gdas", proxy={"channels": 2}).relaxation
    large: Any = made(data, "gdas").relaxation
    count = [sum(p.numel() for p in each.supernet.parameters()) for each in (small, large)]
    assert count[0] < count[1] / 2


def test_cells_of_the_darts_space_are_derived_with_two_inputs_a_node(data: DataSet) -> None:
    strategy = made(data, "gdas", space="darts", epochs=1)
    [candidate] = strategy.ask()
    weights = strategy.relaxation.probabilities()
    assert len(weights) == 28
    assert candidate.genome == strategy.space.strongest(weights)
    assert strategy.space.describe(candidate.genome).startswith("Genotype(")


def test_spaces_whose_genes_choose_no_ops_are_refused(data: DataSet) -> None:
    with pytest.raises(UserError, match=r"space\.name: macro has no supernet"):
        made(data, "gdas", space="macro")
    with pytest.raises(UserError, match=r"strategy\.name: gdas needs genes that choose ops"):
        made(data, "gdas", space="channels", network={"stages": 2, "widths": [4, 8]})


def test_the_second_order_is_computed_in_float32_where_the_rest_is_not(data: DataSet) -> None:
    """A central difference of a step of norm 0.01 would be rounded away."""
    gradients = []
    for precision in ("float32", "bfloat16"):
        relaxation: Any = made(data, "darts, second order").relaxation
        relaxation.hardware = Hardware(precision=precision)
        rows = relaxation.trainer.epoch()[0]
        batches = [relaxation.batches.load(rows), relaxation.trainer.batches.load(rows)]
        relaxation.supernet.train()
        _, found = relaxation._gradient(*batches[0], batches[1], 0.5)
        gradients.append(torch.cat([slope.float() for slope in found]))
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()


def test_cells_that_have_no_place_for_some_genes_are_refused(data: DataSet) -> None:
    with pytest.raises(UserError, match=r"differ in the gene normal/0>2; .*3 or more"):
        made(data, "gdas", space="darts", network={"channels": 2, "cells": 2})
    with pytest.raises(UserError, match=r"leave the genes as they are in strategy\.proxy"):
        made(data, "gdas", space="darts", proxy={"cells": 1})


def test_a_proxy_that_makes_no_sense_is_refused(data: DataSet) -> None:
    with pytest.raises(
        UserError, match=r"strategy\.proxy\.chanels: unknown key; allowed: cells, ch"
    ):
        made(data, "gdas", proxy={"chanels": 4})
    with pytest.raises(UserError, match=r"strategy\.proxy\.channels: is 0"):
        made(data, "gdas", proxy={"channels": 0})


def test_a_loss_that_is_nan_ends_the_search(data: DataSet) -> None:
    strategy = made(data, "darts, first order")
    relaxation: Any = strategy.relaxation
    with torch.no_grad():
        next(relaxation.supernet.parameters()).fill_(math.nan)
    with pytest.raises(SearchFailed, match=r"lower strategy\.recipe\.lr"):
        searched(strategy)


def test_a_lack_of_memory_ends_the_search(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = made(data, "gdas")

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(strategy.relaxation, "_epoch", full)
    with pytest.raises(SearchFailed, match="ran out of memory with batches of 16 images"):
        strategy.ask()


@pytest.mark.parametrize("objective", ["params", "flops"])
@pytest.mark.parametrize("method", METHODS)
def test_a_size_in_the_loss_makes_large_ops_less_probable(
    data: DataSet, method: str, objective: str
) -> None:
    changes = {"objectives": ("a", objective), "alpha_lr": 0.1}
    searches = [made(data, method, **changes, size_weight=weight) for weight in (0.0, 100.0)]
    for search in searches:
        search.relaxation._epoch(2)  # type: ignore[attr-defined]  # steps of an epoch
    without, small = (search.relaxation.probabilities() for search in searches)
    large = SPACE.genes[0].choices.index("nor_conv_3x3")
    assert all(small[gene][large] < min(0.2, without[gene][large]) for gene in small)


def test_a_size_in_the_loss_needs_a_size_among_the_objectives(data: DataSet) -> None:
    with pytest.raises(UserError, match=r"^strategy\.size_weight: has no effect, since no obj"):
        made(data, "gdas", size_weight=1.0)


def test_each_image_is_in_one_part(data: DataSet) -> None:
    relaxation: Any = made(data, "gdas", alpha_share=0.25).relaxation
    ours, theirs = relaxation.trainer.data.train, relaxation.batches.data.train
    assert len(theirs) == round(0.25 * len(data.train))
    both = torch.cat([ours.images, theirs.images]).flatten(1)
    rows = {tuple(row) for row in both.tolist()}
    assert rows == {tuple(row) for row in data.train.images.reshape(len(both), -1).tolist()}
