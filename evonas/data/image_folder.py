"""The user's own images: a folder with a sub-folder for each class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import joblib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from evonas.core import Mistake, UserError
from evonas.data.checks import check_classes
from evonas.data.dataset import Images, PathParams
from evonas.data.pictures import FORMATS, fitted
from evonas.mistakes import printable

REMEDY = (
    "give a folder with a sub-folder of images for each of two or more classes, "
    "or with such a folder as train and another as test (or val)"
)
EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

LEAST = 5  # images of a class
LISTED = 10  # damaged images that are named
OTHER_VALS = ("valid", "validation")  # other names for val/

Files = dict[str, list[Path]]  # the files of each class


class ImageFolderParams(PathParams):
    name: Literal["image_folder"] = "image_folder"
    path: Annotated[str, Field(min_length=1)]
    """The folder, relative to the experiment file, that holds one folder of images for each class,
    or `train` and `test` with such folders in each."""
    size: Annotated[int, Field(ge=4, le=1024)] = 32
    """The height and width, in pixels, that each image is scaled and cropped to."""
    grey: bool = False
    """Whether images are read in grey, with one channel, rather than in colour, with three."""
    flippable: bool = True
    """Whether an image mirrored left to right still belongs to its class. If true, half of the
    images are mirrored in training, unless `recipe.flip` says otherwise."""
    at_most: Annotated[int, Field(ge=10, le=100_000_000)] | None = None
    """How many images are read, for a folder that would take too long. Each class keeps its share
    of them, drawn at random with `split_seed`, and at least five images. By default, all are read.
    Unlike a `subset`, it holds for the test part and the full training too."""


class ImageFolder:
    """Images in `CLASS/`, or in `train/CLASS/` and `test/CLASS/`; classes are sorted by name.

    Without `test/`, the test part is `val/` (or `valid/`, `validation/`); with `test/`, the images
    of `val/` are among those that evonas splits. Each image is scaled until its shorter side is
    `size`, and its middle is cropped. Hidden files, and files without an image's extension, are
    skipped.
    """

    Params = ImageFolderParams
    statistics = None

    def __init__(self, params: ImageFolderParams) -> None:
        self.path = Path(params.path)
        self.size = params.size
        self.mode: Literal["L", "RGB"] = "L" if params.grey else "RGB"
        self.flippable = params.flippable
        self.at_most, self.seed = params.at_most, params.split_seed

    def check(self) -> None:
        self.files()

    def load(self) -> tuple[Images, Images | None]:
        """Return all images, and the test part if it has a folder.

        Raises:
            UserError: images cannot be read; the first ten are named.
        """
        files, test_files = self.files()
        self.class_names = list(files)
        damaged: list[Mistake] = []
        everything = self._read(files, damaged)
        test = None if test_files is None else self._read(test_files, damaged)
        if damaged:
            raise self._damaged(damaged, len(everything) + len(test or ()))
        return everything, test

    def image_names(self) -> tuple[list[str], list[str]]:
        """Return the path of each image below the folder, and of each in the test part."""
        everything, test = self.files()
        return self._named(everything), self._named(test or {})

    def _named(self, files: Files) -> list[str]:
        paths = [os.fsencode(file.relative_to(self.path)) for file in all_of(files)]
        return [path.decode(errors="backslashreplace") for path in paths]

    def files(self) -> tuple[Files, Files | None]:
        """Return the files to train on and to test with, of the same classes in the same order.

        Raises:
            UserError: the folder does not hold a folder of images for each class.
        """
        everything, test = self._parts()
        count = len(all_of(everything)) + len(all_of(test or {}))
        if self.at_most is None or count <= self.at_most:
            return everything, test
        rng = np.random.default_rng(self.seed)
        share = self.at_most / count
        return _drawn(everything, share, rng), None if test is None else _drawn(test, share, rng)

    def _parts(self) -> tuple[Files, Files | None]:
        if not self.path.is_dir():
            raise UserError(f"{self.path} is not a folder", hint=REMEDY)
        train, val, test = (self.path / name for name in ("train", "val", "test"))
        if not val.is_dir():
            val = next((f for f in map(self.path.joinpath, OTHER_VALS) if f.is_dir()), val)
        if train.is_dir() and test.is_dir():
            folders = [train, val, test] if val.is_dir() else [train, test]
        elif train.is_dir() and val.is_dir():
            folders = [train, val]
        else:
            everything = _files(self.path)
            if train.is_dir() and len(_classes(train)) > 1:
                others = ", ".join(name for name in everything if name != "train")
                raise UserError(
                    f"beside {train}, which holds folders of its own, are {others}",
                    hint="only test and val may stand beside it",
                )
            _check_classes(self.path, everything)
            return everything, None
        parts = [_files(folder) for folder in folders]
        for folder, part in zip(folders, parts, strict=True):
            if other := sorted(part.keys() ^ parts[0].keys()):
                raise UserError(
                    f"class {other[0]} is not in both {folders[0]} and {folder}",
                    hint="both must have the same classes",
                )
        everything = {name: [f for p in parts[:-1] for f in p[name]] for name in parts[0]}
        _check_classes(self.path, everything)
        _check_classes(folders[-1], parts[-1], least=1)
        return everything, parts[-1]

    def _read(self, files: Files, damaged: list[Mistake]) -> Images:
        """Return the images of one part; add a mistake for each that cannot be read."""
        paths = all_of(files)
        try:
            images = np.empty((len(paths), len(self.mode), self.size, self.size), np.uint8)
        except MemoryError as error:
            problem = f"{len(paths)} images of this size do not fit into memory"
            raise UserError(problem, hint="lower it, or give fewer", key="data.size") from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata do not affect the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            readers = ThreadPoolExecutor(joblib.cpu_count())  # Pillow lets others compute
            try:
                for mistakes in readers.map(self._read_into, images, paths):
                    damaged += mistakes
            finally:
                readers.shutdown(cancel_futures=True)
        return Images(images, _labels(files))

    def _read_into(self, row: NDArray[np.uint8], path: Path) -> Sequence[Mistake]:
        """Read an image into its place, (channels, size, size); return why it cannot be read."""
        try:
            row[:] = read_image(path, self.size, self.mode)
        except UserError as error:
            return error.mistakes
        return ()

    def _damaged(self, mistakes: Sequence[Mistake], count: int) -> UserError:
        """Return the error of images that cannot be read: how many, and the first of them."""
        if len(mistakes) == 1:
            return UserError(*mistakes)
        first = "" if len(mistakes) <= LISTED else f"; the first {LISTED}:"
        summary = Mistake(
            f"{len(mistakes)} of {count} images cannot be read",
            f"replace or remove them{first}",
            str(self.path),
        )
        return UserError(
            summary, *(replace(each, hint="") for each in mistakes[:LISTED]), most=LISTED + 1
        )


def read_image(path: Path, size: int, mode: Literal["L", "RGB"]) -> NDArray[np.uint8]:
    """Read the middle of an image, upright, (channels, size, size); transparency turns white.

    Raises:
        UserError: the file is damaged, not an image, or too large for Pillow's guard against
            decompression bombs.
    """
    if not path.is_file():  # to open a pipe is to wait for what it says
        raise UserError(f"{printable(str(path))} is not a file", hint="remove it")
    try:
        with Image.open(path, formats=FORMATS) as opened:
            square = fitted(opened, size, size, mode)
    except Exception as error:  # the decoder of a damaged image may raise anything
        unknown = isinstance(error, UnidentifiedImageError)
        bomb = isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning))
        hint = "scale it down" if bomb else "must be an intact image, such as PNG or JPEG"
        reason = "it is in no known format" if unknown else printable(str(error))
        raise UserError(
            f"{printable(str(path))} cannot be read: {reason}",
            hint=hint,
        ) from None
    return np.asarray(square).reshape(size, size, len(mode)).transpose(2, 0, 1)


def shorter_side(path: Path) -> int:
    """Return the shorter side of an image in pixels; `read_image` must be able to read it."""
    with Image.open(path, formats=FORMATS) as opened:
        return int(min(opened.size))


def _files(folder: Path) -> Files:
    """Return the images below each sub-folder that is not hidden, all sorted by name."""
    classes = _classes(folder)
    if len(classes) < 2:
        names = ", ".join(classes) or "none"
        raise UserError(f"too few sub-folders in {folder}: {names}", hint=REMEDY)
    files: Files = {}
    for name in classes:
        files[name] = []
        for root, inner, entries in os.walk(folder / name):
            inner[:] = [directory for directory in inner if directory[0] != "."]
            files[name] += [
                Path(root, file)
                for file in entries
                if file[0] != "." and os.path.splitext(file)[1].lower() in EXTENSIONS
            ]
        files[name].sort()
    return files


def _classes(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")


def _drawn(files: Files, share: float, rng: np.random.Generator) -> Files:
    """Return a share of the files of each class, and at least five, in the same order."""
    drawn: Files = {}
    for name, paths in files.items():
        count = min(max(round(share * len(paths)), LEAST), len(paths))
        drawn[name] = [paths[i] for i in sorted(rng.permutation(len(paths))[:count].tolist())]
    return drawn


def all_of(files: Files) -> list[Path]:
    """Return the files of all classes."""
    return [path for of_class in files.values() for path in of_class]


def _labels(files: Files) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(files)), [len(of_class) for of_class in files.values()])


def _check_classes(where: Path, files: Files, least: int = LEAST) -> None:
    names: Sequence[str] = list(files)
    try:
        check_classes(_labels(files), names, least)
    except UserError as error:
        raise error.within(str(where)) from None
