"""A CSV file of numbers, as programs and spreadsheets write it; mistakes are told by their line."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from evonas.core import UserError
from evonas.data.packed import unpacked
from evonas.mistakes import printable

SEPARATORS = (",", ";", "\t", "|")
NUMBER = "write a plain number, such as 0.5, or leave the cell empty"
EQUAL = 1e-9  # relative: how far apart a value may be that two programs wrote


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A table with a row for each genome.

    Attributes:
        genome: the name of the column with the genomes.
        frame: the rows that are not blank; the index counts blank ones of separators too.
        fingerprint: a digest of the file as it is, 16 hexadecimal digits.
    """

    path: Path
    genome: str
    separator: str
    frame: pd.DataFrame
    fingerprint: str

    def line(self, place: int) -> str:
        """Return the line of a row in words: `line 3 of table.csv`."""
        rows = _rows(_text(self.path), self.separator)
        number = int(self.frame.index[place]) + 1  # after the header
        return f"line {[line for line, _ in rows][number]} of {self.path}"

    def numbers(self, name: str) -> np.ndarray:
        """Return a column as numbers, NaN where a cell is empty.

        Raises:
            UserError: a cell contains something else.
        """
        column = self.frame[name]
        if pd.api.types.is_numeric_dtype(column):
            return column.to_numpy()
        values = pd.to_numeric(column, errors="coerce")
        wrong = np.flatnonzero(values.isna() & column.notna() & (column.str.strip() != ""))
        if len(wrong):
            value = str(column.iloc[wrong[0]])
            problem = f"column {name!r} has {value[:50]!r} in {self.line(wrong[0])}"
            raise UserError(problem, hint=NUMBER)
        return values.to_numpy()


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a table that is joined from several.

    Attributes:
        places: (rows,), the place in the file of each row of the table, -1 where it has none; None
            if the rows are those of the file.
    """

    file: CsvFile
    places: np.ndarray | None = None

    def numbers(self, name: str) -> np.ndarray:
        """Return a column as numbers, (rows,), NaN where a cell is empty or there is no row."""
        values = self.file.numbers(name)
        if self.places is None:
            return values
        return np.where(self.places >= 0, values[self.places], np.nan)

    def line(self, row: int) -> str:
        return self.file.line(row if self.places is None else int(self.places[row]))


class Columns(Mapping[str, np.ndarray]):
    """The columns of a table, except the genomes, as numbers.

    Each is found by its name, and, for formulas, by its name with `_` in place of all that is no
    letter or digit: `val acc (%)` by `val_acc`. One that several files have must be equal in them,
    where it is used; each fills the cells that are empty in those before it.
    """

    def __init__(self, *parts: Part) -> None:
        self._parts = parts
        columns = (str(name) for part in parts for name in part.file.frame)
        names = [name for name in dict.fromkeys(columns) if name != parts[0].file.genome]
        words = {name: re.sub(r"\W+", "_", name).strip("_") for name in names}
        counts = Counter(words.values())
        aliases = {word: name for name, word in words.items() if counts[word] == 1}
        self._names = {name: name for name in names} | {
            word: name for word, name in aliases.items() if word not in names
        }

    def __getitem__(self, name: str) -> np.ndarray:
        column = self._names[name]
        first, *others = [part for part in self._parts if column in part.file.frame]
        values = first.numbers(column)
        for i, other in enumerate(others):
            found = other.numbers(column)
            _check_equal(column, values, found, [first, *others[:i]], other)
            values = np.where(np.isnan(values), found, values)
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _check_equal(
    column: str, values: np.ndarray, found: np.ndarray, before: Sequence[Part], part: Part
) -> None:
    """Raise UserError if a part has another value in a column than those before it."""
    known = ~np.isnan(values) & ~np.isnan(found)
    wrong = np.flatnonzero(known & ~np.isclose(values, found, rtol=EQUAL, atol=0.0))
    if not len(wrong):
        return
    row = int(wrong[0])
    origin = next(each for each in before if not np.isnan(each.numbers(column)[row]))
    raise UserError(
        f"column {column!r} is {values[row]:.12g} in {origin.line(row)}, "
        f"and {found[row]:.12g} in {part.line(row)}",
        hint="rename it in one of the files",
    )


@cache
def read(path: str, changed: int, genome: str) -> CsvFile:
    """Read a table once per process.

    Args:
        changed: the file's time, so that a file that has changed is read anew.
        genome: the name of the column with the genomes.

    Raises:
        UserError: the file is no table, or has no such column.
    """
    file = Path(path)
    text = _text(file)
    separator, header = _header(file, text, genome)
    doubled = [name for name, count in Counter(header).items() if name and count > 1]
    if doubled:
        problem = f"two columns of {path} are called {doubled[0]!r}"
        raise UserError(problem, hint="rename one of them", key="evaluator.path")
    names = [name or f"column {i}" for i, name in enumerate(header, 1)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # of cells left out
            frame = pd.read_csv(
                io.StringIO(text),
                sep=separator,
                header=0,
                names=names,
                index_col=False,
                skipinitialspace=True,
                dtype={genome: str},
                low_memory=False,
            )
    except (ValueError, pd.errors.ParserWarning) as error:
        raise _too_long(file, text, separator, len(header)) or unreadable(path, error) from None
    frame = frame.dropna(how="all")
    if frame.empty:
        problem = f"{path} has no rows below its header"
        raise UserError(problem, hint="give a row for each genome", key="evaluator.path")
    fingerprint = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    return CsvFile(file, genome, separator, frame, fingerprint)


def unreadable(path: str, error: Exception) -> UserError:
    """Return the error of a file that cannot be read as a table."""
    reason = getattr(error, "strerror", None) or " ".join(printable(str(error)).split())
    return UserError(f"{path}: {reason}", hint="name a CSV file", key="evaluator.path")


def _text(path: Path) -> str:
    """Return the text of a file, which may be compressed."""
    if not path.is_file():  # to open a pipe is to wait for what it says
        raise unreadable(str(path), ValueError("is not a file"))
    try:
        content = unpacked(path, path.read_bytes())
    except (OSError, ValueError) as error:
        raise unreadable(str(path), error) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        hint = "save it as CSV in UTF-8"
        raise UserError(f"{path} is not text in UTF-8", hint=hint, key="evaluator.path") from None


def _header(path: Path, text: str, genome: str) -> tuple[str, list[str]]:
    """Return the separator, with which the header has the column of the genomes, and the header."""
    headers: dict[str, list[str]] = {}
    for separator in SEPARATORS:
        _, row = next(_rows(text, separator), (0, []))
        headers[separator] = [name.strip() for name in row]
        if genome in headers[separator]:
            return separator, headers[separator]
    names = max(headers.values(), key=len)
    if not any(names):
        raise unreadable(str(path), ValueError("is empty"))
    allowed = ", ".join(printable(name) for name in names[:30])
    raise UserError(
        f"no column {genome!r} in {path}", hint=f"allowed: {allowed}", key="evaluator.genome"
    )


def _rows(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Return the rows, the header among them, each with its line; empty lines are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    before = 0
    for row in reader:
        if len(row) > 1 or "".join(row).strip():
            yield before + 1, row
        before = reader.line_num


def _too_long(path: Path, text: str, separator: str, columns: int) -> UserError | None:
    """Return the error of the first row with more cells than the header, if there is one."""
    for line, row in _rows(text, separator):
        if len(row) > columns:
            return UserError(
                f"line {line} of {path} has {len(row)} cells, and the header {columns}",
                hint="write numbers with a point, and text with separators in quotes",
                key="evaluator.path",
            )
    return None
