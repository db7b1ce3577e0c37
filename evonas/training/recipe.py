"""The settings of a training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BeforeValidator, Field

from evonas.core import Params, Requirement


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
    warm_up: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The share of the schedule in which the learning rate first rises linearly to `lr`; the rest
    of the schedule follows. By default, 0.25 for `one_cycle` and 0 for the others."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of each label that is spread evenly over all classes; 0 turns it off."""
    ema: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The exponential moving average of the weights, which is then what is measured, saved and
    exported. It looks back over this share of the steps so far: 0.1 of a training of 1,000 steps is
    a horizon of 100. 0 turns it off. It does not apply to the weights of a supernet."""
    auxiliary_weight: Annotated[float, Field(ge=0, le=10)] = 0.4  # Liu et al. (2019)
    """For networks with an auxiliary classifier: the weight of its loss; the main loss has 1."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 64
    """How many images each training step uses."""
    pad_crop: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = 0
    """The largest random shift of a training image, in pixels, in each direction: the image is
    padded by this much, and a part of the original size is cut out. `auto` is an eighth of the
    image's shorter side, which is 4 of 32. 0 turns it off."""
    flip: bool | None = None
    """Whether half of the training images, drawn at random, are mirrored left to right. Without
    it, the data set decides: `flippable` for your own images; CIFAR and Fashion-MNIST are
    mirrored, digits are not."""
    cutout: Annotated[int, Field(ge=0, le=512)] = 0
    """The side, in pixels, of a square that is blanked out at a random place of each training
    image; 0 turns it off."""
    rand_augment: Annotated[int, Field(ge=0, le=10)] = 0
    """How many changes each training image goes through, drawn at random from these ten: none, a
    shear or a shift along either axis, a rotation, brightness, contrast, posterize and solarize
    (Cubuk et al., 2020, without those that equalise, sharpen or recolour). 0 turns it off."""
    magnitude: Annotated[float, Field(ge=0, le=30)] = 9.0
    """How strong the changes of `rand_augment` are. With 30, the strongest, they shear by 0.3,
    shift by 0.45 of a side, rotate by 30 degrees, change brightness and contrast by a factor of
    0.1 or 1.9, keep 4 of 8 bits and invert all pixels; they fall linearly to none with 0."""
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0
    """The alpha of mixup (Zhang et al., 2018): each training image is blended with another one of
    its batch, and its label with that one's, in shares drawn from Beta(alpha, alpha) for each
    batch. Common are 0.2 to 1; 0 turns it off."""
    cutmix: Annotated[float, Field(ge=0, le=100)] = 0.0
    """The alpha of CutMix (Yun et al., 2019): a rectangle of each training image, at a random
    place, is taken from another one of its batch, and the label is blended by area; the area is
    drawn from Beta(alpha, alpha) for each batch. Common is 1; 0 turns it off. With `mixup` too,
    each batch has one of the two, drawn evenly."""
    recalibrate: Annotated[int, Field(ge=0, le=100_000)] = 20
    """The number of batches of training images on which the statistics of the batch norms are
    measured anew before a network trained on its own is scored, if its training had fewer than 10 /
    momentum steps. (That is the momentum of the batch norms, 0.1 in all spaces of evonas, so 100
    steps.) Their moving averages lag behind the weights, which misjudges short trainings. With 0
    they are never measured anew."""

    BEFORE: ClassVar = {
        "ema": 0.0,
        "rand_augment": 0,
        "magnitude": 9.0,
        "mixup": 0.0,
        "cutmix": 0.0,
        "recalibrate": 0,
    }


WARM_UP = {"cosine": 0.0, "one_cycle": 0.25, "constant": 0.0}  # what each schedule does by itself
STRONG: dict[str, float | str] = {
    "label_smoothing": 0.1,
    "warm_up": 0.05,
    "ema": 0.1,
    "pad_crop": "auto",
    "mixup": 0.2,
}
LONG = 100  # epochs from which on images are mixed, which a short training has no time for


def decided(recipe: Recipe) -> set[str]:
    """The keys of `STRONG` that a recipe has decided on, by naming them or what goes with them."""
    keys = set(recipe.model_fields_set)
    if "cutmix" in keys:
        keys.add("mixup")
    return keys & STRONG.keys()


def strengthened(recipe: Recipe, keys: Iterable[str], epochs: int) -> Recipe:
    """A recipe with these keys as in `STRONG`, for a training of so many epochs."""
    values = {key: STRONG[key] for key in keys}
    if epochs < LONG:
        values.pop("mixup", None)
    if recipe.schedule == "one_cycle":
        values.pop("warm_up", None)  # it has one of its own
    return recipe.model_copy(update=values)


def check_shared(recipe: Recipe, hint: str = "remove the key") -> None:
    """Raises Requirement if a recipe has a key that has no effect on weights that networks share.

    Networks are scored with the weights of the supernet itself, not with an average of them.
    """
    if recipe.ema:
        raise Requirement(hint, "recipe.ema", "does not apply to the weights of a supernet")


def filled_from(recipe: Recipe) -> BeforeValidator:
    """Lets a field set some keys of a recipe, and takes the others from this one."""

    def fill(data: Any) -> Any:
        return recipe.model_dump(exclude_unset=True) | data if isinstance(data, dict) else data

    return BeforeValidator(fill)


@runtime_checkable
class TrainsAlone(Protocol):
    """Settings that say how a network is trained on its own."""

    @property
    def recipe_alone(self) -> Recipe: ...


def lr_factor(schedule: str, progress: float, warm_up: float | None = None) -> float:
    """The learning rate as a share of its highest value, at `progress` from 0 to 1.

    It rises linearly during the warm-up. Then `cosine` anneals without restarts (Loshchilov and
    Hutter, 2017, eq. 5), and `one_cycle` falls linearly to 0 (after Smith and Topin, 2018).

    Args:
        warm_up: the share of the schedule that rises; None for the schedule's own.
    """
    progress = min(max(progress, 0.0), 1.0)
    if warm_up is None:
        warm_up = WARM_UP[schedule]
    risen = (progress + 0.01) / (warm_up + 0.01)
    if schedule == "cosine":
        annealed = max(progress - warm_up, 0.0) / (1 - warm_up)
        return min(risen, 0.5 * (1 + math.cos(math.pi * annealed)))
    if schedule == "one_cycle":
        return min(risen, (1 - progress) / (1 - warm_up))
    return min(risen, 1.0)
