"""Real CIFAR-10 images, which lie beside the repository and not in it, and the file format."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.helpers import SHARED

FOLDER = SHARED / "data/cifar10"

needs_cifar10 = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="needs ../shared/data/cifar10/test_first1000.webp"
)

Batch = tuple[NDArray[np.uint8], Sequence[NDArray[np.int64]]]  # images, and labels of each kind


@cache
def cifar10() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first 1,000 images of the official test batch, (n, 3, 32, 32), and their labels."""
    tiles = np.asarray(Image.open(FOLDER / "test_first1000.webp").convert("RGB"))
    rows, columns = tiles.shape[0] // 32, tiles.shape[1] // 32
    images = tiles.reshape(rows, 32, columns, 32, 3).transpose(0, 2, 4, 1, 3)
    labels = np.array(list((FOLDER / "test_first1000.labels.txt").read_text().strip()), np.int64)
    return np.ascontiguousarray(images.reshape(-1, 3, 32, 32)), labels


def noise(n: int, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """As many images of noise, and labels, where only the format matters."""
    images = np.random.default_rng(n).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    return images, np.arange(n) % classes


def write_binary(file: Path, batch: Batch) -> None:
    """Writes a file as published: each image after a byte a kind of label."""
    images, labels = batch
    columns = [kind.astype(np.uint8)[:, None] for kind in labels]
    np.hstack([*columns, images.reshape(len(images), 3072)]).tofile(file)
