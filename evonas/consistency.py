"""What no section of an experiment can check alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from evonas import loggers, own_classes, registry
from evonas.core import Metric, Params, UserError
from evonas.experiment import (
    Experiment,
    Finalists,
    WarmStart,
    can_be_warm_started,
    components,
    evaluator_of,
    example,
    is_identified,
    is_trainer,
    strategy_of,
)
from evonas.metrics import COUNTED, SIMULATED_SECONDS, ZERO_COST, named, refused
from evonas.protocols import EvaluatorClass, HasFidelities, HasRungs, Need, StrategyClass

NO_FINALISTS = Finalists(top=0)


def check_together(experiment: Experiment) -> None:
    """Check what no section can check alone.

    A definition in a user's file is checked only if the file may be imported.

    Raises:
        UserError: the sections do not fit together; only the first mistake is reported.
    """
    loggers.check_names(experiment.logging)
    evaluator, evaluator_params = evaluator_of(experiment)
    strategy, strategy_params = strategy_of(experiment.strategy)
    if own_classes.is_loaded(evaluator):
        metrics = (
            *evaluator.metrics_of(evaluator_params),
            *own_metrics(experiment, evaluator, evaluator_params),
        )
        names = [metric.name for metric in metrics]
        _check_names("objectives", [entry.name for entry in experiment.objectives], names)
        _check_names("constraints", [entry.name for entry in experiment.constraints], names)
        counted = SIMULATED_SECONDS.name in [metric.name for metric in metrics if metric.cheap]
        if experiment.stop.simulated_seconds is not None and not counted:
            raise UserError(
                "cannot be used with evaluator "
                f"{registry.name_of(experiment.evaluator)}, which does not count simulated time",
                hint="give generations or evaluations; with a table, evaluator.simulated_seconds",
                key="stop.simulated_seconds",
            )
        _check_uses(experiment, evaluator)
        if experiment.warm_start is not None:
            known = rankable(evaluator, evaluator_params)
            check_warm_start(experiment.warm_start, strategy, known, "warm_start")
    for section, needs in (("evaluator", evaluator.needs), ("strategy", strategy.needs)):
        for need in Need:  # in a fixed order, since only the first mistake is reported
            if need in needs and need in CHECKS:
                CHECKS[need](experiment, section)
    if own_classes.is_loaded(evaluator) and isinstance(strategy_params, HasRungs):
        assert experiment.budget is not None, "the strategy needs one"
        rungs = strategy_params.rungs(experiment.budget)
        if isinstance(evaluator_params, HasFidelities):
            evaluator_params.check_fidelities(rungs, "evaluator")


def rankable(evaluator: EvaluatorClass, params: Params) -> list[str]:
    """Return the metrics that a pool can be ranked by."""
    if Need.DATA in evaluator.needs:
        return [metric.name for metric in (*ZERO_COST, *COUNTED)]
    return [metric.name for metric in evaluator.metrics_of(params) if metric.cheap]


def check_warm_start(
    warm_start: WarmStart, strategy: StrategyClass, known: Sequence[str], section: str
) -> None:
    """Check what a pool is ranked by, and that a strategy can begin with the best of it.

    Args:
        known: the metrics that it can be ranked by.

    Raises:
        UserError: a metric is unknown, or the strategy has no `seeds`.
    """
    for i, name in enumerate(warm_start.names):
        if name not in known:
            key = f"{section}.by.{i}"
            if not known:
                hint = "list metrics of the table that are known without training in its key cheap"
                raise UserError(f"{name} is not known without training", hint=hint, key=key)
            raise UserError(registry.unknown("metric to rank by", name, list(known)), key=key)
    if own_classes.is_loaded(strategy) and not can_be_warm_started(strategy):
        allowed = [
            name
            for name in registry.names("strategies")
            if can_be_warm_started(registry.strategy(name))
        ]
        raise UserError(
            "the strategy does not take the networks that it begins with",
            hint=f"remove the key, or choose one with seeds: {', '.join(allowed)}",
            key=section,
        )


def own_metrics(
    experiment: Experiment, evaluator: EvaluatorClass, params: Params
) -> tuple[Metric, ...]:
    """Return the user's own metrics, by their names alone, since no file is imported yet."""
    if experiment.metrics and Need.DATA not in evaluator.needs:
        name = registry.name_of(experiment.evaluator)
        raise UserError(
            f"cannot be used with evaluator {name}, which builds no networks",
            hint="remove the key",
            key="metrics",
        )
    names = [metric.rpartition(":")[2] for metric in experiment.metrics]
    ours = {metric.name for metric in evaluator.metrics_of(params)}
    for i, (metric, name) in enumerate(zip(experiment.metrics, names, strict=True)):
        key = f"metrics.{i}"
        if not registry.is_own(metric) and metric not in registry.names("metrics"):
            allowed = [*registry.names("metrics"), "FILE.py:NAME"]
            raise UserError(registry.unknown("metric", metric, allowed), key=key)
        if mistake := refused(name, others=[*ours, *names[:i]]):
            raise UserError(mistake, key=key)
    return tuple(map(named, names))


def _check_names(section: str, names: Sequence[str], metrics: Sequence[str]) -> None:
    for i, name in enumerate(names):
        key = f"{section}.{i}.name"
        if name not in metrics:
            raise UserError(registry.unknown("metric", name, list(metrics)), key=key)
        if name in names[:i]:
            raise UserError(f"{name} is listed twice", hint="list it once", key=key)


def _check_uses(experiment: Experiment, evaluator: EvaluatorClass) -> None:
    """Check that the experiment has no section that the evaluator cannot use."""
    name = registry.name_of(experiment.evaluator)
    used = {
        "data": Need.DATA in evaluator.needs,
        "budget": bool({Need.BUDGET, Need.FINAL_BUDGET} & evaluator.needs)
        or _has_budgets(experiment),
        "finalists": is_trainer(evaluator),
        "training": Need.DATA in evaluator.needs,
        "cache": is_identified(evaluator),
    }
    values = dict(experiment)
    for key, is_used in used.items():
        default = Experiment.model_fields[key].default
        if not is_used and values[key] not in (default, NO_FINALISTS):
            reason = "which does not support a cache" if key == "cache" else "which does not train"
            raise UserError(
                f"cannot be used with evaluator {name}, {reason}",
                hint="remove the key",
                key=key,
            )


def _has_budgets(experiment: Experiment) -> bool:
    """Return whether a table has values for several budgets, or should have them."""
    table = experiment.evaluator
    if not isinstance(table, HasFidelities):
        return False
    return bool(table.fidelities) or isinstance(experiment.strategy, HasRungs)


def _needs_data(experiment: Experiment, section: str) -> None:
    name = registry.name_of(experiment.space)
    if experiment.data is None:
        raise UserError("is missing", hint=f"give {example('data')}", key="data")
    if not registry.space(name).has_networks:
        raise UserError(
            f"{name} has no networks to train",
            hint="choose another space, or use the evaluator tabular",
            key="space.name",
        )
    source = registry.load("data", registry.name_of(experiment.data))(experiment.data)
    try:
        source.check()
    except UserError as error:
        raise error.within("data") from None
    except OSError as error:  # the name is too long, or the folder may not be read
        raise UserError(
            error.strerror or str(error), hint="give a path that can be read", key="data.path"
        ) from None


def _needs_budget(experiment: Experiment, section: str) -> None:
    if experiment.budget is None:
        raise UserError("is missing", hint=A_BUDGET, key="budget")
    evaluator, params = evaluator_of(experiment)
    if not own_classes.is_loaded(evaluator) or isinstance(params, HasFidelities):
        return
    if Need.BUDGET not in evaluator.needs:
        raise UserError(
            f"the strategy {registry.name_of(experiment.strategy)} gives candidates budgets, which "
            f"the evaluator {registry.name_of(params)} cannot use",
            hint="use the evaluator train, or another strategy",
            key="strategy.name",
        )


def _needs_final_budget(experiment: Experiment, section: str) -> None:
    if experiment.budget is not None:
        name = registry.name_of(experiment.evaluator)
        raise UserError(
            f"the evaluator {name} does not train candidates",
            hint="use evaluator.epochs and finalists.budget instead",
            key="budget",
        )
    finalists = experiment.finalists
    if finalists.top and finalists.budget is None and experiment.hours is None:
        raise UserError(
            "is missing", hint=f"{A_BUDGET}, or set finalists.top to 0", key="finalists.budget"
        )


def _needs_supernet(experiment: Experiment, section: str) -> None:
    name = registry.name_of(experiment.space)
    if registry.space(name).shares is None:
        raise UserError(
            f"{name} has no supernet", hint=_spaces_sharing("ops", "slices"), key="space.name"
        )


def _needs_ops(experiment: Experiment, section: str) -> None:
    name = registry.name_of(experiment.space)
    if registry.space(name).shares != "ops":
        part = registry.name_of(components(experiment)[section])
        raise UserError(
            f"{name} has no ops that {part} can choose from",
            hint=_spaces_sharing("ops"),
            key="space.name",
        )


def _spaces_sharing(*kinds: str) -> str:
    spaces = [name for name in registry.names("spaces") if registry.space(name).shares in kinds]
    return f"allowed: {', '.join([*spaces, 'FILE.py:NAME'])}"


A_BUDGET = "give epochs, steps or seconds, such as {epochs: 3}"

CHECKS: Mapping[Need, Callable[[Experiment, str], None]] = {
    Need.DATA: _needs_data,
    Need.BUDGET: _needs_budget,
    Need.FINAL_BUDGET: _needs_final_budget,
    Need.SUPERNET: _needs_supernet,
    Need.OPS: _needs_ops,
}


def refuse_training(params: Params, section: str) -> None:
    """Raise UserError if a strategy trains on images, for a search that has none."""
    refuse_needs(strategy_of(params)[0], registry.name_of(params), section)


def refuse_needs(strategy: StrategyClass, name: str, section: str) -> None:
    """As `refuse_training`, for the class of a strategy."""
    if Need.DATA in strategy.needs:
        raise UserError(
            f"{name} trains on images, and this search has none",
            hint="choose another strategy, or use it in an experiment with data",
            key=section,
        )
