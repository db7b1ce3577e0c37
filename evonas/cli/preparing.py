"""The commands around experiment files: `init`, `validate`, `estimate`, `list`; and `bench`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from evonas import catalogue, files
from evonas.cli.options import (
    ExperimentFile,
    MaxFlops,
    MaxMemory,
    MaxParams,
    Set,
    Workers,
    loaded,
    where,
)
from evonas.cli.telling import echo, interruptible, reported, width
from evonas.core import UserError
from evonas.markdown import counted


def init(
    file: Annotated[Path, typer.Argument(help="The file to write.")] = Path("experiment.yaml"),
    data: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The data set.", autocompletion=catalogue.completing(kind="data")
        ),
    ] = "digits",
    path: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Where the data are, for a data set that needs a path."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder with a folder of images for each class, instead of --data and --path. "
            "The experiment is then complete, with settings that suit the images and the machine.",
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The search space; `evonas list spaces` says what each is for (default: "
            "nasbench201, or one for --images).",
            autocompletion=catalogue.completing(kind="spaces"),
        ),
    ] = None,
    max_params: MaxParams = None,
    max_flops: MaxFlops = None,
    max_memory: MaxMemory = None,
    hours: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=10_000, help="With --images: how long a run may take (default: 1)."
        ),
    ] = None,
) -> None:
    """Writes an experiment file to start from, with each key explained.

    Example: evonas init --images pictures --max-params 50k --hours 2
    """
    since = time.monotonic()
    with reported():
        refuse_existing(file, "name a new file")
        if images is not None:
            from evonas import starter_images

            if path is not None or data != "digits":
                problem = "cannot be given with --data or --path"
                raise UserError(problem, hint="leave these out", key="--images")
            begun = starter_images.for_images(
                file,
                images,
                starter_images.limits_of(max_params, max_flops, max_memory),
                hours=hours or 1.0,
                since=since,
                space=space or starter_images.DEFAULT_SPACE,
            )
            create(file, begun.text)
            echo(f"{begun.summary}")
            echo(f"wrote {file}; next: evonas run {file}")
            return
        for option, given in (
            ("--max-flops", max_flops),
            ("--max-memory", max_memory),
            ("--hours", hours),
        ):
            if given is not None:
                raise UserError("needs --images", hint="add it, or leave this out", key=option)
        from evonas.starter import MISSING, starter

        text = starter(file, data, path, space or "nasbench201", max_params)
        create(file, text)
        first = f"set data.path, now {MISSING}; then " if MISSING in text else ""
        echo(f"wrote {file}; next: {first}evonas estimate {file}, then evonas run {file}")


def validate(
    experiment: ExperimentFile,
    data: Annotated[
        bool, typer.Option("--data", help="Also read the images, or the table, and check them.")
    ] = False,
    set_: Set = None,
) -> None:
    """Checks an experiment file without running anything.

    Example: evonas validate mine.yaml --data
    """
    with reported():
        settings = loaded(experiment, set_ or [])
        if data:
            from evonas.jobs.parts import read_data  # loads torch, in seconds

            echo(f"data: {read_data(settings)}")
        echo(f"{experiment}: valid ({settings.name}, seed {settings.seed})")


def estimate(
    experiment: ExperimentFile,
    workers: Workers = None,
    set_: Set = None,
) -> None:
    """Estimates run time and memory from a few timed steps.

    Example: evonas estimate mine.yaml --workers 4
    """
    overrides = [*(set_ or []), *where(workers)]
    with reported():
        settings = loaded(experiment, overrides)
        from evonas import display
        from evonas.jobs.estimate import estimate as estimate_costs

        display.show_estimate(settings.name, estimate_costs(settings))


def bench(
    table: Annotated[
        Path, typer.Argument(help="The benchmark file (YAML), which names the table.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the benchmark (default: results/bench-NAME)."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes (default: one per core).")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a setting, e.g. seeds=20. Repeatable."
        ),
    ] = None,
) -> None:
    """Compares strategies on a table of trained networks, over many seeds; resumable.

    Example: evonas bench table.yaml --set seeds=20
    """
    with reported():
        from evonas.bench.bench import opened
        from evonas.bench.spec import load
        from evonas.display import counter

        settings = load(table, set_ or [])
        folder = out or Path("results") / f"bench-{settings.name}"
        with (
            interruptible(folder, command="the same command"),
            opened(settings, folder, workers=workers) as benching,
        ):
            echo(f"{settings.name}: {counted(benching.count, 'run')} in {folder}", err=True)
            with counter(settings.name, "runs") as update:
                for count in benching:
                    update(count, benching.count)
            echo(benching.finish())
            echo(f"table and figure are in {folder}", err=True)


def schema() -> None:
    """Prints the JSON schema of an experiment file, for editors.

    With it they complete the keys and mark mistakes.

    Example: evonas schema > experiment.schema.json
    """
    with reported():
        from evonas.schema import text  # loads torch, in seconds

        echo(text().removesuffix("\n"))


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help=f"What to list, with what each is for: {', '.join(catalogue.KINDS)} (default: all "
            "names).",
            autocompletion=catalogue.completing(*catalogue.KINDS),
        ),
    ] = None,
) -> None:
    """Lists the names that an experiment file can use.

    Example: evonas list spaces
    """
    with reported():
        echo("\n".join(catalogue.lines(kind, width())))


def refuse_existing(file: Path, hint: str) -> None:
    if os.path.lexists(file):
        raise UserError("already exists", hint=hint, key=str(file))


def create(file: Path, text: str) -> None:
    """Write a new file.

    Raises:
        UserError: it is there, or cannot be written.
    """
    try:
        files.create(file, text)
    except FileExistsError:
        raise UserError("already exists", hint="name a new file", key=str(file)) from None
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", key=str(file)) from None
