"""What unpacks to far more than its size is refused before the memory is spent."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evonas.core import UserError
from evonas.data import packed
from evonas.data.idx import read_idx
from evonas.data.npz import Npz, NpzParams
from evonas.evaluators.csvfile import read

HUGE = 2**25


def zipped(content: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", content)
    return held.getvalue()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zipped])
def test_files_are_unpacked_within_a_bound_of_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(packed, "ALWAYS", 2**18)
    for content in (b"", b"a,b\n", np.random.default_rng(0).bytes(2**18 + 1), bytes(2**18)):
        assert packed.unpacked(tmp_path, pack(content)) == content
    with pytest.raises(UserError, match=r"more than 200 times its size, .* MB or more; if"):
        packed.unpacked(tmp_path, pack(bytes(2**18 + 1)))


def test_a_bomb_takes_no_memory_whatever_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "ALWAYS", HUGE // 2)
    bomb = gzip.compress(bytes(2**20), compresslevel=1) * (HUGE // 2**20)  # as one file
    table, images = tmp_path / "a.csv.gz", tmp_path / "images.gz"
    for file in (table, images):
        file.write_bytes(bomb)
    arrays = tmp_path / "a.npz"
    with zipfile.ZipFile(arrays, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("images.npy", "w") as member:
            for _ in range(HUGE // 2**20):
                member.write(bytes(2**20))
        archive.writestr("labels.npy", b"")
    tracemalloc.start()
    try:
        for attempt in (
            lambda: read(str(table), 0, "genome"),
            lambda: read_idx(images),
            Npz(NpzParams(path=str(arrays))).check,
            Npz(NpzParams(path=str(arrays))).load,
        ):
            with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
                attempt()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < HUGE / 4


def test_a_file_of_a_spreadsheet_program_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        for name in ("[Content_Types].xml", "xl/workbook.xml"):
            archive.writestr(name, "<xml/>")
    with pytest.raises(UserError, match=r"a\.xlsx: is a zip of 2 files, as .*; save it as CSV"):
        read(str(tmp_path / "a.xlsx"), 0, "genome")
