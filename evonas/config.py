"""The experiment file: what may stand in it, and how a mistake in it is told."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SerializeAsAny, ValidationError

from evonas import plugins, registry, yamlfile
from evonas.core import SIMULATED, Budget, Constraint, Objective, Params, UserError
from evonas.data.dataset import DataParams
from evonas.training.recipe import Recipe

COMPONENTS = {
    "space": "networks",
    "data": "data",
    "strategy": "strategies",
    "evaluator": "evaluators",
}
MAX_LINES = 3


class Stop(Params):
    """When a search ends; with several limits, at the first. A generation begun is finished."""

    generations: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """How many generations the search has. Give this, `evaluations`, or both."""
    evaluations: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """No new generation begins once this many candidates have been evaluated. One that has begun
    is finished, so there may be some more."""
    simulated_seconds: Annotated[float, Field(gt=0)] | None = None
    """How many seconds of simulated training may be spent, as the evaluator `tabular` counts them.
    The evaluation that would overspend is not made, and the search ends before it."""

    def model_post_init(self, context: object) -> None:
        if self.generations is None and self.evaluations is None and self.simulated_seconds is None:
            raise ValueError("generations, evaluations, simulated_seconds, or several of them")


class Finalists(Params):
    """The best of the front, trained again before a winner is named."""

    top: Annotated[int, Field(ge=0, le=1000)] = 3
    """How many networks of the front become finalists: the best by the first objective. With 0
    there are no finalists and no winner."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    """How often each finalist is trained, each time with another seed."""
    budget: Budget | None = None
    """How long each finalist is trained. Without it, as long as a candidate of the search."""


class TrainingParams(Params):
    """How `evonas train` trains the chosen network, on all images but the test part."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    """How many passes over all images but the test part."""
    recipe: Recipe | None = None
    """How the network is trained. Without it, as in the search."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The seed of this training: of its first weights and of the order of its images."""


class ParallelParams(Params):
    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """How many processes train at the same time. `auto`: one for each GPU, or, on a CPU, one for
    each core."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:\d+(,\d+)*)$")] = "auto"
    """Where networks are trained: `cpu`, `cuda` (all GPUs), or some GPUs by their numbers, such as
    `cuda:0,1`. `auto`: all GPUs if there are any, else the CPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """The kind of numbers that a training computes with. `auto`: bfloat16 on GPUs that support it,
    else float32."""
    channels_last: bool | None = None
    """Whether images and weights lie in memory with their channels last, which can be faster on
    GPUs. Without it: true with bfloat16, else false."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many CPU threads torch uses in each worker process."""
    timeout: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """Seconds after which an evaluation is ended, with the status `timeout`. Without it, none is
    ever ended, not even one that hangs."""


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Experiment(Params):
    """One search, from data to winner."""

    name: Name
    """The name of the run: up to 64 letters, digits, `.`, `_` and `-`, the first a letter or a
    digit. The run folder is `results/NAME-seedN` unless `--out` names another."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The seed of the run: all random numbers of the search and of its trainings derive from it."""
    space: SerializeAsAny[Params]
    """The networks that the search can choose from, and their size."""
    data: SerializeAsAny[DataParams] | None = None
    """The images, and how they are split into parts. Required, but for a search on a table, which
    has none."""
    strategy: SerializeAsAny[Params]
    """How the next candidates are chosen."""
    evaluator: SerializeAsAny[Params]
    """How a candidate is measured."""
    budget: Budget | None = None
    """How long each candidate of the search is trained. The evaluator `train` requires it."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, max_length=20, strict=False)]
    """What is searched for. The first objective ranks the finalists and names the winner."""
    constraints: Annotated[tuple[Constraint, ...], Field(max_length=20, strict=False)] = ()
    """Bounds on metrics. A network outside a bound never comes onto the front, and one whose
    `params` or `flops` are outside is not trained at all."""
    stop: Stop
    """When the search ends. With two limits, the one that is reached first ends it."""
    finalists: Finalists = Finalists()
    """The best networks of the front, which are trained again before a winner is named."""
    training: TrainingParams = TrainingParams()
    """How `evonas train` trains the chosen network in full."""
    parallel: ParallelParams = ParallelParams()
    """What hardware the run uses, and how long one evaluation may take."""
    cache: Annotated[str, Field(min_length=1)] | None = None
    """A folder that keeps finished trainings, so that no other run that names it trains them again.
    It is made if it does not exist. Without it, trainings are not shared."""


class TrainingRun(Params):
    """One network's full training: `training.yaml` of its folder."""

    name: Name
    """The name of the experiment that the network comes from."""
    genome: Annotated[str, Field(min_length=1)]
    """The network's genome: as the space writes it, as genes, or as a key."""
    space: SerializeAsAny[Params]
    """The space that the genome belongs to, and the size of the network."""
    data: SerializeAsAny[DataParams]
    """The images, and how they are split into parts."""
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    """How many passes over all images but the test part."""
    recipe: Recipe
    """How the network is trained."""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """The seed of this training: of its first weights and of the order of its images."""
    parallel: ParallelParams
    """What hardware the training uses."""


T = TypeVar("T", Experiment, TrainingRun)
P = TypeVar("P", bound=Params)
NO_FINALS = Finalists(top=0)

DEVICES = "auto, cpu, cuda, cuda:0 or cuda:0,1"
ALLOWED_NAME = "up to 64 letters, digits, '.', '_', '-', the first a letter or digit"
KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "model_type": "a mapping of keys to values",
    "tuple_type": "a list",
    "finite_number": "a finite number",
}
WORDS = {type(None): "nothing", str: "text", list: "a list", bool: "true or false"}
LIMITS = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}


def load(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Reads, checks and completes an experiment file; runs no code of the user's.

    Args:
        overrides: `key.of.it=value` each, put in before checking.

    Raises:
        UserError: one to three lines, each naming the file, the key and what is allowed.
    """
    with naming(path):
        document = yamlfile.overridden(yamlfile.read(path), overrides)
        experiment = check(document, path.parent, Experiment)
        _check_together(experiment)
    return experiment


def load_training(path: Path) -> TrainingRun:
    """Reads and checks the settings of a full training, as `dump` wrote them.

    Raises:
        UserError: as `load`.
    """
    with naming(path):
        return check(yamlfile.read(path), path.parent, TrainingRun)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the file's name before each line of a mistake, and keeps to a few lines."""
    try:
        yield
    except UserError as error:
        lines = str(error).splitlines()
        if len(lines) > MAX_LINES:
            lines = [*lines[: MAX_LINES - 1], f"and {len(lines) - MAX_LINES + 1} mistakes more"]
        raise UserError("\n".join(f"{path}: {line}" for line in lines)) from None


def check(document: Any, folder: Path, model: type[T]) -> T:
    """The experiment, or full training, of a document; paths in it are as seen from `folder`.

    Raises:
        UserError: a line a mistake, each naming the key and what is allowed.
    """
    if not isinstance(document, dict):
        what = WORDS.get(type(document), f"a {type(document).__name__}")
        keys = ", ".join(model.model_fields)
        raise UserError(f"holds {what}; allowed: a mapping with the keys {keys}")
    mistakes: list[str] = []
    sections = dict(document)
    for section, kind in COMPONENTS.items():
        if section not in document:
            continue
        try:
            sections[section] = component(section, kind, document[section])
        except UserError as error:
            mistakes += str(error).splitlines()
            del sections[section]
    try:
        checked = validated(sections, model)
    except UserError as error:
        told = {mistake.partition(".")[0].partition(":")[0] for mistake in mistakes}
        lines = str(error).splitlines()
        mistakes += [line for line in lines if line.split(":")[0] not in told]
    if mistakes:
        raise UserError("\n".join(mistakes))
    update: dict[str, Any] = {}
    for section in COMPONENTS:
        params: Params | None = getattr(checked, section, None)
        try:
            update |= {} if params is None else {section: params.anchored(folder)}
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{section}.path: {error}; allowed: the path of a file") from None
    if isinstance(checked, Experiment) and checked.cache is not None:
        try:
            update["cache"] = str((folder / Path(checked.cache).expanduser()).resolve())
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"cache: {error}; allowed: the path of a folder") from None
    return checked.model_copy(update=update)


def dump(settings: Experiment | TrainingRun) -> str:
    """YAML that `load` or `load_training` reads back."""
    plain = settings.model_dump(mode="json", exclude_none=True)
    for section in COMPONENTS.keys() & plain.keys():  # its name first
        plain[section] = {"name": plain[section]["name"], **plain[section]}
    return yamlfile.dump(plain)


def validated(document: Any, model: type[P], section: str = "") -> P:
    """A model of a document whose components are models already; `section` is where it stands.

    Raises:
        UserError: a line a mistake.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise UserError("\n".join(_explained(error, model, section))) from None


def component(section: str, kind: str, value: Any) -> Params:
    """The settings of a component; `section` is where they stand.

    Raises:
        UserError: a line a mistake.
    """
    known = registry.names(kind)
    if not isinstance(value, dict):
        allowed = f"{{name: ..., ...}} with a name of: {', '.join(known)}"
        raise UserError(f"{section}: is {_shown(value)}; allowed: {allowed}")
    name = value.get("name")
    if name is None:
        raise UserError(f"{section}.name: is missing; allowed: {', '.join(known)}")
    own = isinstance(name, str) and registry.is_own(kind, name)
    if not isinstance(name, str) or (name not in known and not own):
        text = registry.unknown(registry.SINGULAR[kind], name, known)
        raise UserError(f"{section}.name: {text}")
    loaded = registry.load(kind, name)
    model: type[Params] = loaded.params if kind == "networks" else loaded.Params
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError("\n".join(_explained(error, model, section))) from None


def _check_together(experiment: Experiment) -> None:
    """What no section can check alone."""
    evaluator = registry.load("evaluators", component_name(experiment.evaluator))
    metrics = list(evaluator.metrics_of(experiment.evaluator))
    for section in ("objectives", "constraints"):
        entries: tuple[Objective | Constraint, ...] = getattr(experiment, section)
        names = [entry.name for entry in entries]
        for i, name in enumerate(names):
            if name not in metrics:
                text = registry.unknown("metric", name, metrics)
                raise UserError(f"{section}.{i}.name: {text}")
            if name in names[:i]:
                raise UserError(f"{section}.{i}.name: {name} stands twice; allowed: once")
    for i, constraint in enumerate(experiment.constraints):
        low, high = constraint.min, constraint.max
        if low is None and high is None:
            raise UserError(f"constraints.{i}: no bound; allowed: min, max, or both")
        if low is not None and high is not None and low > high:
            raise UserError(f"constraints.{i}: min {low:g} is above max {high:g}; allowed: below")
    if evaluator.NEEDS_BUDGET and experiment.budget is None:
        allowed = "epochs, steps or seconds, such as {epochs: 3}"
        raise UserError(f"budget: is missing; allowed: {allowed}")
    if getattr(evaluator, "OWN_BUDGET", False):
        _check_budgets(experiment)
    strategy = registry.load("strategies", component_name(experiment.strategy))
    if getattr(strategy, "TRAINS", False) and experiment.data is None:
        raise UserError(f"strategy.name: {on_images(component_name(experiment.strategy))}")
    _check_shared(experiment, evaluator, strategy)
    if experiment.cache is not None and not hasattr(evaluator, "identity"):
        name = component_name(experiment.evaluator)
        raise UserError(
            f"cache: the evaluator {name} does not say what its answers depend on; "
            "allowed: null, or an evaluator with `identity`"
        )
    if experiment.stop.simulated_seconds is not None and SIMULATED not in metrics:
        name = component_name(experiment.evaluator)
        raise UserError(
            f"stop.simulated_seconds: the evaluator {name} gives no {SIMULATED}; "
            "allowed: generations, evaluations, or `evaluator.simulated_seconds` of a table"
        )
    if not evaluator.TRAINS:
        _refuse_trainings(experiment)
        return
    if registry.load("networks", component_name(experiment.space)).build is None:
        raise UserError(
            f"space.name: {component_name(experiment.space)} has no networks to train; "
            "allowed: another space, or the evaluator tabular"
        )
    if experiment.data is None:
        raise UserError(f"data: is missing; allowed: {_example('data')}")
    source = registry.load("data", component_name(experiment.data))(experiment.data)
    try:
        source.check()
    except UserError as error:
        raise UserError(f"data: {error}") from None
    except OSError as error:  # a name too long, a folder that may not be read
        raise UserError(f"data.path: {error}; allowed: a path that can be read") from None


def on_images(strategy: str) -> str:
    """That a strategy trains on images, where there are none."""
    return f"{strategy} trains on images; allowed: in an experiment that has `data`"


def _check_shared(experiment: Experiment, evaluator: Any, strategy: Any) -> None:
    """Whether the space has the supernet that an evaluator or a strategy needs."""
    shares = registry.load("networks", component_name(experiment.space)).shares
    name = component_name(experiment.space)
    spaces = "allowed: nasbench201, darts, chain, or a space of yours"
    if getattr(strategy, "TRAINS", False) and shares != "ops":
        method = component_name(experiment.strategy)
        raise UserError(f"space.name: {name} has no ops that {method} can choose from; {spaces}")
    if getattr(evaluator, "OWN_BUDGET", False) and shares is None:
        raise UserError(f"space.name: {name} has no supernet; {spaces}, or channels")


def _check_budgets(experiment: Experiment) -> None:
    """Of an evaluator that trains once for all, and trains no candidate but finalists."""
    name = component_name(experiment.evaluator)
    if experiment.budget is not None:
        raise UserError(
            f"budget: the evaluator {name} does not train candidates; "
            "allowed: `evaluator.epochs`, and `finalists.budget`"
        )
    if experiment.finalists.top and experiment.finalists.budget is None:
        raise UserError(
            "finalists.budget: is missing; allowed: epochs, steps or seconds, such as {epochs: 3}, "
            "or finalists: {top: 0}"
        )


def _refuse_trainings(experiment: Experiment) -> None:
    """What a search that trains nothing cannot have."""
    name = component_name(experiment.evaluator)
    for key in ("data", "budget", "finalists", "training", "cache"):
        default = Experiment.model_fields[key].default
        if getattr(experiment, key) not in (default, NO_FINALS):
            raise UserError(f"{key}: the evaluator {name} trains nothing; allowed: no such key")


def own_files(settings: Experiment | TrainingRun) -> list[str]:
    """The user's Python files that an experiment, or a full training, names."""
    sections = (getattr(settings, section, None) for section in COMPONENTS)
    return [file for params in sections if params is not None for file in params.own_files()]


def component_name(params: Any) -> str:
    """What the YAML calls the component with these settings; all of them have a `name`."""
    return str(params.name)


def _explained(error: ValidationError, model: type[Params], section: str = "") -> list[str]:
    """A line a mistake: `strategy.population: is 1; allowed: at least 2`."""
    lines: dict[str, str] = {}
    for mistake in error.errors(include_url=False):
        where = [part for part in mistake["loc"] if not _is_branch(part)]
        key = ".".join(filter(None, [section, *map(str, where)])) or "experiment"
        before, after = _told(mistake, model, key, where).split("; allowed: ", 1)
        field, _, rest = after.partition(": ")
        if mistake["type"] == "value_error" and field in mistake["input"] | model.model_fields:
            default = model.model_fields[field].default if field in model.model_fields else None
            shown = _shown(mistake["input"].get(field, default))
            key, before, after = f"{key}.{field}", f"is {shown}", rest
        if key in lines:  # what each branch of a union allows
            lines[key] += f", or {after}"
        elif mistake["type"] != "too_short" or not any(k.startswith(f"{key}.") for k in lines):
            lines[key] = f"{before}; allowed: {after}"
    return [_printable(f"{key}: {line}") for key, line in lines.items()]


def _told(mistake: Any, model: type[Params], key: str, where: Sequence[int | str]) -> str:
    """What is wrong, and what is allowed."""
    kind, context = mistake["type"], mistake.get("ctx", {})
    shown = f"is {_shown(mistake['input'])}"
    if kind == "extra_forbidden":
        allowed = sorted(_fields(model, where[:-1]))
        close = difflib.get_close_matches(str(where[-1]), allowed, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return f"unknown key{hint}; allowed: {', '.join(allowed)}"
    if kind == "missing":
        return f"is missing; allowed: {_example(key)}"
    if kind == "literal_error":
        return f"{shown}; allowed: {context['expected']}"
    if kind in LIMITS:
        return f"{shown}; allowed: {LIMITS[kind].format(**context)}"
    if kind in KINDS:
        return f"{shown}; allowed: {KINDS[kind]}"
    if kind == "string_pattern_mismatch":
        if context.get("pattern") == plugins.PATTERN:
            return f"{shown}; allowed: FILE.py:NAME"
        return f"{shown}; allowed: {DEVICES if key == 'parallel.device' else ALLOWED_NAME}"
    if kind == "invalid_key":
        return (
            f"is a key that YAML reads as {_shown(where[-1])}; "
            "allowed: text, in quotes if it is on, off, yes or no"
        )
    if kind == "too_short":
        return f"is empty; allowed: at least {context['min_length']}"
    text: str = mistake["msg"].removeprefix("Value error, ")
    return text if "; allowed: " in text else f"{shown}; allowed: {text}"


def _is_branch(part: int | str) -> bool:
    """Whether a part of a location is pydantic's name for a branch of a union, not a key."""
    return isinstance(part, str) and (
        part in {"int", "float", "str", "bool"} or "[" in part or part.startswith("constrained-")
    )


def _fields(model: type[Params], where: Sequence[int | str]) -> Sequence[str]:
    """The keys allowed at a place below a model."""
    found: Any = model
    for part in where:
        if isinstance(part, str):
            found = _inner_model(found.model_fields[part].annotation)
    return list(found.model_fields)


def _inner_model(annotation: Any) -> Any:
    """The one model inside an annotation such as `tuple[Objective, ...]` or `Budget | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Params):
        return annotation
    inner = [_inner_model(argument) for argument in getattr(annotation, "__args__", ())]
    return next((model for model in inner if model is not None), None)


def _example(key: str) -> str:
    examples: Mapping[str, str] = {
        "name": "the run's name, " + ALLOWED_NAME,
        "objectives": "a list such as [{name: val_error, goal: min}]",
        "stop": "generations, evaluations or simulated_seconds, such as {generations: 8}",
        **{
            section: f"{{name: ..., ...}} with a name of: {', '.join(registry.names(kind))}"
            for section, kind in COMPONENTS.items()
        },
    }
    return examples.get(key, "a path" if key.endswith(".path") else "a value")


def _shown(value: Any) -> str:
    """A value as YAML has it, cut short."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    text = "null" if value is None else text
    return text if len(text) <= 50 else f"{text[:47]}..."


def _printable(line: str) -> str:
    """Line breaks and terminal escapes, which keys and values may hold, spelt out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
