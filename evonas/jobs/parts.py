"""The live objects of an experiment: the setting, and the components made with it."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from evonas import own_classes, registry
from evonas.consistency import check_together
from evonas.core import Candidate, Evaluation, Metric, Params, UserError
from evonas.data.dataset import Images, Places, load, split, split_with_places
from evonas.evaluators.parallel import InWorkers
from evonas.evaluators.tabular import Tabular
from evonas.evaluators.trial import Trial
from evonas.experiment import Experiment, TrainingRun, evaluator_of, has_finalists, strategy_of
from evonas.jobs import machine
from evonas.loop import Desk
from evonas.metrics import RESERVED_IN_RUNS, finals_columns, refused
from evonas.networks.decode import decode
from evonas.own import OwnSpace
from evonas.protocols import (
    Evaluator,
    Executor,
    FitsImages,
    Need,
    Setting,
    Strategy,
    TrainingSetting,
    Trains,
)
from evonas.training.allocation import keep_freed_memory
from genomes import Verbatim

log = logging.getLogger("evonas")

Settings = TypeVar("Settings", Experiment, TrainingRun)


@dataclass(frozen=True, slots=True)
class Parts:
    """The live objects of an experiment, except its strategy (`make_strategy`).

    Attributes:
        test: the test part; no component sees it.
        places: which image is in which part; None without data.
    """

    setting: Setting
    evaluator: Evaluator
    test: Images | None
    places: Places | None = None


def build(experiment: Experiment) -> Parts:
    """Read the data, and make the setting and the evaluator of an experiment.

    Raises:
        UserError: the data cannot be read, or a part does not accept the setting.
    """
    check_together(experiment)  # again, now that users' files may be imported
    kind, params = evaluator_of(experiment)
    space_params = experiment.space
    training = test = places = None
    if experiment.data is not None:
        source = registry.load("data", registry.name_of(experiment.data))(experiment.data)
        data, test, places = split_with_places(source, experiment.data)
        space_params = _fitted(space_params, data.image_shape)
        training = TrainingSetting(
            space_params.model_dump(exclude={"name"}),
            data,
            machine.hardware(experiment.parallel),
            tuple(map(own_classes.load_metric, experiment.metrics)),
        )
    space = registry.make_space(space_params)
    setting = Setting(
        Verbatim(space) if Need.GENOMES in kind.needs else space,
        experiment.objectives,
        experiment.constraints,
        experiment.seed,
        training,
        experiment.budget,
    )
    if trains_here(experiment):
        machine.take_gpu(experiment.parallel.device)
        keep_freed_memory()
        setting = _suited(setting)
    evaluator = kind(params, setting)
    name = registry.name_of(experiment.evaluator)
    registry.check_members(evaluator, Evaluator, name)
    _check_metrics(experiment, evaluator, kind.metrics_of(params), name)
    return Parts(setting, evaluator, test, places)


def fitted(settings: Settings) -> Settings:
    """Return settings whose space is complete; if it depends on the images, they are read.

    Raises:
        UserError: the images cannot be read.
    """
    space, params = settings.space, settings.data
    if not isinstance(space, FitsImages) or space.complete or params is None:
        return settings
    images, _ = load(registry.load("data", registry.name_of(params))(params), params)
    channels, height, width = images.images.shape[1:]
    update = {"space": _fitted(space, (channels, height, width))}
    return settings.model_copy(update=update)


def _fitted(space: Params, image_shape: tuple[int, int, int]) -> Params:
    return space.fitted(image_shape) if isinstance(space, FitsImages) else space


def _suited(setting: Setting) -> Setting:
    """Return a setting on whose hardware each choice of its space can be run.

    A supernet has all of them; a network on its own is looked at when it is trained
    (`Hardware.suited_to`).
    """
    space, training = setting.space, setting.trained()
    hardware = training.hardware
    with torch.random.fork_rng(devices=[]):
        for choice in range(max(space.choices) if hardware.channels_last else 0):
            genome = space.genome([min(choice, count - 1) for count in space.choices])
            network = decode(space, space.canonical(genome), **training.arguments)
            hardware = hardware.suited_to(network, training.data.image_shape)
    return replace(setting, training=replace(training, hardware=hardware))


def read_data(experiment: Experiment) -> str:
    """Read the images, or the table, of an experiment; return what they are in words.

    Raises:
        UserError: they cannot be read, or have mistakes.
    """
    check_together(experiment)  # again, now that users' files may be imported
    if experiment.data is None:
        evaluator = build(experiment).evaluator
        rows = f"{len(evaluator.rows.places)} genomes" if isinstance(evaluator, Tabular) else "none"
        return f"{rows}, for the evaluator {registry.name_of(experiment.evaluator)}"
    source = registry.load("data", registry.name_of(experiment.data))(experiment.data)
    data, test = split(source, experiment.data)
    shape = "x".join(map(str, data.image_shape))
    return (
        f"{len(data.train)} training, {len(data.val)} validation and {len(test)} test images, "
        f"{shape}, of {data.classes} classes"
    )


def try_out(parts: Parts, workers: Executor | None, timeout: float | None) -> None:
    """Send images through some networks of a space of the user's own, each in a worker.

    Without workers, it is done in this process.

    A network that ends its process, or takes longer than `timeout`, is a fault as in the search,
    unless all do.

    Raises:
        UserError: a network raises an exception, or cannot be trained as it is.
    """
    space = parts.setting.space
    if not isinstance(space, OwnSpace) or not isinstance(parts.evaluator, Trains):
        return
    training = parts.setting.trained()
    trial = Trial(space, training.arguments, training.data.image_shape)
    dispatcher = None if workers is None else InWorkers(trial, workers, timeout=timeout)
    desk = Desk(trial, space, dispatcher=dispatcher)
    answers = desk.answer_all([desk.question(Candidate(genome)) for genome in space.trials()])
    failed = [answer for answer in answers if answer.status.failed]
    mistaken = [answer for answer in answers if answer.message and not answer.status.failed]
    for answer in failed:
        log.warning("%s %s: %s", _choices(space, answer), answer.status, answer.message)
    if not mistaken and len(failed) < len(answers):
        return
    answer = (mistaken or failed)[0]
    n_images = f"(n, {', '.join(map(str, training.data.image_shape))})"
    raise UserError(
        f"{space.title} with {_choices(space, answer)} {answer.message}",
        hint=f"must return logits (n, {training.data.classes}) for images {n_images}, and have "
        "trainable parameters, whatever is picked",
        key="space",
    )


def _choices(space: OwnSpace, answer: Evaluation) -> str:
    genome = answer.candidate.genome
    chosen = (
        f"{gene.name}={space.choice(genome, i)}"
        for i, (gene, live) in enumerate(zip(space.genes, space.live(genome), strict=True))
        if live
    )
    return textwrap.shorten(", ".join(chosen), 160, placeholder=" ...")


def make_strategy(
    experiment: Experiment, setting: Setting, params: Params | None = None
) -> Strategy:
    """Return a new strategy of an experiment.

    Args:
        params: its settings, if they are no longer those of the experiment.
    """
    kind, given = strategy_of(experiment.strategy)
    strategy = kind(params or given, setting)
    registry.check_members(strategy, Strategy, registry.name_of(experiment.strategy))
    return strategy


def _check_metrics(
    experiment: Experiment, evaluator: Evaluator, declared: Sequence[Metric], name: str
) -> None:
    """Checks that an evaluator measures what its class declares, and the user's own metrics.

    Raises:
        UserError: it lacks a metric, or one has a name that another column has.
    """
    own_names = [own.rpartition(":")[2] for own in experiment.metrics]
    names = [metric.name for metric in evaluator.metrics]
    reserved = RESERVED_IN_RUNS
    if has_finalists(experiment):
        reserved |= finals_columns(experiment.objectives[0].name)
    for i, measure in enumerate(names):
        if mistake := refused(measure, reserved, names[:i]):
            own_key = f"metrics.{own_names.index(measure)}" if measure in own_names else ""
            raise UserError(mistake, key=own_key or "evaluator.name")
    measured = set(names)
    for metric in declared:
        if metric.name not in measured and not metric.on_demand:
            raise UserError(
                f"metrics_of of {name} declares {metric.name}, which is not in its metrics",
                hint="name the same metrics in both",
                key="evaluator.name",
            )
    for i, own in enumerate(own_names):
        if own not in measured:
            raise UserError(
                f"the evaluator {name} does not compute metrics of your own",
                hint="remove the key, or have it measure `setting.training.metrics`",
                key=f"metrics.{i}",
            )


def trains_here(experiment: Experiment) -> bool:
    """Return whether the driver's process trains something, such as a supernet."""
    kinds = (evaluator_of(experiment)[0], strategy_of(experiment.strategy)[0])
    return any({Need.SUPERNET, Need.OPS} & kind.needs for kind in kinds)
