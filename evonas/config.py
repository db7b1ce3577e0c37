"""The experiment file: its keys, and the checks across its sections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, SerializeAsAny, ValidationError

from evonas import loggers, own_classes, plugins, registry, yamlfile
from evonas.core import (
    WRITTEN,
    Budget,
    Constraint,
    Metric,
    Mistake,
    Objective,
    Params,
    Requirement,
    Stop,
    UserError,
)
from evonas.data.dataset import DataParams
from evonas.metrics import COUNTED, SIMULATED_SECONDS, ZERO_COST, named, refused
from evonas.mistakes import NAME_RULE, explained, kind_of, shown
from evonas.protocols import (
    Chooses,
    EvaluatorClass,
    HasFidelities,
    HasRungs,
    Identified,
    Need,
    StrategyClass,
    Trains,
)
from evonas.training.recipe import STRONG, Recipe, TrainsAlone, decided

COMPONENTS = {
    "space": "spaces",
    "data": "data",
    "strategy": "strategies",
    "evaluator": "evaluators",
}
SEARCH_SHARE = 0.6  # of a run's hours; what is left is the finals'


class WarmStart(Params):
    """A pool of random networks, the best of which the search begins with."""

    by: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...],
        Field(min_length=1, max_length=20, strict=False),
    ]
    """What the networks of the pool are ranked by; the mean of the ranks counts. More is better, or
    less with a minus sign: `[nwot, -flops]`. With images, zero-cost proxies, `params` and `flops`;
    on a table, the metrics that `cheap` lists."""
    pool: Annotated[int, Field(ge=1, le=100_000)] = 300
    """The number of networks that are drawn at random, each once, and ranked."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.7
    """The share of the first candidates that are the best of the pool. The others are drawn at
    random, so that the search is not lost where what it is ranked by means nothing."""

    def model_post_init(self, context: object) -> None:
        if len(set(self.names)) < len(self.names):
            raise Requirement("name each once", "by")

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that the networks are ranked by, without their signs."""
        return tuple(name.removeprefix("-") for name in self.by)


class Finalists(Params):
    """The best networks of the search, which are trained again before a winner is named."""

    top: Annotated[int, Field(ge=0, le=1000)] = 3
    """The number of finalists: the best networks by the first objective, of those on the front or
    within one standard error of it; the next best if there are fewer. With 0, there are no
    finalists and no winner."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    """How many times each finalist is trained, each time with another seed."""
    budget: Budget | None = None
    """How long each finalist is trained. By default, as long as a candidate of the search; with
    `hours`, an equal share of the time that the search has left, in seconds. If that is shorter
    than a training of the search, there are fewer seeds."""
    by: Literal["measured", "model"] = "measured"
    """What the best networks are best by: the values that the search `measured`, one training each,
    or those that a `model` expects, a Gaussian process fitted to all of them. `show` has both, and
    how much one training varies according to the model."""
    best_seed: bool = True
    """Whether the best network of `strategy.seeds` is always among the finalists, beside the `top`,
    so that `show` can say by how much the winner is better than what the search began with."""

    BEFORE: ClassVar = {"best_seed": False}


class TrainingParams(Params):
    """How `evonas train` trains the chosen network, without any subset."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    """The number of passes over the training images."""
    hold_out: bool = True
    """Whether the validation part of the data is held out, so that the learning curve shows its
    error after each epoch. If not, the network is trained on it too, on all images except the test
    part, and the curve shows the training loss alone."""
    recipe: Recipe | None = None
    """How the network is trained. By default, as in the search, but for the keys of `strong`."""
    strong: (
        Annotated[
            tuple[Literal["label_smoothing", "warm_up", "ema", "pad_crop", "mixup"], ...],
            Field(strict=False),
        ]
        | None
    ) = None
    """The keys of the recipe that are set to what suits a training to the end: `label_smoothing` to
    0.1, `warm_up` to 0.05 (unless the schedule is `one_cycle`), `ema` to 0.1, `pad_crop` to `auto`
    and, from 100 epochs on, `mixup` to 0.2. By default, those of them that the recipe does not name
    (with `cutmix`, `mixup` counts as named). With `[]`, none is."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The seed of this training: of the initial weights and of the order of the images."""

    def completed(self, search: Recipe | None) -> TrainingParams:
        """Return a copy that says which keys are `strong`, for an experiment that begins.

        Run folders from before this key existed have none, and none is set.

        Args:
            search: the recipe of the search, if it has one.
        """
        if self.strong is not None:
            return self
        taken = decided(self.recipe or search or Recipe())
        return self.model_copy(update={"strong": tuple(key for key in STRONG if key not in taken)})


class ParallelParams(Params):
    """The hardware that a run uses, and the time limit of an evaluation."""

    workers: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """The number of processes that train at the same time. `auto`: `per_device` for each GPU, or
    one per CPU core if there is no GPU; with `backend: dask`, as the cluster has it."""
    per_device: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = "auto"
    """The number of processes that share each GPU, and its memory in equal parts. `auto`: as many
    as `workers` makes it; if that is `auto` too, and the evaluator is `train`, two networks are
    trained for some seconds in 1, 2, 4 and 8 processes before the search starts, and the largest
    number is taken that fits into the memory and trains more images per second than half as many.
    The run keeps it. For other evaluators it is 1."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:\d+(,\d+)*)$")] = "auto"
    """Where networks are trained: `cpu`, `cuda` (all GPUs), or some GPUs by number, such as
    `cuda:0,1`. `auto`: all GPUs if there are any, otherwise the CPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """The number format used in training. `auto`: bfloat16 on GPUs that support it and on CPUs with
    AMX, otherwise float32. Weights and losses are float32 in any case, and the winner and a full
    training are tested in float32."""
    channels_last: bool | None = None
    """Whether images and weights are stored with the channels last. By default, true on x86-64 CPUs
    and with bfloat16, where it is faster. A network of your own that cannot be run so, since it
    calls `view` on its features, is stored the other way."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """The number of CPU threads that torch uses in each worker process."""
    timeout: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """The time limit for an evaluation, in seconds; one that exceeds it is stopped, with the status
    `timeout`. By default, there is no limit, even if an evaluation hangs."""
    backend: Literal["loky", "dask"] = "loky"
    """Where the worker processes are: with `loky`, on this machine; with `dask`, on the machines of
    a [Dask cluster](../cluster.md), as many at a time as its workers have threads."""
    address: Annotated[str, Field(pattern=r"^[a-z]+://\S+$")] | None = None
    """The address of the Dask scheduler, such as `tcp://10.0.0.1:8786`; required with `dask`."""

    def model_post_init(self, context: object) -> None:
        if self.backend == "dask" and self.address is None:
            hint = "give the scheduler's address, such as tcp://10.0.0.1:8786"
            raise Requirement(hint, "address", "is missing")
        if self.backend == "dask" and self.workers != "auto":
            problem = f"is {self.workers}, but the cluster says how many workers there are"
            raise Requirement("remove the key", "workers", problem)
        if self.backend != "dask" and self.address is not None:
            raise Requirement("add backend: dask, or remove the key", "address", "is not used")

    @property
    def local(self) -> ParallelParams:
        """The same settings, for this machine alone."""
        return self.model_copy(update={"backend": "loky", "address": None})

    BEFORE: ClassVar = {"per_device": 1}


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Experiment(Params):
    """One search, from data to winner."""

    name: Name
    """The name of the run: up to 64 letters, digits, `.`, `_` and `-`, the first a letter or a
    digit. The run folder is `results/NAME-seedN` unless `--out` names another one."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The seed of the run, from which all random numbers of the search and its trainings derive."""
    space: SerializeAsAny[Params]
    """The networks that the search can choose from, and their size."""
    data: SerializeAsAny[DataParams] | None = None
    """The images, and how they are split into parts. Required, except for a search on a table,
    which uses no images."""
    strategy: SerializeAsAny[Params]
    """How candidates are chosen."""
    warm_start: WarmStart | None = None
    """A pool of random networks, of which the best, by what is known without training, are among
    the first candidates. Without it, these are all drawn at random."""
    evaluator: SerializeAsAny[Params]
    """How candidates are measured."""
    budget: Budget | None = None
    """How long each candidate of the search is trained. The evaluator `train` requires it."""
    metrics: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    """Your own metrics, in addition to the evaluator's: functions in Python files, `FILE.py:NAME`.
    Each becomes a column of the tables, and objectives and constraints may name it."""
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, max_length=20, strict=False)]
    """The metrics to improve. The first one decides which networks become finalists, and which of
    them wins."""
    constraints: Annotated[tuple[Constraint, ...], Field(max_length=20, strict=False)] = ()
    """Bounds on metrics. A network outside a bound is never on the front; if the metric is known
    without training, such as `params` or `flops`, the network is not even trained."""
    hours: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """How long the whole run may take, in hours of the clock, over all its resumes: reading the
    images, search, finals and figures. Without `stop.seconds`, the search ends after 60 % of it,
    and without `finalists.budget`, the finals share what is left. Time between the last result and
    a kill does not count. By default, the other limits alone say when the run ends."""
    stop: Stop
    """When the search ends. If there are several limits, the first one reached ends it. With
    `hours`, it may be left out."""
    finalists: Finalists = Finalists()
    """The best networks of the search, which are trained again before a winner is named."""
    training: TrainingParams = TrainingParams()
    """How `evonas train` trains the chosen network in full."""
    parallel: ParallelParams = ParallelParams()
    """The hardware that the run uses, and the time limit of an evaluation."""
    cache: Annotated[str, Field(min_length=1)] | None = None
    """A folder that stores finished trainings, so that other runs with the same folder need not
    repeat them. It is created if it does not exist. By default, trainings are not shared."""
    logging: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)] = ()
    """What is told of each evaluation and each generation, besides the tables: `tensorboard`,
    `mlflow`, `wandb`, and functions in Python files, `FILE.py:NAME`, which are called with a
    dictionary ([Loggers](../logging.md))."""


class TrainingRun(Params):
    """The full training of one network: `training.yaml` in its folder."""

    name: Name
    """The name of the experiment that the network comes from."""
    genome: Annotated[str, Field(min_length=1)]
    """The network's genome, in the notation of its space, as genes, or as a key."""
    space: SerializeAsAny[Params]
    """The space that the genome belongs to, and the size of the network."""
    data: SerializeAsAny[DataParams]
    """The images, and how they are split into parts."""
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    """The number of passes over the training images."""
    hold_out: bool = True
    """Whether the validation part is held out for the learning curve. If not, the network is
    trained on it too."""
    recipe: Recipe
    """How the network is trained."""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """The seed of this training: of the initial weights and of the order of the images."""
    parallel: ParallelParams
    """The hardware that the training uses."""

    BEFORE: ClassVar = {"hold_out": False}  # its curve was of the test part


HERE = ("parallel.backend=loky", "parallel.address=null")  # overrides: evaluate on this machine
T = TypeVar("T", Experiment, TrainingRun)
P = TypeVar("P", bound=Params)
NO_FINALISTS = Finalists(top=0)


def load(path: Path, overrides: Sequence[str] = (), *, written: bool = False) -> Experiment:
    """Read, check and complete an experiment file, without running the user's code.

    Args:
        overrides: `dotted.key=value` each, applied before the checks.
        written: whether `dump` wrote the file, so that it may be older than some keys.

    Raises:
        UserError: the file has mistakes; each names the file, the key and the remedy.
    """
    with naming(path):
        document = yamlfile.overridden(yamlfile.read(path), overrides)
        experiment = check(document, path.parent, Experiment, written=written)
        check_together(experiment)
        if not written:  # a run folder can be read, and resumed, where a logger is missing
            loggers.check_installed(experiment.logging)
    return experiment


def load_run(folder: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read and check the experiment of a run folder; see `load`."""
    return load(folder / "config.yaml", overrides, written=True)


def load_training(path: Path) -> TrainingRun:
    """Read and check the settings of a full training, as `dump` wrote them.

    Raises:
        UserError: as `load` does.
    """
    with naming(path):
        return check(yamlfile.read(path), path.parent, TrainingRun, written=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to the mistakes raised within."""
    try:
        yield
    except UserError as error:
        raise error.within(str(path)) from None


def check(document: Any, folder: Path, model: type[T], *, written: bool = False) -> T:
    """Return the experiment, or full training, of a document with paths relative to `folder`.

    Args:
        written: as for `load`.

    Raises:
        UserError: the document has mistakes; each names the key and the remedy.
    """
    if not isinstance(document, dict):
        keys = ", ".join(model.model_fields)
        raise UserError(
            f"holds {kind_of(document)}", hint=f"must be a mapping with the keys {keys}"
        )
    mistakes: list[Mistake] = []
    sections = _with_share_of_hours(document) if model is Experiment else dict(document)
    for section, kind in COMPONENTS.items():
        if section not in document:
            continue
        try:
            sections[section] = component(section, kind, document[section], written=written)
        except UserError as error:
            mistakes += error.mistakes
            del sections[section]
    try:
        checked = validated(sections, model, written=written)
    except UserError as error:
        # A section with mistakes of its own is missing from the rest only because it was left out.
        reported = {mistake.key.partition(".")[0] for mistake in mistakes}
        mistakes += [mistake for mistake in error.mistakes if mistake.key not in reported]
    if mistakes:
        raise UserError(*mistakes)
    update: dict[str, Any] = {}
    for section, params in components(checked).items():
        with _readable_path(f"{section}.path"):
            update[section] = params.anchored(folder)
    if isinstance(checked, Experiment):
        if isinstance(checked.strategy, Chooses):
            update["strategy"] = checked.strategy.chosen(len(checked.objectives), checked.stop)
        if checked.data is not None and not written:
            update["training"] = checked.training.completed(recipe_of(checked))
        update["metrics"] = tuple(plugins.anchored(name, folder) for name in checked.metrics)
        update["logging"] = tuple(plugins.anchored(name, folder) for name in checked.logging)
        if checked.cache is not None:
            with _readable_path("cache"):
                update["cache"] = str((folder / Path(checked.cache).expanduser()).resolve())
    return checked.model_copy(update=update)


def _with_share_of_hours(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment, unchecked, whose search ends after its share of the hours."""
    hours, stop = document.get("hours"), document.get("stop")
    stop = {} if stop is None else stop
    if not isinstance(hours, int | float) or isinstance(hours, bool) or hours <= 0:
        return dict(document)
    if not isinstance(stop, dict) or stop.get("seconds") is not None:
        return dict(document)
    return {**document, "stop": {**stop, "seconds": round(SEARCH_SHARE * 3600 * hours, 3)}}


def dump(settings: Experiment | TrainingRun) -> str:
    """Return YAML that `load` or `load_training` reads back."""
    plain = settings.model_dump(mode="json", exclude_none=True)
    for section in COMPONENTS.keys() & plain.keys():  # its name first
        plain[section] = {"name": plain[section]["name"], **plain[section]}
    return yamlfile.dump(plain)


def validated(document: Any, model: type[P], section: str = "", *, written: bool = False) -> P:
    """Return the model of a document whose components are models already.

    Args:
        section: the document's place in the file; "" for the whole file.
        written: as for `load`.

    Raises:
        UserError: the document has mistakes.
    """
    try:
        return model.model_validate(document, context=WRITTEN if written else None)
    except ValidationError as error:
        raise UserError(*explained(error, model, section, _example)) from None


def component(section: str, kind: str, value: Any, *, written: bool = False) -> Params:
    """Return the settings of a component.

    Args:
        section: their place in the file.
        kind: the kind of component, as in `registry.TABLES`.
        written: as for `load`.

    Raises:
        UserError: the settings have mistakes.
    """
    names = registry.names(kind)
    if not isinstance(value, dict):
        raise UserError(f"is {shown(value)}", hint=f"must be {_example(section)}", key=section)
    key = f"{section}.name"
    name = value.get("name")
    if name is None:
        raise UserError("is missing", hint=f"allowed: {', '.join(names)}", key=key)
    if not isinstance(name, str) or (name not in names and not registry.is_own(name)):
        raise UserError(registry.unknown(registry.SINGULAR[kind], name, names), key=key)
    model: type[Params] = registry.load(kind, name).Params
    parts = {
        key: component(f"{section}.{key}", part, value[key], written=written)
        for key, part in model.PARTS.items()
        if key in value
    }
    return validated({**value, **parts}, model, section, written=written)


def components(settings: Experiment | TrainingRun) -> dict[str, Params]:
    """Return the settings of each component, by section."""
    values = dict(settings)
    return {name: values[name] for name in COMPONENTS if values.get(name) is not None}


def own_files(settings: Experiment | TrainingRun) -> list[str]:
    """Return the user's Python files that an experiment, or a full training, names."""
    files = [file for params in components(settings).values() for file in params.own_files()]
    if isinstance(settings, Experiment):
        files += filter(None, map(plugins.file_of, (*settings.metrics, *settings.logging)))
    return files


def recipe_of(experiment: Experiment) -> Recipe | None:
    """Return how a search trains a network on its own; None if the evaluator does not say."""
    evaluator = experiment.evaluator
    return evaluator.recipe_alone if isinstance(evaluator, TrainsAlone) else None


def evaluator_of(experiment: Experiment) -> tuple[EvaluatorClass, Params]:
    """Return the evaluator's class and settings; import the user's file if that is permitted."""
    params = experiment.evaluator
    return own_classes.imported(params) or (registry.evaluator(registry.name_of(params)), params)


def strategy_of(params: Params) -> tuple[StrategyClass, Params]:
    """Return the strategy's class and settings; import the user's file if that is permitted."""
    return own_classes.imported(params) or (registry.strategy(registry.name_of(params)), params)


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


def can_be_warm_started(strategy: StrategyClass) -> bool:
    """Return whether a strategy takes the networks that it begins with, and says how many."""
    return "seeds" in strategy.Params.model_fields and hasattr(strategy.Params, "founders")


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


def has_finalists(experiment: Experiment) -> bool:
    """Return whether the run has finalists; False for a user's evaluator until it is imported."""
    evaluator, _ = evaluator_of(experiment)
    return experiment.data is not None and is_trainer(evaluator)


def is_trainer(evaluator: EvaluatorClass) -> bool:
    """Return whether an evaluator can train and test finalists."""
    return isinstance(evaluator, type) and issubclass(evaluator, Trains)


def is_identified(evaluator: EvaluatorClass) -> bool:
    """Return whether an evaluator's results can be cached."""
    return isinstance(evaluator, type) and issubclass(evaluator, Identified)


def _needs_data(experiment: Experiment, section: str) -> None:
    name = registry.name_of(experiment.space)
    if experiment.data is None:
        raise UserError("is missing", hint=f"give {_example('data')}", key="data")
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


@contextmanager
def _readable_path(key: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(str(error), hint="give a valid path", key=key) from None


def _example(key: str) -> str:
    """Return a phrase that describes the value of a key."""
    last = key.rpartition(".")[2]
    if last in COMPONENTS:
        names = ", ".join(registry.names(COMPONENTS[last]))
        return f"{{name: ..., ...}}, where the name is one of {names}"
    examples = {
        "name": f"the run's name, {NAME_RULE}",
        "objectives": "a list such as [{name: val_error, goal: min}]",
        "stop": f"one or several of {', '.join(Stop.model_fields)}, such as {{generations: 8}}",
    }
    return examples.get(key, "a path" if key.endswith(".path") else "a value")
