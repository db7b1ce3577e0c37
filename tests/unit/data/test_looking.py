"""What a folder of images is like; and folders that are read in part."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evonas.data.image_folder import ImageFolder, ImageFolderParams
from evonas.data.looking import look
from tests.helpers.pictures import folder_of_digits


def test_a_look_tells_sizes_colours_and_counts(tmp_path: Path) -> None:
    seen = look(folder_of_digits(tmp_path / "grey", 3, 8, scale=2))
    assert (seen.images, seen.tested, seen.classes) == (24, 0, 3)
    assert (seen.side, seen.grey) == (16, True)
    assert 0 < seen.seconds < 5
    coloured = folder_of_digits(tmp_path / "coloured", 2, 6, colour=True)
    assert not look(coloured).grey


def test_a_grey_picture_that_is_stored_in_colour_is_grey(tmp_path: Path) -> None:
    folder = folder_of_digits(tmp_path, 2, 6)
    for path in folder.rglob("*.png"):
        with Image.open(path) as picture:
            picture.convert("RGB").save(path.with_suffix(".jpg"))
        path.unlink()
    assert look(folder).grey


def test_a_test_part_of_its_own_is_counted_apart(tmp_path: Path) -> None:
    folder_of_digits(tmp_path / "train", 2, 8)
    folder_of_digits(tmp_path / "test", 2, 5)
    seen = look(tmp_path)
    assert (seen.images, seen.tested) == (26, 10)


def test_a_folder_read_in_part_keeps_the_shares_of_its_classes(tmp_path: Path) -> None:
    folder = folder_of_digits(tmp_path, 3, 60)
    for number in range(50):
        (folder / "digit2" / f"{number:03}.png").unlink()
    whole = ImageFolder(ImageFolderParams(path=str(folder)))
    part = ImageFolder(ImageFolderParams(path=str(folder), at_most=65))
    names = part.image_names()[0]
    assert Counter(name.partition("/")[0] for name in names) == {
        "digit0": 30,
        "digit1": 30,
        "digit2": 5,
    }
    assert names == sorted(names)
    assert set(names) < set(whole.image_names()[0])
    images, _ = part.load()
    assert np.bincount(images.labels).tolist() == [30, 30, 5]
    assert part.image_names() == ImageFolder(part_params(folder, 0)).image_names()
    assert part.image_names() != ImageFolder(part_params(folder, 1)).image_names()


def part_params(folder: Path, seed: int) -> ImageFolderParams:
    return ImageFolderParams(path=str(folder), at_most=65, split_seed=seed)


@pytest.mark.parametrize("at_most", [None, 1000])
def test_a_folder_within_the_bound_is_read_in_full(at_most: int | None, tmp_path: Path) -> None:
    folder = folder_of_digits(tmp_path, 2, 6)
    images, _ = ImageFolder(ImageFolderParams(path=str(folder), at_most=at_most)).load()
    assert len(images) == 12
