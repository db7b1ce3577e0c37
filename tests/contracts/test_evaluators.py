"""The contracts of evaluators, over everything registered, and over some broken on purpose."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from evonas import metric, registry
from evonas.core import (
    Budget,
    Candidate,
    Constraint,
    Evaluation,
    Metric,
    Objective,
    Params,
    derive_seed,
)
from evonas.data.dataset import Images
from evonas.evaluators.proxy import ProxyEvaluator, ProxyParams
from evonas.evaluators.supernet import SupernetEvaluator, SupernetParams
from evonas.evaluators.tabular import Tabular, TabularParams
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.metrics import PEAK_MEMORY, ZERO_COST
from evonas.oneshot.latency import Latency
from evonas.protocols import Need, Setting
from evonas.testing import evaluators as contracts
from evonas.testing.evaluators import CONTRACTS, Make, maker, small_setting
from genomes import Genome, TableSpace, Verbatim

Contract = Callable[[Make], None]
contract = pytest.mark.parametrize("contract", CONTRACTS, ids=lambda each: each.__name__)
STEPS = Budget(steps=2)


def smallest(network: torch.nn.Module) -> float:
    return min(float(p.detach().abs().max()) for p in network.parameters())


def surest(network: Any, images: Any) -> float:
    return float(network(images).softmax(1).max())


def train(folder: Path) -> Make:
    return maker(TrainEvaluator, TrainParams(), small_setting(), folder, budget=STEPS)


def train_with_metrics(folder: Path) -> Make:
    setting = small_setting("chain", stages=[[4, 2, 1]], kernels=[3], expansions=[1, 2], stem=4)
    training = replace(setting.trained(), metrics=(metric(smallest, cheap=True), metric(surest)))
    setting = replace(setting, training=training)
    return maker(TrainEvaluator, TrainParams(), setting, folder, budget=STEPS)


def train_with_proxies(folder: Path) -> Make:
    return maker(TrainEvaluator, TrainParams(), by_proxies(), folder, budget=STEPS)


def proxy(folder: Path) -> Make:
    return maker(ProxyEvaluator, ProxyParams(batch_size=16), by_proxies(), folder)


def by_proxies() -> Setting:
    """Networks of one choice, each of which has a way through: others have no proxies."""
    setting = small_setting("chain", stages=[[4, 2, 1]], kernels=[3], expansions=[1, 2], stem=4)
    goals = tuple(Objective(name=metric.name, goal="max") for metric in ZERO_COST[:3])
    named = (*ZERO_COST[3:], PEAK_MEMORY)
    bounds = tuple(Constraint(name=metric.name, min=-1e9) for metric in named)
    owns = (metric(smallest, cheap=True),)
    training = replace(setting.trained(), metrics=owns)
    return replace(setting, objectives=goals, constraints=bounds, training=training)


def supernet_with_proxies(folder: Path) -> Make:
    setting = replace(by_proxies(), training=replace(by_proxies().trained(), metrics=()))
    params = SupernetParams(epochs=1)
    return maker(SupernetEvaluator, params, setting, folder, final_budget=STEPS)


def supernet(folder: Path) -> Make:
    params = SupernetParams(epochs=1)
    return maker(SupernetEvaluator, params, small_setting(), folder, final_budget=STEPS)


def supernet_with_latency(folder: Path) -> Make:
    params = SupernetParams(epochs=1, latency=Latency(repeats=1))
    return maker(SupernetEvaluator, params, small_setting(), folder, final_budget=STEPS)


def tabular(folder: Path) -> Make:
    space = TableSpace({"a": ("x", "y"), "b": ("x", "y", "z")})
    rows = [f"{i}{j},{0.3 + 0.1 * i + 0.05 * j},{10 * j + i}" for i in range(2) for j in range(3)]
    (folder / "table.csv").write_text("\n".join(["genome,acc,size", *rows]))
    params = TabularParams(
        path=str(folder / "table.csv"),
        metrics={"val_error": "1 - acc", "size": "size"},
        cheap=("size",),
        simulated_seconds="size * 2",
    )
    return maker(Tabular, params, Setting(Verbatim(space)), folder)


MAKES: dict[str, Callable[[Path], Make]] = {
    "proxy": proxy,
    "supernet": supernet,
    "supernet, with proxies": supernet_with_proxies,
    "supernet, with latency": supernet_with_latency,
    "tabular": tabular,
    "train": train,
    "train, with metrics": train_with_metrics,
    "train, with proxies": train_with_proxies,
}


def test_every_evaluator_is_held_to_the_contracts() -> None:
    assert {name.partition(",")[0] for name in MAKES} == set(registry.names("evaluators"))


@contract
@pytest.mark.parametrize("name", MAKES)
def test_every_evaluator_keeps_every_contract(
    name: str, contract: Contract, tmp_path: Path
) -> None:
    contract(MAKES[name](tmp_path))


class FlipParams(Params):
    name: str = "flip"


class Flip:
    """An evaluator that trains nothing, looks at no image, and keeps all its promises."""

    Params = FlipParams
    needs: ClassVar[frozenset[Need]] = frozenset()
    metrics: Any = (Metric("total", cheap=True), Metric("flip"))
    fingerprint: Any = "none"

    def __init__(self, params: FlipParams, setting: Setting) -> None:
        self.answers = 0
        self.folder = Path()

    @staticmethod
    def metrics_of(params: FlipParams) -> tuple[Metric, ...]:
        return (Metric("total", cheap=True), Metric("flip"))

    def prepare(self, run_dir: Path) -> Iterator[tuple[int, int]]:
        self.folder = run_dir / "scratch"
        self.folder.mkdir(exist_ok=True)
        yield 1, 1

    def cheap(self, genome: Genome) -> Mapping[str, Any]:
        return {"total": float(sum(genome.genes))}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        self.answers += 1
        weights = self.folder / f"{seed}.txt"
        weights.write_text(candidate.genome.text)
        values = {**self.cheap(candidate.genome), "flip": self.flip(candidate.genome, seed)}
        return Evaluation(candidate, values, weights=weights.name)

    def flip(self, genome: Genome, seed: int) -> float:
        return derive_seed(seed, genome.text) % 1000 / 1000

    def identity(self, candidate: Candidate, seed: int) -> Mapping[str, Any]:
        budget = candidate.budget.text if candidate.budget else ""
        return {"genes": candidate.genome.text, "seed": seed, "budget": budget}

    def test(self, genome: Genome, weights: Path, test: Images) -> Mapping[str, float]:
        assert weights.read_text() == genome.text, "these are another network's weights"
        return {"error": 0.5, "top5_error": 0.5, "loss": 1.0}

    def most(self) -> Mapping[str, float]:
        return {"total": 30.0}


class Twofold(Flip):
    metrics = (*Flip.metrics, Metric("flip"))


class Undeclared(Flip):
    metrics = (*Flip.metrics, Metric("extra"))


class Eager(Flip):
    def cheap(self, genome: Genome) -> Mapping[str, Any]:
        return {**super().cheap(genome), "flip": 0.0}


class Endless(Flip):
    def cheap(self, genome: Genome) -> Mapping[str, Any]:
        return {"total": float("inf")}


class Text(Flip):
    def cheap(self, genome: Genome) -> Mapping[str, Any]:
        return {"total": genome.text}


class Rising(Flip):
    def cheap(self, genome: Genome) -> Mapping[str, Any]:
        self.answers += 1
        return {"total": self.answers}


class Lucky(Flip):
    def cheap(self, genome: Genome) -> Mapping[str, Any]:
        torch.rand(1)
        return super().cheap(genome)


class Swapped(Flip):
    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        answer = super().evaluate(candidate, seed)
        return replace(answer, candidate=replace(candidate, origin="elsewhere"))


class Lacking(Flip):
    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        return replace(super().evaluate(candidate, seed), values=self.cheap(candidate.genome))


class NotANumber(Flip):
    def flip(self, genome: Genome, seed: int) -> float:
        return float("nan")


class Crashing(Flip):
    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        raise OSError("no disk")


class Wavering(Flip):
    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        answer = super().evaluate(candidate, seed)
        return replace(answer, values={**answer.values, "total": float(seed)})


class Remembering(Flip):
    def flip(self, genome: Genome, seed: int) -> float:
        return float(self.answers)


class Drawing(Flip):
    def flip(self, genome: Genome, seed: int) -> float:
        return random.random()


class Bound(Flip):
    def __init__(self, params: FlipParams, setting: Setting) -> None:
        super().__init__(params, setting)
        self.of_seed = lambda seed: seed  # cannot be pickled


class Lost(Flip):
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "answers": 10}

    def flip(self, genome: Genome, seed: int) -> float:
        return float(self.answers > 10)


class Stamped(Flip):
    made = 0

    def __init__(self, params: FlipParams, setting: Setting) -> None:
        super().__init__(params, setting)
        Stamped.made += 1
        self.fingerprint = f"the {Stamped.made}."


class Numbered(Flip):
    fingerprint = 7


class Seedless(Flip):
    def identity(self, candidate: Candidate, seed: int) -> Mapping[str, Any]:
        return {**super().identity(candidate, seed), "seed": 0}


class Timeless(Flip):
    def identity(self, candidate: Candidate, seed: int) -> Mapping[str, Any]:
        return {**super().identity(candidate, seed), "budget": ""}


class Nameless(Flip):
    def identity(self, candidate: Candidate, seed: int) -> Mapping[str, Any]:
        return {**super().identity(candidate, seed), "genes": ""}


class Rich(Flip):
    def identity(self, candidate: Candidate, seed: int) -> Mapping[str, Any]:
        return {"genome": candidate.genome}


class Careless(Flip):
    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        return replace(super().evaluate(candidate, seed), weights="")


class Confused(Flip):
    """Keeps the weights of the last network that it has seen."""

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        answer = super().evaluate(candidate, seed)
        (self.folder / answer.weights).write_text("another")
        return answer


class Mismatched(Flip):
    """Tests other weights than it has measured."""

    metrics = (*Flip.metrics, Metric("val_error"))

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        answer = super().evaluate(candidate, seed)
        return replace(answer, values={**answer.values, "val_error": 0.1})


class Modest(Flip):
    def most(self) -> Mapping[str, float]:
        return {"total": 2.0}


class Boasting(Flip):
    def most(self) -> Mapping[str, float]:
        return {"height": 2.0}


BROKEN: list[tuple[Any, Contract, str]] = [
    (Twofold, contracts.metrics_are_named_once, "named twice"),
    (Undeclared, contracts.metrics_are_named_once, "metrics_of says"),
    (Eager, contracts.cheap_gives_the_cheap_metrics, "cheap gives .'flip', 'total'., not"),
    (Endless, contracts.cheap_gives_the_cheap_metrics, "total is inf"),
    (Text, contracts.cheap_gives_the_cheap_metrics, "not a number"),
    (Rising, contracts.cheap_is_the_same_every_time, "differ from time to time"),
    (Lucky, contracts.cheap_leaves_the_generators_alone, "draws from a global generator"),
    (Swapped, contracts.an_answer_has_all_metrics, "to another candidate"),
    (Lacking, contracts.an_answer_has_all_metrics, "it measured .'total'."),
    (NotANumber, contracts.an_answer_has_all_metrics, "flip is nan"),
    (Crashing, contracts.an_answer_has_all_metrics, "OSError: no disk"),
    (Wavering, contracts.an_answer_repeats_the_cheap_values, "other cheap values"),
    (Remembering, contracts.same_candidate_and_seed_give_the_same_values, "other values"),
    (Drawing, contracts.same_candidate_and_seed_give_the_same_values, "other values"),
    (Bound, contracts.it_can_be_sent_to_a_worker, "pickle"),
    (Lost, contracts.it_can_be_sent_to_a_worker, "a pickled copy gives other values"),
    (Stamped, contracts.the_fingerprint_is_stable_text, "other fingerprints"),
    (Numbered, contracts.the_fingerprint_is_stable_text, "7, not text"),
    (Seedless, contracts.an_identity_tells_answers_apart, "lacks the seed"),
    (Timeless, contracts.an_identity_tells_answers_apart, "lacks the budget"),
    (Nameless, contracts.an_identity_tells_answers_apart, "lacks the genome"),
    (Rich, contracts.an_identity_tells_answers_apart, "not JSON serializable"),
    (Careless, contracts.weights_are_those_that_were_measured, "names no weights"),
    (Confused, contracts.weights_are_those_that_were_measured, "another network's weights"),
    (Mismatched, contracts.weights_are_those_that_were_measured, "another val_error"),
    (Modest, contracts.no_cheap_value_exceeds_the_most, "above the most"),
    (Boasting, contracts.no_cheap_value_exceeds_the_most, "no metric: .'height'."),
]


def flip(kind: type[Flip], folder: Path) -> Make:
    return maker(kind, FlipParams(), small_setting(), folder)


@contract
def test_a_sound_evaluator_keeps_every_contract(contract: Contract, tmp_path: Path) -> None:
    contract(flip(Flip, tmp_path))


@pytest.mark.parametrize(("kind", "contract", "what"), BROKEN)
def test_an_evaluator_that_breaks_a_contract_is_caught_for_that(
    kind: type[Flip], contract: Contract, what: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=what):
        contract(flip(kind, tmp_path))


def test_every_contract_is_broken_by_one() -> None:
    assert {contract for _, contract, _ in BROKEN} == set(CONTRACTS)
