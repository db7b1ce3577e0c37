"""The user's own arrays in an .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evonas.core import UserError
from evonas.data.dataset import ARRAYS, Images, PathParams, as_images, check_parts, refuse


class NpzParams(PathParams):
    name: Literal["npz"] = "npz"
    path: Annotated[str, Field(min_length=1)]
    """The .npz file, as seen from the experiment file."""
    layout: Literal["nhwc", "nchw"] = "nhwc"
    """The order of the axes of images that have a channel axis: `nhwc` has it last, `nchw` right
    after the first."""
    flippable: bool = False
    """Whether an image that is mirrored left to right is still of its class. If true, half of the
    images are mirrored in training, unless `recipe.flip` says otherwise."""


class Npz:
    """Arrays `images` and `labels`, and optionally `test_images` and `test_labels`.

    Images are uint8, or floats, which are taken as float32; labels are integers from 0. Pickled
    arrays are refused.
    """

    Params = NpzParams
    statistics = None

    def __init__(self, params: NpzParams) -> None:
        self.path = Path(params.path)
        self.layout = params.layout
        self.flippable = params.flippable

    def check(self) -> None:
        try:
            if not self.path.is_file():
                raise UserError(f"no file {self.path}; allowed: an .npz with {ARRAYS}")
            with zipfile.ZipFile(self.path) as archive:
                held = {name.removesuffix(".npy") for name in archive.namelist()}
        except (OSError, ValueError, zipfile.BadZipFile):
            raise UserError(
                f"{self.path} is no .npz file; allowed: what numpy.savez writes"
            ) from None
        missing = {"images", "labels"} - held
        if "test_images" in held or "test_labels" in held:
            missing |= {"test_images", "test_labels"} - held
        if missing:
            raise UserError(f"{self.path} lacks {', '.join(sorted(missing))}; allowed: {ARRAYS}")

    def load(self) -> tuple[Images, Images | None]:
        self.check()
        with np.load(self.path, allow_pickle=False) as arrays:
            everything = self._part(arrays, "")
            test = self._part(arrays, "test_") if "test_images" in arrays else None
        check_parts(self.path, everything, test)
        return everything, test

    def _part(self, arrays: Any, prefix: str) -> Images:
        images = self._array(arrays, f"{prefix}images")
        labels = self._array(arrays, f"{prefix}labels")
        return as_images(str(self.path), images, labels, layout=self.layout, prefix=prefix)

    def _array(self, arrays: Any, name: str) -> NDArray[Any]:
        try:
            array = arrays[name]
        except Exception:  # a damaged archive or header raises whatever zlib and NumPy do
            refuse(self.path, f"{name} is damaged or holds objects", "an array of plain numbers")
        if not isinstance(array, np.ndarray):
            refuse(self.path, f"{name} is no array", "what numpy.savez writes")
        return array
