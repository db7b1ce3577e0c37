"""What a folder of images is like, found out from some of them."""

from __future__ import annotations

import statistics
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evonas.data.image_folder import (
    Files,
    ImageFolder,
    ImageFolderParams,
    all_of,
    read_image,
    shorter_side,
)

LOOKED_AT = (8, 64)  # images: the fewest, and the most
SIZE = 64  # pixels that they are read at
COLOURLESS = 2.0  # the mean difference between the channels of a picture that counts as grey


@dataclass(frozen=True, slots=True)
class Seen:
    """What a folder of images holds.

    Attributes:
        images: the number of images, those of a test part among them.
        tested: how many of them are in a test part of their own.
        classes: the number of classes.
        side: the median of the shorter sides, in pixels.
        grey: whether no image has colours.
        seconds: the time to read an image.
    """

    images: int
    tested: int
    classes: int
    side: int
    grey: bool
    seconds: float


def look(folder: Path, seconds: float = 5.0) -> Seen:
    """Look at some images of a folder, spread evenly over all.

    Args:
        seconds: after which no more are looked at.

    Raises:
        UserError: the folder does not hold a folder of images for each class, or one of the images
            that are looked at cannot be read.
    """
    everything, test = ImageFolder(ImageFolderParams(path=str(folder))).files()
    paths = all_of(everything)
    places = np.linspace(0, len(paths) - 1, min(len(paths), LOOKED_AT[1])).round().astype(int)
    sides, grey, started = list[int](), True, time.perf_counter()
    order = np.random.default_rng(0).permutation(places).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place in order:
            side, colourless = _looked_at(paths[place])
            sides.append(side)
            grey &= colourless
            if time.perf_counter() - started > seconds and len(sides) >= LOOKED_AT[0]:
                break
    taken = (time.perf_counter() - started) / len(sides)
    side = round(statistics.median(sides))
    return Seen(*_counts(everything, test), len(everything), side, grey, taken)


def _looked_at(path: Path) -> tuple[int, bool]:
    """Return an image's shorter side, and whether it has no colours."""
    pixels = read_image(path, SIZE, "RGB").astype(np.float32)
    return shorter_side(path), bool(np.abs(pixels - pixels[:1]).mean() < COLOURLESS)


def _counts(everything: Files, test: Files | None) -> tuple[int, int]:
    tested = len(all_of(test or {}))
    return len(all_of(everything)) + tested, tested
