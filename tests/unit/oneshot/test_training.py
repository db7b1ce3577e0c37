"""A supernet's training in all its ways, exact resumes, scores, latency, and the evaluator."""

from __future__ import annotations

import copy
import io
import itertools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from torch import nn

import evonas
from evonas import registry
from evonas.core import Budget, Candidate, Constraint, SearchFailed, Status, UserError
from evonas.data.dataset import DataSet, split
from evonas.data.digits import Digits
from evonas.evaluators.supernet import SupernetEvaluator, SupernetParams
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.loop import Desk
from evonas.metrics import LATENCY
from evonas.networks.decode import decode
from evonas.networks.ops import conv_bn_relu
from evonas.oneshot import bilevel
from evonas.oneshot import latency as latencies
from evonas.oneshot.costs import NetworkSizes
from evonas.oneshot.gdas import GdasParams
from evonas.oneshot.latency import Latency, LatencyTable
from evonas.oneshot.sampling import Fair, Within
from evonas.oneshot.supernet import Supernet, supernet
from evonas.oneshot.training import SharedTraining, SupernetTraining
from evonas.own import OwnSpace
from evonas.protocols import Pick, Setting, TrainingSetting
from evonas.training.batches import resident
from evonas.training.loop import Hardware
from evonas.training.norms import recalibrate
from evonas.training.recipe import Recipe
from genomes import Genome

WAYS = ("uniform", "fair", "dropout", "learned")
RECIPE = Recipe(lr=0.05, batch_size=16)
MIXED = RECIPE.model_copy(
    update={"mixup": 0.2, "cutmix": 1.0, "rand_augment": 2, "warm_up": 0.2, "pad_crop": "auto"}
)
SIZES: dict[str, dict[str, Any]] = {
    "nasbench201": {"channels": 4, "cells": 1},
    "darts": {"channels": 2, "cells": 3},
    "chain": {"stages": [[4, 2, 1], [8, 2, 2]], "stem": 4},
    "channels": {"stages": 2, "widths": [4, 8]},
}


@pytest.fixture(scope="module")
def data() -> DataSet:
    params = Digits.Params(subset=160)
    return split(Digits(params), params)[0]


def arguments(data: DataSet, space: str) -> dict[str, Any]:
    settings = registry.space(space).Params(**SIZES[space])
    return {
        "space": registry.make_space(settings),
        "network": settings.model_dump(exclude={"name"}),
        "data": data,
        "hardware": Hardware(),
        "seed": 3,
    }


def setting(*, space: Any, network: Any, data: DataSet, hardware: Hardware, seed: int) -> Setting:
    return Setting(space, seed=seed, training=TrainingSetting(network, data, hardware))


def training(
    data: DataSet, sampling: str = "uniform", space: str = "nasbench201", **changes: Any
) -> SupernetTraining:
    given = {"epochs": 3, "recipe": RECIPE, "pool": 2, "recalibrate": 2, **changes}
    params = SharedTraining(sampling=sampling, **given)  # type: ignore[arg-type]  # one of the four
    return SupernetTraining(params, setting(**arguments(data, space)))


def evaluator(data: DataSet, space: str = "nasbench201", **changes: Any) -> SupernetEvaluator:
    given = {"epochs": 2, "recipe": RECIPE, "pool": 1, "recalibrate": 2, **changes}
    return SupernetEvaluator(SupernetParams(**given), setting(**arguments(data, space)))


def state_of(trained: SupernetTraining) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trained.supernet.state_dict().items()}


@pytest.mark.parametrize("sampling", WAYS)
def test_a_resume_at_an_epoch_is_exact(data: DataSet, sampling: str) -> None:
    whole = training(data, sampling)
    while not whole.done:
        whole.epoch()
    for stop in (1, 2):
        cut = training(data, sampling)
        for _ in range(stop):
            cut.epoch()
        buffer = io.BytesIO()
        torch.save(cut.state_dict(), buffer)
        buffer.seek(0)
        resumed = training(data, sampling)
        resumed.epoch()  # what it has done before counts for nothing
        resumed.load_state_dict(torch.load(buffer, weights_only=True))
        while not resumed.done:
            resumed.epoch()
        assert resumed.history == whole.history
        ours, theirs = state_of(whole), state_of(resumed)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("sampling", "space"),
    [*((way, "nasbench201") for way in WAYS), ("uniform", "channels"), ("fair", "chain")],
)
def test_some_steps_lower_the_loss_of_a_path(sampling: str, space: str) -> None:
    """On other images; without a step it would be what it was, to the last bit."""
    params = Digits.Params(subset=300)
    data = split(Digits(params), params)[0]
    changes = {"epochs": 2 if sampling == "fair" else 6, "pool": 0, "recalibrate": 8}
    recipe = RECIPE.model_copy(update={"lr": 0.1})
    trained = training(data, sampling, space, recipe=recipe, **changes)
    cells = space == "nasbench201"
    genes = trained.space.sample(np.random.default_rng(0))
    genome = trained.space.parse("3-3-3-1-3-3") if cells else genes
    before = trained.score(genome)["loss"]
    while not trained.done:
        trained.epoch()
    assert trained.score(genome)["loss"] < 0.97 * before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampling", "space"),
    [
        *(("uniform", "channels"), ("fair", "chain")),
        *(("dropout", "nasbench201"), ("learned", "nasbench201")),
    ],
)
def test_a_supernet_learns(sampling: str, space: str) -> None:
    params = Digits.Params(subset=900)
    data = split(Digits(params), params)[0]
    changes = {"keep_end": 0.5} if sampling == "dropout" else {}
    trained = training(data, sampling, space, epochs=10, pool=6, recalibrate=10, **changes)
    while not trained.done:
        trained.epoch()
    first, last = trained.history.curve[0], trained.history.curve[-1]
    assert last["train_loss"] < 0.75 * first["train_loss"]
    assert last["pool_error"] < 0.8 * first["pool_error"]


@pytest.mark.parametrize("sampling", WAYS)
def test_a_supernet_is_trained_on_images_that_are_mixed_and_changed(
    data: DataSet, sampling: str
) -> None:
    plain, mixed, again = (
        training(data, sampling, recipe=recipe).epoch()["train_loss"]
        for recipe in (RECIPE, MIXED, MIXED)
    )
    assert plain != mixed == again
    assert math.isfinite(mixed)


def test_the_weights_of_a_supernet_are_not_averaged() -> None:
    with pytest.raises(ValidationError, match=r"recipe\.ema: remove the key; alone\.ema"):
        SharedTraining(recipe=Recipe(ema=0.1))
    with pytest.raises(ValidationError, match=r"recipe\.ema: remove the key"):
        GdasParams(recipe=Recipe(ema=0.1))
    params = SupernetParams(alone=Recipe(ema=0.1))
    assert params.recipe_alone.ema == 0.1


def test_each_way_tells_what_it_changes(data: DataSet) -> None:
    rows = {way: [training(data, way).epoch()] for way in WAYS}
    dropped = training(data, "dropout", keep=0.9, keep_end=0.3)
    rows["dropout"] = [dropped.epoch() for _ in range(3)]
    assert [row["keep"] for row in rows["dropout"]] == pytest.approx([0.9, 0.6, 0.3])
    assert rows["learned"][0]["temperature"] == 5.0
    assert 0 < rows["learned"][0]["entropy"] <= math.log(5) + 1e-6
    assert "keep" not in rows["uniform"][0]
    assert len(dropped.history.pool) == 6
    assert {row["epoch"] for row in dropped.history.pool} == {1, 2, 3}


def test_a_fair_step_trains_every_op_once(data: DataSet) -> None:
    trained = training(data, "fair")
    assert isinstance(trained.supernet, Supernet)
    counts: dict[tuple[str, int], int] = {}
    for mixed in trained.supernet.mixed_ops().values():
        for k, op in enumerate(mixed.ops):
            key = (mixed.gene, k)
            op.register_forward_hook(
                lambda *_, key=key: counts.__setitem__(key, counts.get(key, 0) + 1)
            )
    assert isinstance(trained.sampling, Fair)
    for genome in trained.sampling.paths():
        trained.supernet.take(genome)
        trained.supernet(torch.zeros(2, 1, 8, 8))
    # From the input, so always live unless what follows is not: at most once each, at each place.
    assert {count for (gene, _), count in counts.items() if gene == "0>3"} == {3}
    assert max(counts.values()) <= 3


@pytest.mark.parametrize("space", SIZES)
def test_a_score_leaves_the_supernet_as_it_is_and_is_always_the_same(
    data: DataSet, space: str
) -> None:
    trained = training(data, "uniform", space)
    trained.epoch()
    before = state_of(trained)
    genome = trained.space.sample(np.random.default_rng(0))
    first = trained.score(genome)
    trained.supernet.take(trained.space.sample(np.random.default_rng(1)))
    assert trained.score(genome) == first
    after = state_of(trained)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert 0 <= first["error"] <= 1


def test_recalibrated_statistics_are_those_of_the_training_images(data: DataSet) -> None:
    images = resident(data, torch.device("cpu"))
    space = registry.make_space(registry.space("nasbench201").Params())
    network = decode(space, space.parse("1-1-1-1-1-1"), in_channels=1, channels=4, cells=1)
    stem: Any = network.stem  # a convolution, then a batch norm
    n = len(images.train)
    recalibrate(network, images, n, 1, Hardware())
    seen = stem[0](images.normalised(images.train.images))
    torch.testing.assert_close(stem[1].running_mean, seen.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(stem[1].running_var, seen.var(dim=(0, 2, 3)))
    assert stem[1].momentum == 0.1
    kept = copy.deepcopy(network.state_dict())
    recalibrate(network, images, 16, 0, Hardware())
    assert all(torch.equal(t, kept[name]) for name, t in network.state_dict().items())


def test_statistics_of_any_batch_norm_are_measured_anew(data: DataSet) -> None:
    features = math.prod(data.image_shape)
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(features))
    recalibrate(network, resident(data, torch.device("cpu")), 16, 2, Hardware())
    assert int(network[1].num_batches_tracked) == 2  # type: ignore[arg-type]  # a buffer


def test_a_recalibrated_score_is_better_than_one_that_is_not(data: DataSet) -> None:
    """Statistics that all paths have moved fit none."""
    params = Digits.Params(subset=900)
    more = split(Digits(params), params)[0]
    trained = training(more, epochs=6, recalibrate=10)
    for _ in range(6):
        trained.epoch()
    genomes = [trained.space.parse(text) for text in ("3-3-3-1-3-3", "1-4-2-3-1-1", "2-1-3-1-0-2")]
    losses = {}
    for batches in (0, 10):
        trained.params = trained.params.model_copy(update={"recalibrate": batches})
        losses[batches] = sum(trained.score(genome)["loss"] for genome in genomes)
    assert losses[10] < losses[0]


def test_mistakes_are_told_before_anything_is_trained(data: DataSet) -> None:
    with pytest.raises(UserError, match=r"evaluator\.sampling: fair does not apply, since chann"):
        evaluator(data, "channels", sampling="fair")
    with pytest.raises(UserError, match=r"evaluator\.latency: channels/v1 has no genes that"):
        evaluator(data, "channels", latency=Latency())
    with pytest.raises(ValueError, match=r"keep_end: must be at most keep, 0\.5"):
        SharedTraining(sampling="dropout", keep=0.5, keep_end=0.9)


@pytest.mark.parametrize("sampling", ["uniform", "learned"])
def test_a_loss_that_is_nan_ends_the_run(data: DataSet, sampling: str) -> None:
    trained = training(data, sampling)
    with torch.no_grad():
        for parameter in trained.supernet.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(SearchFailed, match=r"epoch 1; start .* a lower evaluator\.recipe\.lr"):
        trained.epoch()


@pytest.mark.parametrize("place", ["sampling.train_epoch", "score"])
def test_a_lack_of_memory_ends_the_run(
    data: DataSet, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    trained = training(data)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    owner = trained.sampling if "." in place else trained
    monkeypatch.setattr(owner, place.rpartition(".")[2], full)
    with pytest.raises(SearchFailed, match="out of memory with batches of 16 images"):
        trained.epoch()


def test_prepared_once_it_is_not_trained_again(data: DataSet, tmp_path: Path) -> None:
    first = evaluator(data)
    assert list(first.prepare(tmp_path)) == [(1, 2), (2, 2)]
    folder = tmp_path / "supernet"
    assert {file.name for file in folder.iterdir()} == {
        "weights.safetensors",
        "curve.csv",
        "pool.csv",
    }
    written = (folder / "weights.safetensors").stat().st_mtime_ns
    again = evaluator(data)
    assert list(again.prepare(tmp_path)) == []
    assert (folder / "weights.safetensors").stat().st_mtime_ns == written
    candidate = Candidate(again.space.parse("3-0-3-1-0-1"))
    assert first.evaluate(candidate, 1).values == again.evaluate(candidate, 2).values


def test_a_supernet_that_was_cut_short_ends_as_the_whole(data: DataSet, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    list(evaluator(data, epochs=4).prepare(whole))
    for _ in range(3):
        steps = evaluator(data, epochs=4).prepare(cut)
        next(steps, None)
        steps.close()
    list(evaluator(data, epochs=4).prepare(cut))
    for name in ("weights.safetensors", "curve.csv", "pool.csv"):
        assert (cut / "supernet" / name).read_bytes() == (whole / "supernet" / name).read_bytes()


def test_a_damaged_checkpoint_is_begun_anew(data: DataSet, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    list(evaluator(data).prepare(whole))
    steps = evaluator(data).prepare(cut)
    next(steps)
    steps.close()
    kept = cut / "supernet" / "checkpoint.pt"
    kept.write_bytes(kept.read_bytes()[:100])
    list(evaluator(data).prepare(cut))
    name = "supernet/weights.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("space", SIZES)
def test_a_candidate_is_scored_and_a_finalist_trained(
    data: DataSet, tmp_path: Path, space: str
) -> None:
    ours = evaluator(data, space, alone=Recipe(lr=0.1, batch_size=32))
    list(ours.prepare(tmp_path))
    genome = ours.space.canonical(ours.space.sample(np.random.default_rng(2)))
    scored = ours.evaluate(Candidate(genome), 5)
    assert scored.status is Status.OK
    assert set(scored.values) == {metric.name for metric in ours.metrics}
    given = arguments(data, space)
    alone = TrainEvaluator(TrainParams(recipe=Recipe(lr=0.1, batch_size=32)), setting(**given))
    list(alone.prepare(tmp_path))
    budget = Budget(steps=3)
    finalist = Candidate(genome, budget=budget)
    trained = ours.evaluate(finalist, 5)
    assert (tmp_path / "scratch" / trained.weights).is_file()
    assert trained.values == alone.evaluate(finalist, 5).values
    assert ours.cheap(genome) == alone.cheap(genome)
    assert scored.weights == ""


def test_latency_is_the_sum_of_the_live_ops_and_the_rest() -> None:
    space = registry.make_space(registry.space("nasbench201").Params())
    rows = [
        {"place": p, "gene": "0>3", "choice": "nor_conv_3x3", "milliseconds": 2.0} for p in "ab"
    ]
    rows += [{"place": "c", "gene": "0>1", "choice": "nor_conv_1x1", "milliseconds": 9.0}]
    rows += [{"place": "", "gene": "", "choice": "", "milliseconds": 0.5}]
    table = LatencyTable(space, rows)
    assert table.latency(space.parse("0-0-0-3-0-0")) == 4.5
    assert table.latency(space.parse("2-0-0-3-0-0")) == 4.5, "0>1 leads nowhere"
    assert table.latency(space.parse("2-0-0-3-1-0")) == 13.5


def test_latency_is_measured_once_a_run_and_known_without_scoring(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0.0, 0.001)  # each op takes a millisecond
    monkeypatch.setattr(latencies.time, "perf_counter", lambda: next(clock))
    ours = evaluator(data, latency=Latency(repeats=2))
    assert ours.metrics[-1] == LATENCY
    list(ours.prepare(tmp_path))
    genome = ours.space.parse("3-0-0-0-1-0")  # two live ops in each of three cells
    assert ours.cheap(genome)["latency_ms"] == pytest.approx(6.0 + 0.0, abs=1e-6)
    frame = pd.read_csv(tmp_path / "supernet" / "latency.csv")
    assert len(frame) == 3 * 6 * 5 + 1
    assert frame["milliseconds"].iloc[:-1].to_numpy() == pytest.approx(1.0)
    written = (tmp_path / "supernet" / "latency.csv").read_bytes()
    again = evaluator(data, latency=Latency(repeats=2))
    list(again.prepare(tmp_path))
    assert (tmp_path / "supernet" / "latency.csv").read_bytes() == written
    assert again.cheap(genome) == ours.cheap(genome)
    scored = again.evaluate(Candidate(genome), 0)
    assert not scored.deterministic, "the clock has a say"


def test_latency_grows_with_what_is_computed(data: DataSet, tmp_path: Path) -> None:
    """By the clock, but with a wide margin: six 3x3 convolutions a cell, and six skips."""
    ours = evaluator(data, latency=Latency(batch=16, repeats=5))
    list(ours.prepare(tmp_path))
    slow, fast = (ours.space.parse("-".join([op] * 6)) for op in "31")
    assert ours.cheap(slow)["latency_ms"] > 1.5 * ours.cheap(fast)["latency_ms"]


def test_a_finalist_has_a_latency_too(data: DataSet, tmp_path: Path) -> None:
    ours = evaluator(data, latency=Latency(repeats=1))
    list(ours.prepare(tmp_path))
    genome = ours.space.parse("3-0-3-1-0-1")
    trained = ours.evaluate(Candidate(genome, budget=Budget(steps=2)), 0)
    assert trained.values["latency_ms"] == ours.cheap(genome)["latency_ms"]
    assert not trained.deterministic


def test_a_lack_of_memory_at_a_resume_leaves_the_checkpoint(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = evaluator(data).prepare(tmp_path)
    next(steps)
    steps.close()
    kept = tmp_path / "supernet" / "checkpoint.pt"
    before = kept.read_bytes()

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SupernetTraining, "load_state_dict", full)
    with pytest.raises(SearchFailed, match=r"checkpoint\.pt cannot be read"):
        list(evaluator(data).prepare(tmp_path))
    assert kept.read_bytes() == before


@evonas.space
def dropping(pick: Pick, *, in_channels: int, classes: int) -> nn.Module:
    """Draws at each forward pass in training."""
    layers: list[nn.Module] = [conv_bn_relu(in_channels, 4, 3)]
    for i in range(2):
        candidates = {
            "conv": lambda: nn.Sequential(conv_bn_relu(4, 4, 3), nn.Dropout(0.5)),
            "skip": nn.Identity,
        }
        layers.append(pick(f"layer{i}", candidates))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))


@pytest.mark.parametrize("sampling", ["uniform", "learned"])
def test_dropout_is_repeated_in_a_resume(data: DataSet, sampling: str) -> None:
    given = {**arguments(data, "nasbench201"), "space": OwnSpace(dropping, {}), "network": {}}
    params = SharedTraining(sampling=sampling, epochs=2, recipe=RECIPE, pool=2)  # type: ignore[arg-type]  # one of them

    whole, cut = (SupernetTraining(params, setting(**given)) for _ in range(2))
    whole.epoch()
    cut.epoch()
    state = copy.deepcopy(cut.state_dict())
    torch.rand(5)  # whatever the process draws beside it
    whole.epoch()
    resumed = SupernetTraining(params, setting(**given))
    resumed.load_state_dict(state)
    resumed.epoch()
    assert resumed.history == whole.history
    genome = whole.space.genome([0, 0])
    assert resumed.score(genome) == whole.score(genome)


def outside(genome: Genome) -> float:
    """How many more than two of a genome's first five genes are not their first choice."""
    return float(max(sum(gene > 0 for gene in genome.genes[:5]) - 3, 0))


@pytest.mark.parametrize(
    ("sampling", "space"),
    [("uniform", "nasbench201"), ("learned", "nasbench201"), ("learned", "darts")],
)
def test_only_networks_within_the_constraints_are_trained(
    monkeypatch: pytest.MonkeyPatch, sampling: str, space: str
) -> None:
    params = Digits.Params(subset=60)
    data = split(Digits(params), params)[0]
    drawn: list[Genome] = []
    draw = Within.draw

    def noting(self: Within, *arguments: Any) -> Any:
        one = draw(self, *arguments)
        drawn.extend(arguments[1](one))
        return one

    monkeypatch.setattr(Within, "draw", noting)
    changes = {"epochs": 1, "recipe": RECIPE, "pool": 4, "recalibrate": 0}
    given = SharedTraining.model_validate({"sampling": sampling, **changes})
    for violation in (None, outside):
        drawn.clear()
        SupernetTraining(given, setting(**arguments(data, space)), violation).epoch()
        assert len(drawn) > 4
        assert all(outside(genome) == 0 for genome in drawn) == (violation is not None)


def test_where_no_draw_is_within_the_constraints_the_nearest_is_taken_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    space, rng = registry.make_space(registry.space("chain").Params()), np.random.default_rng(0)
    within = Within(lambda genome: 1.0 + sum(genome.genes))
    free, near = (
        sum(sum(each.genome(space, rng).genes) for _ in range(2)) for each in (Within(), within)
    )
    assert near < free
    [record] = caplog.records
    assert "100 draws gave none within them" in record.getMessage()


def test_a_supernet_keeps_to_the_constraints_of_the_search(
    data: DataSet, caplog: pytest.LogCaptureFixture
) -> None:
    given = arguments(data, "nasbench201")
    constraint = Constraint(name="flops", max=60_000)
    late = Constraint(name="val_error", max=0.0)  # known only once a network is scored
    constrained = replace(setting(**given), constraints=(constraint, late))
    ours = SupernetEvaluator(SupernetParams(recipe=RECIPE), constrained)
    violation = ours._violation()
    assert violation is not None
    rng = np.random.default_rng(1)
    amounts = {}
    for _ in range(12):
        genome = ours.space.sample(rng)
        amounts[genome] = violation(genome)
        assert amounts[genome] == constraint.violation(ours.cheap(genome))
    assert 0 < sum(amount > 0 for amount in amounts.values()) < len(amounts)
    for changes in ({"within_constraints": False}, {"sampling": "dropout"}):
        params = SupernetParams(recipe=RECIPE, **changes)  # type: ignore[arg-type]  # of several types
        assert SupernetEvaluator(params, constrained)._violation() is None
    assert "dropout trains no single networks" in caplog.text


@pytest.mark.parametrize("space", ["nasbench201", "darts", "chain"])
def test_the_sizes_of_ops_add_up_to_those_of_networks(data: DataSet, space: str) -> None:
    ours = evaluator(data, space)
    genomes = [ours.space.sample(np.random.default_rng(i)) for i in range(4)]
    shared = supernet(ours.space, **ours.setting.trained().arguments)
    assert isinstance(shared, Supernet)
    sizes = NetworkSizes(shared, data.image_shape, ours.cheap, genomes[:1])
    assert [sizes.of(genome) for genome in genomes] == [ours.cheap(genome) for genome in genomes]


def test_sizes_that_do_not_add_up_are_known_not_to(data: DataSet) -> None:
    ours = evaluator(data)
    shared = supernet(ours.space, **ours.setting.trained().arguments)
    assert isinstance(shared, Supernet)
    genomes = [ours.space.sample(np.random.default_rng(i)) for i in range(2)]

    def measured(genome: Genome) -> dict[str, float]:
        return {name: value + genome.genes[0] for name, value in ours.cheap(genome).items()}

    for function, exact in ((ours.cheap, True), (measured, False)):
        assert NetworkSizes(shared, data.image_shape, function, genomes).exact == exact


@pytest.mark.parametrize("sampling", ["dropout", "learned"])
def test_nodes_of_darts_are_trained_with_the_two_inputs_that_are_scored(
    data: DataSet, sampling: str
) -> None:
    trained = training(data, sampling, "darts", epochs=1, pool=0)
    assert isinstance(trained.supernet, Supernet)
    seen: list[set[str]] = []
    trained.supernet.register_forward_pre_hook(
        lambda shared, _: seen.append(set(shared.current.mixture))
    )
    trained.epoch()
    assert len({frozenset(each) for each in seen}) > 1
    for genes in seen:
        nodes = [gene.split(">")[1] + gene.split("/")[0] for gene in genes]
        assert sorted(Counter(nodes).values()) == [2] * 8


def test_what_an_earlier_version_trained_on_all_inputs_is_not_continued(
    data: DataSet, tmp_path: Path
) -> None:
    state = training(data, "dropout", "darts").state_dict()
    del state["version"]
    (tmp_path / "supernet").mkdir()
    torch.save(state, tmp_path / "supernet" / "checkpoint.pt")
    with pytest.raises(UserError, match=r"an earlier evonas began its supernet.*start a new run"):
        list(evaluator(data, "darts", sampling="dropout").prepare(tmp_path))
    cells = training(data, "dropout")
    state = cells.state_dict()
    del state["version"]
    cells.load_state_dict(state)  # nothing has changed there


def test_what_a_recipe_leaves_out_is_as_the_method_has_it() -> None:
    params = SupernetParams.model_validate({"name": "supernet", "recipe": {"batch_size": 32}})
    assert (params.recipe.lr, params.recipe.batch_size) == (0.05, 32)
    search = GdasParams.model_validate({"name": "gdas", "recipe": {"lr": 0.1}})
    assert (search.recipe.lr, search.recipe.clip, search.recipe.weight_decay) == (0.1, 5.0, 3e-4)
    with pytest.raises(ValueError, match="warm_up: must be less than epochs, 3"):
        GdasParams(epochs=3, warm_up=3)


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_an_epoch_is_foreseen_however_short_it_is(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(bilevel.time, "perf_counter", lambda: clock[0])

    def run(count: int) -> None:
        clock[0] += 0.5 * count

    assert bilevel.seconds_of_epoch(run, steps) == pytest.approx(0.5 * steps)


def test_an_op_at_two_places_is_inherited_at_both(data: DataSet) -> None:
    def tied(pick: Pick, *, in_channels: int, classes: int) -> nn.Module:
        op = pick("op", {"conv": lambda: conv_bn_relu(4, 4, 3), "skip": nn.Identity})
        layers = [conv_bn_relu(in_channels, 4, 3), op, nn.ReLU(), op, nn.AdaptiveAvgPool2d(1)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, classes))

    given = {**arguments(data, "nasbench201"), "space": OwnSpace(tied, {}), "network": {}}
    trained = SupernetTraining(SharedTraining(epochs=1, recipe=RECIPE, pool=2), setting(**given))
    trained.epoch()
    assert len(trained.history.pool) == 2


def test_a_candidate_that_is_no_layer_is_told_of(data: DataSet) -> None:
    def plain(pick: Pick, *, in_channels: int, classes: int) -> nn.Module:
        pick("op", {"relu": lambda: torch.relu, "skip": nn.Identity})
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, classes))

    given = {**arguments(data, "nasbench201"), "space": OwnSpace(plain, {}), "network": {}}
    with pytest.raises(UserError, match=r"a candidate of op is no torch\.nn\.Module"):
        SupernetTraining(SharedTraining(epochs=1), setting(**given))


def test_what_latency_turns_down_is_told_to_depend_on_the_clock(
    data: DataSet, tmp_path: Path
) -> None:
    ours = evaluator(data, latency=Latency(repeats=1))
    list(ours.prepare(tmp_path))
    desk = Desk(ours, ours.space, constraints=[Constraint(name="latency_ms", max=0.0)])
    candidate = Candidate(ours.space.parse("3-0-3-1-0-1"))
    [found] = desk.answer_all([desk.question(candidate)])
    assert found.status is Status.INFEASIBLE
    assert not found.deterministic
