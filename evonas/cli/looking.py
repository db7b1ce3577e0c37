"""The commands that read run folders: `show`, `plot`, `report` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evonas import interrupts, plugins
from evonas.cli import finishing
from evonas.cli.options import Plugin, RunDir, loaded
from evonas.cli.telling import echo, reported
from evonas.core import UserError
from evonas.experiment import Experiment, TrainingRun


def show(
    what: Annotated[
        str, typer.Argument(metavar="RUN_DIR|GENOME", help="A run folder, or a genome.")
    ],
    genome: Annotated[
        str | None,
        typer.Option(
            metavar="winner|best|knee|KEY",
            help="Show a network of the run folder, named as for `evonas train`.",
        ),
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the genome into a PNG, SVG or PDF file."),
    ] = None,
    experiment: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For a GENOME: the experiment with its sizes."),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", help="Show a run that goes on elsewhere, until it ends; Ctrl-C ends it."
        ),
    ] = False,
    plugin: Plugin = None,
) -> None:
    """Shows a run's front, winner, cost and faults, or describes a genome.

    Example: evonas show results/mine-seed0 --genome winner --draw winner.png
    """
    from evonas import display

    with reported():
        from evonas.jobs.choice import choose, is_folder, settings_of

        of_run = is_folder(what)
        if of_run and experiment is not None:
            problem = "applies to a genome, not to a run folder"
            raise UserError(problem, hint="leave it out", key="--experiment")
        is_training = of_run and (Path(what) / "training.yaml").exists()
        if follow and (not of_run or is_training or genome is not None):
            problem = "applies to the folder of a search alone"
            raise UserError(problem, hint="leave it out", key="--follow")
        if follow:
            from evonas.following import follow as show_until_its_end

            with interrupts.saying(lambda: f"no longer followed; {what} is left as it is"):
                show_until_its_end(Path(what))
            return
        if of_run and genome is None:
            if draw is not None:
                hint = f"add --genome, or draw the run with `evonas plot {what}`"
                raise UserError("draws a genome, not a run folder", hint=hint, key="--draw")
            (display.show_training if is_training else display.show_run)(Path(what))
            return
        from evonas.jobs.facts import facts
        from evonas.jobs.parts import fitted

        settings: Experiment | TrainingRun | None = None
        if of_run:
            plugins.allow_recorded(Path(what), plugin or ())
            settings = settings_of(Path(what))
        elif experiment is not None:
            settings = fitted(loaded(experiment))
        choice = choose(what, genome, settings)
        display.show_genome(choice, facts(choice, settings))
        if draw is not None:
            from evonas import plots

            plots.draw_cell(choice.space, choice.genome, draw)


def plot(
    run_dir: RunDir,
    pdf: Annotated[
        bool,
        typer.Option("--pdf", help="Write each figure as a PDF too, its fonts embedded."),
    ] = False,
) -> None:
    """Redraws a run's figures from its tables, even while it is running.

    For a full training, draws its learning curve.

    Example: evonas plot results/mine-seed0
    """
    with reported():
        finishing.draw(run_dir, pdf=pdf)


def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR", help="One run folder, or several.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file to write (default: RUN_DIR/report.html; of several runs, report.html).",
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Write it anew after each generation, while a run goes on."),
    ] = False,
) -> None:
    """Writes a report as a single HTML file, to read offline or to send.

    It has the winner and its score, the front, the progress of the search, lineage, cost and
    faults; of several runs, first their comparison. It reads the tables alone, even while a run is
    going on.

    Example: evonas report results/mine-seed0 --out mine.html
    """
    with reported():
        from evonas.report import page

        if watch:
            file = page.file_of(run_dirs, out)
            with interrupts.saying(lambda: f"interrupted; the report so far is in {file}"):
                for written in page.watch(run_dirs, out):
                    echo(f"written: {written}", err=True)
        file = page.write(run_dirs, out)
        size = file.stat().st_size / 1e6
        echo(f"the report is in {file} ({size:.1f} MB); any browser opens it, also offline")


def compare(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR", help="Two or more run folders.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for tables and figures.")] = Path(
        "results/compare"
    ),
) -> None:
    """Compares runs over seeds: best so far, hypervolume, cost.

    Example: evonas compare results/mine-seed0 results/mine-seed1 --out results/both
    """
    with reported():
        from evonas.report.compare import Comparison

        comparison = Comparison.of(run_dirs)
        comparison.write(out)
        echo(comparison.text())
        echo(f"\ntables and figures are in {out}", err=True)
