"""The strategy that asks a model which of many offspring to evaluate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from evonas import pareto
from evonas.core import Candidate, Constraint, Evaluation, Objective, Status, UserError
from evonas.protocols import Setting
from evonas.strategies import _acquisition as acquisition
from evonas.strategies._history import History
from evonas.strategies.predictor import Predictor, PredictorParams, rank_correlation
from genomes import Gene, Genome, NASBench201, SearchSpace, Verbatim
from tests.helpers.tables import genes_of, nasbench201, needs_table

ERROR = (Objective(name="error"),)
WIDE = SearchSpace("wide/v1", [Gene(f"g{i}", tuple("wxyz")) for i in range(8)])


def error(genome: Genome) -> float:
    """Least at all genes 2, with a bonus for equal neighbours."""
    genes = np.array(genome.genes)
    return float(((genes - 2) ** 2).sum() - 0.5 * (genes[1:] == genes[:-1]).sum())


def searched(strategy: Predictor, generations: int) -> list[Evaluation]:
    evaluations = []
    for _ in range(generations):
        batch = [Evaluation(each, {"error": error(each.genome)}) for each in strategy.ask()]
        strategy.tell(batch)
        evaluations += batch
    return evaluations


def make(space: SearchSpace = WIDE, seed: int = 0, **settings: object) -> Predictor:
    return Predictor(PredictorParams(**settings), Setting(space, ERROR, (), seed))


@pytest.mark.parametrize(("model", "seeds"), [("gaussian_process", 3), ("trees", 1)])
def test_a_model_leads_to_better_networks_than_chance(model: str, seeds: int) -> None:
    for seed in range(seeds):
        found = [each.values["error"] for each in searched(make(seed=seed, model=model), 12)]
        drawn = [error(WIDE.sample(np.random.default_rng(seed))) for _ in range(len(found))]
        assert min(found) < min(drawn) - 1
    assert len(found) == 10 + 11 * 5


def test_a_process_finds_the_best_of_65536_networks_in_100() -> None:
    best = min(each.values["error"] for each in searched(make(), 19))
    assert best == error(WIDE.genome([2] * 8))


def test_the_first_generation_begins_with_seeds_and_is_as_large_as_told() -> None:
    strategy = make(initial=4, seeds=("2-2-2-2-2-2-2-2",), batch=3)
    assert strategy.params.founders == 4
    first = strategy.ask()
    assert [each.origin for each in first] == ["seed", "sampled", "sampled", "sampled"]
    strategy.tell([Evaluation(each, {"error": error(each.genome)}) for each in first])
    assert len(strategy.ask()) == 3
    with pytest.raises(UserError, match=r"strategy\.seeds\.0"):
        make(seeds=("nothing",))
    with pytest.raises(ValueError, match="at most as many as initial"):
        PredictorParams(initial=1, seeds=("a", "b"))


def test_no_network_is_asked_for_twice_and_none_twice_in_a_batch_by_its_features() -> None:
    space = Verbatim(NASBench201())
    strategy = make(space, random_share=0.0)
    keys: list[str] = []
    for _ in range(8):
        batch = strategy.ask()
        keys += [space.key(each.genome) for each in batch]
        if len(keys) > 10:
            features = {tuple(space.features(each.genome).tolist()) for each in batch}
            assert len(features) == len(batch)
        strategy.tell([Evaluation(each, {"error": error(each.genome)}) for each in batch])
    assert len(set(keys)) == len(keys)


def test_a_share_is_drawn_at_random_whatever_the_model_says() -> None:
    every = [each.candidate for each in searched(make(random_share=1.0), 6)]
    assert {each.origin for each in every} == {"sampled"}
    few = [each.candidate for each in searched(make(random_share=0.0, offspring=400), 6)][10:]
    assert np.mean([each.origin == "sampled" for each in few]) < 0.5


def test_a_space_that_is_used_up_is_asked_to_its_end() -> None:
    tiny = SearchSpace("tiny/v1", [Gene("a", ("x", "y", "z")), Gene("b", ("x", "y"))])
    strategy = make(tiny, initial=2, batch=3)
    asked = {each.candidate.genome for each in searched(strategy, 12)}
    assert len(asked) == tiny.size


def test_predictions_are_told_before_the_answers_and_kept_beside_them() -> None:
    strategy = make()
    assert strategy.trace() == {}
    searched(strategy, 1)
    assert strategy.trace() == {"predictions": [], "predictor": []}
    searched(strategy, 9)
    batch = strategy.ask()
    predicted = strategy.predicted[0].mean.tolist()
    strategy.tell([Evaluation(each, {"error": error(each.genome)}) for each in batch])
    rows, [summary] = strategy.trace()["predictions"], strategy.trace()["predictor"]
    assert [row["key"] for row in rows] == [WIDE.key(each.genome) for each in batch]
    assert [row["predicted"] for row in rows] == predicted
    measured = [error(each.genome) for each in batch]
    assert [row["measured"] for row in rows] == measured
    expected = rank_correlation(np.array(predicted), np.array(measured))
    assert summary["rank_correlation"] == expected


def test_what_failed_or_is_infeasible_is_worse_than_all_else_and_bounded() -> None:
    bound = Constraint(name="size", max=2.0)
    history = History((Objective(name="score", goal="max"),), (bound,))
    genome = Candidate(WIDE.genome([0] * 8))
    history.add(
        [
            Evaluation(genome, {"score": 5.0, "size": 1.0}),
            Evaluation(genome, {"score": 9.0, "size": 4.0}, Status.INFEASIBLE),
            Evaluation(genome, {"score": 1.0, "size": 2.0}),
            Evaluation(genome, {"score": 99.0, "size": 3.0}, Status.INFEASIBLE),
            Evaluation(genome, {}, Status.CRASHED),
            Evaluation(genome, {"score": math.nan, "size": 1.0}),
        ]
    )
    targets = history.targets()[:, 0]
    assert targets[[0, 2]].tolist() == [-5.0, -1.0]
    assert -1 < targets[3] < targets[1] < targets[4] == targets[5] == -1 + 2 * 4
    assert history.best(4) == [0, 2, 3, 1]
    assert history.middles() == [-3.0]


def test_all_that_is_on_the_front_counts_however_unusual() -> None:
    goals = (Objective(name="error"), Objective(name="size"))
    history, genome = History(goals, ()), Candidate(WIDE.genome([0] * 8))
    usual = [(9.0, 1.0), (8.0, 1.1), (7.0, 1.2), (6.0, 1.3), (50.0, 1.5)]
    for error, size in [*usual, (2.0, 40.0), (3.0, 60.0)]:
        history.add([Evaluation(genome, {"error": error, "size": size})])
    error, size = history.reference()
    assert 9.0 < error < 50.0, "the last that count are a little beyond the front"
    assert 40.0 < size < 60.0


def test_a_state_of_many_evaluations_is_short_and_goes_on_the_same() -> None:
    strategy, other = make(), make(seed=5)
    searched(strategy, 5)
    other.load_state_dict(strategy.state_dict())
    assert [each.genome for each in strategy.ask()] == [each.genome for each in other.ask()]


def test_an_expected_improvement_is_that_of_an_integral_and_does_not_vanish() -> None:
    mean, std = np.array([0.0, 1.0, 3.0]), np.array([1.0, 0.5, 0.3])
    x = np.linspace(-12, 0.4, 200_001)
    numeric = [
        np.trapezoid((0.4 - x) * norm.pdf(x, m, s), x) for m, s in zip(mean, std, strict=True)
    ]
    logs = acquisition.log_expected_improvement(mean, std, 0.4)
    assert np.allclose(np.exp(logs), numeric, rtol=1e-4, atol=1e-15)
    u = np.array([9.9, 10.0, 10.1, 40.0, 400.0])
    tail = acquisition.log_expected_improvement(u, np.ones(5), 0.0)
    assert np.isfinite(tail).all()
    assert (np.diff(tail) < 0).all()
    assert abs((tail[0] - tail[1]) - (tail[1] - tail[2])) < 0.05  # the formulas meet


def test_an_expected_gain_of_hypervolume_is_that_of_an_integral() -> None:
    losses = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 0.5], [2.5, 2.5], [9.0, 0.0]])
    reference = np.array([4.0, 4.0])
    mean, std = np.array([[1.5, 1.5]]), np.array([[0.8, 0.6]])
    before = pareto.hypervolume(losses[:4], reference.tolist())

    xs, ys = np.linspace(-2.5, 4.0, 131)[:-1] + 0.025, np.linspace(-1.5, 4.0, 111)[:-1] + 0.025
    numeric = sum(
        (pareto.hypervolume(np.vstack([losses[:4], [x, y]]), reference.tolist()) - before)
        * float(norm.pdf(x, 1.5, 0.8) * norm.pdf(y, 1.5, 0.6))
        for x in xs
        for y in ys
    )
    [exact] = acquisition.expected_hypervolume_gain(mean, std, losses, reference)
    assert exact == pytest.approx(0.05 * 0.05 * numeric, rel=0.01)


def test_a_gain_is_certain_where_there_is_no_doubt() -> None:
    losses, reference = np.array([[1.0, 1.0]]), np.array([2.0, 2.0])
    means = np.array([[0.5, 1.5], [1.5, 1.5], [0.5, 0.5]])
    gains = acquisition.expected_hypervolume_gain(means, np.full((3, 2), 1e-9), losses, reference)
    assert np.allclose(gains, [0.25, 0.0, 1.25])
    empty = acquisition.expected_hypervolume_gain(
        means, np.full((3, 2), 1e-9), np.zeros((0, 2)), reference
    )
    assert np.allclose(empty, [0.75, 0.25, 2.25])


@pytest.mark.slow
@needs_table
def test_the_best_cell_of_nasbench201_is_found_in_few_queries() -> None:
    space = Verbatim(NASBench201())
    table = nasbench201()
    losses = dict(zip(map(genes_of, table["genome"]), 100 - table["val200_cifar10"], strict=True))
    counts = []
    for seed in range(5):
        strategy, asked = make(space, seed=seed), list[float]()
        while min(losses.values()) not in asked:
            batch = [
                Evaluation(each, {"error": losses[each.genome.genes]}) for each in strategy.ask()
            ]
            strategy.tell(batch)
            asked += [each.values["error"] for each in batch]
            assert len(asked) < 150
        counts.append(len(asked))
    assert np.median(counts) <= 50


@pytest.mark.parametrize("count", [2, 3, 8])
def test_several_objectives_lead_to_a_larger_front_than_chance(count: int) -> None:
    goals = tuple(Objective(name=f"m{i}") for i in range(count))
    optima = np.random.default_rng(1).integers(0, 4, size=(count, 8))

    def answer(candidate: Candidate) -> Evaluation:
        away = np.abs(np.array(candidate.genome.genes) - optima).sum(axis=1)
        return Evaluation(candidate, {f"m{i}": float(x) for i, x in enumerate(away)})

    strategy = Predictor(PredictorParams(offspring=200), Setting(WIDE, goals, (), 0))
    found: list[Evaluation] = []
    for _ in range(9):
        batch = [answer(each) for each in strategy.ask()]
        strategy.tell(batch)
        found += batch
    rng = np.random.default_rng(2)
    drawn = [answer(Candidate(WIDE.sample(rng))) for _ in found]
    reached, chance = (
        pareto.hypervolume(pareto.losses(each, goals), [16.0] * count) for each in (found, drawn)
    )
    assert reached > 1.05 * chance
