"""Images and labels in memory, and the split that every search and comparison stands on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evonas.core import Params, Requirement, UserError


class DataParams(Params):
    """How a data set is split, stratified by class; a data set adds what it needs beside."""

    val: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The validation part, on which candidates are compared, as a share of all images. (A test part
    that comes with the set does not count among all images.)"""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The test part, on which only the winner is measured, as a share of all images. Not used if
    the set comes with a test part."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """The seed of the split into parts. It is not the run's seed: runs with different seeds have
    the same split."""
    subset: Annotated[int, Field(ge=2, le=100_000_000)] | None = None
    """How many images the search uses, training and validation parts together; each class keeps
    its share. Without it, all but the test part."""

    def model_post_init(self, context: object) -> None:
        if self.val + self.test >= 1:
            raise Requirement(
                "val + test must be below 1, so that some images are left to train on"
            )


@dataclass(frozen=True, slots=True)
class Images:
    """Images, (n, c, h, w), uint8 or float32, and their labels, (n,), int64 from 0."""

    images: NDArray[Any]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: NDArray[np.int64]) -> Images:
        return Images(self.images[rows], self.labels[rows])


@dataclass(frozen=True, slots=True)
class DataSet:
    """What a search sees of a data set: all but the test part.

    Attributes:
        mean, std: a number a channel, of the images as stored: the published ones where the set
            has them, else those of the training images.
        flippable: whether an image mirrored left to right is still of its class.
        fingerprint: of images, labels, split and normalisation, 16 hexadecimal digits.
    """

    train: Images
    val: Images
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flippable: bool
    fingerprint: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return int(channels), int(height), int(width)


ARRAYS = (
    "images (n, h, w) or (n, h, w, c) and labels (n,), and, if wanted, test_images and test_labels"
)


def as_images(
    where: str,
    images: NDArray[Any],
    labels: NDArray[Any],
    *,
    layout: str = "nhwc",
    prefix: str = "",
) -> Images:
    """Images and labels as a user has them: (n, h, w), or with channels, and (n,).

    Args:
        where: what to name in a mistake.
        layout: of images with channels, `nhwc` or `nchw`.

    Raises:
        UserError: they do not fit.
    """
    shapes = f"{prefix}images and {prefix}labels are {images.shape} and {labels.shape}"
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and layout == "nhwc":
        if images.shape[1] <= 4 < images.shape[3]:
            refuse(where, f"{shapes}, channels first", "that with layout: nchw")
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or labels.shape != (len(images),) or images.size == 0:
        refuse(where, shapes, ARRAYS)
    kinds = (np.integer, np.floating, np.bool_)
    if not any(np.issubdtype(images.dtype, kind) for kind in kinds):
        refuse(where, f"{prefix}images are {images.dtype}", "uint8 or floats")
    if images.dtype != np.uint8:
        images = images.astype(np.float32)
        if not np.isfinite(images).all():
            refuse(where, f"{prefix}images hold NaN or infinity", "finite numbers")
    if not np.issubdtype(labels.dtype, np.integer):
        refuse(where, f"{prefix}labels are {labels.dtype}", "integers from 0")
    if labels.min() < 0 or labels.max() >= len(labels):
        found = f"{labels.min()} to {labels.max()}"
        refuse(where, f"{prefix}labels are {found}", "integers from 0 without gaps")
    return Images(np.ascontiguousarray(images), labels.astype(np.int64))


def refuse(where: object, what: str, allowed: str) -> NoReturn:
    raise UserError(f"{where}: {what}; allowed: {allowed}")


SomePath = Annotated[str, Field(min_length=1)] | None


class PathParams(DataParams):
    """Of a data set in files; where they are, as seen from the experiment file."""

    path: SomePath = None
    """Where the data are, as seen from the experiment file. Without it, where the set looks by
    itself."""

    def anchored(self, folder: Path) -> Self:
        if self.path is None:
            return self
        path = (folder / Path(self.path).expanduser()).resolve()
        return self.model_copy(update={"path": str(path)})


Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std, a number a channel


class DataSource(Protocol):
    """A data set by name: its settings, and how to get all its images.

    Attributes:
        statistics: the published mean and standard deviation, of pixels from 0 to 1, where uint8
            images have them; None: those of the images trained on.
    """

    flippable: bool
    statistics: Statistics | None

    def check(self) -> None:
        """Raises UserError, cheaply, where the data are missing."""

    def load(self) -> tuple[Images, Images | None]:
        """All images, and the test part where the set brings one."""


def check_classes(
    where: Path, labels: NDArray[np.int64], names: Sequence[object], least: int = 5
) -> None:
    """Raises UserError where a class has too few images for a share of it in every part."""
    counts = np.bincount(labels, minlength=len(names))
    rare = int(counts.argmin())
    if counts[rare] < least:
        raise UserError(
            f"{where}: class {names[rare]} has {counts[rare]} images; "
            f"allowed: at least {least} of each class"
        )


def check_parts(where: Path, everything: Images, test: Images | None) -> None:
    """Raises UserError where labels have gaps or are rare, or the test part is of another kind."""
    counts = np.bincount(everything.labels)
    if counts.min() == 0:
        gap = int(counts.argmin())
        raise UserError(f"{where}: no label is {gap}; allowed: labels from 0 without gaps")
    check_classes(where, everything.labels, range(len(counts)))
    if test is not None:
        if test.images.shape[1:] != everything.images.shape[1:]:
            raise UserError(
                f"{where}: test images are of another shape than images; allowed: the same shape"
            )
        if test.labels.max() >= len(counts):
            raise UserError(
                f"{where}: test labels hold classes that labels do not; allowed: the same classes"
            )


def split(source: DataSource, params: DataParams) -> tuple[DataSet, Images]:
    """The data set without its test part, and the test part apart.

    Each class has the same share of every part, but for rounding. The same images, shares and
    `split_seed` give the same split.

    Raises:
        UserError: too few images for that.
    """
    everything, rows, test = _without_test(source, params)
    held = len(rows)
    if params.subset is not None and params.subset < held:
        _, rows = _apart(everything, rows, params.subset, params)
    size = round(params.val * len(everything) * len(rows) / held)
    train_rows, val_rows = _apart(everything, rows, size, params)
    _check_whole(everything, (train_rows, val_rows), params)
    train, val = everything.part(train_rows), everything.part(val_rows)
    return _data_set(source, train, val, test), test


def whole(source: DataSource, params: DataParams) -> tuple[DataSet, Images]:
    """All images but the same test part to train on, nothing to validate with; the test part."""
    everything, rows, test = _without_test(source, params)
    train, val = everything.part(rows), everything.part(rows[:0])
    return _data_set(source, train, val, test), test


def _without_test(
    source: DataSource, params: DataParams
) -> tuple[Images, NDArray[np.int64], Images]:
    """All images, the rows that are not for testing, and the test part."""
    everything, test = source.load()
    rows = np.arange(len(everything))
    if test is None:
        size = round(params.test * len(everything))
        rows, test_rows = _apart(everything, rows, size, params)
        _check_whole(everything, (rows, test_rows), params)
        test = everything.part(test_rows)
    return everything, rows, test


def _apart(
    everything: Images, rows: NDArray[np.int64], size: int, params: DataParams
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows without `size` of them, and those, each class having its share of both."""
    from sklearn.model_selection import train_test_split  # slow to import; the driver's alone

    try:
        rest, taken = train_test_split(
            rows,
            test_size=size,
            random_state=params.split_seed,
            stratify=everything.labels[rows],
        )
    except ValueError:
        raise _cannot_be_split(everything, params) from None
    return np.sort(rest), np.sort(taken)


def _check_whole(
    everything: Images, parts: Sequence[NDArray[np.int64]], params: DataParams
) -> None:
    """Raises UserError where a part lacks a class: a share of few images may round to none."""
    classes = 1 + int(everything.labels.max())
    for rows in parts:
        if np.bincount(everything.labels[rows], minlength=classes).min() == 0:
            raise _cannot_be_split(everything, params)


def _cannot_be_split(everything: Images, params: DataParams) -> UserError:
    subset = "" if params.subset is None else f", subset {params.subset}"
    return UserError(
        f"data: {len(everything)} images of {1 + int(everything.labels.max())} classes cannot be "
        f"split with val {params.val:g} and test {params.test:g}{subset}; "
        "allowed: shares that give each part an image of each class"
    )


def _data_set(source: DataSource, train: Images, val: Images, test: Images) -> DataSet:
    if source.statistics is not None:
        mean, std = 255 * np.array(source.statistics)  # of the images as stored
    else:
        mean = train.images.mean(axis=(0, 2, 3), dtype=np.float64)
        std = np.maximum(train.images.std(axis=(0, 2, 3), dtype=np.float64), 1e-8)
    digest = hashlib.blake2b(digest_size=8)
    for part in (train, val, test):
        digest.update(repr(part.images.shape).encode() + str(part.images.dtype).encode())
        digest.update(np.ascontiguousarray(part.images).tobytes())
        digest.update(part.labels.tobytes())
    digest.update(mean.tobytes() + std.tobytes())
    return DataSet(
        train,
        val,
        1 + int(train.labels.max()),
        tuple(mean.tolist()),
        tuple(std.tolist()),
        source.flippable,
        digest.hexdigest(),
    )
