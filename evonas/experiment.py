"""The settings of an experiment and of a full training: the keys of their files."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from evonas import own_classes, plugins, registry
from evonas.core import Budget, Constraint, Objective, Params, Requirement, Stop
from evonas.data.dataset import DataParams
from evonas.mistakes import NAME_RULE
from evonas.protocols import EvaluatorClass, Identified, StrategyClass, Trains
from evonas.training.recipe import STRONG, Recipe, TrainsAlone, decided

COMPONENTS = {
    "space": "spaces",
    "data": "data",
    "strategy": "strategies",
    "evaluator": "evaluators",
}


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


def can_be_warm_started(strategy: StrategyClass) -> bool:
    """Return whether a strategy takes the networks that it begins with, and says how many."""
    return "seeds" in strategy.Params.model_fields and hasattr(strategy.Params, "founders")


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


def example(key: str) -> str:
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
