"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from a folder, in the binary version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evonas.core import UserError
from evonas.data.dataset import Images, PathParams, SomePath, Statistics

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
REMEDY = "use the file as published"


class Cifar10Params(PathParams):
    name: Literal["cifar10"] = "cifar10"
    path: SomePath = None
    """The folder with the files of the binary version, or the one that contains
    `cifar-10-batches-bin`, relative to the experiment file. There is no default."""


class Cifar100Params(PathParams):
    name: Literal["cifar100"] = "cifar100"
    path: SomePath = None
    """The folder with the files of the binary version, or the one that contains `cifar-100-binary`,
    relative to the experiment file. There is no default."""


class _Cifar:
    """Colour photographs of 32x32 pixels: 50,000, and a test part of 10,000."""

    flippable = True
    statistics: Statistics | None
    class_names: Sequence[str] = ()
    title: str
    classes: int
    label_bytes: int  # the bytes before each image, the last of which is its label
    archive: str  # the file to download
    folder: str  # the folder that the archive unpacks to
    files: tuple[str, ...]  # the files of that folder; the last has the test part
    names: str  # the file of that folder with the names of the classes
    pickled: str  # the folder of the python version, whose files have the same names without `.bin`

    def __init__(self, params: PathParams) -> None:
        self.path = None if params.path is None else Path(params.path)

    def check(self) -> None:
        self._files()

    def load(self) -> tuple[Images, Images]:
        files = self._files()
        parts = [self._read(file) for file in files]
        listed = files[0].with_name(self.names)
        if listed.is_file():
            self.class_names = listed.read_text().split()
        train = Images(
            np.concatenate([part.images for part in parts[:-1]]),
            np.concatenate([part.labels for part in parts[:-1]]),
        )
        return train, parts[-1]

    def _files(self) -> list[Path]:
        url = f"www.cs.toronto.edu/~kriz/{self.archive}"
        hint = f"data.path must be the folder that {url} unpacks to"
        if self.path is None:
            raise UserError(f"no path to {self.title}", hint=hint)
        problem = ""
        for folder in (self.path, self.path / self.folder):
            missing = [name for name in self.files if not (folder / name).is_file()]
            if not missing:
                return [folder / name for name in self.files]
            if len(missing) < len(self.files) and not problem:
                problem = f"{folder} lacks {', '.join(missing)}"
        for folder in (self.path, self.path / self.pickled):
            if not problem and all((folder / Path(name).stem).is_file() for name in self.files):
                raise UserError(
                    f"{folder} holds the python version of {self.title}, which is not supported",
                    hint=f"get the binary version, {url}",
                )
        raise UserError(problem or f"no {self.title} in {self.path}", hint=hint)

    def _read(self, file: Path) -> Images:
        images, labels = read_binary(file, self.label_bytes)
        if not len(labels) or labels.max() >= self.classes:
            raise UserError(f"{file} is damaged or not from {self.title}", hint=REMEDY)
        return Images(images, labels)


class Cifar10(_Cifar):
    """Photographs of vehicles and animals in 10 classes."""

    Params = Cifar10Params
    statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    class_names = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    title = "CIFAR-10"
    classes = 10
    label_bytes = 1
    archive = "cifar-10-binary.tar.gz"
    folder = "cifar-10-batches-bin"
    files = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
    names = "batches.meta.txt"
    pickled = "cifar-10-batches-py"


class Cifar100(_Cifar):
    """Photographs in 100 classes, the fine ones; the 20 super-classes are not used."""

    Params = Cifar100Params
    statistics = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    title = "CIFAR-100"
    classes = 100
    label_bytes = 2
    archive = "cifar-100-binary.tar.gz"
    folder = "cifar-100-binary"
    files = ("train.bin", "test.bin")
    names = "fine_label_names.txt"
    pickled = "cifar-100-python"


def read_binary(file: Path, label_bytes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read images, (n, 3, 32, 32), and labels, (n,), the byte before each image.

    Raises:
        UserError: the file cannot be read, or has no whole number of images.
    """
    try:
        content = np.fromfile(file, np.uint8)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}", hint=REMEDY) from None
    record = label_bytes + PIXELS
    if len(content) % record:
        problem = f"{file} is damaged: its {len(content)} bytes are no multiple of {record}"
        raise UserError(problem, hint=REMEDY)
    rows = content.reshape(-1, record)
    images = np.ascontiguousarray(rows[:, label_bytes:]).reshape(-1, *SHAPE)
    return images, rows[:, label_bytes - 1].astype(np.int64)
