"""The commands that search: `run`, `search` and `resume`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from evonas import catalogue, files
from evonas.cli.finishing import search_to_end, train_to_end
from evonas.cli.options import (
    Address,
    ExperimentFile,
    MaxFlops,
    MaxMemory,
    MaxParams,
    Plugin,
    RunDir,
    RunWorkers,
    Seed,
    Set,
    Workers,
    as_settings,
    loaded,
    where,
)
from evonas.cli.preparing import create, refuse_existing
from evonas.cli.telling import echo, interruptible, reported
from evonas.core import UserError


def run(
    experiment: ExperimentFile,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run folder (default: results/NAME-seedN)."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="The seed of the run (default: from the experiment file)."),
    ] = None,
    workers: Workers = None,
    address: Address = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="auto|cpu|cuda|cuda:0,1",
            help="Where to train (default: from the experiment file).",
        ),
    ] = None,
    set_: Set = None,
) -> None:
    """Runs an experiment in a new run folder.

    Example: evonas run mine.yaml --seed 1 --set strategy.population=20
    """
    since = time.monotonic()
    overrides = [*(set_ or []), *as_settings(seed=seed, device=device)]
    with reported():
        overrides += where(workers, address)
        settings = loaded(experiment, overrides)
        path = out or Path("results") / f"{settings.name}-seed{settings.seed}"
        if not (path / "config.yaml").exists():
            echo(f"{settings.name}: starting in {path}", err=True)
        from evonas.jobs.search import start  # loads torch, in seconds: after the file is checked

        with interruptible(path), start(settings, path, since) as search:
            search_to_end(search)


def search(
    images: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A folder with a folder of images for each class."),
    ],
    max_params: MaxParams = None,
    max_flops: MaxFlops = None,
    max_memory: MaxMemory = None,
    hours: Annotated[
        float,
        typer.Option(min=0.001, max=10_000, help="How long all of it may take, figures included."),
    ] = 1.0,
    space: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The search space (default: one for images).",
            autocompletion=catalogue.completing(kind="spaces"),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="The run folder (default: results/DIR-seedN)."),
    ] = None,
    seed: Seed = 0,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of worker processes (default: one per core or GPU)."),
    ] = None,
) -> None:
    """Finds the best small network for a folder of images, in a given time.

    Looks at the images and the machine, writes the experiment beside the run folder, as
    RUN_DIR.yaml, and runs it: search, finals, winner, figures.

    Example: evonas search pictures --max-params 50k --hours 1
    """
    since = time.monotonic()
    with reported():
        from evonas import starter_images

        limits = starter_images.limits_of(max_params, max_flops, max_memory)
        path = out or Path("results") / f"{starter_images.name_of(images)}-seed{seed}"
        file = path.with_name(f"{path.name}.yaml")
        if (path / "config.yaml").exists():
            hint = f"resume it with `evonas resume {path}`, or choose another folder with --out"
            raise UserError(f"{path} already exists", hint=hint)
        refuse_existing(file, f"run it with `evonas run {file}`, or choose another --out")
        with interruptible(path):
            begun = starter_images.for_images(
                file,
                images,
                limits,
                hours=hours,
                since=since,
                seed=seed,
                space=space or starter_images.DEFAULT_SPACE,
                workers=workers,
                run=path,
            )
            files.make_folder(file.parent)
            create(file, begun.text)
            echo(f"{begun.summary}; the experiment is {file}", err=True)
            from evonas.jobs.search import start

            try:
                with start(loaded(file), path, since) as run:
                    search_to_end(run)
            except UserError:  # such as an image that cannot be read
                if not (path / "config.yaml").exists():  # the same command is to begin anew
                    files.remove(file)
                raise
        echo(f"To search again with another seed: evonas run {file} --seed {seed + 1}")


def resume(
    run_dir: RunDir,
    workers: RunWorkers = None,
    address: Address = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override hours, stop, finalists, training, parallel.workers, parallel.timeout, "
            "cache or logging. Repeatable.",
        ),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Resumes an interrupted run, or extends a finished one.

    Also resumes a full training begun with `evonas train`.

    Example: evonas resume results/mine-seed0 --set stop.evaluations=200
    """
    since = time.monotonic()
    with reported():
        overrides = [*(set_ or []), *where(workers, address)]
        if (run_dir / "training.yaml").exists():
            if overrides:
                problem = "--set, --workers and --address do not apply to a full training"
                raise UserError(problem, hint="leave them out", key=str(run_dir))
            from evonas.jobs.full_training import resume as resume_training

            with interruptible(run_dir), resume_training(run_dir, plugin or ()) as training:
                train_to_end(training)
            return
        if (run_dir / "config.yaml").exists():
            echo(f"resuming {run_dir}", err=True)
        from evonas.jobs.search import resume as resume_search

        own = plugin or ()
        with interruptible(run_dir), resume_search(run_dir, overrides, own, since) as search:
            search_to_end(search)
