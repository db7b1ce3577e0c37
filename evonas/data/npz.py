"""The user's own arrays in an .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evonas.core import DataParams, UserError
from evonas.data.dataset import Images

ALLOWED = (
    "images (n, h, w) or (n, h, w, c) and labels (n,), and, if wanted, test_images and test_labels"
)


class NpzParams(DataParams):
    name: Literal["npz"] = "npz"
    path: Annotated[str, Field(min_length=1)]
    layout: Literal["nhwc", "nchw"] = "nhwc"  # of images with a channel axis
    flippable: bool = False  # is a mirrored image still of its class?

    def anchored(self, folder: Path) -> Self:
        path = (folder / Path(self.path).expanduser()).resolve()
        return self.model_copy(update={"path": str(path)})


class Npz:
    """Arrays `images` and `labels`, and optionally `test_images` and `test_labels`.

    Images are uint8, or floats, which are taken as float32; labels are integers from 0. Pickled
    arrays are refused.
    """

    Params = NpzParams

    def __init__(self, params: NpzParams) -> None:
        self.path = Path(params.path)
        self.layout = params.layout
        self.flippable = params.flippable

    def check(self) -> None:
        if not self.path.is_file():
            raise UserError(f"no file {self.path}; allowed: an .npz with {ALLOWED}")
        if not zipfile.is_zipfile(self.path):
            raise UserError(f"{self.path} is no .npz file; numpy.savez writes one")
        with zipfile.ZipFile(self.path) as archive:
            held = {name.removesuffix(".npy") for name in archive.namelist()}
        missing = {"images", "labels"} - held
        if "test_images" in held or "test_labels" in held:
            missing |= {"test_images", "test_labels"} - held
        if missing:
            raise UserError(f"{self.path} lacks {', '.join(sorted(missing))}; allowed: {ALLOWED}")

    def load(self) -> tuple[Images, Images | None]:
        self.check()
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                everything = self._images(arrays, "")
                test = self._images(arrays, "test_") if "test_images" in arrays else None
        except (ValueError, OSError) as error:
            raise UserError(f"{self.path}: {error}") from error
        if test is not None and test.images.shape[1:] != everything.images.shape[1:]:
            raise UserError(f"{self.path}: test_images are of another shape than images")
        return everything, test

    def _images(self, arrays: Any, prefix: str) -> Images:
        images: NDArray[Any] = arrays[f"{prefix}images"]
        labels: NDArray[Any] = arrays[f"{prefix}labels"]
        if images.ndim == 3:
            images = images[:, None]
        elif images.ndim == 4 and self.layout == "nhwc":
            images = images.transpose(0, 3, 1, 2)
        if images.ndim != 4 or labels.shape != (len(images),):
            shapes = f"{arrays[f'{prefix}images'].shape} and {labels.shape}"
            raise ValueError(f"{prefix}images and {prefix}labels are {shapes}; allowed: {ALLOWED}")
        if images.dtype != np.uint8:
            images = images.astype(np.float32)
            if not np.isfinite(images).all():
                raise ValueError(f"{prefix}images hold NaN or infinity")
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
            raise ValueError(f"{prefix}labels must be integers from 0")
        if not prefix and np.bincount(labels).min() < 5:
            rare = int(np.bincount(labels).argmin())
            raise ValueError(f"class {rare} has fewer than 5 images; too few to split")
        return Images(np.ascontiguousarray(images), labels.astype(np.int64))
