"""Random search."""

from __future__ import annotations

from evonas.core import Candidate, Evaluation, Objective
from evonas.protocols import Setting
from evonas.strategies.random import Random, RandomParams
from genomes.nasbench201 import NASBench201

SPACE = NASBench201()


def made(seed: int = 0, population: int = 50) -> Random:
    objectives = [Objective(name="val_error")]
    return Random(RandomParams(population=population), Setting(SPACE, objectives, seed=seed))


def generation(strategy: Random) -> list[str]:
    asked: list[Candidate] = strategy.ask()
    assert strategy.ask() == []  # until it is told
    strategy.tell([Evaluation(candidate, {"val_error": 0.5}) for candidate in asked])
    return [SPACE.key(candidate.genome) for candidate in asked]


def test_no_network_is_drawn_twice() -> None:
    strategy = made()
    keys = [key for _ in range(20) for key in generation(strategy)]
    assert len(set(keys)) == len(keys) == 1000


def test_draws_depend_on_the_seed_and_go_on_from_a_saved_state() -> None:
    first, other = made(), made(seed=1)
    head = generation(first)
    assert head != generation(other)
    resumed = made(seed=2)
    resumed.load_state_dict(first.state_dict())
    assert generation(resumed) == generation(first) != head
