"""MNIST and data sets like it: a folder of idx files, as LeCun publishes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evonas.core import UserError
from evonas.data.dataset import Images, PathParams, SomePath, Statistics
from evonas.data.packed import unpacked

STEMS = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


class FashionMnistParams(PathParams):
    name: Literal["fashion_mnist"] = "fashion_mnist"
    path: SomePath = None
    """The folder of the four idx files, or torchvision's `root`, relative to the experiment file.
    By default, where Debian's package `dataset-fashion-mnist` puts them."""


class MnistParams(PathParams):
    name: Literal["mnist"] = "mnist"
    path: SomePath = None
    """The folder of the four idx files, or torchvision's `root`, relative to the experiment file.
    Required, since evonas has no other place to look."""


class _Idx:
    """Grey images, 28x28, of 10 classes: 60,000, and a test part of 10,000."""

    flippable: bool
    statistics: Statistics | None
    class_names: Sequence[str] = ()
    title: str
    raw: str  # where torchvision leaves the files, below its root
    packaged: Sequence[str]  # folders that package managers put the files in
    remedy: str  # where to get the files

    def __init__(self, params: PathParams) -> None:
        if params.path is None:  # look where a package manager puts them
            self.folders = [Path(folder) for folder in self.packaged]
        else:
            self.folders = [Path(params.path), Path(params.path) / self.raw]

    def check(self) -> None:
        self._files()

    def load(self) -> tuple[Images, Images]:
        files = self._files()
        arrays = [read_idx(file) for file in files]
        parts = []
        for (images, labels), (file, _) in zip(
            (arrays[:2], arrays[2:]), (files[:2], files[2:]), strict=True
        ):
            if images.ndim != 3 or labels.shape != images.shape[:1] or not images.size:
                shapes = f"{images.shape} and {labels.shape}"
                raise UserError(
                    f"images and labels are {shapes}",
                    hint="must be (n, h, w) and (n,)",
                    key=str(file),
                )
            parts.append(Images(images[:, None], labels.astype(np.int64)))
        train, test = parts
        return train, test

    def _files(self) -> list[Path]:
        for folder in self.folders:
            files = [
                next((f for f in (folder / stem, folder / f"{stem}.gz") if f.is_file()), None)
                for stem in STEMS
            ]
            if present := [file for file in files if file is not None]:
                if len(present) == len(STEMS):
                    return present
                missing = [stem for stem, file in zip(STEMS, files, strict=True) if file is None]
                raise UserError(
                    f"{folder} lacks {', '.join(missing)}",
                    hint="add the missing files, plain or with .gz at the end",
                )
        where = str(self.folders[0]) if self.folders else "any known folder"
        raise UserError(f"no {self.title} in {where}", hint=self.remedy)


class FashionMnist(_Idx):
    """Articles of clothing (Xiao, Rasul and Vollgraf, 2017)."""

    Params = FashionMnistParams
    flippable = True
    statistics = ((0.2860,), (0.3530,))
    class_names = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    title = "Fashion-MNIST"
    raw = "FashionMNIST/raw"
    packaged = ("/usr/share/datasets/fashion-mnist",)
    remedy = (
        "set data.path to the folder of the four idx files, from github.com/zalandoresearch/"
        "fashion-mnist or torchvision, or on Debian `apt install dataset-fashion-mnist`"
    )


class Mnist(_Idx):
    """Handwritten digits (LeCun, Bottou, Bengio and Haffner, 1998)."""

    Params = MnistParams
    flippable = False
    statistics = ((0.1307,), (0.3081,))
    title = "MNIST"
    raw = "MNIST/raw"
    packaged = ()
    remedy = (
        "set data.path to the folder of the four idx files, "
        "which torchvision.datasets.MNIST(root, download=True) can download"
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read the array of unsigned bytes in an idx file: 0, 0, 8, dimensions, sizes, values.

    Raises:
        UserError: the file holds something else, or less.
    """
    try:
        data = unpacked(path, path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", hint="must be an idx file") from None
    dimensions = data[3] if data[:3] == b"\0\0\x08" and len(data) > 3 else 0
    header = 4 + 4 * dimensions
    shape = tuple(np.frombuffer(data[4:header], ">u4").tolist()) if len(data) >= header else ()
    if not dimensions or len(shape) != dimensions or len(data) - header != math.prod(shape):
        raise UserError(
            f"{path} is damaged, or not an idx file of bytes", hint="use the file as published"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
