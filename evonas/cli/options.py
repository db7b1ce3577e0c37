"""Options that several commands have, and what they say of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from evonas import catalogue, config, plugins, words
from evonas.core import UserError
from evonas.experiment import Experiment, own_files

ExperimentFile = Annotated[Path, typer.Argument(help="The experiment file (YAML).")]
RunDir = Annotated[Path, typer.Argument(help="A run folder, such as results/NAME-seed0.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting, e.g. strategy.population=20. Repeatable.",
    ),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="A Python file this run depends on. Repeatable."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of worker processes (default: from the experiment file)."),
]
RunWorkers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of worker processes (default: as in the run)."),
]


def _count(text: str) -> int:
    """Read a count, which may be written like `50k`."""
    number = words.plain(text, float)
    with suppress(ValueError):
        number = float(number)
    if not isinstance(number, float | int) or not 1 <= number < 2**63 or number != int(number):
        raise typer.BadParameter(f"{text!r} is not a whole number of at least 1, such as 50k")
    return int(number)


MaxParams = Annotated[
    int | None,
    typer.Option(
        parser=_count, metavar="N", help="The most parameters that a network may have, e.g. 50k."
    ),
]
MaxFlops = Annotated[
    int | None,
    typer.Option(parser=_count, metavar="N", help="The most multiply-adds for an image, e.g. 5M."),
]
MaxMemory = Annotated[
    int | None,
    typer.Option(
        parser=_count,
        metavar="N",
        help="The most bytes of weights and activations at once, in float32, e.g. 256k.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The seed of the run.")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Evaluate on the Dask cluster of this scheduler, e.g. tcp://10.0.0.1:8786.",
    ),
]


Network = Annotated[
    str | None,
    typer.Option(
        metavar="winner|best|knee|KEY",
        help="A network of the run folder; also genes, a genome as the space writes it, or a name "
        "from `evonas list genomes` (default: the winner).",
        autocompletion=catalogue.completing("winner", "best", "knee"),
    ),
]


def as_settings(
    *,
    seed: int | None = None,
    epochs: int | None = None,
    device: str | None = None,
) -> list[str]:
    """Return the options as `--set` would have them."""
    values = {
        "seed": seed,
        "epochs": epochs,
        "parallel.device": None if device is None else f"'{device}'",
    }
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def where(workers: int | None, address: str | None = None) -> list[str]:
    """Return where to evaluate, as `--set` would have it.

    Raises:
        UserError: here and elsewhere.
    """
    if workers is not None and address is not None:
        problem = "cannot be given with --workers, since the cluster says how many there are"
        raise UserError(problem, hint="give one of them", key="--address")
    if workers is not None:
        return [*config.HERE, f"parallel.workers={workers}"]
    if address is not None:
        there = ("backend=dask", f"address='{address}'", "workers=auto")
        return [f"parallel.{setting}" for setting in there]
    return []


def loaded(experiment: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Load an experiment, and permit its own Python files to be imported later."""
    settings = config.load(experiment, overrides)
    plugins.allow(own_files(settings))
    return settings
