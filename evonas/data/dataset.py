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
from evonas.data.checks import check_parts
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
        class_names: one for each label.
        values: the lowest and the highest value that images may have, as stored (`value_range`).
    """

    train: Images
    val: Images
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flippable: bool
    fingerprint: str
    class_names: tuple[str, ...]
    values: tuple[float, float]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return int(channels), int(height), int(width)


ARRAYS = (
    "images (n, h, w) or (n, h, w, c), labels (n,), and optionally test_images and test_labels, "
    "and class_names"
)


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
        UserError: the arrays have wrong shapes or types.
    """
    shapes = f"{prefix}images and {prefix}labels are {images.shape} and {labels.shape}"
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4:
        first, last = images.shape[1], images.shape[3]
        if layout == "nhwc" and first <= 4 < last:
            hint = "put the channels last, or set layout: nchw for an .npz file"
            raise UserError(f"{shapes}, channels first", hint=hint, key=where)
        if layout == "nchw" and last <= 4 < first:
            raise UserError(f"{shapes}, channels last", hint="set layout: nhwc", key=where)
        if layout == "nhwc":
            images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or labels.shape != (len(images),) or images.size == 0:
        raise UserError(shapes, hint=f"must be {ARRAYS}", key=where)
    kinds = (np.integer, np.floating, np.bool_)
    if not any(np.issubdtype(images.dtype, kind) for kind in kinds):
        problem = f"{prefix}images have the type {images.dtype}"
        raise UserError(problem, hint="must be uint8 or floats", key=where)
    if images.dtype != np.uint8:
        with np.errstate(over="ignore"):  # infinity, which is refused with the parts
            images = images.astype(np.float32)
    if not np.issubdtype(labels.dtype, np.integer):
        problem = f"{prefix}labels have the type {labels.dtype}"
        raise UserError(problem, hint="must be integers from 0", key=where)
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


@runtime_checkable
class NamesClasses(Protocol):
    """A data set that knows what its classes are called, once it is loaded.

    Attributes:
        class_names: one for each label, or none; then they are called by their labels.
    """

    class_names: Sequence[str]


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


@dataclass(frozen=True, slots=True)
class Places:
    """Which image is in which part: those to split first, then the test part's of its own.

    Attributes:
        images: the file of each image, or its row.
        labels: (n,).
        parts: (n,) of `train`, `val`, `test`, or `unused` if `subset` leaves the image out.
    """

    images: Sequence[str | int]
    labels: NDArray[np.int64]
    parts: NDArray[np.str_]


@runtime_checkable
class Named(Protocol):
    """A data set whose images have names."""

    def image_names(self) -> tuple[Sequence[str], Sequence[str]]:
        """Return the name of each image, and of each in a test part of its own, as `load` does."""


def load(source: DataSource, params: DataParams) -> tuple[Images, Images | None]:
    """Return all images, and the test part if the data set has one, both checked.

    Raises:
        UserError: the data are missing, not fit to train on, or their parts do not match.
    """
    everything, test = source.load()
    where = getattr(params, "path", None) or getattr(params, "name", None) or "data"
    check_parts(str(where), everything, test)
    return everything, test


def split(source: DataSource, params: DataParams) -> tuple[DataSet, Images]:
    """Return the data set without its test part, and the test part, as `split_with_places` does."""
    return split_with_places(source, params)[:2]


def split_with_places(source: DataSource, params: DataParams) -> tuple[DataSet, Images, Places]:
    """Return the data set without its test part, the test part, and which image is in which part.

    Each class has the same share in every part, up to rounding. The same images, shares and
    `split_seed` give the same split.

    Raises:
        UserError: there are too few images to split, or they do not pass `load`.
    """
    everything, own_test = load(source, params)
    rows, test_rows = _without_test(everything, own_test, params)
    available = len(rows)
    if params.subset is not None and params.subset < available:
        _, rows = _apart(everything, rows, params.subset, params)
    size = round(params.val * len(everything) * len(rows) / available)
    train_rows, val_rows = _apart(everything, rows, size, params)
    _check_whole(everything, (train_rows, val_rows), params)
    test = everything.part(test_rows) if own_test is None else own_test
    data = _data_set(source, everything.part(train_rows), everything.part(val_rows), test)
    parts = np.full(len(everything), "unused")
    for name, inside in (("train", train_rows), ("val", val_rows), ("test", test_rows)):
        parts[inside] = name
    return data, test, _places(source, everything, parts, own_test)


def split_without_val(source: DataSource, params: DataParams) -> tuple[DataSet, Images]:
    """Return all images but the test part of `split` as training images, and the test part."""
    everything, own_test = load(source, params)
    rows, test_rows = _without_test(everything, own_test, params)
    test = everything.part(test_rows) if own_test is None else own_test
    train, val = everything.part(rows), everything.part(rows[:0])
    return _data_set(source, train, val, test), test


def _without_test(
    everything: Images, own_test: Images | None, params: DataParams
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that are not for testing, and those that are: none with a test part."""
    rows = np.arange(len(everything))
    if own_test is not None:
        return rows, rows[:0]
    size = round(params.test * len(everything))
    rows, test_rows = _apart(everything, rows, size, params)
    _check_whole(everything, (rows, test_rows), params)
    return rows, test_rows


def _places(
    source: DataSource, everything: Images, parts: NDArray[np.str_], own_test: Images | None
) -> Places:
    named = source.image_names() if isinstance(source, Named) else None
    images, test_images = named or (range(len(everything)), range(len(own_test or ())))
    if own_test is None:
        return Places(images, everything.labels, parts)
    return Places(
        [*images, *test_images],
        np.concatenate([everything.labels, own_test.labels]),
        np.concatenate([parts, np.full(len(own_test), "test")]),
    )


def _apart(
    everything: Images, rows: NDArray[np.int64], size: int, params: DataParams
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows without `size` of them, and those; each class keeps its share in both.

    These are the rows of scikit-learn's `train_test_split(stratify=...)`, whose import would take
    as long as torch's, at each start of a run.
    """
    labels = everything.labels[rows]
    counts = np.unique(labels, return_counts=True)[1]
    if counts.min() < 2 or min(size, len(rows) - size) < len(counts):
        raise _cannot_be_split(everything, params)
    rng = np.random.RandomState(params.split_seed)
    kept = _shares(counts, len(rows) - size, rng)
    moved = _shares(counts - kept, size, rng)
    classes = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    rest, taken = [], []
    for members, stay, go in zip(classes, kept, moved, strict=True):
        members = members[rng.permutation(len(members))]
        rest.append(members[:stay])
        taken.append(members[stay : stay + go])
    return rows[np.sort(np.concatenate(rest))], rows[np.sort(np.concatenate(taken))]


def _shares(counts: NDArray[np.int64], size: int, rng: np.random.RandomState) -> NDArray[np.int64]:
    """Return how many of each class make `size` in all: the whole parts of the exact shares, and
    one more for the largest remainders, with equal ones drawn by lot."""
    exact = counts / counts.sum() * size
    shares = np.floor(exact)
    remainders = exact - shares
    for remainder in np.unique(remainders)[::-1]:
        missing = int(size - shares.sum())
        if missing == 0:
            break
        equal = np.flatnonzero(remainders == remainder)
        shares[rng.choice(equal, size=min(missing, len(equal)), replace=False)] += 1
    return np.asarray(shares, dtype=np.int64)


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


def value_range(images: NDArray[Any]) -> tuple[float, float]:
    """Return the values that images may have: 0 to 1 or 0 to 255, or else those that these have."""
    low, high = float(images.min()), float(images.max())
    if low < 0:
        return low, high
    usual = 1.0 if high <= 1 else 255.0
    return 0.0, usual if usual / 2 < high <= usual else high or 1.0


def _class_names(source: DataSource, classes: int) -> tuple[str, ...]:
    names = tuple(map(str, source.class_names)) if isinstance(source, NamesClasses) else ()
    if names and len(names) != classes:
        raise UserError(
            f"there are {len(names)} class_names, and {classes} classes",
            hint="name each label once, from 0 on",
            key="data",
        )
    return names or tuple(map(str, range(classes)))


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
    classes = 1 + int(train.labels.max())
    return DataSet(
        train,
        val,
        classes,
        tuple(mean.tolist()),
        tuple(std.tolist()),
        source.flippable,
        digest.hexdigest(),
        _class_names(source, classes),
        value_range(train.images),
    )
