"""The user's own arrays in an .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evonas.core import UserError
from evonas.data.dataset import ARRAYS, Images, PathParams, as_images
from evonas.data.packed import check_size


class NpzParams(PathParams):
    name: Literal["npz"] = "npz"
    path: Annotated[str, Field(min_length=1)]
    """The .npz file, relative to the experiment file."""
    layout: Literal["nhwc", "nchw"] = "nhwc"
    """The order of the axes of images with channels: `nhwc` has the channels last, `nchw` right
    after the first axis."""
    flippable: bool = False
    """Whether an image mirrored left to right still belongs to its class. If true, half of the
    images are mirrored in training, unless `recipe.flip` says otherwise."""


class Npz:
    """The arrays `images` and `labels`, and optionally `test_images`, `test_labels`, `class_names`.

    Images are uint8, or floats, which become float32; labels are integers from 0. Pickled arrays
    are refused.
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
                raise UserError(
                    f"{self.path} is not a file", hint=f"give an .npz file with {ARRAYS}"
                )
            with zipfile.ZipFile(self.path) as archive:
                names = {name.removesuffix(".npy") for name in archive.namelist()}
                for info in archive.infolist():
                    check_size(self.path, info.file_size, info.compress_size)
        except (OSError, ValueError, zipfile.BadZipFile):
            raise UserError(
                f"{self.path} is not an .npz file", hint="write it with numpy.savez"
            ) from None
        missing = {"images", "labels"} - names
        if "test_images" in names or "test_labels" in names:
            missing |= {"test_images", "test_labels"} - names
        if missing:
            raise UserError(
                f"{self.path} lacks {', '.join(sorted(missing))}", hint=f"it must hold {ARRAYS}"
            )

    def load(self) -> tuple[Images, Images | None]:
        self.check()
        with np.load(self.path, allow_pickle=False) as arrays:
            everything = self._part(arrays, "")
            test = self._part(arrays, "test_") if "test_images" in arrays else None
            if "class_names" in arrays:
                self.class_names = [str(name) for name in self._array(arrays, "class_names")]
        return everything, test

    def _part(self, arrays: Any, prefix: str) -> Images:
        images = self._array(arrays, f"{prefix}images")
        labels = self._array(arrays, f"{prefix}labels")
        return as_images(str(self.path), images, labels, layout=self.layout, prefix=prefix)

    def _array(self, arrays: Any, name: str) -> NDArray[Any]:
        try:
            array = arrays[name]
        except MemoryError:
            raise UserError(
                f"{name} does not fit into memory", hint="give fewer images", key=str(self.path)
            ) from None
        except Exception:  # zlib and NumPy may raise anything for a damaged archive or header
            raise UserError(
                f"{name} is damaged or holds objects",
                hint="must be an array of plain numbers",
                key=str(self.path),
            ) from None
        if not isinstance(array, np.ndarray):
            raise UserError(
                f"{name} is not an array", hint="write it with numpy.savez", key=str(self.path)
            )
        return array
