"""The tables of a run's report: what it found, what failed, and what it was made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from evonas import files
from evonas.core import FAILURES, Status
from evonas.markdown import counted
from evonas.metrics import TEST_ERROR
from evonas.plots.style import NotYet
from evonas.plots.tables import Tables
from evonas.records import results
from evonas.records.folder import environment
from evonas.report.answer import Answer, Fact
from evonas.report.grid import NOTHING, Cell, Grid, Shown
from genomes import library

MOST_REASONS = 50  # rows of the table of faults
MOST_CLASSES = 100  # rows of the table of classes
FILES = ("config.yaml", "environment.json", "space.json")
TESTED = Shown.of(TEST_ERROR.name, [0, 1])


@dataclass(frozen=True, slots=True)
class Sheets:
    """The tables of a run, each None where there is nothing to tell.

    Attributes:
        compared: the proposed networks beside seeds, published cells, and where the search began.
        front: a row for each network of the front and each finalist.
        faults: what failed and why, the commonest first.
        data: what is known of the data.
        classes: the images of each class by part.
        files: the files of configuration and environment: names and texts.
    """

    compared: Grid | None
    front: Grid | None
    faults: Grid | None
    data: Sequence[Fact]
    classes: Grid | None
    files: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, answer: Answer) -> Sheets:
        """The tables of a run, finished or not."""
        classes = results.split(answer.path)
        classes = classes[[p for p in ("train", "val", "test", "unused") if p in classes]]
        return cls(
            _compared(answer),
            _front(answer),
            _faults(answer.tables),
            _data(answer, classes),
            _classes(classes),
            [
                (name, files.read(answer.path / name).decode(errors="replace"))
                for name in FILES
                if (answer.path / name).exists()
            ],
        )


def failures(tables: Tables) -> pd.DataFrame:
    """The timings of all that failed, of search and finals."""
    names = ("status", "message", "key")
    try:
        timings = tables.timings
    except NotYet:
        return pd.DataFrame(columns=list(names))
    for name in names:
        if name not in timings:
            timings[name] = ""
    return timings[timings["status"].isin(FAILURES)]


def _compared(answer: Answer) -> Grid | None:
    frame = answer.candidates
    if frame is None or not answer.winner:
        return None
    rows: dict[str, list[str]] = {answer.winner: [answer.word]}
    if answer.knee:
        rows.setdefault(answer.knee, []).append("knee of the front")
    for word, key in _others(answer, frame):
        rows.setdefault(key, []).append(word)
    if len(rows) < 2:
        return None
    tested = any(answer.tests(key) for key in rows)
    columns = ["network", *(shown.label for shown in answer.shown.values())]
    cells: list[list[Cell | str]] = []
    for key, words in rows.items():
        values = answer.values(key)
        row: list[Cell | str] = ["; ".join(words)]
        row += [shown.cell(values[name]) for name, shown in answer.shown.items()]
        if tested:
            test = next(iter(answer.tests(key)), None)
            row.append(
                Cell(test.text + test.after, test.error) if test else Cell(NOTHING, math.nan)
            )
        cells.append(row)
    caption = "As the search measured them" + (", and tested where they were" if tested else "")
    return Grid(caption, [*columns, *(["test error"] if tested else [])], cells, list(rows))


def _others(answer: Answer, frame: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Words and keys of networks to compare with: those it began with, and published ones."""
    well = frame[frame["status"] == str(Status.OK)]
    objective = answer.tables.objectives[0]
    seeds = well[well["origin"] == "seed"]
    drawn = well[(well["generation"] == 0) & (well["origin"] != "seed")]
    for word, some in (("best seed", seeds), ("best of the first generation", drawn)):
        losses = (objective.sign * some[objective.name]).to_numpy()
        if len(losses) and not all(map(math.isnan, losses)):
            yield word, str(some["key"].iloc[int(pd.Series(losses).argmin())])
    try:
        space = answer.tables.space
    except NotYet:
        return
    asked = set(well["key"])
    for name, cell in library.library().items():
        if cell.space == space.name:
            key = space.key(space.parse(cell.genome))
            if key in asked:
                yield f"{name} (published)", key


def _front(answer: Answer) -> Grid | None:
    rows = answer.networks
    if rows.empty:
        return None
    first = answer.tables.objectives[0].name
    shown = {name: each for name, each in answer.shown.items() if name in rows}
    further = {
        "expected by a model": (f"model_{first}", f"model_{first}_std", shown[first]),
        "mean of the finals": (f"finals_{first}", f"finals_{first}_std", shown[first]),
        "test error, finals": ("finals_test_error", "finals_test_error_se", TESTED),
        "test error, in full": ("full_test_error", "full_test_error_se", TESTED),
    }
    further = {n: of for n, of in further.items() if of[0] in rows and rows[of[0]].notna().any()}
    cells: list[list[Cell | str]] = []
    keys = list(map(str, rows.index))
    for key in keys:
        row = answer.row(key)
        line: list[Cell | str] = [f"{key} *" if answer.won and key == answer.winner else key]
        line += [each.cell(float(row[name])) for name, each in shown.items()]
        line += [
            each.cell(float(row[value]), float(row.get(spread, math.nan)))
            for value, spread, each in further.values()
        ]
        cells.append(line)
    front = int(rows["on_front"].sum())
    behind = len(rows) - front
    caption = f"Front: {counted(front, 'network')}"
    caption += f"; {counted(behind, 'finalist')} behind it" if behind else ""
    caption += "; * winner" if answer.won else ""
    columns = ["network", *(each.label for each in shown.values()), *further]
    return Grid(caption, columns, cells, keys)


def _faults(tables: Tables) -> Grid | None:
    frame = failures(tables)
    if frame.empty:
        return None
    reasons: dict[tuple[str, str], list[str]] = {}
    for status, message, key in frame[["status", "message", "key"]].astype(str).to_numpy():
        reasons.setdefault((status, message), []).append(key)
    commonest = sorted(reasons.items(), key=lambda item: -len(item[1]))[:MOST_REASONS]
    rows: list[list[Cell | str]] = [
        [status.replace("_", " "), message or NOTHING, _whole(len(keys)), keys[0]]
        for (status, message), keys in commonest
    ]
    return Grid("What failed, and why", ("what", "why", "times", "for example"), rows)


def _data(answer: Answer, classes: pd.DataFrame) -> list[Fact]:
    of = answer.settings.get("data")
    if not isinstance(of, Mapping):
        return []
    known = environment(answer.path)
    facts = [Fact("data set", str(of.get("name", NOTHING)))]
    keys = ("path", "subset", "split_seed")
    facts += [Fact(key.replace("_", " "), str(of[key])) for key in keys if key in of]
    parts = [
        (str(name), part)
        for name, part in dict(known.get("parts") or {}).items()
        if isinstance(part, Mapping)
    ]
    shapes: list[Any] = [part["shape"] for _, part in parts if "shape" in part]
    size = "not on record"
    if shapes:
        channels, height, width = shapes[0]
        size = f"{height} by {width}, {counted(channels, 'channel')}"
    facts.append(Fact("image size", size))
    if len(classes):
        facts.append(Fact("classes", f"{len(classes):,}"))
        counts = {str(part): int(count) for part, count in classes.sum().items()}
    else:
        counts = {name: int(part["images"]) for name, part in parts if "images" in part}
    facts += [Fact(f"images, {name}", f"{count:,}") for name, count in counts.items()]
    if isinstance(known.get("data"), str):
        facts.append(Fact("fingerprint", known["data"]))
    return facts


def _classes(classes: pd.DataFrame) -> Grid | None:
    if not 0 < len(classes) <= MOST_CLASSES:
        return None
    rows: list[list[Cell | str]] = [
        [f"class {label}", *(_whole(count) for count in row)]
        for label, row in zip(classes.index, classes.to_numpy(), strict=True)
    ]
    return Grid("Images by class and part", ["class", *map(str, classes)], rows)


def _whole(count: float) -> Cell:
    return Cell(f"{int(count):,}", int(count))
