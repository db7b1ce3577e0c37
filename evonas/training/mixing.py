"""Batches in which each image, and its label, is mixed with another one's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from evonas.training.recipe import Recipe

PARTS = 65_536  # a share is drawn as so many parts, since draws are whole numbers


def mixes(recipe: Recipe) -> bool:
    return recipe.mixup > 0 or recipe.cutmix > 0


def mixing(recipe: Recipe, n: int, shape: torch.Size, generator: torch.Generator) -> list[Tensor]:
    """Draw how the images of a batch are mixed: by mixup or by CutMix.

    Both are the same to `mixed`. In a rectangle, which for mixup is the whole image, an image keeps
    a share of itself, which for CutMix is 0, and the rest is its partner's.

    Args:
        n: the number of images.
        shape: (..., height, width), their shape.

    Returns:
        (n,) each, on the CPU: the partner of each image; the first and the last row, exclusive, and
        column of the rectangle; and the share, in `PARTS`. All but the first are the same for all.
    """
    height, width = shape[-2:]
    partners = torch.randperm(n, generator=generator)
    cuts = recipe.cutmix > 0
    if cuts and recipe.mixup > 0:
        cuts = _below(2, generator) == 1
    if cuts:
        side = math.sqrt(1 - _beta(recipe.cutmix, generator))
        where = [*_span(side, height, generator), *_span(side, width, generator), 0]
    else:
        where = [0, height, 0, width, round(PARTS * _beta(recipe.mixup, generator))]
    return [partners, *(torch.full((n,), each) for each in where)]


def mixed(
    images: Tensor, labels: Tensor, classes: int, draws: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with its partner.

    Args:
        images: (n, c, h, w).
        labels: (n,).
        draws: (n,) each, on the images' device, as `mixing` returns them.

    Returns:
        The images, and the share of each class in each of them, (n, classes).
    """
    partners, top, bottom, left, right, parts = draws
    at_rows = torch.arange(images.shape[2], device=images.device)
    at_columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (at_rows >= top[:, None]) & (at_rows < bottom[:, None])
    in_columns = (at_columns >= left[:, None]) & (at_columns < right[:, None])
    inside = in_rows[:, :, None] & in_columns[:, None, :]
    kept = torch.where(inside, (parts / PARTS)[:, None, None], 1.0)  # (n, h, w)
    share = kept.mean(dim=(1, 2))[:, None]
    each = (labels[:, None] == torch.arange(classes, device=labels.device)).float()
    return (
        torch.lerp(images[partners], images, kept[:, None]),
        torch.lerp(each[partners], each, share),
    )


def _span(side: float, length: int, generator: torch.Generator) -> tuple[int, int]:
    """Draw where a side of the rectangle begins and ends; it is cut off at the border.

    Args:
        side: its length, as a share of the image's.
    """
    size = round(side * length)
    first = _below(length, generator) - size // 2
    return max(first, 0), min(first + size, length)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """Draw from Beta(alpha, alpha).

    It is a gamma variable's share of the sum of two. One of alpha is one of alpha + 1, times
    u^(1 / alpha) (Marsaglia and Tsang, 2000, sec. 6); of a small alpha it may be too small for a
    number, so logarithms are taken.
    """
    gammas = torch._standard_gamma(torch.full((2,), alpha + 1, dtype=torch.float64), generator)
    uniform = torch.rand(2, generator=generator, dtype=torch.float64)
    one, other = gammas.log() + uniform.log() / alpha
    return float(torch.sigmoid(one - other))


def _below(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))
