"""What a command does to the end: a search, a training, its figures."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from evonas.cli.telling import echo, plugin_options
from evonas.markdown import counted

if TYPE_CHECKING:
    from evonas.jobs.full_training import FullTraining
    from evonas.jobs.search import Run


def search_to_end(search: Run) -> None:
    """Search to the end, with progress on screen, and show the results."""
    from evonas import display

    display.search_shown(search)
    display.show_run(search.path)
    draw_if_possible(search.path)
    if search.folder.weights("winner").exists():
        path, own = search.path, plugin_options(search.path)
        echo(f"To train the winner in full: evonas train {path}{own}")
        echo(f"To use it without evonas: evonas export {path}{own}")


def train_to_end(training: FullTraining) -> None:
    """Train to the end, with progress on screen, and show the result."""
    from evonas import display

    reader = display.of_training(training)
    with display.progress(training.settings.name, "epochs", reader) as show_now:
        for _ in training:
            show_now()
        training.finish()
    display.show_training(training.path)
    draw_if_possible(training.path)
    path, own = training.path, plugin_options(training.path)
    echo(f"To use it without evonas: evonas export {path}{own}")


def draw(run_dir: Path, only: Collection[str] = (), *, pdf: bool = False) -> None:
    """Draw the figures, and print how many there are and which could not be drawn."""
    from evonas import plots

    drawn = plots.draw(run_dir, only, pdf=pdf)
    echo(f"{drawn.folder}: {counted(len(drawn.figures), 'figure')}")
    for name, reason in drawn.skipped.items():
        echo(f"  {name}: not drawn, since {reason}")


def draw_if_possible(path: Path, only: Collection[str] = ()) -> None:
    try:
        draw(path, only)
    except Exception as error:  # the run is finished and recorded; only its figures are missing
        if not isinstance(error, OSError):
            logging.getLogger("evonas").exception("figures")
        echo(f"figures: not drawn: {type(error).__name__}: {error}", err=True)
