"""Random changes of training images: those of RandAugment that a device does in batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

# Those of RandAugment (Cubuk et al., 2020) without AutoContrast, Equalize, Color and Sharpness.
CHANGES = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "contrast", "posterize", "solarize"),
)
STRONGEST = 30.0  # the magnitude of which the following are
SHEAR = 0.3
SHIFT = 0.45  # of a side; AutoAugment shifts its images of 331 pixels by 150
ANGLE = math.radians(30)
FACTOR = 0.9  # a brightness or a contrast of 1 more or less
BITS = 4  # that are lost
LEVELS = 255


def change_ranges(count: int) -> list[int]:
    """Return how many values each draw of `changed` has, for so many changes of each image."""
    return [len(CHANGES), 2] * count


def changed(
    images: Tensor,
    magnitude: float,
    values: tuple[float, float],
    mean: Tensor,
    draws: Sequence[Tensor],
) -> Tensor:
    """Change each image of a batch in ways drawn for it.

    It is moved first, once for all of its shears, rotations and shifts, between pixels by bilinear
    interpolation; then its values change, in the order drawn.

    Args:
        images: (n, c, h, w), floats, not normalised.
        magnitude: from 0, which changes nothing, to `STRONGEST`.
        values: the lowest and the highest value that images may have.
        mean: (1, c, 1, 1), which fills what comes from beyond the border.
        draws: (n,) each, on the images' device: whole numbers below each of `change_ranges`.
    """
    strength = magnitude / STRONGEST
    kinds = torch.stack(list(draws[::2]))  # (changes, n)
    signed = strength * (2.0 * torch.stack(list(draws[1::2])) - 1)  # either direction
    images = _moved(images, kinds, signed, mean)
    for kind, each in zip(kinds, signed, strict=True):
        images = _recoloured(images, kind, each, strength, values)
    return images


def _moved(images: Tensor, kinds: Tensor, signed: Tensor, mean: Tensor) -> Tensor:
    """Shear, then rotate, then shift each image about its centre."""
    height, width = images.shape[2:]

    def total(name: str) -> Tensor:
        """(n, 1, 1), the sum of an image's changes of a kind."""
        return torch.where(kinds == CHANGES.index(name), signed, 0.0).sum(dim=0)[:, None, None]

    shear_x, shear_y = SHEAR * total("shear_x"), SHEAR * total("shear_y")
    shift_x, shift_y = SHIFT * width * total("translate_x"), SHIFT * height * total("translate_y")
    angle = ANGLE * total("rotate")
    # Where each pixel is taken from, in pixels from the centre.
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    x = (torch.arange(width, device=images.device) - (width - 1) / 2)[None, :]
    x, y = x + shear_x * y, y + shear_y * x
    x, y = angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y
    grid = torch.stack([(x + shift_x) * (2 / width), (y + shift_y) * (2 / height)], dim=-1)
    sampled = grid_sample(images - mean, grid, align_corners=False) + mean  # zeros beyond
    moves = (shear_x != 0) | (shear_y != 0) | (shift_x != 0) | (shift_y != 0) | (angle != 0)
    return torch.where(moves[:, None], sampled, images)


def _recoloured(
    images: Tensor, kind: Tensor, signed: Tensor, strength: float, values: tuple[float, float]
) -> Tensor:
    """Change the values of each image by one change of its own, (n,), if it is of that sort."""
    low, high = values

    def of(name: str) -> Tensor:
        return (kind == CHANGES.index(name))[:, None, None, None]

    more = FACTOR * signed[:, None, None, None]
    black = torch.where(of("brightness"), more, 0.0) * (images - low)
    grey = torch.where(of("contrast"), more, 0.0) * (
        images - images.mean(dim=(1, 2, 3), keepdim=True)
    )
    images = (images + black + grey).clamp(low, high)
    lost = round(BITS * strength)
    if lost:
        step = (high - low) / LEVELS * 2**lost
        coarse = ((images - low) / step + 1e-3).floor() * step + low  # 1e-3: of no rounding error
        images = torch.where(of("posterize"), coarse, images)
    threshold = high - strength * (high - low)
    inverted = torch.where(images > threshold, low + high - images, images)
    return torch.where(of("solarize"), inverted, images)
