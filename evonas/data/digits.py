"""The 1,797 handwritten digits, 8x8, that come with scikit-learn: no download."""

from __future__ import annotations

from typing import Literal

import numpy as np

from evonas.data.dataset import DataParams, Images


class DigitsParams(DataParams):
    name: Literal["digits"] = "digits"


class Digits:
    """Optical recognition of handwritten digits (Alpaydin and Kaynak, UCI, 1998), 10 classes."""

    Params = DigitsParams
    flippable = False
    statistics = None

    def __init__(self, params: DigitsParams) -> None:
        pass  # the images are the same whatever the settings

    def check(self) -> None:
        pass  # they come with scikit-learn

    def load(self) -> tuple[Images, None]:
        from sklearn.datasets import load_digits  # slow to import; only the main process loads data

        digits = load_digits()
        images = digits.images.astype(np.uint8)[:, None]  # 0 to 16
        return Images(images, digits.target.astype(np.int64)), None
