"""Users' strategies, evaluators and metrics in Python files; without torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, ValidationError

from evonas import plugins, registry
from evonas.core import Metric, Params, UserError
from evonas.metrics import named
from evonas.protocols import EvaluatorClass, Need, StrategyClass

Name = Annotated[str, Field(pattern=plugins.PATTERN)]
ARGUMENTS = ("network", "genome", "images", "labels")  # those a metric's function may take


class OwnParams(Params):
    """The settings of a definition in a user's file, which are checked when it is imported."""

    model_config = ConfigDict(extra="allow")
    name: Name
    """`FILE.py:NAME`, with a path relative to the experiment file."""

    def anchored(self, folder: Path) -> Self:
        return self.model_copy(update={"name": plugins.anchored(self.name, folder)})

    def own_files(self) -> tuple[str, ...]:
        return tuple(filter(None, [plugins.file_of(self.name)]))

    @property
    def settings(self) -> dict[str, Any]:
        """All settings except the name."""
        return dict(self.model_extra or {})


class OwnClassParams(OwnParams):
    """Settings of a strategy or evaluator of the user's own, checked when its file is imported.

    Attributes:
        PROTOCOL: what the class that they name has to be.
    """

    PROTOCOL: ClassVar[type]


class OwnStrategyParams(OwnClassParams):
    PROTOCOL = StrategyClass


class OwnEvaluatorParams(OwnClassParams):
    PROTOCOL = EvaluatorClass


class OwnStrategy:
    """The placeholder for a user's strategy until its file may be imported (`StrategyClass`)."""

    Params = OwnStrategyParams
    needs: ClassVar[frozenset[Need]] = frozenset()


class OwnEvaluator:
    """The placeholder for a user's evaluator until its file may be imported (`EvaluatorClass`)."""

    Params = OwnEvaluatorParams
    needs: ClassVar[frozenset[Need]] = frozenset()


def is_loaded(component: object) -> bool:
    """Return whether a component is the class itself, not its placeholder."""
    return component not in (OwnStrategy, OwnEvaluator)


def imported(params: Params) -> tuple[Any, Params] | None:
    """Return a user's class, and the settings as its own model validates them.

    Returns None for other settings, and if the file may not be imported yet.

    Raises:
        UserError: the class lacks a member, or refuses the settings.
    """
    if not isinstance(params, OwnClassParams):
        return None
    file = str(plugins.file_of(params.name))
    if not plugins.is_allowed(file):
        return None
    loaded: Any = plugins.load(params.name)
    return loaded, settings_of(loaded, params.settings, params.PROTOCOL, params.name)


def settings_of(component: Any, settings: Mapping[str, Any], protocol: type, name: str) -> Params:
    """Return the settings of a class of the user's, as its own model validates them.

    Args:
        protocol: what the class has to be.
        name: what to call it.

    Raises:
        UserError: the class lacks a member, or refuses the settings.
    """
    registry.check_members(component, protocol, name)
    model: type[Params] = component.Params
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        fields = ", ".join(sorted(model.model_fields.keys() - {"name"})) or "none"
        raise UserError(
            f"is {first['input']!r}: {first['msg']}",
            hint=f"keys of {name}: {fields}",
            key=f"{name}: {key}",
        ) from None


@dataclass(frozen=True)
class FunctionMetric:
    """A metric that a function computes (`protocols.OwnMetric`); callable like the function.

    Args:
        function: takes some of `network`, `genome`, `images` and `labels`, by name.
        reference: what the experiment calls it, by which another process finds it too.
        code: its file, which another process may then import as it was here.
    """

    function: Callable[..., float]
    metric: Metric
    reference: str = ""
    code: plugins.Code | None = None

    def __call__(self, *arguments: Any, **named: Any) -> float:
        return self.function(*arguments, **named)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "function": None if self.reference else self.function}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        if self.code is not None:
            plugins.allow_in_worker({self.reference.rpartition(":")[0]: self.code})
        if self.reference:
            self.__dict__["function"] = _function_metric(self.reference).function

    @property
    def modules(self) -> tuple[str, ...]:
        return (self.function.__module__,)

    def measure(self, **arguments: Any) -> float:
        names = inspect.signature(self.function).parameters
        return float(self.function(**{name: arguments[name] for name in names}))


def metric(
    function: Callable[..., float] | None = None,
    *,
    cheap: bool = False,
    label: str = "",
    unit: str = "",
    goal: Literal["min", "max", ""] = "",
) -> Any:
    """Mark a function as a metric, with properties that the name does not tell.

    Args:
        function: takes some of `network` (a `torch.nn.Module`, trained unless the metric is cheap)
            and `genome`, and, unless the metric is cheap, `images` and `labels` (the validation
            part: (n, c, h, w), normalised, and (n,)); returns a number.
        cheap: whether it is computed before the training, for a network with initial weights. A
            network that violates a constraint on it is then not trained.
        label, unit, goal: see `evonas.core.Metric`.
    """

    def mark(function: Callable[..., float]) -> FunctionMetric:
        name, source = function.__name__, (function.__doc__ or "").partition("\n")[0]
        return FunctionMetric(
            function,
            replace(named(name), label=label, unit=unit, goal=goal, cheap=cheap, source=source),
        )

    return mark if function is None else mark(function)


def load_metric(name: str) -> FunctionMetric:
    """Return the metric of `FILE.py:NAME`, or of an entry point in the group `evonas.metrics`.

    Raises:
        UserError: the file may not be imported, or the function has other arguments.
    """
    loaded = _function_metric(name)
    allowed = ("network", "genome") if loaded.metric.cheap else ARGUMENTS
    for parameter in inspect.signature(loaded.function).parameters:
        if parameter not in allowed:
            raise UserError(
                f"the function has an argument {parameter}",
                hint=f"allowed: {', '.join(allowed)}",
                key=name,
            )
    if not registry.is_own(name):
        return replace(loaded, reference=name)
    return replace(loaded, reference=name, code=plugins.allowed(str(plugins.file_of(name))))


def _function_metric(name: str) -> FunctionMetric:
    """Return the metric of a name; a plain function is marked as a metric first."""
    loaded = plugins.load(name) if registry.is_own(name) else registry.load("metrics", name)
    marked = loaded if isinstance(loaded, FunctionMetric) else metric(loaded)
    return replace(marked, metric=replace(marked.metric, name=name.rpartition(":")[2]))
