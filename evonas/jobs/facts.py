"""Numbers that describe a network without training it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from evonas import registry
from evonas.core import Candidate
from evonas.data.dataset import load
from evonas.experiment import Experiment, evaluator_of
from evonas.jobs.choice import Choice, Settings
from evonas.loop import guarded
from evonas.markdown import counted
from evonas.networks.decode import decode
from evonas.networks.profile import profile
from evonas.protocols import Need, Setting


@dataclass(frozen=True, slots=True)
class Facts:
    """Numbers that describe a network.

    Attributes:
        values: the metrics by name; counts are whole numbers.
        source: how they were obtained, and from what: `counted at` some sizes, or `looked up in` a
            table.
    """

    values: Mapping[str, float]
    source: tuple[str, str]


def facts(choice: Choice, settings: Settings | None = None) -> Facts:
    """Return a network's parameters and FLOPs, or its values in a table.

    Args:
        settings: the sizes and data to count with, or the table to look in; None for the space's
            default settings.

    Raises:
        UserError: the data or the table cannot be read.
    """
    if isinstance(settings, Experiment) and settings.data is None:
        return _looked_up(choice, settings)
    canonical = choice.space.canonical(choice.genome)
    if settings is None:
        sizes = profile(decode(choice.space, canonical), (3, 32, 32))
        where = "the space's default size, 3x32x32 images, 10 classes"
        return Facts(asdict(sizes), ("counted at", where))
    assert settings.data is not None
    source = registry.load("data", registry.name_of(settings.data))(settings.data)
    everything, _ = load(source, settings.data)
    channels, height, width = everything.images.shape[1:]
    classes = 1 + int(everything.labels.max())
    built = decode(
        choice.space,
        canonical,
        in_channels=channels,
        classes=classes,
        **settings.space.model_dump(exclude={"name"}),
    )
    sizes = profile(built, (channels, height, width))
    images = f"{channels}x{height}x{width} images, {counted(classes, 'class')}"
    return Facts(asdict(sizes), ("counted at", f"the sizes of {settings.name}, {images}"))


def _looked_up(choice: Choice, experiment: Experiment) -> Facts:
    kind, params = evaluator_of(experiment)
    evaluator = kind(params, Setting(choice.space))
    answer = guarded(evaluator, Candidate(choice.genome), 0)
    if Need.GENOMES in kind.needs:
        where = answer.message or f"the table of {experiment.name}"
        return Facts(answer.values, ("looked up in", where))
    where = answer.message or f"the evaluator of {experiment.name}"
    return Facts(answer.values, ("measured by", where))
