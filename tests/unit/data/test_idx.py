"""MNIST and Fashion-MNIST: idx files in a folder."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evonas.core import UserError
from evonas.data.dataset import split
from evonas.data.idx import FashionMnist, FashionMnistParams, Mnist, MnistParams, read_idx

DEBIAN = Path(FashionMnist.packaged[0])
debian = pytest.mark.skipif(not DEBIAN.is_dir(), reason=f"no Fashion-MNIST in {DEBIAN}")


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    held = header + array.tobytes()
    path.write_bytes(gzip.compress(held) if path.suffix == ".gz" else held)


def write_set(folder: Path, suffix: str = "") -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """60 images of 3 classes to train on, which are given back, and 30 to test with."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (90, 28, 28), dtype=np.uint8)
    labels = np.arange(90, dtype=np.uint8) % 3
    for name, rows in (("train", slice(60)), ("t10k", slice(60, 90))):
        write_idx(folder / f"{name}-images-idx3-ubyte{suffix}", images[rows])
        write_idx(folder / f"{name}-labels-idx1-ubyte{suffix}", labels[rows])
    return images[:60], labels[:60]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_files_are_read_plain_or_gzipped_and_where_torchvision_leaves_them(
    tmp_path: Path, suffix: str, below: str
) -> None:
    images, labels = write_set(tmp_path / below, suffix)
    source = Mnist(MnistParams(path=str(tmp_path)))
    source.check()
    everything, test = source.load()
    assert (everything.images == images[:, None]).all()
    assert everything.labels.tolist() == labels.tolist()
    assert test.images.shape == (30, 1, 28, 28)


def test_pixels_are_normalised_as_published(tmp_path: Path) -> None:
    write_set(tmp_path)
    params = MnistParams(path=str(tmp_path))
    data, _ = split(Mnist(params), params)
    assert data.mean == pytest.approx((255 * 0.1307,))
    assert data.std == pytest.approx((255 * 0.3081,))


def test_a_missing_set_says_where_to_get_it(tmp_path: Path) -> None:
    for source in (
        Mnist(MnistParams()),
        Mnist(MnistParams(path=str(tmp_path))),
        FashionMnist(FashionMnistParams(path=str(tmp_path))),
    ):
        with pytest.raises(UserError, match=r"no (Fashion-)?MNIST in .*; set data.path to") as told:
            source.check()
        assert len(str(told.value).splitlines()) == 1
        assert "torchvision" in str(told.value)


def test_a_set_that_is_not_whole_says_what_is_missing(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="lacks t10k-labels-idx1-ubyte"):
        Mnist(MnistParams(path=str(tmp_path))).check()


@pytest.mark.parametrize(
    "held",
    [
        b"",
        b"\0\0",
        b"\0\0\x08\x03\0\0",
        b"\0\0\x0d\x01\0\0\0\1abcd",
        b"\0\0\x08\x01\0\0\0\5ab",
        b"\x1f\x8bnonsense",
        gzip.compress(b"\0\0\x08\x01\0\0\0\1a", mtime=0)[:-9],
        b"\0\0\x08\x03\x80\0\0\0\x80\0\0\0\0\0\0\4",  # whose product overflows to 0
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, held: bytes) -> None:
    (tmp_path / "file").write_bytes(held)
    with pytest.raises(UserError, match="file"):
        read_idx(tmp_path / "file")


def test_images_without_a_label_each_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(59, np.uint8))
    with pytest.raises(UserError, match=r"\(60, 28, 28\) and \(59,\)"):
        Mnist(MnistParams(path=str(tmp_path))).load()


def test_sets_without_images_with_gaps_or_of_two_kinds_are_refused(tmp_path: Path) -> None:
    none = np.zeros((0, 28, 28), np.uint8)
    two = np.random.default_rng(0).integers(0, 256, (30, 10, 10), np.uint8)
    for name, array, says in (
        ("train-labels-idx1-ubyte", np.arange(60, dtype=np.uint8) % 3 * 2, "no label is 1"),
        ("t10k-labels-idx1-ubyte", np.full(30, 3, np.uint8), "classes that the other labels lack"),
        ("t10k-images-idx3-ubyte", two, "differ in shape"),
        ("train-images-idx3-ubyte", none, r"\(0, 28, 28\) and \(60,\)"),
    ):
        write_set(tmp_path)
        write_idx(tmp_path / name, array)
        params = MnistParams(path=str(tmp_path))
        with pytest.raises(UserError, match=says):
            split(Mnist(params), params)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(0, np.uint8))
    with pytest.raises(UserError, match=r"\(0, 28, 28\) and \(0,\)"):
        Mnist(MnistParams(path=str(tmp_path))).load()


@debian
def test_the_packaged_fashion_mnist_is_found_by_itself_and_is_the_published_one() -> None:
    everything, test = FashionMnist(FashionMnistParams()).load()
    assert np.bincount(everything.labels).tolist() == [6000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    pixels = everything.images / 255
    assert (pixels.mean(), pixels.std()) == (
        pytest.approx(0.2860, abs=5e-5),
        pytest.approx(0.3530, abs=5e-5),
    )


@debian
def test_a_subset_has_as_many_images_as_asked_of_each_class_its_share() -> None:
    params = FashionMnistParams(subset=1000, val=0.25)
    data, test = split(FashionMnist(params), params)
    assert np.bincount(data.train.labels).tolist() == [75] * 10
    assert np.bincount(data.val.labels).tolist() == [25] * 10
    assert len(test) == 10_000
    whole, _ = split(FashionMnist(FashionMnistParams()), FashionMnistParams())
    assert whole.fingerprint != data.fingerprint
