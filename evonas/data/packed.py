"""Compressed files, with a bound on what they unpack to, told before memory is spent on it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evonas.core import UserError

ALWAYS = 2**26  # bytes, to which any file may unpack
# Tables unpack to some 3 to 20 times their size, images to 1 to 20 times, and black and white ones
# stored as float64 to 100 times. What unpacks to more repeats itself: gzip ends at 1,032 times.
TIMES = 200
CHUNK = 2**20

OPENERS: Mapping[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
DAMAGED = (
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)


def unpacked(path: Path, content: bytes) -> bytes:
    """Return a file's content, unpacked if it is compressed: by gzip, bzip2, xz, or zip.

    Raises:
        UserError: it unpacks to far more than its size, or is a zip of several files.
        ValueError: it is damaged.
    """
    try:
        if content.startswith(b"PK\3\4"):
            return _only_file(path, content)
        opener = next((o for magic, o in OPENERS.items() if content.startswith(magic)), None)
        if opener is None:
            return content
        with opener(io.BytesIO(content)) as stream:  # counted first, since this takes no memory
            size = 0
            while chunk := stream.read(CHUNK):
                size += len(chunk)
                check_size(path, size, len(content))
        with opener(io.BytesIO(content)) as stream:
            return bytes(stream.read())
    except DAMAGED as error:
        raise ValueError(f"is damaged: {error}") from None


def check_size(path: Path, size: int, packed: int) -> None:
    """Raise UserError if a compressed file, or a part of one, unpacks to too many bytes."""
    if size > max(ALWAYS, TIMES * packed):
        raise UserError(
            f"unpacks to more than {TIMES} times its size, {size / 1e6:,.0f} MB or more",
            hint="if that is right, store it uncompressed",
            key=str(path),
        )


def _only_file(path: Path, content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [info for info in archive.infolist() if not info.is_dir()]
        if len(files) != 1:
            raise UserError(
                f"is a zip of {len(files)} files, as a spreadsheet program saves its own format",
                hint="save it as CSV",
                key=str(path),
            )
        check_size(path, files[0].file_size, files[0].compress_size)
        return archive.read(files[0])
