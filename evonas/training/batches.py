"""Images on the device, loaded once per process, and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evonas.data.dataset import DataSet, Images
from evonas.training.changes import change_ranges, changed
from evonas.training.mixing import mixed, mixes, mixing
from evonas.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Resident:
    """Images, (n, c, h, w) as stored, and labels, (n,), on a device."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, part: Images, device: torch.device) -> Resident:
        return cls(_tensor(part.images).to(device), _tensor(part.labels).to(device))

    def __len__(self) -> int:
        return len(self.labels)


def _tensor(array: NDArray[Any]) -> Tensor:
    """Return a copy of an array or, where workers share its memory, a tensor of the same memory."""
    if not isinstance(array, np.memmap) or array.mode != "c" or not array.flags.writeable:
        return torch.tensor(array)
    shared: Tensor = torch.from_numpy(array)
    array.flags.writeable = False  # an evaluator of the user's that wrote there would change it
    return shared


@dataclass(frozen=True, slots=True)
class ResidentData:
    """The data that a process trains on; `mean` and `std` are (1, c, 1, 1), the rest as `DataSet`
    has it."""

    train: Resident
    val: Resident
    mean: Tensor
    std: Tensor
    flippable: bool
    classes: int
    values: tuple[float, float]

    def normalised(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std


class Batches:
    """The batches of the training images, in a new order each epoch.

    Args:
        generator: on the CPU; draws the order and the augmentation.
        channels_last: the memory format of the images that `load` returns.

    Attributes:
        size: the images of a batch; all images, if there are fewer than the recipe wants.
        steps: the batches of an epoch; a last, smaller one is left out.
    """

    def __init__(
        self,
        data: ResidentData,
        recipe: Recipe,
        generator: torch.Generator,
        channels_last: bool = False,
    ) -> None:
        self.data = data
        self.recipe = recipe
        self.generator = generator
        self.channels_last = channels_last
        self.size = min(recipe.batch_size, len(data.train))
        self.steps = len(data.train) // self.size
        self._flip = data.flippable if recipe.flip is None else recipe.flip
        self._shape = data.train.images.shape
        self._ranges = ranges(recipe, self._flip, self._shape)
        self._change_ranges = change_ranges(recipe.rand_augment)

    def epoch(self) -> tuple[Tensor, ...]:
        """The rows of the batches of an epoch, each (size,)."""
        n = len(self.data.train)
        order = torch.randperm(n, generator=self.generator)
        batches: tuple[Tensor, ...] = order[: n - n % self.size].split(self.size)
        return batches

    def load(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns a batch: images, (n, c, h, w), normalised and augmented, and labels.

        Labels are (n,) or, where images are mixed, the share of each class, (n, classes).
        """
        return self.made(sent(self.draw(rows), self.data.train.labels.device))

    def draw(self, rows: Tensor) -> Tensor:
        """Returns all that is drawn at random for a batch of these rows.

        Returns:
            (1 + draws, n), on the CPU: the rows themselves, and the draws of `augmented`, of
            `changed` and of `mixed`.
        """
        highs = (*self._ranges, *self._change_ranges)
        draws = [torch.randint(n, rows.shape, generator=self.generator) for n in highs]
        if mixes(self.recipe):
            draws += mixing(self.recipe, len(rows), self._shape, self.generator)
        return torch.stack([rows, *draws])

    def made(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the batch that `load` returns; `drawn` is on the device of the images."""
        data, recipe, (at, *draws) = self.data, self.recipe, drawn.unbind()
        first = len(self._ranges)
        second = first + len(self._change_ranges)
        own, changes, partners = draws[:first], draws[first:second], draws[second:]
        images, labels = data.train.images[at], data.train.labels[at]
        if changes:
            images = changed(images.float(), recipe.magnitude, data.values, data.mean, changes)
        images = augmented(data.normalised(images), recipe, self._flip, own)
        if partners:
            images, labels = mixed(images, labels, data.classes, partners)
        return arranged(images, self.channels_last), labels


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor of the CPU on a device; no GPU is waited for."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # torch keeps it until it is copied
    return tensor.to(device, non_blocking=True)


def arranged(images: Tensor, channels_last: bool) -> Tensor:
    """Returns images, (n, c, h, w), in the memory format given."""
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


_resident: dict[tuple[str, str, bool], ResidentData] = {}


def resident(data: DataSet, device: torch.device) -> ResidentData:
    """The data on the device, copied there when a process first asks."""
    name = (data.fingerprint, str(device), data.flippable)
    if name not in _resident:
        _resident.clear()  # one data set at a time
        _resident[name] = ResidentData(
            Resident.of(data.train, device),
            Resident.of(data.val, device),
            torch.tensor(data.mean, device=device).view(1, -1, 1, 1),
            torch.tensor(data.std, device=device).view(1, -1, 1, 1),
            data.flippable,
            data.classes,
            data.values,
        )
    return _resident[name]


def ranges(recipe: Recipe, flip: bool, shape: torch.Size) -> list[int]:
    """Returns how many values each draw of `augmented` has, for images (n, c, h, w)."""
    pad = padding(recipe, shape)
    crop = [2 * pad + 1] * 2 if pad else []
    cutout = list(shape[2:]) if recipe.cutout else []
    return [*crop, *([2] if flip else []), *cutout]


def padding(recipe: Recipe, shape: torch.Size) -> int:
    """Returns the largest shift of images (n, c, h, w), in pixels."""
    return min(shape[2:]) // 8 if recipe.pad_crop == "auto" else recipe.pad_crop


def augmented(images: Tensor, recipe: Recipe, flip: bool, draws: Sequence[Tensor]) -> Tensor:
    """Crops, mirrors and cuts out each image of a batch at random.

    Padding and holes are filled with the mean.

    Args:
        images: (n, c, h, w), normalised, so that 0 is the mean.
        flip: whether to mirror half of them, drawn at random, left to right.
        draws: (n,) each, on the images' device: whole numbers below each of `ranges`.
    """
    n, _, height, width = images.shape
    drawn = iter(draws)

    if pad := padding(recipe, images.shape):
        padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
        rows = next(drawn)[:, None] + torch.arange(height, device=images.device)
        columns = next(drawn)[:, None] + torch.arange(width, device=images.device)
        every = torch.arange(n, device=images.device)
        picked = padded.permute(0, 2, 3, 1)[
            every[:, None, None], rows[:, :, None], columns[:, None, :]
        ]
        images = picked.permute(0, 3, 1, 2)
    if flip:
        images = torch.where(next(drawn).view(n, 1, 1, 1) == 1, images.flip(3), images)
    if recipe.cutout:
        half = recipe.cutout // 2  # the square is centred on any pixel, and cut off at the border
        rows = torch.arange(height, device=images.device) - next(drawn)[:, None] + half
        columns = torch.arange(width, device=images.device) - next(drawn)[:, None] + half
        in_rows = (rows >= 0) & (rows < recipe.cutout)
        in_columns = (columns >= 0) & (columns < recipe.cutout)
        hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
        images = images.masked_fill(hole, 0.0)
    return images
