"""The settings of a training."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BeforeValidator, Field

from evonas.core import Params


class Recipe(Params):
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """The optimizer: `sgd`, with Nesterov momentum, or `adamw`."""
    lr: Annotated[float, Field(gt=0, le=100)] = 0.1
    """The highest learning rate of the schedule. `adamw` needs a far lower one than `sgd`, around
    0.002."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """The momentum of `sgd`; `adamw` does not use it."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 5e-4
    """How strongly weights are pulled towards 0. It acts on the weights of convolutions and linear
    layers, not on biases and batch norm."""
    clip: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """The largest norm that the gradient may have; a longer gradient is scaled down to it. Without
    it, gradients are not clipped."""
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    """How the learning rate changes: `cosine` falls from `lr` to 0, slowly at both ends;
    `one_cycle` rises to `lr` in the first quarter and then falls to 0; `constant` stays at
    `lr`."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of each label that is spread evenly over all classes; 0 turns it off."""
    auxiliary_weight: Annotated[float, Field(ge=0, le=10)] = 0.4  # Liu et al. (2019)
    """For networks with an auxiliary classifier: the weight of its loss; the main loss has 1."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 64
    """How many images each training step uses."""
    pad_crop: Annotated[int, Field(ge=0, le=64)] = 0
    """The largest random shift of a training image, in pixels, in each direction: the image is
    padded by this much, and a part of the original size is cut out. 0 turns it off."""
    flip: bool | None = None
    """Whether half of the training images, drawn at random, are mirrored left to right. Without
    it, the data set decides: `flippable` for your own images; CIFAR and Fashion-MNIST are
    mirrored, digits are not."""
    cutout: Annotated[int, Field(ge=0, le=512)] = 0
    """The side, in pixels, of a square that is blanked out at a random place of each training
    image; 0 turns it off."""
    recalibrate: Annotated[int, Field(ge=0, le=100_000)] = 20
    """The number of batches of training images on which the statistics of the batch norms are
    measured anew before a network trained on its own is scored, if its training had fewer than 10 /
    momentum steps. (That is the momentum of the batch norms, 0.1 in all spaces of evonas, so 100
    steps.) Their moving averages lag behind the weights, which misjudges short trainings. With 0
    they are never measured anew."""

    BEFORE: ClassVar = {"recalibrate": 0}


def filled_from(recipe: Recipe) -> BeforeValidator:
    """Lets a field set some keys of a recipe, and takes the others from this one."""

    def fill(data: Any) -> Any:
        return recipe.model_dump(exclude_unset=True) | data if isinstance(data, dict) else data

    return BeforeValidator(fill)


WARM_UP = 0.25  # the share of a one-cycle schedule that rises


@runtime_checkable
class TrainsAlone(Protocol):
    """Settings that say how a network is trained on its own."""

    @property
    def recipe_alone(self) -> Recipe: ...


def lr_factor(schedule: str, progress: float) -> float:
    """The learning rate as a share of its highest value, at `progress` from 0 to 1.

    `cosine` anneals without restarts (Loshchilov and Hutter, 2017, eq. 5); `one_cycle` rises
    linearly and then falls linearly to 0 (after Smith and Topin, 2018).
    """
    progress = min(max(progress, 0.0), 1.0)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "one_cycle":
        return min((progress + 0.01) / (WARM_UP + 0.01), (1 - progress) / (1 - WARM_UP))
    return 1.0
