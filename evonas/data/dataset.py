"""Images and labels in memory, and the split that every search and comparison rests on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evonas.core import Params, Requirement, UserError
from evonas.markdown import counted


class DataParams(Params):
    """How a data set is split, stratified by class; each data set adds its own settings."""

    val: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The validation part, on which candidates are compared, as a share of all images. (A test part
    that comes with the data set is not counted among them.)"""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The test part, on which only the winner is measured, as a share of all images. Not used if
    the data set comes with a test part."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """The seed of the split into parts. It is independent of the run's seed: runs with different
    seeds have the same split."""
    subset: Annotated[int, Field(ge=2, le=100_000_000)] | None = None
    """How many images the search uses, in the training and validation parts together; each class
    keeps its share. By default, all but the test part."""

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
    """The part of a data set that a search sees: all but the test part.

    Attributes:
        mean, std: one number per channel, for the images as stored: the published ones if the data
            set has them, else those of the training images.
        flippable: whether an image mirrored left to right still belongs to its class.
        fingerprint: a digest of images, labels, split and normalisation, 16 hexadecimal digits.
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


ARRAYS = "images (n, h, w) or (n, h, w, c), labels (n,), and optionally test_images and test_labels"


def as_images(
    where: str,
    images: NDArray[Any],
    labels: NDArray[Any],
    *,
    layout: str = "nhwc",
    prefix: str = "",
) -> Images:
    """Convert a user's images, (n, h, w) or with channels, and labels, (n,).

    Args:
        where: the source of the arrays, which errors name.
        layout: the axes of images with channels, `nhwc` or `nchw`.

    Raises:
        UserError: the arrays have wrong shapes, types or values.
    """
    shapes = f"{prefix}images and {prefix}labels are {images.shape} and {labels.shape}"
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and layout == "nhwc":
        if images.shape[1] <= 4 < images.shape[3]:
            hint = "put the channels last, or set layout: nchw for an .npz file"
            raise UserError(f"{shapes}, channels first", hint=hint, key=where)
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or labels.shape != (len(images),) or images.size == 0:
        raise UserError(shapes, hint=f"must be {ARRAYS}", key=where)
    kinds = (np.integer, np.floating, np.bool_)
    if not any(np.issubdtype(images.dtype, kind) for kind in kinds):
        problem = f"{prefix}images have the type {images.dtype}"
        raise UserError(problem, hint="must be uint8 or floats", key=where)
    if images.dtype != np.uint8:
        images = images.astype(np.float32)
        if not np.isfinite(images).all():
            problem = f"{prefix}images contain NaN or infinity"
            raise UserError(problem, hint="must be finite", key=where)
    if not np.issubdtype(labels.dtype, np.integer):
        problem = f"{prefix}labels have the type {labels.dtype}"
        raise UserError(problem, hint="must be integers from 0", key=where)
    if labels.min() < 0 or labels.max() >= len(labels):
        problem = f"{prefix}labels range from {labels.min()} to {labels.max()}"
        raise UserError(problem, hint="must be integers from 0 without gaps", key=where)
    return Images(np.ascontiguousarray(images), labels.astype(np.int64))


SomePath = Annotated[str, Field(min_length=1)] | None


class PathParams(DataParams):
    """Settings of a data set in files, whose path is relative to the experiment file."""

    path: SomePath = None
    """Where the data are, relative to the experiment file. By default, the data set's usual
    place."""

    def anchored(self, folder: Path) -> Self:
        if self.path is None:
            return self
        path = (folder / Path(self.path).expanduser()).resolve()
        return self.model_copy(update={"path": str(path)})


Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std, one number per channel


@runtime_checkable
class Packaged(Protocol):
    """A data set that package managers install, so that its path need not be given.

    Attributes:
        packaged: the folders in which they put the files.
    """

    packaged: Sequence[str]


class DataSource(Protocol):
    """A data set made from its settings, which loads all its images.

    Attributes:
        statistics: the published mean and standard deviation of uint8 images, for pixels from 0
            to 1; None for those of the training images.
    """

    flippable: bool
    statistics: Statistics | None

    def check(self) -> None:
        """Raise UserError if the data are missing, without loading them."""

    def load(self) -> tuple[Images, Images | None]:
        """Return all images, and the test part if the data set has one."""


def check_classes(
    where: Path, labels: NDArray[np.int64], names: Sequence[object], least: int = 5
) -> None:
    """Raise UserError if a class has too few images for a share in every part."""
    counts = np.bincount(labels, minlength=len(names))
    rare = int(counts.argmin())
    if counts[rare] < least:
        raise UserError(
            f"class {names[rare]} has {counted(int(counts[rare]), 'image')}",
            hint=f"each class must have at least {least}",
            key=str(where),
        )


def check_parts(where: Path, everything: Images, test: Images | None) -> None:
    """Raise UserError if labels have gaps or are rare, or the test part does not match."""
    counts = np.bincount(everything.labels)
    if counts.min() == 0:
        gap = int(counts.argmin())
        raise UserError(
            f"no label is {gap}", hint="labels must be integers from 0 without gaps", key=str(where)
        )
    check_classes(where, everything.labels, range(len(counts)))
    if test is not None:
        if test.images.shape[1:] != everything.images.shape[1:]:
            raise UserError(
                "the test images differ in shape from the other images",
                hint="all must have the same shape",
                key=str(where),
            )
        if test.labels.max() >= len(counts):
            raise UserError(
                "the test labels have classes that the other labels lack",
                hint="both must have the same classes",
                key=str(where),
            )


def split(source: DataSource, params: DataParams) -> tuple[DataSet, Images]:
    """Return the data set without its test part, and the test part.

    Each class has the same share in every part, up to rounding. The same images, shares and
    `split_seed` give the same split.

    Raises:
        UserError: there are too few images to split.
    """
    everything, rows, test = _without_test(source, params)
    available = len(rows)
    if params.subset is not None and params.subset < available:
        _, rows = _apart(everything, rows, params.subset, params)
    size = round(params.val * len(everything) * len(rows) / available)
    train_rows, val_rows = _apart(everything, rows, size, params)
    _check_whole(everything, (train_rows, val_rows), params)
    train, val = everything.part(train_rows), everything.part(val_rows)
    return _data_set(source, train, val, test), test


def split_without_val(source: DataSource, params: DataParams) -> tuple[DataSet, Images]:
    """Return all images but the test part of `split` as training images, and the test part."""
    everything, rows, test = _without_test(source, params)
    train, val = everything.part(rows), everything.part(rows[:0])
    return _data_set(source, train, val, test), test


def _without_test(
    source: DataSource, params: DataParams
) -> tuple[Images, NDArray[np.int64], Images]:
    """Return all images, the rows of those not for testing, and the test part."""
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
    """Return the rows without `size` of them, and those; each class keeps its share in both."""
    from sklearn.model_selection import train_test_split  # slow to import, and not for workers

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
    """Raise UserError if a part lacks a class: a share of few images may round to none."""
    classes = 1 + int(everything.labels.max())
    for rows in parts:
        if np.bincount(everything.labels[rows], minlength=classes).min() == 0:
            raise _cannot_be_split(everything, params)


def _cannot_be_split(everything: Images, params: DataParams) -> UserError:
    subset = "" if params.subset is None else f", subset {params.subset}"
    return UserError(
        f"{counted(len(everything), 'image')} of "
        f"{counted(1 + int(everything.labels.max()), 'class')} cannot be split "
        f"with val {params.val:g} and test {params.test:g}{subset}",
        hint="choose shares that give each part an image of each class",
        key="data",
    )


def _data_set(source: DataSource, train: Images, val: Images, test: Images) -> DataSet:
    if source.statistics is not None:
        mean, std = 255 * np.array(source.statistics)  # for the images as stored
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
