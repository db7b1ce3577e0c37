"""Images on the device, loaded once per process, and the batches drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evonas.data.dataset import DataSet, Images
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
    """The data that a process trains on; `mean` and `std` are (1, c, 1, 1)."""

    train: Resident
    val: Resident
    mean: Tensor
    std: Tensor
    flippable: bool

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

    def epoch(self) -> tuple[Tensor, ...]:
        """The rows of the batches of an epoch, each (size,)."""
        n = len(self.data.train)
        order = torch.randperm(n, generator=self.generator)
        batches: tuple[Tensor, ...] = order[: n - n % self.size].split(self.size)
        return batches

    def load(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Returns a batch: images, (n, c, h, w), normalised and augmented, and labels, (n,)."""
        part = self.data.train
        at = rows.to(part.labels.device)
        images = self.data.normalised(part.images[at])
        images = augmented(images, self.recipe, self._flip, self.generator)
        return arranged(images, self.channels_last), part.labels[at]


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
        )
    return _resident[name]


def augmented(images: Tensor, recipe: Recipe, flip: bool, generator: torch.Generator) -> Tensor:
    """Crops, mirrors and cuts out each image of a batch at random.

    Padding and holes are filled with the mean.

    Args:
        images: (n, c, h, w), normalised, so that 0 is the mean.
        flip: whether to mirror half of them, drawn at random, left to right.
        generator: on the CPU, so that the draws are the same on any device.
    """
    n, _, height, width = images.shape

    def draw(high: int) -> Tensor:
        return torch.randint(high, (n,), generator=generator).to(images.device)

    if recipe.pad_crop:
        pad = recipe.pad_crop
        padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
        rows = draw(2 * pad + 1)[:, None] + torch.arange(height, device=images.device)
        columns = draw(2 * pad + 1)[:, None] + torch.arange(width, device=images.device)
        every = torch.arange(n, device=images.device)
        picked = padded.permute(0, 2, 3, 1)[
            every[:, None, None], rows[:, :, None], columns[:, None, :]
        ]
        images = picked.permute(0, 3, 1, 2)
    if flip:
        images = torch.where(draw(2).view(n, 1, 1, 1) == 1, images.flip(3), images)
    if recipe.cutout:
        half = recipe.cutout // 2  # the square is centred on any pixel, and cut off at the border
        rows = torch.arange(height, device=images.device) - draw(height)[:, None] + half
        columns = torch.arange(width, device=images.device) - draw(width)[:, None] + half
        in_rows = (rows >= 0) & (rows < recipe.cutout)
        in_columns = (columns >= 0) & (columns < recipe.cutout)
        hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
        images = images.masked_fill(hole, 0.0)
    return images
