"""The learning curve of a full training."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from evonas.plots.style import (
    BLUE,
    VERMILION,
    Drawing,
    Measure,
    NotYet,
    headed,
    marker,
    panels,
    whole_axis,
)
from evonas.records import guessing
from evonas.records.tables import read


def curve(training_dir: Path) -> Drawing:
    """Draws loss and test error by epoch; the score of the training is that of the last epoch."""
    try:
        frame = read(training_dir / "curve.csv")
    except (OSError, ValueError):
        frame = pd.DataFrame()
    if frame.empty:
        raise NotYet("no epoch is finished yet")
    x, dot = frame["epoch"], marker(len(frame))
    figure, (losses, errors) = panels(2, 1.45, above=0.2)
    losses.plot(x, frame["train_loss"], color=VERMILION, ls="--", marker=dot and "s", label="train")
    losses.plot(x, frame["test_loss"], color=BLUE, marker=dot, label="test")
    losses.set_ylabel("loss (nats)")
    Measure("test_error", frame["test_error"]).write_on(errors.yaxis)
    errors.plot(x, frame["test_error"], color=BLUE, marker=dot)
    for ax in (losses, errors):
        whole_axis(ax, x, "epoch")
        ax.label_outer()
    figure.align_ylabels([losses, errors])
    heading = headed(guessing.AT_CHANCE if guessing.of_training(training_dir) else "")
    figure.legend(
        *losses.get_legend_handles_labels(), loc="outside upper center", ncols=2, **heading
    )
    return Drawing(figure, frame)
