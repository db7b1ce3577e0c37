"""CIFAR-10 and CIFAR-100 in the binary version, and what is said of any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evonas.core import UserError
from evonas.data.cifar import Cifar10, Cifar10Params, Cifar100, Cifar100Params, read_binary
from evonas.data.dataset import split
from tests.helpers.cifar import cifar10, needs_cifar10, noise, write_binary

Parts = list[tuple[NDArray[np.uint8], NDArray[np.int64]]]
BELOW = "cifar-10-batches-bin"


def write_cifar10(folder: Path, parts: Parts) -> None:
    """Five files to train on and one to test with."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in zip(Cifar10.files, parts, strict=True):
        write_binary(folder / name, (images, [labels]))


def source(folder: Path) -> Cifar10:
    return Cifar10(Cifar10Params(path=str(folder)))


@needs_cifar10
def test_real_images_come_back_byte_for_byte(tmp_path: Path) -> None:
    images, labels = cifar10()
    parts = [(images[i : i + 50], labels[i : i + 50]) for i in range(0, 300, 50)]
    write_cifar10(tmp_path / BELOW, parts)
    source(tmp_path).check()
    everything, test = source(tmp_path).load()
    assert everything.images.tobytes() == images[:250].tobytes()
    assert test.images.tobytes() == images[250:300].tobytes()
    assert everything.images.shape == (250, 3, 32, 32)
    assert everything.labels.tolist() == labels[:250].tolist()
    assert test.labels.tolist() == labels[250:300].tolist()


@needs_cifar10
def test_the_published_statistics_are_those_of_real_images() -> None:
    images, _ = cifar10()
    pixels = images / 255
    assert pixels.mean(axis=(0, 2, 3)) == pytest.approx(Cifar10.statistics[0], abs=0.01)
    assert pixels.std(axis=(0, 2, 3)) == pytest.approx(Cifar10.statistics[1], abs=0.01)


@pytest.mark.parametrize("below", ["", BELOW])
def test_the_path_is_the_folder_of_the_files_or_the_one_above(tmp_path: Path, below: str) -> None:
    parts = [noise(n, 10) for n in range(10, 16)]
    write_cifar10(tmp_path / BELOW, parts)
    everything, test = source(tmp_path / below).load()
    assert (everything.images == np.concatenate([images for images, _ in parts[:5]])).all()
    assert everything.labels.tolist() == [i % 10 for n in range(10, 15) for i in range(n)]
    assert (test.images == parts[5][0]).all()


def test_the_fine_labels_of_cifar100_are_used(tmp_path: Path) -> None:
    (tmp_path / "cifar-100-binary").mkdir()
    parts = {"train": noise(500, 100), "test": noise(100, 100)}
    for name, (images, fine) in parts.items():
        write_binary(tmp_path / "cifar-100-binary" / f"{name}.bin", (images, [fine // 5, fine]))
    names = [f"class{i}" for i in range(100)]
    (tmp_path / "cifar-100-binary" / "fine_label_names.txt").write_text("\n".join([*names, ""]))
    params = Cifar100Params(path=str(tmp_path))
    everything, test = Cifar100(params).load()
    for part, (images, fine) in zip((everything, test), parts.values(), strict=True):
        assert (part.images == images).all()
        assert part.labels.tolist() == fine.tolist()
    data, _ = split(Cifar100(params), params.model_copy(update={"val": 0.4}))
    assert data.classes == 100
    assert data.class_names == (*names,)
    assert data.mean == pytest.approx((255 * 0.5071, 255 * 0.4865, 255 * 0.4409))
    assert data.std == pytest.approx((255 * 0.2673, 255 * 0.2564, 255 * 0.2762))
    assert data.flippable


def test_a_missing_set_says_in_a_line_where_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()  # a folder by the name of a file of CIFAR-100's python version
    for missing, archive in (
        (Cifar10(Cifar10Params()), "cifar-10-binary.tar.gz"),
        (source(tmp_path), "cifar-10-binary.tar.gz"),
        (source(tmp_path / "away"), "cifar-10-binary.tar.gz"),
        (Cifar100(Cifar100Params(path=str(tmp_path))), "cifar-100-binary.tar.gz"),
    ):
        with pytest.raises(UserError, match=r"^no .*CIFAR-10.*; data.path must be ") as told:
            missing.check()
        assert len(str(told.value).splitlines()) == 1
        assert f"www.cs.toronto.edu/~kriz/{archive}" in str(told.value)


@pytest.mark.parametrize(
    ("below", "name"),
    [
        ("", "cifar-10"),
        ("cifar-10-batches-py", "cifar-10"),
        ("", "cifar-100"),
        ("cifar-100-python", "cifar-100"),
    ],
)
def test_a_pickled_set_is_refused_and_the_binary_version_named(
    tmp_path: Path, below: str, name: str
) -> None:
    (tmp_path / below).mkdir(exist_ok=True)
    for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "train", "test"):
        (tmp_path / below / file).write_bytes(b"a pickle")
    params = Cifar100Params(path=str(tmp_path))
    pickled = source(tmp_path) if name == "cifar-10" else Cifar100(params)
    with pytest.raises(UserError) as told:
        pickled.check()
    assert str(told.value) == (
        f"{tmp_path / below} holds the python version of {name.upper()}, which is not supported; "
        f"get the binary version, www.cs.toronto.edu/~kriz/{name}-binary.tar.gz"
    )


def test_a_set_that_is_not_whole_says_what_is_missing(tmp_path: Path) -> None:
    write_cifar10(tmp_path / BELOW, [noise(10, 10)] * 6)
    for name in ("data_batch_3", "test_batch"):
        (tmp_path / BELOW / f"{name}.bin").unlink()
    with pytest.raises(UserError, match=f"{BELOW} lacks data_batch_3.bin, test_batch.bin; "):
        source(tmp_path).check()


def test_the_binary_version_is_read_beside_the_python_version(tmp_path: Path) -> None:
    write_cifar10(tmp_path, [noise(10, 10)] * 6)
    for name in Cifar10.files:
        (tmp_path / Path(name).stem).write_bytes(b"a pickle")
    assert len(source(tmp_path).load()[0]) == 50


@pytest.mark.parametrize("size", [1, 3072, 3074, 2 * 3073 - 1])
def test_a_binary_file_cut_short_is_named(tmp_path: Path, size: int) -> None:
    (tmp_path / "test_batch.bin").write_bytes(bytes(size))
    with pytest.raises(UserError, match=rf"test_batch\.bin is damaged: its {size} bytes"):
        read_binary(tmp_path / "test_batch.bin", label_bytes=1)


@pytest.mark.parametrize("labels", [np.array([3, 10]), np.array([], int)])
def test_labels_beyond_the_classes_or_none_at_all_are_refused(
    tmp_path: Path, labels: NDArray[np.int64]
) -> None:
    wrong = noise(2, 10)[0][: len(labels)], labels
    write_cifar10(tmp_path, [noise(10, 10)] * 4 + [wrong, noise(10, 10)])
    with pytest.raises(UserError, match=r"data_batch_5\.bin is damaged or not from CIFAR-10"):
        source(tmp_path).load()
