"""Successive halving: many short trainings, of which the best go on, around any strategy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, SerializeAsAny

from evonas import own_classes, pareto, registry
from evonas.core import Budget, Candidate, Evaluation, Params, Requirement, State, UserError
from evonas.protocols import HasRungs, Need, Setting, SteadyState, Strategy, Traced
from evonas.strategies.asha import PROMOTED, AsynchronousHalving, Result, best
from evonas.strategies.generational import plain, restored
from evonas.strategies.genetic import GeneticParams


class HalvingParams(Params):
    PARTS: ClassVar[Mapping[str, str]] = {"strategy": "strategies"}

    name: Literal["halving"] = "halving"
    strategy: SerializeAsAny[Params] = Field(default_factory=GeneticParams)
    """The strategy that proposes the networks, with its own settings."""
    factor: Annotated[float, Field(gt=1, le=10_000)] = 3.0
    """How many times longer each rung trains than the one below it; of the networks there, one of
    so many goes on. The longest rung is the experiment's `budget`."""
    min_budget: Annotated[float, Field(gt=0, le=100_000_000)] = 1.0
    """The shortest training that may be a rung, in the unit of `budget`."""

    def model_post_init(self, context: object) -> None:
        name = registry.name_of(self.strategy)
        if isinstance(self.strategy, HasRungs):
            problem = f"is {name}, which gives its candidates budgets itself"
            raise Requirement("choose a strategy that does not", "strategy", problem)
        if {Need.DATA, Need.OPS} & registry.strategy(name).needs:
            problem = f"is {name}, whose candidates are not trained one by one"
            raise Requirement("choose another strategy", "strategy", problem)

    def anchored(self, folder: Path) -> Self:
        return self.model_copy(update={"strategy": self.strategy.anchored(folder)})

    def own_files(self) -> tuple[str, ...]:
        return self.strategy.own_files()

    def rungs(self, budget: Budget) -> tuple[Budget, ...]:
        """Return the budgets of the rungs, the shortest first; all have the horizon of the last.

        They are `budget` / `factor`^k, rounded to whole epochs or steps.

        Raises:
            UserError: the budget is in seconds, or leaves no shorter rung.
        """
        if not budget.deterministic:
            problem = "is in seconds, in which no training can be told to go on exactly"
            raise UserError(problem, hint="give epochs or steps for halving", key="budget")
        amounts = [int(budget.amount)]
        while (amount := budget.amount / self.factor ** len(amounts)) >= self.min_budget:
            if round(amount) in (amounts[0], 0):
                break
            amounts.insert(0, round(amount))
        if len(amounts) == 1:
            problem = f"is {budget.text}, which leaves no shorter rung"
            hint = "raise it, or lower strategy.factor or strategy.min_budget"
            raise UserError(problem, hint=hint, key="budget")
        below = [{budget.unit: amount, "horizon": budget.whole} for amount in amounts[:-1]]
        return (*map(Budget.model_validate, below), budget)


class Halving:
    """Trains the candidates of another strategy briefly, and goes on with the best of them.

    If that strategy has generations, each is halved on its own (successive halving, Jamieson and
    Talwalkar, 2016): all candidates are trained under the shortest budget; of n networks on a rung,
    the best n / `factor`, at least one, go on to the next (`SuccessiveHalving`). If it asks for one
    candidate after the other, as `aging`, candidates go on by themselves (`AsynchronousHalving`;
    ASHA, Li et al., 2020). The best are those by `pareto.preference` or, of a generation with
    several objectives, those that add most to the hypervolume of what has gone on (`spread`).

    The strategy inside is told each candidate once, with the values of the longest training that it
    had, as they are.
    """

    Params = HalvingParams
    needs: ClassVar[frozenset[Need]] = frozenset({Need.BUDGET})

    def __new__(cls, params: HalvingParams, setting: Setting) -> Strategy:  # type: ignore[misc]  # it is one of two
        if setting.budget is None:
            raise UserError("is missing", hint="halving needs a budget in epochs", key="budget")
        rungs = params.rungs(setting.budget)
        kind, inner_params = own_classes.imported(params.strategy) or (
            registry.strategy(registry.name_of(params.strategy)),
            params.strategy,
        )
        inner = kind(inner_params, setting)
        if isinstance(inner, SteadyState):
            return AsynchronousHalving(params.factor, setting, inner, rungs)
        return SuccessiveHalving(params.factor, setting, inner, rungs)


class SuccessiveHalving:
    """Successive halving within each generation of a strategy (Li et al., 2018, algorithm 1).

    Each rung of a generation is a generation of the search. A network that the strategy proposes
    twice, or again, is trained once; it takes one place on a rung.
    """

    def __init__(
        self, factor: float, setting: Setting, inner: Strategy, rungs: Sequence[Budget]
    ) -> None:
        self.factor = factor
        self.space = setting.space
        self.objectives = setting.objectives
        self.constraints = setting.constraints
        self.inner = inner
        self.rungs = tuple(rungs)
        # By key, the losses of those that have gone on from each rung, with several objectives.
        self.gone_on: list[dict[str, list[float]]] = [{} for _ in self.rungs[1:]]
        self.before: State = {}  # from before the strategy inside proposed the generation
        self.proposed: list[Candidate] = []
        self.longest: dict[str, Evaluation] = {}  # of the generation, by key
        self.told: list[list[State]] = []  # the answers of each rung of the generation so far
        self.next: list[Candidate] = []  # that have been promoted, and not asked for yet
        self.out: list[Candidate] = []
        self.has_trace = False

    def ask(self) -> list[Candidate]:
        if self.out:
            return []
        self.out = self.next or self._new_generation()
        self.next = []
        return list(self.out)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        if not self.out or len(evaluations) != len(self.out):
            raise ValueError(f"asked for {len(self.out)} evaluations, told {len(evaluations)}")
        asked, self.out = self.out, []
        self.told.append(plain(evaluations))
        here = {self.space.key(e.candidate.genome): e for e in evaluations}
        self.longest |= here
        rung = len(self.told)
        if rung < len(self.rungs):
            self.next = self._promoted(asked, here, rung)
        if not self.next:
            self._end_generation()

    def pending(self) -> list[Candidate]:
        """Return the trainings that may go on (`protocols.Continues`)."""
        return [replace(candidate, budget=candidate.after) for candidate in self.next]

    @property
    def TRACES(self) -> Mapping[str, Sequence[str]]:  # noqa: N802  # as in `protocols.Traced`
        return self.inner.TRACES if isinstance(self.inner, Traced) else {}

    def trace(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Return the rows of the strategy inside, for the last rung of each of its generations."""
        has_trace, self.has_trace = self.has_trace, False
        return self.inner.trace() if has_trace and isinstance(self.inner, Traced) else {}

    def state_dict(self) -> State:
        if self.out:
            raise ValueError("a rung is out: tell its evaluations before taking the state")
        before = self.before if self.told else self._between()
        return {**before, "told": list(self.told)}

    def load_state_dict(self, state: State) -> None:
        """Continue from a state: the strategy inside proposes the same generation once more."""
        self.inner.load_state_dict(state["inner"])
        self.gone_on = [dict(rung) for rung in state["gone_on"]]
        self.told, self.next, self.out, self.longest = [], [], [], {}
        for told in state["told"]:
            asked = self.ask()
            self.tell([replace(e, candidate=c) for c, e in zip(asked, restored(told), strict=True)])

    def _new_generation(self) -> list[Candidate]:
        self.before = deepcopy(self._between())
        self.proposed = self.inner.ask()
        return [replace(candidate, budget=self.rungs[0]) for candidate in self.proposed]

    def _between(self) -> State:
        """Return the state, but for the answers of the generation that is out."""
        return {"inner": self.inner.state_dict(), "gone_on": [dict(rung) for rung in self.gone_on]}

    def _promoted(
        self, asked: Sequence[Candidate], here: Mapping[str, Evaluation], rung: int
    ) -> list[Candidate]:
        """Return the best networks of a rung, with the budget of the next one."""
        firsts = {self.space.key(candidate.genome): candidate for candidate in reversed(asked)}
        results = {
            key: Result.of(answer, self.objectives, self.constraints)
            for key, answer in here.items()
        }
        count = max(math.floor(len(here) / self.factor), 1)
        budget, after = self.rungs[rung], self.rungs[rung - 1]
        return [
            replace(firsts[key], origin=PROMOTED, budget=budget, after=after)
            for key in self._chosen(results, rung - 1, count)
        ]

    def _chosen(self, results: Mapping[str, Result], rung: int, count: int) -> list[str]:
        """Return the keys of the best networks on a rung."""
        in_order = best(results)
        if len(self.objectives) == 1:
            return in_order[:count]
        losses = {
            key: list(results[key].standing[2:])
            for key in in_order
            if results[key].standing[0] == pareto.FEASIBLE
        }
        chosen = spread(losses, self.gone_on[rung], count)
        self.gone_on[rung] |= {key: losses[key] for key in chosen}
        return (chosen + [key for key in in_order if key not in losses])[:count]

    def _end_generation(self) -> None:
        """Tell the strategy inside the longest training of each of its candidates."""
        told = []
        for candidate in self.proposed:
            longest = self.longest[self.space.key(candidate.genome)]
            candidate = replace(candidate, budget=longest.candidate.budget)
            told.append(replace(longest, candidate=candidate))
        self.told, self.proposed, self.longest, self.before = [], [], {}, {}
        self.inner.tell(told)
        self.has_trace = True


def spread(
    losses: Mapping[str, Sequence[float]], before: Mapping[str, Sequence[float]], count: int
) -> list[str]:
    """Return the networks that add most to the hypervolume of those before, one after the other.

    Crowding would prefer the ends of the front in each generation anew, however well they are known
    (greedy hypervolume subset selection, Guerreiro et al., 2016). Each objective is scaled by its
    range; the reference point is a tenth beyond the worst.

    Args:
        losses: (m,) each, by key; if nothing is added, the order is theirs.
        before: the same, of networks that were chosen in earlier generations.
    """
    if not losses:
        return []
    everyone = np.array([*losses.values(), *before.values()], dtype=np.float64)
    span = np.ptp(everyone, axis=0)
    scaled = (everyone - everyone.min(axis=0)) / np.where(span > 0, span, 1.0)
    points = dict(zip(losses, scaled, strict=False))
    front = scaled[len(losses) :]
    front = front[pareto.is_on_front(front)]
    reference = [1.1] * scaled.shape[1]
    chosen: list[str] = []
    while points and len(chosen) < count:
        added = [pareto.hypervolume(np.vstack([front, p]), reference) for p in points.values()]
        key = list(points)[int(np.argmax(added))]
        front = np.vstack([front, points.pop(key)])
        chosen.append(key)
    return chosen
