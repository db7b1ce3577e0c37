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
    """Draws the losses by epoch, and the validation error if images are held out for it."""
    try:
        frame = read(training_dir / "curve.csv")
    except (OSError, ValueError):
        frame = pd.DataFrame()
    if frame.empty:
        raise NotYet("no epoch is finished yet")
    x, dot = frame["epoch"], marker(len(frame))
    held_out = "val_error" in frame and bool(frame["val_error"].notna().any())
    figure, axes = panels(1 + held_out, 1.45, above=0.2)
    losses = axes[0]
    losses.plot(x, frame["train_loss"], color=VERMILION, ls="--", marker=dot and "s", label="train")
    losses.set_ylabel("loss (nats)")
    if held_out:
        losses.plot(x, frame["val_loss"], color=BLUE, marker=dot, label="validation")
        Measure("val_error", frame["val_error"]).write_on(axes[1].yaxis)
        axes[1].plot(x, frame["val_error"], color=BLUE, marker=dot)
    for ax in axes:
        whole_axis(ax, x, "epoch")
        ax.label_outer()
    figure.align_ylabels(axes)
    heading = headed(guessing.AT_CHANCE if guessing.of_training(training_dir) else "")
    figure.legend(
        *losses.get_legend_handles_labels(), loc="outside upper center", ncols=2, **heading
    )
    return Drawing(figure, frame)
