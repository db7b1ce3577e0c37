"""The settings of a training."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from evonas.core import Params


class Recipe(Params):
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`sgd` is with Nesterov momentum."""
    lr: Annotated[float, Field(gt=0, le=100)] = 0.1
    """The learning rate, the schedule's highest."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of sgd."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 5e-4
    """Of weights; biases and batch norm go without."""
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    """How the learning rate falls."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the label given to all classes."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 64
    """Images a step."""
    pad_crop: Annotated[int, Field(ge=0, le=64)] = 0
    """Pixels; random crops of the padded image."""
    flip: bool | None = None
    """Mirror half of the images left to right; none: where the data set says it makes sense."""
    cutout: Annotated[int, Field(ge=0, le=512)] = 0
    """Side of the square that is blanked out, pixels."""


WARM_UP = 0.25  # of a one-cycle schedule


def lr_factor(schedule: str, progress: float) -> float:
    """The learning rate as a share of its highest, at `progress` from 0 to 1.

    `cosine` anneals without restarts (Loshchilov and Hutter, 2017, eq. 5); `one_cycle` climbs in
    a line and then falls in a line to 0 (after Smith and Topin, 2018).
    """
    progress = min(max(progress, 0.0), 1.0)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "one_cycle":
        return min((progress + 0.01) / (WARM_UP + 0.01), (1 - progress) / (1 - WARM_UP))
    return 1.0
