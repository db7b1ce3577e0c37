"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from a folder, in either version published."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evonas.core import UserError
from evonas.data.dataset import Images, PathParams, SomePath, Statistics

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


class Cifar10Params(PathParams):
    name: Literal["cifar10"] = "cifar10"
    path: SomePath = None
    """The folder of the files, or the one that holds `cifar-10-batches-bin` or
    `cifar-10-batches-py`, as seen from the experiment file. It must be given: evonas has no other
    place to look."""


class Cifar100Params(PathParams):
    name: Literal["cifar100"] = "cifar100"
    path: SomePath = None
    """The folder of the files, or the one that holds `cifar-100-binary` or
    `cifar-100-python`, as seen from the experiment file. It must be given: evonas has no other
    place to look."""


@dataclass(frozen=True, slots=True)
class Version:
    """The files of a version as published; the last holds the test part."""

    folder: str  # that its archive unpacks to
    files: tuple[str, ...]


class _Cifar:
    """Colour photographs, 32x32; 50,000 and a test part of 10,000."""

    flippable = True
    statistics: Statistics | None
    title: str
    classes: int
    label: bytes  # what a pickle calls the labels
    label_bytes: int  # before each image of the binary version; the last is the one that counts
    versions: Sequence[Version]  # the first that is there is read

    def __init__(self, params: PathParams) -> None:
        self.path = None if params.path is None else Path(params.path)

    def check(self) -> None:
        self._files()

    def load(self) -> tuple[Images, Images]:
        parts = [self._read(file) for file in self._files()]
        train = Images(
            np.concatenate([part.images for part in parts[:-1]]),
            np.concatenate([part.labels for part in parts[:-1]]),
        )
        return train, parts[-1]

    def _files(self) -> list[Path]:
        where = (
            f"allowed: data.path, the folder of the files, from www.cs.toronto.edu/~kriz/cifar.html"
            f" or torchvision.datasets.{self.title.replace('-', '')}(root, download=True)"
        )
        if self.path is None:
            raise UserError(f"no path to {self.title}; {where}")
        lacking = ""
        for version in self.versions:
            for folder in (self.path, self.path / version.folder):
                missing = [name for name in version.files if not (folder / name).is_file()]
                if not missing:
                    return [folder / name for name in version.files]
                if len(missing) < len(version.files) and not lacking:
                    lacking = f"{folder} lacks {', '.join(missing)}"
        raise UserError(f"{lacking or f'no {self.title} in {self.path}'}; {where}")

    def _read(self, file: Path) -> Images:
        if file.suffix == ".bin":
            images, labels = read_binary(file, self.label_bytes)
        else:
            images, labels = read_pickle(file, self.label)
        if not len(labels) or labels.min() < 0 or labels.max() >= self.classes:
            allowed = f"images of {self.classes} classes, as published"
            raise UserError(f"{file} is damaged or not of {self.title}; allowed: {allowed}")
        return Images(images, labels)


class Cifar10(_Cifar):
    """10 classes, of vehicles and animals."""

    Params = Cifar10Params
    statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    title = "CIFAR-10"
    classes = 10
    label = b"labels"
    label_bytes = 1
    versions = (
        Version(
            "cifar-10-batches-bin",
            (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
        ),
        Version("cifar-10-batches-py", (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")),
    )


class Cifar100(_Cifar):
    """100 classes, the fine ones; their 20 super-classes are left out."""

    Params = Cifar100Params
    statistics = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    title = "CIFAR-100"
    classes = 100
    label = b"fine_labels"
    label_bytes = 2
    versions = (
        Version("cifar-100-binary", ("train.bin", "test.bin")),
        Version("cifar-100-python", ("train", "test")),
    )


def read_binary(file: Path, label_bytes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images, (n, 3, 32, 32), and labels, the byte before each image.

    Raises:
        UserError: not a whole number of images.
    """
    try:
        held = np.fromfile(file, np.uint8)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}; allowed: as published") from None
    record = label_bytes + PIXELS
    if len(held) % record:
        raise UserError(f"{file} is damaged: {len(held)} bytes; allowed: {record} an image")
    rows = held.reshape(-1, record)
    images = np.ascontiguousarray(rows[:, label_bytes:]).reshape(-1, *SHAPE)
    return images, rows[:, label_bytes - 1].astype(np.int64)


def read_pickle(file: Path, label: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images, (n, 3, 32, 32), and labels of a dictionary that Python 2 has pickled.

    Nothing of the file's is run, and nothing of NumPy's on its behalf.

    Raises:
        UserError: it holds something else, or less.
    """
    try:
        with file.open("rb") as stream:
            return _plain(_Unpickler(stream, encoding="bytes").load(), label)
    except Exception as error:  # what a damaged pickle raises may be anything
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{file} cannot be read: {told}; allowed: as published") from None


def _plain(batch: Any, label: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The arrays of an unpickled batch; raises whatever it may where that is something else."""
    _, shape, dtype, fortran, held = batch[b"data"].state
    labels = batch[label]
    if dtype.arguments[0] not in (b"u1", "u1"):
        raise ValueError("its data are no bytes")
    if type(labels) is not list or set(map(type, labels)) - {int}:
        raise ValueError("its labels are no list of whole numbers")
    rows = np.frombuffer(held, np.uint8).reshape(shape, order="F" if fortran else "C")
    if rows.shape != (len(labels), PIXELS):
        raise ValueError(f"its data are {rows.shape}, with {len(labels)} labels")
    images = np.ascontiguousarray(rows).reshape(-1, *SHAPE)
    return images, np.array(labels, np.int64)


class _Recorded:
    """Stands for NumPy's objects in a pickle: keeps what they would be made of, makes none."""

    __slots__ = ("arguments", "state")

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Makes plain data; for the names that a pickled array has it gives a stand-in.

    NumPy's own would do as the file says, and a made-up dtype can have them write anywhere.
    """

    NAMES = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),  # its name since NumPy 2
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> type[_Recorded]:
        if (module, name) not in self.NAMES:
            raise pickle.UnpicklingError(
                f"it asks for {f'{module}.{name}'!r}, which no batch needs"
            )
        return _Recorded
