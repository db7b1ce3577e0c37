"""The statistics of batch norms, measured anew on training images before a score."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from evonas.training.batches import ResidentData, arranged
from evonas.training.loop import Hardware, seeded
from evonas.training.recipe import Recipe

SPANS = 10  # how many spans of its moving averages, 1 / momentum steps each, a training should have


def renew(
    network: nn.Module,
    data: ResidentData,
    recipe: Recipe,
    steps: int,
    size: int,
    hardware: Hardware,
) -> None:
    """Measure the statistics anew, as the recipe says, if they are stale after so many steps.

    Args:
        size: the number of images of a batch.
    """
    if stale(network, steps):
        with seeded(0, hardware.device):  # a network may draw, as dropout does
            recalibrate(network, data, size, recipe.recalibrate, hardware)


def stale(network: nn.Module, steps: int) -> bool:
    """Return whether a training was too short for the moving averages of a batch norm.

    They follow the weights over the last 1 / momentum steps, 10 in most networks, in which the
    weights of a short training change much. A batch norm without momentum averages over all steps,
    so its statistics are always stale.
    """
    return any(
        module.running_mean is not None and steps * (module.momentum or 0.0) < SPANS
        for module in network.modules()
        if isinstance(module, _BatchNorm)
    )


def recalibrate(
    network: nn.Module, data: ResidentData, size: int, batches: int, hardware: Hardware
) -> None:
    """Measure the statistics of the batch norms anew, as means over batches of training images.

    The images are always the same (Guo et al., 2020, sec. 3.4).

    Args:
        size: the number of images of a batch.
        batches: the number of batches; 0 leaves the statistics as they are.
    """
    if batches:
        with hardware.autocast():
            update_bn(_batches(data, size, batches, hardware.channels_last), network)


def _batches(data: ResidentData, size: int, batches: int, channels_last: bool) -> Iterator[Tensor]:
    """Yield batches of training images, (n, c, h, w), always the same."""
    n = len(data.train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    order = order[: min(batches * size, n)].to(data.train.labels.device)
    for rows in cast("tuple[Tensor, ...]", order.split(size)):
        if len(rows) > 1:  # one image has no variance
            yield arranged(data.normalised(data.train.images[rows]), channels_last)
