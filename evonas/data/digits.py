"""The 1,797 handwritten digits, 8x8, that come with scikit-learn: no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
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
        # The file alone: scikit-learn takes as long to import as torch.
        package = find_spec("sklearn")
        assert package is not None
        assert package.origin is not None
        file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        rows = np.loadtxt(file, delimiter=",", dtype=np.int64)  # 64 pixels of 0 to 16, the class
        return Images(rows[:, :64].astype(np.uint8).reshape(-1, 1, 8, 8), rows[:, 64]), None
