"""`evonas.search`: a search from Python with any function."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

import evonas
from evonas import Constraint, Objective
from evonas.core import Params, SearchFailed, UserError
from evonas.protocols import Need, Setting
from evonas.strategies.nsga2 import NSGA2, NSGA2Params
from evonas.strategies.random import Random, RandomParams
from genomes import Gene, Genome, NASBench201, SearchSpace

SPACE = NASBench201()


def counted(genome: Genome) -> Mapping[str, float]:
    return {"convs": genome.genes.count(3), "skips": genome.genes.count(1)}


def test_a_function_is_all_that_a_search_needs() -> None:
    found = evonas.search(
        "nasbench201",
        evaluate=counted,
        objectives=[("convs", "max"), "skips"],
        strategy={"name": "nsga2", "population": 12},
        generations=6,
        seed=1,
    )
    assert len(found.evaluations) == 72
    assert len(found.generations) == 6
    assert found.best == found.genomes[0]
    assert [genome.text for genome in found.genomes] == found.front["genes"].tolist()
    best = found.evaluations["convs"].max()
    assert found.front["convs"].max() == best
    assert found.generations["convs_best"].max() == best
    keys = found.evaluations.loc[~found.evaluations["cached"], "key"]
    assert keys.is_unique


@pytest.mark.parametrize("name", ["aging", "genetic", "local_search", "nsga3", "pso", "random"])
def test_every_strategy_can_be_named(name: str) -> None:
    found = evonas.search(
        SPACE, evaluate=counted, objectives=["skips"], strategy=name, evaluations=40
    )
    assert len(found.evaluations) >= 40
    assert found.front["skips"].min() == 0


def test_it_is_the_same_for_a_seed_and_takes_a_strategy_as_an_object() -> None:
    goals = [Objective(name="convs", goal="max")]
    made = NSGA2(NSGA2Params(population=6), Setting(SPACE, goals, seed=4))
    tables = [
        evonas.search(
            SPACE, evaluate=counted, objectives=goals, strategy=strategy, generations=4, seed=4
        ).evaluations
        for strategy in (made, {"name": "nsga2", "population": 6})
    ]
    pd.testing.assert_frame_equal(*tables)


def test_exceptions_are_crashes_and_constraints_spare_the_evaluation() -> None:
    called = []

    def fragile(genome: Genome) -> Mapping[str, float]:
        called.append(genome)
        if genome.genes[0] == 0:
            raise RuntimeError("no luck")
        return {"loss": float(np.sum(genome.genes))}

    found = evonas.search(
        SPACE,
        evaluate=fragile,
        cheap=lambda genome: {"size": float(genome.genes.count(3))},
        objectives=["loss"],
        constraints=[{"name": "size", "max": 1}, Constraint(name="loss", max=15)],
        evaluations=60,
    )
    assert {"ok", "crashed", "infeasible"} <= set(found.evaluations["status"])
    assert all(genome.genes.count(3) <= 1 for genome in called)
    assert (found.front["loss"] <= 15).all()
    told = found.evaluations.groupby("status")["message"].unique()
    [message] = told["crashed"]
    assert re.fullmatch(r"RuntimeError: no luck \(\S*test_api.py, line \d+\)", message)
    assert told["ok"].tolist() == [""]


def test_a_function_that_always_fails_ends_the_search_and_says_how() -> None:
    with pytest.raises(SearchFailed, match="evaluate returned convs, skips, without skipz"):
        evonas.search(SPACE, evaluate=counted, objectives=["skipz"], generations=5)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ({"loss": float("nan")}, "diverged: loss is nan"),
        (0.5, "crashed: TypeError: 0.5 is not a mapping from metrics to numbers"),
    ],
)
def test_a_short_search_in_which_all_fail_has_failed(returned: Any, told: str) -> None:
    match = f"the 3 evaluations all failed, 3 of them: {told}"
    strategy = {"name": "random", "population": 3}
    with pytest.raises(SearchFailed, match=match):
        evonas.search(
            SPACE,
            evaluate=lambda genome: returned,
            objectives=["loss"],
            strategy=strategy,
            generations=1,
        )


def test_one_answer_that_is_amiss_is_a_fault_of_its_candidate_alone() -> None:
    answers = iter([{"loss": 1}, {"loss": 10**400}, {"loss": 2, "seed": 3}, {}, {"size": 1}])
    found = evonas.search(
        SearchSpace("five/v1", [Gene("g", tuple("abcde"))]),
        evaluate=lambda genome: {"size": 1, **next(answers)},
        objectives=["loss"],
        constraints=[{"name": "size", "max": 3}],
        strategy="exhaustive",
        evaluations=5,
    )
    statuses = found.evaluations["status"].tolist()
    assert statuses == ["ok", "diverged", "crashed", "crashed", "crashed"]
    assert "seed is a column that the tables have" in found.evaluations["message"][2]
    assert "evaluate returned size, without loss" in found.evaluations["message"][3]
    assert not found.evaluations.columns.duplicated().any()


def test_a_search_without_a_feasible_network_ends_without_a_front() -> None:
    found = evonas.search(
        SPACE,
        evaluate=counted,
        objectives=["skips"],
        constraints=[{"name": "skips", "max": -1}],
        generations=1,
    )
    assert found.best is None
    assert (found.evaluations["status"] == "infeasible").all()


def test_a_space_of_ones_own_in_a_line() -> None:
    space = SearchSpace("mine/v1", [Gene("depth", ("1", "2", "3")), Gene("width", ("8", "16"))])
    found = evonas.search(
        space,
        evaluate=lambda genome: {
            "cost": int(space.choice(genome, 0)) * int(space.choice(genome, 1))
        },
        objectives=["cost"],
        strategy="exhaustive",
        evaluations=100,
    )
    assert len(found.evaluations) == 6
    assert found.best is not None
    assert found.front["cost"].tolist() == [8]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"strategy": "agin"}, "did you mean 'aging'"),
        (
            {"strategy": {"name": "aging", "population": 1}},
            "^strategy.population: is 1; must be at least 2",
        ),
        ({"strategy": {"name": "genetic", "crossover": "no.py:mine"}}, "no.py: No such file"),
        ({"space": "nasbench202"}, "did you mean 'nasbench201'"),
        ({"space": "table"}, "^space.genes: is missing; give "),
        ({"objectives": []}, "^objectives: is empty; give at least 1"),
        ({"objectives": [("skips", "least")]}, "^objectives.0.goal: is 'least'; allowed: 'min' or"),
        ({"objectives": [("skips", "min", 3)]}, "^objectives.0: is .*; must be a mapping"),
        (
            {"objectives": ["skips", "skips"]},
            "^objectives.1.name: skips is listed twice; list it once",
        ),
        ({"objectives": ["status"]}, "^objectives.0.name: status is a column that the tables"),
        ({"constraints": [{"name": "seed", "max": 3}]}, "^constraints.0.name: seed is a column"),
        ({"constraints": [{"name": "skips"}]}, "^constraints.0: has no bound; give min, max"),
        (
            {"constraints": [{"name": "sise", "max": 1}]},
            "^constraints: nothing measures sise; allowed: convs, skips",
        ),
        ({"evaluate": lambda genome: {"skips": 1, "key": 2}}, "^key is a column that the tables"),
        ({"evaluate": lambda genome: {"skips": 1, "": 2}}, "^'' cannot be the name of a column"),
        ({"cheap": lambda genome: {"cached": 2}}, "^cached is a column that the tables have"),
        ({"constraints": [{"name": "skips", "most": 3}]}, "^constraints.0.most: unknown key"),
        ({"generations": None}, "^a search needs a limit; give at least one of generations, ev"),
    ],
)
def test_mistakes_are_told(change: dict[str, object], told: str) -> None:
    given: dict[str, object] = {
        "space": SPACE,
        "evaluate": counted,
        "objectives": ["skips"],
        "generations": 2,
        **change,
    }
    with pytest.raises(UserError, match=told):
        evonas.search(given.pop("space"), **given)  # type: ignore[arg-type]


class StepsParams(Params):
    size: int = 3


class Steps(Random):
    """A strategy of one's own, defined in a notebook."""

    Params: Any = StepsParams

    def __init__(self, params: Any, setting: Setting) -> None:
        super().__init__(RandomParams(population=params.size), setting)


class Trains(Steps):
    needs = frozenset({Need.DATA})


def sizes(strategy: Any) -> list[int]:
    found = evonas.search(
        NASBench201(),
        evaluate=lambda genome: {"loss": float(sum(genome.genes))},
        objectives=["loss"],
        strategy=strategy,
        generations=2,
    )
    return found.evaluations.groupby("generation").size().tolist()


def test_a_strategy_is_a_name_a_class_a_mapping_or_an_object() -> None:
    assert sizes({"name": "random", "population": 2}) == [2, 2]
    assert sizes(Steps) == [3, 3]
    assert sizes({"name": Steps, "size": 4}) == [4, 4]
    goals = (Objective(name="loss"),)
    assert sizes(Steps(StepsParams(size=5), Setting(NASBench201(), goals))) == [5, 5]


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        ({"name": Steps, "sise": 4}, "Steps: sise: is 4: .*; keys of Steps: size"),
        ({"name": Steps, "size": "many"}, "Steps: size: is 'many'"),
        (int, "int has no Params, needs; evonas.protocols.StrategyClass says"),
        (3, "int has no ask, tell, state_dict, load_state_dict"),
        (None, "NoneType has no ask"),
        (Trains, "strategy: Trains trains on images, and this search has none"),
    ],
)
def test_what_is_wrong_with_a_strategy_is_told_in_words(strategy: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        sizes(strategy)


def test_dir_lists_what_there_is() -> None:
    assert {"search", "space", "metric", "SearchResult", "evolve"} <= set(dir(evonas))
    assert all(hasattr(evonas, name) for name in dir(evonas))


# What is shown, and where a function raised


def deeper(genome: Genome) -> float:
    return float(np.linalg.inv(np.zeros((2, 2)))[0, 0])  # raises, within NumPy


def raising(genome: Genome) -> Mapping[str, float]:
    if genome.genes[0] == 0:
        return {"loss": deeper(genome)}
    return {"loss": float(sum(genome.genes))}


@pytest.mark.parametrize("where", ["evaluate", "cheap"])
def test_a_function_that_raises_is_told_with_its_place_and_its_whole_traceback(where: str) -> None:
    given: dict[str, Any] = {"evaluate": raising}
    if where == "cheap":
        given = {"evaluate": counted, "cheap": raising}
        given["constraints"] = [{"name": "loss", "max": 100}]
    goal = "loss" if where == "evaluate" else "skips"
    found = evonas.search(SPACE, objectives=[goal], generations=2, **given)
    crashed = found.evaluations[found.evaluations["status"] == "crashed"]
    line = deeper.__code__.co_firstlineno + 1
    place = rf"LinAlgError: Singular matrix \(\S*test_api.py, line {line}\)"
    assert len(crashed)
    assert crashed["message"].str.fullmatch(place).all()
    assert set(crashed["key"]) == set(found.tracebacks)
    for text in found.tracebacks.values():
        assert "in raising" in text
        assert "in deeper" in text
        assert text.strip().endswith("LinAlgError: Singular matrix")


def test_a_search_that_fails_is_caused_by_what_the_function_raised() -> None:
    with pytest.raises(SearchFailed, match=UNLUCKY) as failed:
        evonas.search(SPACE, evaluate=unlucky, objectives=["loss"], generations=1)
    assert isinstance(failed.value.__cause__, RuntimeError)
    assert failed.traceback[-1].path.name == "archive.py"


UNLUCKY = r"no luck \(\S*test_api.py, line \d+\); fix the cause, then start again$"


def unlucky(genome: Genome) -> Mapping[str, float]:
    raise RuntimeError("no luck")


def test_a_result_is_shown_in_a_line_and_in_a_notebook_as_its_front() -> None:
    found = evonas.search(
        SPACE,
        evaluate=lambda genome: {"<b>": counted(genome)["convs"]},
        objectives=[("<b>", "max")],
        constraints=[{"name": "<b>", "max": 2}],
        strategy={"name": "random", "population": 4},
        generations=2,
    )
    text = repr(found)
    infeasible = (found.evaluations["status"] == "infeasible").sum()
    in_all = "8 evaluations in 2 generations"
    in_all += f" ({infeasible} infeasible)" if infeasible else ""
    assert text.startswith(f"<SearchResult: {in_all}, front of {len(found.front)}, best |")
    assert text.endswith(f": <b> {found.front['<b>'][0]}>")
    assert len(text) < 200
    html = found._repr_html_()
    assert "<b>SearchResult</b>" in html
    assert "&lt;b&gt;" in html
    assert found.front["key"][0] in html


def test_strategies_and_seeds_are_compared_in_one_call() -> None:
    given: dict[str, Any] = {"evaluate": counted, "generations": 4}
    strategies = {"nsga": {"name": "nsga2", "population": 8}, "rs": "random"}
    both = evonas.compare(
        SPACE, objectives=[("convs", "max"), "skips"], strategies=strategies, seeds=2, **given
    )
    assert both.runs["strategy"].tolist() == ["nsga", "nsga", "rs", "rs"]
    assert both.runs["seed"].tolist() == [0, 1, 0, 1]
    assert both.measure == "hypervolume"
    one = evonas.compare(
        SPACE, objectives=[("convs", "max")], strategies=["random", "aging"], seeds=[4, 2], **given
    )
    for (strategy, seed), found in one.results.items():
        row = one.runs[(one.runs["strategy"] == strategy) & (one.runs["seed"] == seed)].iloc[0]
        assert row["convs"] == found.evaluations["convs"].max()
        alone = evonas.search(
            SPACE, objectives=[("convs", "max")], strategy=strategy, seed=seed, **given
        )
        pd.testing.assert_frame_equal(found.evaluations, alone.evaluations)
    summary = one.summary.set_index("strategy")
    means = one.runs.groupby("strategy")["convs"].mean()
    assert summary["mean"].to_dict() == means.to_dict()
    assert summary["n"].tolist() == [2, 2]
    assert np.isnan(summary["p"]["random"])
    assert 0 < summary["p"]["aging"] <= 1
    assert repr(one) == "<Comparison: 2 strategies, 2 seeds each, by convs>"
    assert "random" in one._repr_html_()


def test_hypervolumes_are_compared_from_one_point() -> None:
    """The worst of all searches: the front of a search that found no more adds nothing."""
    space = SearchSpace("four/v1", [Gene("g", tuple("abcd"))])
    values = [(1, 3), (2, 2), (3, 1), (4, 4)]
    strategies = {"all": "exhaustive", "first": {"name": "exhaustive", "population": 1}}
    both = evonas.compare(
        space,
        evaluate=lambda genome: dict(zip(("a", "b"), values[genome.genes[0]], strict=True)),
        objectives=["a", {"name": "b", "reference": 4.0}],
        strategies=strategies,
        seeds=1,
        generations=1,
    )
    volumes = dict(zip(both.runs["strategy"], both.runs["hypervolume"], strict=True))
    assert volumes["all"] == 6


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = "import sys, evonas; dir(evonas); sys.exit(bool({'torch', 'pandas'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_search_ends_by_the_clock_or_when_nothing_gets_better() -> None:
    def first_best(genome: Genome) -> dict[str, float]:
        return {"loss": 1.0}

    arguments = {"objectives": ["loss"], "strategy": {"name": "random", "population": 3}}
    stagnant = evonas.search("nasbench201", evaluate=first_best, stagnation=4, **arguments)
    assert len(stagnant.generations) == 5

    def slow(genome: Genome) -> dict[str, float]:
        time.sleep(0.05)
        return {"loss": 1.0}

    timed = evonas.search("nasbench201", evaluate=slow, seconds=0.2, **arguments)
    hurried = evonas.search("nasbench201", evaluate=slow, seconds=1e-6, **arguments)
    assert len(hurried.generations) == 1
    assert len(timed.generations) == 2  # of 3 evaluations, 0.05 s each
    with pytest.raises(UserError, match="seconds"):
        evonas.search("nasbench201", evaluate=slow, seconds=-1, **arguments)


def test_a_warm_search_begins_with_the_best_of_a_pool_by_what_is_cheap() -> None:
    given: dict[str, Any] = {
        "evaluate": counted,
        "cheap": lambda genome: {"sum": sum(genome.genes)},
        "objectives": ["skips"],
        "strategy": {"name": "genetic", "population": 6, "seeds": ["0-0-0-0-0-0"]},
        "generations": 1,
    }
    pool: dict[str, Any] = {"by": ["-sum"], "pool": 100, "share": 0.5}
    found = evonas.search(SPACE, warm_start=pool, **given).evaluations
    assert found["origin"].tolist() == ["seed"] + ["warm_start"] * 3 + ["sampled"] * 2
    best = found["sum"].tolist()[1:4]
    assert best == sorted(best)
    assert best[-1] < 7, "the best of 100 networks, of which most have a sum of 12"
    cold = evonas.search(SPACE, **given).evaluations
    assert cold["origin"].tolist() == ["seed"] + ["sampled"] * 5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cheap": None}, "warm_start: ranks networks by what is known without evaluating them"),
        ({"warm_start": {"by": ["size"]}}, "warm_start.by.0: unknown metric to rank by 'size'"),
        ({"warm_start": {"pool": 10}}, "warm_start.by: is missing"),
        ({"warm_start": 3}, "warm_start"),
        ({"strategy": "random"}, "the strategy does not take the networks that it begins with"),
        (
            {"strategy": Random(RandomParams(), Setting(SPACE, ()))},
            "must be a name, a class or a mapping, of which warm_start makes one",
        ),
    ],
)
def test_mistakes_of_a_warm_start_are_told(change: dict[str, Any], told: str) -> None:
    given: dict[str, Any] = {
        "evaluate": counted,
        "cheap": lambda genome: {"sum": sum(genome.genes)},
        "warm_start": {"by": ["sum"], "pool": 10},
        "objectives": ["skips"],
        "generations": 1,
    }
    with pytest.raises(UserError) as raised:
        evonas.search(SPACE, **{**given, **change})
    assert told in str(raised.value)


def test_what_a_pool_raises_is_the_cause_of_the_end() -> None:
    def broken(genome: Genome) -> Mapping[str, float]:
        raise KeyError("size")

    with pytest.raises(SearchFailed, match="none of the 10 networks of the pool") as raised:
        evonas.search(
            SPACE,
            evaluate=counted,
            cheap=broken,
            objectives=["skips"],
            warm_start={"by": ["size"], "pool": 10},
            generations=1,
        )
    assert isinstance(raised.value.__cause__, KeyError)
