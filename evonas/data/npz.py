"""The user's own arrays in an .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evonas.core import UserError
from evonas.data.dataset import Images, PathParams, check_parts

ALLOWED = (
    "images (n, h, w) or (n, h, w, c) and labels (n,), and, if wanted, test_images and test_labels"
)


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
                raise UserError(f"no file {self.path}; allowed: an .npz with {ALLOWED}")
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
            raise UserError(f"{self.path} lacks {', '.join(sorted(missing))}; allowed: {ALLOWED}")

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
        shapes = f"{prefix}images and {prefix}labels are {images.shape} and {labels.shape}"
        if images.ndim == 3:
            images = images[:, None]
        elif images.ndim == 4 and self.layout == "nhwc":
            if images.shape[1] <= 4 < images.shape[3]:
                self._refuse(f"{shapes}, channels first", "that with layout: nchw")
            images = images.transpose(0, 3, 1, 2)
        if images.ndim != 4 or labels.shape != (len(images),) or images.size == 0:
            self._refuse(shapes, ALLOWED)
        kinds = (np.integer, np.floating, np.bool_)
        if not any(np.issubdtype(images.dtype, kind) for kind in kinds):
            self._refuse(f"{prefix}images are {images.dtype}", "uint8 or floats")
        if images.dtype != np.uint8:
            images = images.astype(np.float32)
            if not np.isfinite(images).all():
                self._refuse(f"{prefix}images hold NaN or infinity", "finite numbers")
        if not np.issubdtype(labels.dtype, np.integer):
            self._refuse(f"{prefix}labels are {labels.dtype}", "integers from 0")
        if labels.min() < 0 or labels.max() >= len(labels):
            found = f"{labels.min()} to {labels.max()}"
            self._refuse(f"{prefix}labels are {found}", "integers from 0 without gaps")
        return Images(np.ascontiguousarray(images), labels.astype(np.int64))

    def _array(self, arrays: Any, name: str) -> NDArray[Any]:
        try:
            array = arrays[name]
        except Exception:  # a damaged archive or header raises whatever zlib and NumPy do
            self._refuse(f"{name} is damaged or holds objects", "an array of plain numbers")
        if not isinstance(array, np.ndarray):
            self._refuse(f"{name} is no array", "what numpy.savez writes")
        return array

    def _refuse(self, what: str, allowed: str) -> NoReturn:
        raise UserError(f"{self.path}: {what}; allowed: {allowed}")
