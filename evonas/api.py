"""`evonas.search`: a search from Python, with any function as the evaluator."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from evonas import arguments, config, own_classes, plugins, registry
from evonas.api_training import Dispatches, Training
from evonas.consistency import check_warm_start, refuse_needs, refuse_training
from evonas.core import (
    Candidate,
    Constraint,
    Evaluation,
    Generation,
    Mistake,
    Objective,
    Params,
    SearchFailed,
    Status,
    Stop,
    UserError,
)
from evonas.evaluators.train import TrainEvaluator
from evonas.experiment import WarmStart, strategy_of
from evonas.jobs.warm_start import Pool, desk_of_pool
from evonas.loop import Desk, checked, evolve, numbers
from evonas.metrics import COUNTED, RESERVED, ZERO_COST, named, refused
from evonas.own import Build, OwnSpace
from evonas.protocols import Evaluator, Setting, SteadyState, Strategy, StrategyClass
from evonas.records import tables
from evonas.records.archive import Archive, known_references
from evonas.results import SearchResult
from evonas.traceback import place_of
from evonas.training.states import keep_pending
from genomes import Genome, SearchSpace

Evaluate = Callable[[Genome], Mapping[str, float]]
Goal = str | tuple[str, str] | Mapping[str, Any] | Objective
P = TypeVar("P", Objective, Constraint)


def search(
    space: SearchSpace | Build | str | Mapping[str, Any],
    *,
    evaluate: Evaluate | Training,
    objectives: Sequence[Goal],
    strategy: str | type | Mapping[str, Any] | Strategy = "genetic",
    constraints: Sequence[Constraint | Mapping[str, Any]] = (),
    cheap: Evaluate | None = None,
    warm_start: Mapping[str, Any] | WarmStart | None = None,
    generations: int | None = None,
    evaluations: int | None = None,
    seconds: float | None = None,
    stagnation: int | None = None,
    seed: int = 0,
) -> SearchResult:
    """Search a space for the genomes that are best by what a function measures.

    Equal networks are evaluated once, in their canonical spelling. If `evaluate` raises an
    exception, or returns something other than numbers, the candidate has the status `crashed`, and
    the message names the place in your code; if a number is NaN or infinite, `diverged`.

    Args:
        space: a space, a function that defines one (`evonas.space`), a name, which may be
            `FILE.py:NAME`, or a mapping with settings as in the YAML. In a mapping, `name` may be a
            function.
        evaluate: returns the metrics of a genome by name, each of which becomes a column; or
            `evonas.training_evaluator(...)`, which trains its network.
        objectives: for each, the name of a metric to minimise, or a pair such as `("accuracy",
            "max")`, or a mapping as in the YAML.
        strategy: a name, a mapping as in the YAML, a class of your own, or a strategy. In a
            mapping, `name` may be a class, and an operator a function. Paths of your own files, as
            in `crossover: ops.py:mine`, are relative to the working directory.
        constraints: mappings as in the YAML, such as `{"name": "params", "max": 1e6}`.
        cheap: returns the metrics that are known without an evaluation. A genome that violates a
            constraint on them is not evaluated. A training knows them by itself.
        warm_start: how the search begins with the best of a random pool, as in the YAML, such as
            `{"by": ["nwot"], "pool": 300}`. With a training, the pool is ranked by zero-cost
            proxies, `params` and `flops`; else by what `cheap` returns. The strategy must not be an
            object.
        generations, evaluations, seconds, stagnation: the limits of the search, as in the YAML's
            `stop`, at least one of them; the first reached ends it.
        seed: the seed of the search.

    Raises:
        UserError: an argument is invalid, or the first answer of `evaluate` names a metric like a
            column that the tables have already, or lacks one that a constraint bounds.
        SearchFailed: the last evaluations all failed, or all of a short search; it says why.
    """
    stop = _stop(generations, evaluations, seconds, stagnation)
    seed = arguments.whole("seed", seed)
    search_space, network = _space(space)
    goals = goals_of(objectives)
    listed = arguments.several("constraints", constraints, '[{"name": "params", "max": 1e6}]')
    bounds = _each("constraints", listed, Constraint)
    budget = evaluate.budget if isinstance(evaluate, Training) else None
    setting = Setting(search_space, goals, bounds, seed, budget=budget)
    chooser = _strategy(strategy, setting)
    warm = None if warm_start is None else _warm_start(warm_start, strategy, evaluate, cheap)
    in_order = isinstance(chooser, SteadyState)
    with _opened(evaluate, cheap, setting, network, in_order) as (evaluator, setting, dispatched):
        watched, from_pool = _Watched(evaluator, search_space), list[str]()
        with _telling(watched):
            if warm is not None:
                settings, kind, params = warm
                desk = desk_of_pool(watched, setting, settings.names, dispatched)
                pool = _ranked(Pool(settings, params, search_space, desk))
                chooser, from_pool = _made(kind, pool.seeded(), setting), pool.keys()
            desk = Desk(
                watched,
                search_space,
                seed=seed,
                budget=budget,
                constraints=bounds,
                from_pool=from_pool,
                dispatcher=dispatched(evaluator),
            )
            return _searched(chooser, desk, goals, stop, watched)


@contextmanager
def _opened(
    evaluate: Any, cheap: Any, setting: Setting, network: Mapping[str, Any], in_order: bool
) -> Iterator[tuple[Evaluator, Setting, Dispatches]]:
    """Return an evaluator, its setting, and what makes dispatchers."""
    if isinstance(evaluate, Training):
        if cheap is not None:
            hint = "leave it out; a metric of the training may be cheap: @evonas.metric(cheap=True)"
            raise UserError("does not apply to a training", hint=hint, key="cheap")
        with evaluate.opened(setting, network, in_order=in_order) as opened:
            yield opened
        return
    what = "a function that takes a genome and returns its metrics by name"
    function = arguments.function("evaluate", evaluate, f"{what}, or evonas.training_evaluator()")
    known = None if cheap is None else arguments.function("cheap", cheap, what)
    evaluator = _Function(function, known, setting.objectives, setting.constraints)
    yield evaluator, setting, lambda _: None


def _warm_start(
    value: Any, strategy: Any, evaluate: Any, cheap: Any
) -> tuple[WarmStart, StrategyClass, Params]:
    """Return the settings of a warm start, and the class and settings of its strategy.

    Raises:
        UserError: it does not suit the strategy, or what measures networks.
    """
    settings: WarmStart = value
    if not isinstance(value, WarmStart):
        stated = dict(value) if isinstance(value, Mapping) else value
        settings = config.validated(stated, WarmStart, "warm_start")
    if not isinstance(strategy, str | type | Mapping):
        hint = "must be a name, a class or a mapping, of which warm_start makes one with seeds"
        raise arguments.refusal("strategy", strategy, hint)
    known: Sequence[str] = settings.names  # those of a function are seen when it has answered
    if isinstance(evaluate, Training):
        known = [metric.name for metric in (*ZERO_COST, *COUNTED)]
    elif cheap is None:
        problem = "ranks networks by what is known without evaluating them, and nothing is"
        hint = "give cheap, a function that takes a genome and returns it"
        raise UserError(problem, hint=hint, key="warm_start")
    kind, params = _chosen(strategy)
    check_warm_start(settings, kind, known, "warm_start")
    return settings, kind, params


def _ranked(pool: Pool) -> Pool:
    """Return a pool once it is measured.

    Raises:
        UserError: it is to be ranked by something that `cheap` does not return.
    """
    for _ in pool:
        pass
    measured = [answer.values for answer in pool.answers if answer.status is Status.OK]
    for i, name in enumerate(pool.settings.names):
        if measured and name not in measured[0]:
            mistake = registry.unknown("metric to rank by", name, list(measured[0]))
            raise UserError(mistake, key=f"warm_start.by.{i}")
    return pool


@contextmanager
def _telling(watched: _Watched) -> Iterator[None]:
    """Tell of what ends a search as the mistake, or the user's exception, that is behind it."""
    try:
        yield
    except _Refused as error:
        raise UserError(error.mistake) from None
    except SearchFailed as error:
        if watched.last is None:
            raise
        raise error from watched.last


def _searched(
    strategy: Strategy, desk: Desk, goals: Sequence[Objective], stop: Stop, watched: _Watched
) -> SearchResult:
    """Search until a limit is reached, or the strategy has nothing more to ask."""
    archive = Archive(goals, known_references(goals, watched.evaluator))
    history: list[tuple[int, Generation]] = []
    rows: list[tables.Row] = []
    started = time.perf_counter()

    def has_enough() -> bool:
        """Return whether the limits `seconds` or `stagnation` are reached; not without a result."""
        if not rows:
            return False
        if stop.seconds is not None and time.perf_counter() - started >= stop.seconds:
            return True
        volumes = [row["hypervolume"] for row in rows]
        return stop.stagnation is not None and tables.stagnant(volumes) >= stop.stagnation

    enough = has_enough if stop.seconds or stop.stagnation else None
    for generation in evolve(strategy, desk, stop=stop, enough=enough):
        history.append((archive.evaluations, generation))
        archive.add(generation)
        rows.append(tables.generation_row(generation, archive, desk.space))
        if isinstance(watched.evaluator, TrainEvaluator) and watched.evaluator.states:
            keep_pending(watched.evaluator.states, strategy, desk)
        archive.check_alive(resumable=False)
    archive.check_alive(ended=True)
    return _result(desk.space, archive, history, rows, watched.tracebacks)


def _result(
    space: SearchSpace,
    archive: Archive,
    history: Sequence[tuple[int, Generation]],
    rows: Sequence[tables.Row],
    tracebacks: Mapping[str, str],
) -> SearchResult:
    """Return the tables of a search.

    Args:
        history: each generation, and the number of evaluations before it.
        rows: the row of each generation.
    """
    metrics = [goal.name for goal in archive.objectives]
    for _, generation in history:
        for evaluation in generation.evaluations:
            metrics += [name for name in evaluation.values if name not in metrics]
    evaluations = [
        {**row, "message": evaluation.message}
        for first, generation in history
        for row, evaluation in zip(
            tables.evaluation_rows(generation, first, space, metrics),
            generation.evaluations,
            strict=True,
        )
    ]
    columns = [*tables.evaluation_columns(metrics), "message"]
    return SearchResult(
        pd.DataFrame(evaluations, columns=columns),
        pd.DataFrame(rows, columns=tables.generation_columns(archive.objectives)),
        pd.DataFrame(tables.front_rows(archive, space), columns=tables.front_columns(metrics)),
        tuple(entry.evaluation.candidate.genome for entry in archive.front),
        space,
        archive.objectives,
        tracebacks,
    )


class _Watched:
    """An evaluator that keeps what its candidates raise, if it is raised in this process.

    Attributes:
        tracebacks: the text of each, by the candidate's key.
        last: the last one.
    """

    def __init__(self, evaluator: Evaluator, space: SearchSpace) -> None:
        self.evaluator, self.space = evaluator, space
        self.metrics, self.fingerprint = evaluator.metrics, evaluator.fingerprint
        self.tracebacks: dict[str, str] = {}
        self.last: BaseException | None = None

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        with self._kept(genome):
            return self.evaluator.cheap(genome)

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        with self._kept(candidate.genome):
            return self.evaluator.evaluate(candidate, seed)

    @contextmanager
    def _kept(self, genome: Genome) -> Iterator[None]:
        try:
            yield
        except (KeyboardInterrupt, SearchFailed):
            raise
        except BaseException as error:  # a user's function may raise anything, even SystemExit
            self.last = error
            self.tracebacks[self.space.key(genome)] = traceback.format_exc()
            if place := place_of(error).strip():
                error.add_note(place)
            raise


class _Function:
    """A function as an evaluator."""

    def __init__(
        self,
        evaluate: Evaluate,
        cheap: Evaluate | None,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
    ) -> None:
        self._bounded = [constraint.name for constraint in constraints]
        names = [*(objective.name for objective in objectives), *self._bounded]
        self.metrics = tuple(named(name) for name in dict.fromkeys(names))
        self.fingerprint = ""
        self._evaluate = evaluate
        self._cheap = cheap
        self._answered = False

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        values = {} if self._cheap is None else numbers(self._cheap(genome))
        self._refuse(filter(None, map(_refused, values)))
        return values

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        values = {**self.cheap(candidate.genome), **numbers(self._evaluate(candidate.genome))}
        self._refuse(filter(None, map(_refused, values)))
        answer = checked(Evaluation(candidate, values))
        if answer.status is Status.OK and not self._answered:
            missing = [name for name in self._bounded if name not in values]
            hint = f"allowed: {', '.join(values) or 'nothing'}"
            self._refuse(Mistake(f"nothing measures {n}", hint, "constraints") for n in missing)
            self._answered = True
        return answer

    def _refuse(self, mistakes: Iterable[Mistake]) -> None:
        """Refuse the first answer; a later one is a fault of its candidate alone."""
        for mistake in mistakes:
            if self._answered:
                raise ValueError(str(mistake))
            raise _Refused(mistake)


class _Refused(SearchFailed):
    """The first answer of a function cannot be searched with."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


def _refused(name: str) -> Mistake | None:
    return refused(name, RESERVED)


def _space(
    space: SearchSpace | Build | str | Mapping[str, Any],
) -> tuple[SearchSpace, Mapping[str, Any]]:
    """Return a space, and the settings of its networks."""
    if isinstance(space, SearchSpace):
        return space, space.settings if isinstance(space, OwnSpace) else {}
    if isinstance(space, type) and issubclass(space, SearchSpace):
        raise arguments.refusal("space", space, f"must be an object, such as {space.__name__}()")
    settings = {"name": space} if not isinstance(space, Mapping) else dict(space)
    build: Any = settings.get("name")
    if callable(build):
        if not hasattr(build, "__name__"):
            raise arguments.refusal("space", build, "must be a function written with def")
        own = OwnSpace(build, {k: v for k, v in settings.items() if k != "name"})
        return own, own.settings
    if not isinstance(space, str | Mapping):
        hint = "must be a space, a function with @evonas.space, a name, or a mapping with a name"
        raise arguments.refusal("space", space, hint)
    params = config.component("space", "spaces", settings).anchored(Path.cwd())
    plugins.allow(params.own_files())  # permitted, since the caller's program names them
    made = registry.make_space(params)
    return made, made.settings if isinstance(made, OwnSpace) else params.model_dump(
        exclude={"name"}
    )


def _stop(
    generations: int | None,
    evaluations: int | None,
    seconds: float | None,
    stagnation: int | None,
) -> Stop:
    counts = {"generations": generations, "evaluations": evaluations, "stagnation": stagnation}
    limits: dict[str, float] = {
        k: arguments.whole(k, v, least=1) for k, v in counts.items() if v is not None
    }
    if seconds is not None:
        limits["seconds"] = seconds
    if not limits:
        hint = f"give at least one of {', '.join([*counts, 'seconds'])}"
        raise UserError("a search needs a limit", hint=hint)
    return config.validated(limits, Stop)


def goals_of(objectives: Sequence[Goal]) -> tuple[Objective, ...]:
    """Return the objectives that `search` was given.

    Raises:
        UserError: one is invalid, or there are none.
    """
    example = '["loss"] or [("accuracy", "max")]'
    listed = arguments.several("objectives", objectives, example)
    if len(listed) == 2 and isinstance(objectives, tuple) and listed[1] in ("min", "max"):
        raise arguments.refusal("objectives", objectives, f"must be a list, such as {example}")
    goals = _each("objectives", [_objective(goal) for goal in listed], Objective)
    if not goals:
        raise UserError("is empty", hint="give at least 1", key="objectives")
    return goals


def _objective(goal: Goal) -> Mapping[str, Any] | Objective:
    if isinstance(goal, str):
        return {"name": goal}
    if isinstance(goal, tuple | list) and len(goal) == 2:
        return {"name": goal[0], "goal": goal[1]}
    return goal


def _each(section: str, values: Sequence[Any], model: type[P]) -> tuple[P, ...]:
    """Return objectives or constraints, validated, each on another metric."""
    checked = tuple(
        each if isinstance(each, model) else config.validated(each, model, f"{section}.{i}")
        for i, each in enumerate(values)
    )
    names = [each.name for each in checked]
    for i, name in enumerate(names):
        key = f"{section}.{i}.name"
        if mistake := refused(name, RESERVED):
            raise UserError(mistake, key=key)
        if name in names[:i]:
            raise UserError(f"{name} is listed twice", hint="list it once", key=key)
    return checked


def _strategy(choice: str | type | Mapping[str, Any] | Strategy, setting: Setting) -> Strategy:
    if not isinstance(choice, str | type | Mapping):
        registry.check_members(choice, Strategy, type(choice).__name__)
        return choice
    return _made(*_chosen(choice), setting)


def _made(kind: StrategyClass, params: Params, setting: Setting) -> Strategy:
    made = kind(params, setting)
    registry.check_members(made, Strategy, type(made).__name__)
    return made


def _chosen(choice: str | type | Mapping[str, Any]) -> tuple[StrategyClass, Params]:
    """Return the class of a strategy, and its settings."""
    if isinstance(choice, str | type):
        choice = {"name": choice}
    if isinstance(choice.get("name"), type):
        own: Any = choice["name"]
        settings = {key: value for key, value in choice.items() if key != "name"}
        checked = own_classes.settings_of(own, settings, StrategyClass, own.__name__)
        refuse_needs(own, own.__name__, "strategy")
        return own, checked
    params = config.component("strategy", "strategies", dict(choice)).anchored(Path.cwd())
    plugins.allow(params.own_files())  # permitted, since the caller's program names them
    refuse_training(params, "strategy.name")
    return strategy_of(params)
