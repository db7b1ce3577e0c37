"""`evonas.training_evaluator`: what `evonas.search` measures networks with by training them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from evonas import arguments, config, own_classes, plugins, registry
from evonas.core import Budget, Mistake, UserError
from evonas.data.dataset import DataParams, DataSet, DataSource, Images, Statistics, split
from evonas.evaluators.parallel import InWorkers
from evonas.evaluators.train import TrainEvaluator, TrainParams
from evonas.experiment import ParallelParams
from evonas.jobs import machine
from evonas.jobs.parts import Parts, try_out
from evonas.metrics import RESERVED, refused
from evonas.own import images_of
from evonas.protocols import Dispatcher, Evaluator, Setting, TrainingSetting
from evonas.training.allocation import keep_freed_memory
from evonas.training.loop import threads
from evonas.training.recipe import Recipe

ARRAYS = ("images", "labels", "test_images", "test_labels", "class_names")
Dispatches = Callable[[Evaluator], Dispatcher | None]  # None: in this process
FORMS = (
    "must be a data set's name, a mapping as in the YAML, a tuple (images, labels), or a mapping "
    "with these"
)


def training_evaluator(
    *,
    data: Any,
    budget: Mapping[str, Any] | Budget,
    recipe: Mapping[str, Any] | Recipe | None = None,
    metrics: Sequence[Callable[..., Any] | str] = (),
    device: str = "auto",
    workers: int | None = None,
) -> Training:
    """Return an evaluator that trains networks, for the `evaluate` of `evonas.search`.

    Each network is trained on the training part of the data and measured on the validation part:
    `val_error`, `val_top5_error`, `val_loss`, `params` and `flops`. The test part is left alone.
    The same seed gives the same values as the evaluator `train` in a run (`evonas.run`).

    Args:
        data: the name of a data set, or a mapping with its settings as in the YAML; or arrays,
            `(images, labels)` or with `test_images, test_labels`, or a mapping with these names, in
            which `val`, `test`, `split_seed`, `subset` and `flippable` may be set too. Images are
            (n, h, w) or (n, h, w, c), uint8 or floats; labels (n,), integers from 0.
        budget: how long each network is trained, such as `{"epochs": 3}`.
        recipe: how it is trained, as in the YAML.
        metrics: further metrics: functions marked with `evonas.metric`, or `FILE.py:NAME`.
        device: `cpu`, `cuda` or `cuda:0`; `auto` is a GPU if there is one.
        workers: the number of processes to train in; None for this process, which a network that
            crashes would end.

    Raises:
        UserError: the data cannot be read, or a setting is invalid.
    """
    at_once = 1 if workers is None else arguments.whole("workers", workers, least=1)
    parallel = config.validated({"device": device, "workers": at_once}, ParallelParams, "parallel")
    functions = arguments.several("metrics", metrics, "[depth], a function with @evonas.metric")
    return Training(
        *_data(data),
        _validated("recipe", {} if recipe is None else recipe, Recipe),
        _validated("budget", budget, Budget),
        tuple(_metric(i, each) for i, each in enumerate(functions)),
        machine.resolve(parallel),
        in_process=workers is None,
    )


@dataclass(frozen=True, repr=False)
class Training:
    """How networks are trained and measured; `training_evaluator` makes it."""

    name: str
    data: DataSet
    recipe: Recipe
    budget: Budget
    metrics: tuple[own_classes.FunctionMetric, ...]
    parallel: ParallelParams
    in_process: bool

    def __repr__(self) -> str:
        images = f"{len(self.data.train)} training and {len(self.data.val)} validation images"
        return f"<Training: {self.name}, {images}, {self.budget.text}>"

    @contextmanager
    def opened(
        self, setting: Setting, network: Mapping[str, Any], *, in_order: bool
    ) -> Iterator[tuple[TrainEvaluator, Setting, Dispatches]]:
        """Make the evaluator of a space, its setting, and what makes dispatchers.

        Args:
            network: the settings of the space's networks.
            in_order: as for `InWorkers`.

        Raises:
            UserError: the space has no networks, or they cannot be trained; or nothing measures a
                name of the objectives or constraints.
        """
        hardware = machine.hardware(self.parallel)
        training = TrainingSetting(network, self.data, hardware, self.metrics)
        setting = replace(setting, training=training)
        _check_space(setting)
        evaluator = TrainEvaluator(TrainParams(recipe=self.recipe), setting)
        _check_names(evaluator, setting)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evonas-")))
            evaluator.states = folder
            workers = None
            if self.in_process:
                machine.take_gpu(self.parallel.device)
                keep_freed_memory()
                stack.enter_context(threads(hardware.threads))
            else:
                workers = stack.enter_context(closing(machine.workers(folder, self.parallel)))
            try_out(Parts(setting, evaluator, None), workers, None)

            def dispatched(trains: Evaluator) -> Dispatcher | None:
                return None if workers is None else InWorkers(trains, workers, in_order=in_order)

            yield evaluator, setting, dispatched


class ArrayParams(DataParams):
    """How arrays are split, and whether they may be mirrored."""

    model_config = ConfigDict(extra="forbid")
    flippable: bool = False


class Arrays:
    """Arrays as a data set."""

    statistics: Statistics | None = None

    def __init__(self, arrays: Any, flippable: bool) -> None:
        self.flippable = flippable
        self.everything, self.test, self.class_names = images_of("data", arrays)

    def check(self) -> None:
        """Does nothing: the arrays are there."""

    def load(self) -> tuple[Images, Images | None]:
        return self.everything, self.test


def _data(data: Any) -> tuple[str, DataSet]:
    """Return the name of a data set and its parts for training and validation."""
    if isinstance(data, str):
        data = {"name": data}
    source: DataSource
    params: DataParams
    if isinstance(data, Mapping) and "images" not in data:
        chosen: Any = config.component("data", "data", dict(data)).anchored(Path.cwd())
        plugins.allow(chosen.own_files())  # permitted, since the caller's program names them
        name, params = registry.name_of(chosen), chosen
        source = registry.load("data", name)(params)
        try:
            source.check()
        except UserError as error:
            raise error.within("data") from None
    elif isinstance(data, Mapping | tuple | list):
        named = data if isinstance(data, Mapping) else {}
        settings = {key: value for key, value in named.items() if key not in ARRAYS}
        arrays = {key: named[key] for key in ARRAYS if key in named} or data
        split_so: ArrayParams = _validated("data", settings, ArrayParams)
        name, params, source = "arrays", split_so, Arrays(arrays, split_so.flippable)
    else:
        raise arguments.refusal("data", data, FORMS)
    return name, split(source, params)[0]


def _validated(key: str, value: Any, model: type[Any]) -> Any:
    if isinstance(value, model):
        return value
    return config.validated(dict(value) if isinstance(value, Mapping) else value, model, key)


def _metric(place: int, function: Callable[..., Any] | str) -> own_classes.FunctionMetric:
    key = f"metrics.{place}"
    if isinstance(function, own_classes.FunctionMetric):
        return function
    if isinstance(function, str):
        name = plugins.anchored(function, Path.cwd())
        if file := plugins.file_of(name):
            plugins.allow([file])  # permitted, since the caller's program names it
        return own_classes.load_metric(name)
    if not callable(function):
        raise arguments.refusal(key, function, "must be a function with @evonas.metric")
    marked: own_classes.FunctionMetric = own_classes.metric(function)
    return marked


def _check_space(setting: Setting) -> None:
    space = setting.space
    try:
        trained = registry.blueprint_of(space).has_networks
    except UserError:  # a space of genes alone, which no one knows how to build
        trained = False
    if not trained:
        raise UserError(
            f"{space.title} has no networks to train",
            hint="give a function that builds them (evonas.space), or another space",
            key="space",
        )


def _check_names(evaluator: TrainEvaluator, setting: Setting) -> None:
    names = [metric.name for metric in evaluator.metrics]
    for i, name in enumerate(names):
        if mistake := refused(name, RESERVED, names[:i]):
            raise UserError(mistake, key="metrics")
    for section in ("objectives", "constraints"):
        mistakes = [
            Mistake(f"nothing measures {each.name}", f"allowed: {', '.join(names)}", section)
            for each in getattr(setting, section)
            if each.name not in names
        ]
        if mistakes:
            raise UserError(*mistakes)
