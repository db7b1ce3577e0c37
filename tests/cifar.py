"""Real CIFAR-10 images, which lie beside the repository and not in it, and both file formats."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "shared/data/cifar10"

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
    """A file of the binary version: each image after a byte a kind of label."""
    images, labels = batch
    columns = [kind.astype(np.uint8)[:, None] for kind in labels]
    np.hstack([*columns, images.reshape(len(images), 3072)]).tofile(file)


def write_python(file: Path, batch: Batch, names: Sequence[str] = ("labels",)) -> None:
    """A file of the python version."""
    images, labels = batch
    held = {
        "batch_label": "testing batch 1 of 1",
        **{name: kind.tolist() for name, kind in zip(names, labels, strict=True)},
        "data": images.reshape(len(images), 3072),
        "filenames": [f"image_{i:06}.png" for i in range(len(images))],
    }
    file.write_bytes(python2_pickle(held))


def python2_pickle(held: object) -> bytes:
    """What cPickle of Python 2 with a NumPy of its time writes: text and bytes are one type."""
    stream = io.BytesIO()
    _Python2Pickler(stream, protocol=2).dump(held)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


class _Python2Pickler(pickle._Pickler):  # the one in Python, whose methods can be replaced
    def _save_string(self, held: str | bytes) -> None:
        held = held.encode() if isinstance(held, str) else held
        short = len(held) < 256
        code = pickle.SHORT_BINSTRING if short else pickle.BINSTRING
        self.write(code + struct.pack("<B" if short else "<i", len(held)) + held)

    dispatch: ClassVar[dict[type, Callable[..., Any]]] = {
        **pickle._Pickler.dispatch,
        str: _save_string,
        bytes: _save_string,
    }
