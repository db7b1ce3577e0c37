"""What the parts of a data set must be, and how they must fit together, whatever their source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evonas.core import UserError
from evonas.markdown import counted

if TYPE_CHECKING:
    from evonas.data.dataset import Images

# How far apart the values of two parts must be, as a share of the range of both, to count as on
# different scales: between -1..1 and -0.5..0.5, the smallest pixels are a quarter of it apart.
FAR = 0.2


def check_parts(where: str, everything: Images, test: Images | None) -> None:
    """Raise UserError if a part is not fit to train on or to test with, or if they do not match.

    Args:
        where: the source of the images, which errors name.
        test: the test part, if the data set comes with one.
    """
    try:
        _check_images("images", everything)
        _check_labels(everything.labels)
        if test is not None:
            _check_images("test_images", test)
            _check_test_labels(test.labels, 1 + int(everything.labels.max()))
            _check_match(everything.images, test.images)
    except UserError as error:
        raise error.within(where) from None


def check_classes(labels: NDArray[np.int64], names: Sequence[object], least: int = 5) -> None:
    """Raise UserError if a class has too few images for a share in every part."""
    counts = np.bincount(labels, minlength=len(names))
    rare = int(counts.argmin())
    if counts[rare] < least:
        problem = f"class {names[rare]} has {counted(int(counts[rare]), 'image')}"
        raise UserError(problem, hint=f"each class must have at least {least}")


def _check_images(name: str, part: Images) -> None:
    images = part.images
    if not images.size:
        raise UserError(f"{name} are empty", hint="give at least 5 of each class")
    if not np.isfinite(images).all():
        raise UserError(f"{name} contain NaN or infinity", hint="must be finite")
    if (images == images[:1]).all():
        value = images.flat[0]
        each = f"only the value {value}" if (images == value).all() else "the same image each time"
        raise UserError(f"{name} contain {each}", hint="give images that differ")


def _check_labels(labels: NDArray[np.int64]) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(labels):
        problem = f"labels range from {low} to {high}"
        raise UserError(problem, hint="must be integers from 0 without gaps")
    counts = np.bincount(labels)
    if counts.min() == 0:
        problem = f"no label is {counts.argmin()}"
        raise UserError(problem, hint="labels must be integers from 0 without gaps")
    if len(counts) < 2:
        raise UserError("all labels are 0", hint="there must be at least two classes")
    check_classes(labels, range(len(counts)))


def _check_test_labels(labels: NDArray[np.int64], classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        problem = f"test_labels range from {low} to {high}"
        raise UserError(problem, hint="must be integers from 0, as the other labels")
    if high >= classes:
        raise UserError(
            f"the test labels have classes that the other labels lack, such as {high}",
            hint="both must have the same classes",
        )
    missing = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if len(missing):
        names = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise UserError(
            f"the test part has no image of {len(missing)} of {classes} classes: {names}",
            hint="it must have at least one of each class",
        )


def _check_match(images: NDArray[Any], test: NDArray[Any]) -> None:
    if test.shape[1:] != images.shape[1:]:
        raise UserError(
            f"the test images differ in shape from the other images: {_shape(test)} and "
            f"{_shape(images)}",
            hint="all must have the same shape",
        )
    if test.dtype != images.dtype or _on_other_scale(images, test):
        raise UserError(
            f"the test images differ in type or scale from the other images: {_range(test)}, and "
            f"{_range(images)}",
            hint="all must have the same type and scale",
        )


def _on_other_scale(images: NDArray[Any], test: NDArray[Any]) -> bool:
    """Return whether the darkest, or the brightest, pixels of the images are far apart.

    Images of one scale may be dark or bright, so in each part the smallest values of the images,
    one an image, are compared from their 1st to their 99th percentile, and the largest ones too.
    The parts are on different scales if these ranges do not meet, and their medians are `FAR`
    apart.
    """
    lows, highs = (
        [np.quantile(part, (0.01, 0.5, 0.99)) for part in extremes]
        for extremes in zip(_extremes(images), _extremes(test), strict=True)
    )
    span = max(high[2] for high in highs) - min(low[0] for low in lows)
    return any(
        (one[2] < other[0] or other[2] < one[0]) and abs(one[1] - other[1]) >= FAR * span
        for one, other in (lows, highs)
    )


def _extremes(part: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and the largest value of each image, (n,) each."""
    axes = (1, 2, 3)
    return part.min(axis=axes).astype(np.float64), part.max(axis=axes).astype(np.float64)


def _range(images: NDArray[Any]) -> str:
    return f"{images.min():g} to {images.max():g} ({images.dtype})"


def _shape(images: NDArray[Any]) -> str:
    channels, height, width = images.shape[1:]
    return f"{height}x{width} with {counted(channels, 'channel')}"
