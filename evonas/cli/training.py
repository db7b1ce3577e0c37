"""The commands that train or take away chosen networks: `train`, `rank` and `export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from evonas import catalogue, config, files, plugins
from evonas.cli import finishing
from evonas.cli.finishing import train_to_end
from evonas.cli.options import Network, Plugin, RunDir, RunWorkers, as_settings, loaded
from evonas.cli.telling import echo, interruptible, reported
from evonas.core import UserError
from evonas.experiment import Experiment
from evonas.markdown import counted
from evonas.records.folder import check_run_folder


def train(
    what: Annotated[
        str,
        typer.Argument(metavar="RUN_DIR|GENOME", help="A run folder, or a genome."),
    ],
    genome: Network = None,
    experiment: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For a GENOME: the experiment with its data and sizes."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the training (default: RUN_DIR-KEY)."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of epochs (default: from the experiment)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed (default: from the experiment).")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="auto|cpu|cuda|cuda:0", help="Where to train (default: from the experiment)."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting of the training, e.g. recipe.lr=0.05. Repeatable.",
        ),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Trains one network in full, then tests it.

    Example: evonas train results/mine-seed0 --genome knee --epochs 100
    """
    overrides = as_settings(seed=seed, epochs=epochs, device=device)
    if device is not None:  # precision and layout were chosen for the device of the search
        overrides += ["parallel.precision=auto", "parallel.channels_last=null"]
    overrides += set_ or []
    with reported():
        searched, folder = _searched(what, experiment, plugin or ())
        from evonas.jobs import choice, full_training  # loads torch, in seconds: after the checks

        full_training.check_trains(searched)
        chosen = choice.choose(what, genome, searched)
        settings = full_training.settings_for(searched, chosen.genome.text, overrides, folder)
        key = choice.read(settings.genome, settings).key
        stem = Path("results") / settings.name if experiment else Path(what)
        stem = stem if stem.name not in ("", "..") else stem.resolve()
        path = out or stem.with_name(f"{stem.name}-{files.short(key)}")
        if not (path / "training.yaml").exists():
            echo(f"{settings.name}: training {key} in {path}", err=True)
        with interruptible(path), full_training.start(settings, path) as training:
            train_to_end(training)
        if not experiment and len(searched.objectives) > 1:
            # The run's front shows it beside what the search measured.
            finishing.draw_if_possible(Path(what), only=("front",))


def rank(
    run_dir: RunDir,
    sample: Annotated[
        int, typer.Option(min=3, metavar="N", help="Number of networks, drawn at random.")
    ] = 50,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            metavar="E",
            help="Number of epochs of each training (default: finalists.budget).",
        ),
    ] = None,
    workers: RunWorkers = None,
    plugin: Plugin = None,
) -> None:
    """Compares supernet scores with stand-alone training; resumable.

    For a run with the evaluator supernet. Draws networks at random, scores each with the shared
    weights, trains each on its own, and reports how well the two orders agree.

    Example: evonas rank results/mine-seed0 --sample 20 --epochs 10
    """
    with reported():
        plugins.allow_recorded(run_dir, plugin or ())
        from evonas.display import counter
        from evonas.jobs.rank import opened

        folder = run_dir / "rank"
        with (
            interruptible(folder, command="the same command"),
            opened(run_dir, sample, epochs=epochs, workers=workers) as ranking,
        ):
            name = f"{ranking.experiment.name}: {counted(len(ranking.genomes), 'network')}"
            echo(f"{name}, {ranking.budget.text}, in {folder}", err=True)
            with counter(name, "results") as update:
                for count in ranking:
                    update(count, ranking.count)
            echo(ranking.finish())
        finishing.draw_if_possible(run_dir, only=("rank",))


def export(
    run_dir: RunDir,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="python|torch|onnx",
            help="The output format (default: as the output file ends, or python).",
            autocompletion=catalogue.completing("python", "torch", "onnx"),
        ),
    ] = None,
    genome: Network = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Output file (default: KEY.py, KEY.safetensors or KEY.onnx)."
        ),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Exports a trained network: plain PyTorch without evonas, safetensors, or ONNX.

    Example: evonas export results/mine-seed0 --format onnx --out mine.onnx
    """
    with reported():
        from evonas.export import network as exporting

        form = exporting.form_of(format_, out)
        plugins.allow_recorded(run_dir, plugin or ())
        network = exporting.trained(run_dir, genome)
        for line in exporting.closing(network, form, exporting.export(network, form, out)):
            echo(line)


def _searched(what: str, experiment: Path | None, own: Sequence[Path]) -> tuple[Experiment, Path]:
    """Load the experiment whose network `evonas train` trains, and permit its own Python files.

    Returns:
        The experiment, and the folder that its relative paths start from.

    Raises:
        UserError: `what` is a full training, or neither a run folder nor a genome with its
            experiment.
    """
    from evonas.jobs import choice

    folder = Path(what)
    if not choice.is_folder(what):
        if experiment is None:
            hint = "name a run folder, or add --experiment FILE to a genome"
            raise UserError(f"{what} is no run folder", hint=hint)
        return loaded(experiment), experiment.parent
    if (folder / "training.yaml").exists():
        raise UserError(f"{what} is a full training", hint=f"continue it: evonas resume {what}")
    if experiment is not None:
        problem = f"applies to a genome, and {what} is a run folder"
        raise UserError(problem, hint="leave it out", key="--experiment")
    check_run_folder(folder)
    plugins.allow_recorded(folder, own)
    return config.load_run(folder), folder
