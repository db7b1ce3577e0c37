"""The experiment file: reading, checking and writing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from evonas import loggers, plugins, registry, yamlfile
from evonas.consistency import check_together
from evonas.core import WRITTEN, Mistake, Params, UserError
from evonas.experiment import COMPONENTS, Experiment, TrainingRun, components, example, recipe_of
from evonas.mistakes import explained, kind_of, shown
from evonas.protocols import Chooses

SEARCH_SHARE = 0.6  # of a run's hours; what is left is the finals'

HERE = ("parallel.backend=loky", "parallel.address=null")  # overrides: evaluate on this machine

T = TypeVar("T", Experiment, TrainingRun)

P = TypeVar("P", bound=Params)


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
        raise UserError(*explained(error, model, section, example)) from None


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
        raise UserError(f"is {shown(value)}", hint=f"must be {example(section)}", key=section)
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


@contextmanager
def _readable_path(key: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(str(error), hint="give a valid path", key=key) from None
