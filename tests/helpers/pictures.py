"""Folders of real pictures: handwritten digits as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def folder_of_digits(
    folder: Path, classes: int = 3, each: int = 30, *, scale: int = 1, colour: bool = False
) -> Path:
    """Write PNG files of digits, `each` of every class, into `CLASS/`; return the folder."""
    digits = load_digits()
    for label in range(classes):
        inside = folder / f"digit{label}"
        inside.mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == label][:each]):
            pixels = (255 / 16 * image).astype(np.uint8)
            if colour:
                pixels = np.stack([pixels, 255 - pixels, pixels], axis=-1)
            picture = Image.fromarray(pixels)
            side = 8 * scale
            picture.resize((side, side)).save(inside / f"{number:03}.png")
    return folder
