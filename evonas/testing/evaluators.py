"""What every evaluator promises: each contract is a function that raises AssertionError.

from evonas.testing import evaluators

@pytest.mark.parametrize("contract", evaluators.CONTRACTS, ids=lambda each: each.__name__)
def test_mine_keeps_its_promises(contract, tmp_path):
    contract(evaluators.maker(Mine, MineParams(), evaluators.small_setting(), tmp_path))
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from evonas import registry
from evonas.core import Budget, Candidate, Evaluation, Params, Status
from evonas.data.dataset import split
from evonas.metrics import VALIDATED
from evonas.protocols import (
    Bounded,
    Evaluator,
    EvaluatorClass,
    Identified,
    Prepares,
    Setting,
    TrainingSetting,
    Trains,
)
from evonas.records.files import weights_left
from evonas.testing.contract import contract, global_generators
from evonas.training.loop import Hardware
from genomes import Genome

SEED, OTHER_SEED = 1, 2


@dataclass(frozen=True)
class Make:
    """Makes an evaluator anew, prepared in a folder of its own; see `maker`."""

    kind: EvaluatorClass
    params: Params
    setting: Setting
    folder: Path
    budget: Budget | None
    final_budget: Budget | None

    def __call__(self) -> Evaluator:
        evaluator = self.kind(self.params, self.setting)
        if isinstance(evaluator, Prepares):
            for _ in evaluator.prepare(self.folder):
                pass
        return evaluator

    @property
    def candidates(self) -> list[Candidate]:
        """Two candidates that are different networks, or one where the space has no more."""
        space, rng = self.setting.space, np.random.default_rng(0)
        genomes = [space.canonical(space.sample(rng)) for _ in range(100)]
        others = [genome for genome in genomes if genome != genomes[0]]
        return [Candidate(genome, budget=self.budget) for genome in (genomes[0], *others[:1])]

    @property
    def genomes(self) -> list[Genome]:
        """A sample of canonical genomes."""
        space, rng = self.setting.space, np.random.default_rng(1)
        return [space.canonical(space.sample(rng)) for _ in range(8)]


def maker(
    kind: EvaluatorClass,
    params: Params,
    setting: Setting,
    folder: Path,
    *,
    budget: Budget | None = None,
    final_budget: Budget | None = None,
) -> Make:
    """Makes evaluators of these settings.

    Args:
        setting: what it measures on; `small_setting` has one with images.
        folder: an empty one, in place of a run folder.
        budget: what candidates of the search come with.
        final_budget: what finalists come with, if not the same.
    """
    return Make(kind, params, setting, folder, budget, final_budget or budget)


def small_setting(space: str = "nasbench201", **network: object) -> Setting:
    """A setting with 120 images of handwritten digits, 8x8.

    Args:
        space: the name of a space.
        network: its settings; without any, small ones of nasbench201.
    """
    blueprint = registry.space(space)
    params = blueprint.Params(**(network or {"channels": 2, "cells": 1}))
    digits = registry.load("data", "digits")
    data_params = digits.Params(subset=120)
    data, _ = split(digits(data_params), data_params)
    training = TrainingSetting(params.model_dump(exclude={"name"}), data, Hardware())
    return Setting(blueprint.make_space(params), training=training)


@contract
def metrics_are_named_once(make: Make) -> None:
    """An evaluator measures what its class declares and the user's own metrics, each once."""
    names = [metric.name for metric in make().metrics]
    assert all(names), "a metric has no name"
    assert len(set(names)) == len(names), f"a metric is named twice: {names}"
    training = make.setting.training
    own = [each.metric.name for each in training.metrics] if training else []
    declared = [
        metric.name
        for metric in make.kind.metrics_of(make.params)
        if metric.name in make.setting.named or not metric.on_demand
    ]
    assert sorted(names) == sorted([*declared, *own]), (
        f"metrics_of says {declared}, metrics {names}"
    )


@contract
def cheap_gives_the_cheap_metrics(make: Make) -> None:
    """`cheap` gives every metric that is declared cheap and no other, as finite numbers."""
    evaluator = make()
    names = {metric.name for metric in evaluator.metrics if metric.cheap}
    for genome in make.genomes:
        values = evaluator.cheap(genome)
        assert set(values) == names, f"cheap gives {sorted(values)}, not {sorted(names)}"
        _finite(values)


@contract
def cheap_is_the_same_every_time(make: Make) -> None:
    """`cheap` gives the same values again, and so does another evaluator."""
    first, second = make(), make()
    for genome in make.genomes:
        values = dict(first.cheap(genome))
        again = (first.cheap(genome), second.cheap(genome))
        assert all(values == dict(each) for each in again), "cheap values differ from time to time"


@contract
def cheap_leaves_the_generators_alone(make: Make) -> None:
    """`cheap` draws nothing from the global generators of Python, NumPy and torch."""
    evaluator = make()
    before = (*global_generators(), torch.get_rng_state().tolist())
    for genome in make.genomes:
        evaluator.cheap(genome)
    after = (*global_generators(), torch.get_rng_state().tolist())
    assert before == after, "cheap draws from a global generator"


@contract
def an_answer_has_all_metrics(make: Make) -> None:
    """A good answer is to the candidate that was asked, and has each metric, a finite number."""
    evaluator = make()
    for candidate in make.candidates:
        answer = _good(evaluator, candidate)
        assert answer.candidate == candidate, "the answer is to another candidate"
        names = {metric.name for metric in evaluator.metrics}
        assert set(answer.values) == names, f"it measured {sorted(answer.values)}"
        _finite(answer.values)


@contract
def an_answer_repeats_the_cheap_values(make: Make) -> None:
    """The cheap metrics have the same values in an answer, whatever the seed."""
    evaluator = make()
    candidate = make.candidates[0]
    cheap = dict(evaluator.cheap(candidate.genome))
    for seed in (SEED, OTHER_SEED):
        values = _good(evaluator, candidate, seed).values
        assert {name: values[name] for name in cheap} == cheap, "an answer has other cheap values"


@contract
def same_candidate_and_seed_give_the_same_values(make: Make) -> None:
    """Whatever was evaluated before, an answer is the same, unless it says that it is not
    deterministic."""
    first, second = make(), make()
    candidate = make.candidates[0]
    answer = _good(first, candidate)
    for other in make.candidates[1:]:
        first.evaluate(other, OTHER_SEED)
        second.evaluate(other, OTHER_SEED)
    for again in (_good(first, candidate), _good(second, candidate)):
        same = not again.deterministic or dict(again.values) == dict(answer.values)
        assert same, "the same candidate and seed give other values"


@contract
def it_can_be_sent_to_a_worker(make: Make) -> None:
    """A pickled copy, before and after an evaluation, gives the same answers."""
    evaluator = make()
    candidate = make.candidates[0]
    sent: Evaluator = pickle.loads(pickle.dumps(evaluator))
    answer = _good(evaluator, candidate)
    for copy in (sent, pickle.loads(pickle.dumps(evaluator))):
        again = _good(copy, candidate)
        same = not again.deterministic or dict(again.values) == dict(answer.values)
        assert same, "a pickled copy gives other values"


@contract
def the_fingerprint_is_stable_text(make: Make) -> None:
    """The fingerprint is text, the same for all evaluators of one setting."""
    first, second = make().fingerprint, make().fingerprint
    assert isinstance(first, str), f"the fingerprint is {first!r}, not text"
    assert first == second, "two evaluators of one setting have other fingerprints"


@contract
def an_identity_tells_answers_apart(make: Make) -> None:
    """Where there is an identity, it is plain data: equal for equal questions, and different for
    another seed, budget or genome."""
    first, second = make(), make()
    if not isinstance(first, Identified) or not isinstance(second, Identified):
        return
    candidate, *others = make.candidates
    identity = first.identity(candidate, SEED)
    plain = json.loads(json.dumps(identity))
    assert plain == _plain(second.identity(candidate, SEED)), "equal questions differ in identity"
    assert plain != _plain(first.identity(candidate, OTHER_SEED)), "the identity lacks the seed"
    longer = replace(candidate, budget=Budget(steps=999))
    assert plain != _plain(first.identity(longer, SEED)), "the identity lacks the budget"
    for other in others:
        assert plain != _plain(first.identity(other, SEED)), "the identity lacks the genome"


@contract
def weights_are_those_that_were_measured(make: Make) -> None:
    """Where finalists are trained, an answer names a file of weights in `scratch/`, and to test
    them on the validation images gives what the answer says."""
    evaluator, fresh = make(), make()
    if not isinstance(evaluator, Trains) or not isinstance(fresh, Trains):
        return
    candidate = replace(make.candidates[0], budget=make.final_budget)
    answer = _good(evaluator, candidate)
    weights = weights_left(make.folder, answer)
    assert weights is not None, "the answer names no weights"
    assert weights.is_file(), f"there is no {weights}"
    measured = fresh.test(candidate.genome, weights, make.setting.trained().data.val)
    assert {*VALIDATED} <= set(measured), f"test gives {sorted(measured)}"
    _finite(measured)
    for name, metric in VALIDATED.items():
        if metric.name in answer.values:
            same = math.isclose(measured[name], answer.values[metric.name], rel_tol=1e-5)
            assert same, f"the weights have another {metric.name} than the answer"


@contract
def no_cheap_value_exceeds_the_most(make: Make) -> None:
    """Where there are bounds, they are of metrics that it measures, and no cheap value is above."""
    evaluator = make()
    if not isinstance(evaluator, Bounded):
        return
    most = evaluator.most()
    unknown = set(most) - {metric.name for metric in evaluator.metrics}
    assert not unknown, f"most names what is no metric: {sorted(unknown)}"
    for genome in make.genomes:
        for name, value in evaluator.cheap(genome).items():
            assert value <= most.get(name, math.inf), f"{name} is {value}, above the most"


CONTRACTS: tuple[Callable[[Make], None], ...] = (
    metrics_are_named_once,
    cheap_gives_the_cheap_metrics,
    cheap_is_the_same_every_time,
    cheap_leaves_the_generators_alone,
    an_answer_has_all_metrics,
    an_answer_repeats_the_cheap_values,
    same_candidate_and_seed_give_the_same_values,
    it_can_be_sent_to_a_worker,
    the_fingerprint_is_stable_text,
    an_identity_tells_answers_apart,
    weights_are_those_that_were_measured,
    no_cheap_value_exceeds_the_most,
)


def _good(evaluator: Evaluator, candidate: Candidate, seed: int = SEED) -> Evaluation:
    answer = evaluator.evaluate(candidate, seed)
    assert answer.status is Status.OK, f"the evaluation ended {answer.status}: {answer.message}"
    return answer


def _finite(values: Mapping[str, float]) -> None:
    for name, value in values.items():
        assert isinstance(value, int | float), f"{name} is {value!r}, not a number"
        assert math.isfinite(value), f"{name} is {value}"


def _plain(identity: Mapping[str, object]) -> object:
    return json.loads(json.dumps(identity))
