"""The controller: its gradient is REINFORCE's, it learns what it should and nothing else."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
import torch

from evonas.core import Candidate, Constraint, Evaluation, Objective, Status, UserError
from evonas.protocols import Setting
from evonas.strategies.controller import Controller, ControllerParams, Policy
from genomes import Gene, SearchSpace

ONE_GENE = SearchSpace("one/v1", [Gene("g", tuple("abcd"))])
BITS = SearchSpace("bits/v1", [Gene(f"g{i}", ("0", "1")) for i in range(10)])
GENES = attrgetter("genes")
Values = Callable[[tuple[int, ...]], float]


def made(space: SearchSpace = BITS, *, goal: str = "max", **settings: Any) -> Controller:
    objectives = settings.pop("objectives", [Objective(name="a", goal=goal)])  # type: ignore[arg-type]  # one of the two
    constraints, seed = settings.pop("constraints", ()), settings.pop("seed", 0)
    return Controller(
        ControllerParams(**settings), Setting(space, objectives, constraints=constraints, seed=seed)
    )


def told(strategy: Controller, values: Values) -> list[tuple[int, ...]]:
    """One generation; what was asked."""
    asked = strategy.ask()
    strategy.tell([Evaluation(each, {"a": values(each.genome.genes)}) for each in asked])
    return [each.genome.genes for each in asked]


def parameters(strategy: Controller) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in strategy.policy.named_parameters()}


def test_the_gradient_is_reinforce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a softmax over one gene: d/dz_k sum (R - b) log pi = sum (R - b) (1[a = k] - pi_k)."""
    strategy = made(ONE_GENE, population=6, entropy=0.0, unseen=False)
    monkeypatch.setattr(strategy.optimizer, "step", lambda: None)
    rewards = {0: 1.0, 1: 3.0, 2: -2.0, 3: 0.5}
    strategy.baseline, strategy.spread = 0.7, 1.0
    _, [logs] = strategy.policy(1, lambda *_: torch.tensor([0]))
    pi = logs[0].detach().exp()
    asked = [genes[0] for genes in told(strategy, lambda genes: rewards[genes[0]])]
    assert len(set(asked)) > 1
    advantages = np.array([rewards[a] - 0.7 for a in asked])
    spread = 0.8 * 1.0 + 0.2 * (advantages**2).mean()
    expected = torch.zeros(4, dtype=torch.float64)
    for a, advantage in zip(asked, advantages / spread**0.5, strict=True):
        expected -= advantage * (torch.eye(4, dtype=torch.float64)[a] - pi) / len(asked)
    head: Any = strategy.policy.heads[0]
    torch.testing.assert_close(head.bias.grad, expected)
    assert strategy.baseline == pytest.approx(0.8 * 0.7 + 0.2 * (advantages.mean() + 0.7))


def test_the_bonus_is_the_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = made(ONE_GENE, population=4, entropy=0.5, unseen=False)
    monkeypatch.setattr(strategy.optimizer, "step", lambda: None)
    head: Any = strategy.policy.heads[0]
    with torch.no_grad():
        head.bias += torch.tensor([1.0, 0.0, -1.0, 0.5])
    _, [logs] = strategy.policy(1, lambda *_: torch.tensor([0]))
    pi = logs[0].detach().exp()
    told(strategy, lambda _: 1.0)  # no advantage
    entropy = -(pi * pi.log()).sum()
    expected = 0.5 * pi * (pi.log() + entropy)  # d(-entropy)/dz
    torch.testing.assert_close(head.bias.grad, expected)


@pytest.mark.parametrize("reward", [3.0, 0.1, -1 / 3])
def test_without_a_difference_nothing_is_learnt(reward: float) -> None:
    """Nor from what rounding leaves of one: the mean of seven times 0.1 is not 0.1."""
    strategy = made(entropy=0.0, population=7)
    before = parameters(strategy)
    for _ in range(5):
        told(strategy, lambda _: reward)
    assert all(torch.equal(p, before[name]) for name, p in parameters(strategy).items())


@pytest.mark.parametrize("goal", ["max", "min"])
def test_it_learns_what_is_wanted(goal: str) -> None:
    strategy = made(goal=goal, population=8, unseen=False)
    means = [np.mean([sum(genes) for genes in told(strategy, sum)]) for _ in range(60)]
    assert means[0] == pytest.approx(5, abs=1.5), "it begins as random search does"
    last = np.mean(means[-10:])
    assert last > 8.5 if goal == "max" else last < 1.5


def test_what_is_first_chosen_has_a_say_in_what_comes_next() -> None:
    """Two genes that are only good together, 00 or 11, which no product of marginals tells."""
    pair = SearchSpace("pair/v1", [Gene("a", ("0", "1")), Gene("b", ("0", "1"))])
    strategy = made(pair, population=16, unseen=False, entropy=0.3)
    for _ in range(150):
        genes = told(strategy, lambda genes: float(genes[0] == genes[1]))
    together = [strategy._write(64) for _ in range(4)]
    agreeing = np.mean([a == b for rows in together for a, b in map(GENES, rows)])
    assert agreeing > 0.9
    assert len({a for rows in together for a, _ in map(GENES, rows)}) == 2, "both are written"
    assert genes


def test_probabilities_in_the_trace_are_those_of_the_choices() -> None:
    strategy = made(population=50, unseen=False)
    asked = told(strategy, sum)
    trace = strategy.trace()
    for i, gene in enumerate(BITS.genes):
        rows = [row for row in trace["probabilities"] if row["gene"] == gene.name]
        assert [row["choice"] for row in rows] == list(gene.choices)
        assert sum(row["probability"] for row in rows) == pytest.approx(1, abs=1e-5)
        written = np.mean([genes[i] for genes in asked])
        assert rows[1]["probability"] == pytest.approx(written, abs=0.25)
    [row] = trace["controller"]
    assert row["reward"] == pytest.approx(np.mean([sum(genes) for genes in asked]), abs=1e-5)
    assert 0 < row["entropy"] <= np.log(2) + 1e-6


def test_a_tanh_bounds_the_logits_and_a_temperature_evens_them() -> None:
    torch.manual_seed(0)
    plain = Policy([5], 8, 1.0, None)
    with torch.no_grad():
        plain.heads[0].bias += torch.tensor([40.0, 0, 0, 0, 0])  # type: ignore[operator]
    for temperature, tanh_constant in ((1.0, 2.0), (100.0, None)):
        other = Policy([5], 8, temperature, tanh_constant)
        other.load_state_dict(plain.state_dict())
        _, [logs] = other(1, lambda *_: torch.tensor([0]))
        _, [before] = plain(1, lambda *_: torch.tensor([0]))
        assert before[0].exp()[0] > 0.999
        assert logs[0].exp()[0] < 0.95
        assert float(logs.detach().max() - logs.detach().min()) <= 2 * (tanh_constant or 1.0)


def test_a_state_goes_through_a_file_and_the_search_on_as_before() -> None:
    strategy, other = made(seed=4), made(seed=5)
    for _ in range(7):
        told(strategy, sum)
    buffer = io.BytesIO()
    torch.save(strategy.state_dict(), buffer)
    buffer.seek(0)
    expected = [told(strategy, sum) for _ in range(5)]
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert [told(other, sum) for _ in range(5)] == expected


def test_networks_asked_for_are_not_asked_for_again_where_that_is_wanted() -> None:
    asked = {True: list[tuple[int, ...]](), False: list[tuple[int, ...]]()}
    for unseen, found in asked.items():
        strategy = made(unseen=unseen, population=8)
        for _ in range(20):
            found += told(strategy, sum)
    assert len(set(asked[True])) > 1.2 * len(set(asked[False]))


TOY = SearchSpace("toy/v1", [Gene(f"g{i}", tuple("abcde")) for i in range(6)])
TARGET = (3, 1, 4, 1, 0, 2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("unseen", [True, False])
def test_a_target_is_found_and_not_unlearned(unseen: bool, seed: int) -> None:
    """By default settings, within 200 of 15,625; then the policy goes on writing it."""
    strategy = made(TOY, unseen=unseen, seed=seed)
    asked = [
        genes
        for _ in range(40)
        for genes in told(strategy, lambda genes: float(np.equal(genes, TARGET).sum()))
    ]
    assert TARGET in asked
    assert probability(strategy, TARGET) > 0.1  # by chance, 6e-5


def probability(strategy: Controller, genes: tuple[int, ...]) -> float:
    """With what probability the policy writes these genes."""
    logs, _ = strategy.policy(1, lambda gene, _: torch.tensor([genes[gene]]))
    return float(logs.detach().exp()[0])


def test_only_what_the_policy_wrote_is_learned_from() -> None:
    """All nine are known: it writes them again, and the random ones in their place say nothing."""
    pair = SearchSpace("pair/v1", [Gene(name, tuple("abc")) for name in "xy"])
    strategy, other = made(pair, population=9), made(pair, population=9)
    for _ in range(3):
        told(strategy, sum)
        told(other, sum)
    asked = strategy.ask()
    assert [each.genome for each in asked] == [each.genome for each in other.ask()]
    assert {each.origin for each in asked} == {"sampled"}
    strategy.tell([Evaluation(each, {"a": float(sum(each.genome.genes))}) for each in asked])
    other.written = strategy.written
    before = parameters(other)
    other.tell([Evaluation(each, {"a": float(sum(each.genome.genes))}) for each in asked[::-1]])
    assert any(not torch.equal(p, before[name]) for name, p in parameters(other).items())
    for name, p in parameters(strategy).items():
        assert torch.equal(p, parameters(other)[name]), "the order of the random ones says nothing"


def test_a_run_of_an_earlier_version_is_refused_in_a_line() -> None:
    strategy = made()
    told(strategy, sum)
    state = {name: part for name, part in strategy.state_dict().items() if name != "results"}
    with pytest.raises(UserError, match="begun by a version of evonas whose controller") as error:
        made().load_state_dict(state)
    assert len(str(error.value).splitlines()) == 1


PRODUCT = [Objective(name="accuracy", goal="max"), Objective(name="ms")]


def rewards_of(strategy: Controller, rows: list[tuple[Mapping[str, float], Status]]) -> list[float]:
    candidates = [Candidate(BITS.genome([0] * 10))] * len(rows)
    evaluations = [
        Evaluation(candidate, values, status)
        for candidate, (values, status) in zip(candidates, rows, strict=True)
    ]
    found: list[float] = strategy._rewards(evaluations).tolist()
    return found


def test_a_reward_is_a_weighted_product() -> None:
    strategy = made(objectives=PRODUCT, reward={"accuracy": 1.0, "ms": -0.07})
    ok = Status.OK
    rows = [({"accuracy": 0.9, "ms": 10.0}, ok), ({"accuracy": 0.8, "ms": 2.0}, ok)]
    found = rewards_of(strategy, rows)  # type: ignore[arg-type]
    assert found == pytest.approx([0.9 * 10**-0.07, 0.8 * 2**-0.07])
    [zero] = rewards_of(strategy, [({"accuracy": 0.0, "ms": 3.0}, ok)])
    assert zero < min(found), "what no power can be taken of is the least"


def test_the_infeasible_are_less_and_the_failed_least() -> None:
    strategy = made(goal="max", constraints=[Constraint(name="size", max=10.0)])
    rows = [
        ({"a": 3.0}, Status.OK),
        ({"a": 1.0}, Status.OK),
        ({"size": 11.0}, Status.INFEASIBLE),
        ({"size": 40.0}, Status.INFEASIBLE),
        ({}, Status.CRASHED),
    ]
    found = rewards_of(strategy, rows)  # type: ignore[arg-type]
    assert found == sorted(found, reverse=True)
    assert found[:2] == [3.0, 1.0]
    assert len(set(found)) == 5


def test_what_infeasible_and_failed_ones_get_is_finite_and_in_order_whatever_they_say() -> None:
    """A violation that is not known or infinite, and only one reward so far."""
    strategy = made(goal="max", constraints=[Constraint(name="size", max=10.0)])
    rows = [
        ({"a": 2e6}, Status.OK),
        ({}, Status.INFEASIBLE),
        ({"size": 1e6}, Status.INFEASIBLE),
        ({"size": math.inf}, Status.INFEASIBLE),
        ({"a": math.nan}, Status.OK),
    ]
    found = rewards_of(strategy, rows)  # type: ignore[arg-type]
    assert np.isfinite(found).all()
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 5


def test_a_generation_without_a_feasible_one_is_worth_less_than_any_that_was() -> None:
    """Also with several objectives, where the best of each generation would be 1."""
    strategy = made(objectives=PRODUCT, constraints=[Constraint(name="ms", max=20.0)])
    well = [({"accuracy": 0.9, "ms": 10.0}, Status.OK), ({"accuracy": 0.8, "ms": 12.0}, Status.OK)]
    rewarded = rewards_of(strategy, well)  # type: ignore[arg-type]
    over = [({"ms": 21.0}, Status.INFEASIBLE), ({"ms": 90.0}, Status.INFEASIBLE)]
    slightly, greatly = rewards_of(strategy, over)  # type: ignore[arg-type]
    crashed = rewards_of(strategy, [({}, Status.CRASHED)] * 2)
    assert min(rewarded) > slightly > greatly > max(crashed)


def test_a_product_is_taken_to_its_limit_where_a_value_is_0() -> None:
    """An error of 0 is no reason to look elsewhere."""
    objectives = [Objective(name="error"), Objective(name="params")]
    strategy = made(objectives=objectives, reward={"error": -1.0, "params": -0.07})
    rows = [({"error": error, "params": 1e4}, Status.OK) for error in (0.5, 0.1, 0.0)]
    half, tenth, none = rewards_of(strategy, rows)  # type: ignore[arg-type]
    assert half < tenth
    assert none == tenth, "the highest so far"
    steep = made(objectives=PRODUCT, reward={"accuracy": 2.0, "ms": -1.0})
    rows = [({"accuracy": 1e200, "ms": 1.0}, Status.OK), ({"accuracy": 2.0, "ms": 1.0}, Status.OK)]
    assert rewards_of(steep, rows) == pytest.approx([4.0, 4.0])  # type: ignore[arg-type]


def test_several_objectives_are_rewarded_by_front_and_crowding() -> None:
    strategy = made(objectives=PRODUCT)
    ok = Status.OK
    rows = [
        ({"accuracy": 0.9, "ms": 10.0}, ok),
        ({"accuracy": 0.8, "ms": 12.0}, ok),
        ({"accuracy": 0.7, "ms": 15.0}, ok),
    ]
    assert rewards_of(strategy, rows) == [1.0, 0.5, 0.0]  # type: ignore[arg-type]


def test_rewards_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match=r"strategy\.reward\.size: is no objective; allowed: acc"):
        made(objectives=PRODUCT, reward={"size": 1.0})
    with pytest.raises(UserError, match=r"ms: is 0\.5, but the goal of ms is min; must be below"):
        made(objectives=PRODUCT, reward={"ms": 0.5})
    with pytest.raises(UserError, match=r"y: is 0, but the goal of accuracy is max; must be above"):
        made(objectives=PRODUCT, reward={"accuracy": 0.0})
    with pytest.raises(UserError, match="is empty"):
        made(reward={})


def test_the_unit_of_an_objective_makes_no_difference() -> None:
    first, second = made(seed=2, population=8), made(seed=2, population=8)
    for _ in range(6):
        assert told(first, sum) == told(second, lambda genes: 1000.0 * sum(genes))


def test_torch_is_left_as_it_was() -> None:
    """Its global generator, and how many threads it has, which are others' to choose."""
    torch.set_num_threads(2)
    before = torch.random.get_rng_state()
    strategy = made()
    for _ in range(3):
        told(strategy, sum)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == 2
    torch.manual_seed(1)
    first = parameters(made(seed=3))
    torch.manual_seed(2)
    second = parameters(made(seed=3))
    assert all(torch.equal(p, second[name]) for name, p in first.items())
