"""The table of a run's best networks: what the search, the finals and full trainings measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from evonas import files
from evonas.markdown import counted, length
from evonas.metrics import COUNTED, SCORED, VALIDATED
from evonas.records import results, tables

SHOWN = 20  # rows of the front
LEAST = 12  # columns for the name of a network
WON = " *"
OPTIONAL = (
    *("finals_winner", "finals_seeds", "finals_failed"),
    *("full_test_error", "full_epochs"),
)


def front_table(
    path: Path, settings: Mapping[str, Any], width: int = 80
) -> tuple[RenderableType, str]:
    """Return a table with a row for each network of the front and each finalist, and a caption.

    Networks are named by their keys or, where these are too long, by their genomes, shortened.
    Where there is no room for columns, each network has lines of its own.

    Errors, losses and the like stand under what they were measured by; sizes are the same for all.

    Args:
        settings: those of the run, as `config.yaml` has them.
        width: how many columns the terminal has.

    Raises:
        UserError: a table of the run is damaged.
    """
    rows = results.networks(path)
    goals, limits = (settings.get(part) or [] for part in ("objectives", "constraints"))
    asked = [each["name"] for each in (*goals, *limits)]
    beside = {metric.name for metric in VALIDATED.values()} - set(asked)
    first = next(iter(asked), None)
    trained = bool(settings.get("data"))
    sizes = {metric.name for metric in COUNTED}
    columns = {
        (f"{name}\nsearch" if trained and name not in sizes else name): rows[name].map(number)
        for name in map(str, rows.columns[1 : list(rows.columns).index("on_front")])
        if name not in beside
    }
    known = rows.reindex(columns=[*rows.columns, *(c for c in OPTIONAL if c not in rows.columns)])
    if f"model_{first}" in rows:
        columns[f"{first}\nmodel"] = known.apply(_expected, axis=1, first=str(first))
    if f"finals_{first}" in rows and known["finals_winner"].notna().any():
        columns[f"{first}\nfinals"] = known.apply(_final, axis=1, first=str(first))
    if known["full_test_error"].notna().any():
        columns["test_error\nfull"] = known["full_test_error"].map(number)
    shown = known.index[(known.index < SHOWN) | known["finals_winner"].notna()]
    won = known["finals_winner"] == True  # noqa: E712  (it is NaN where there were no finals)
    cells = {name: [column[i] for i in shown] for name, column in columns.items()}
    # A value may be on two lines, the mean on the first and what it varies by on the second.
    for parts in (str.splitlines, str.split):
        taken = sum(_widest(parts, [name, *column]) + 3 for name, column in cells.items())
        room = width - taken - len(WON) - 4  # borders are 1 and 2 wide
        has_columns = room >= LEAST
        if has_columns:
            break
    keys = [str(known["key"][i]) for i in shown]
    names, are_keys = _names(path, keys, room if has_columns else width - len(WON))
    firsts = [
        Text(files.escaped(name) + WON * bool(won[i]))  # a Text would drop control characters
        for i, name in zip(shown, names, strict=True)
    ]
    caption = _caption(known, settings)
    if not are_keys:
        caption = "; ".join(filter(None, [caption, "evaluations.csv has the keys"]))
    drawn = _columns if has_columns else _lines
    return drawn(_title(known, path), "key" if are_keys else "network", firsts, cells), caption


def _title(rows: pd.DataFrame, path: Path) -> str:
    front = int(rows["on_front"].sum())
    title = f"front of {path}: {counted(front, 'network')}"
    title += f", the first {SHOWN}" if front > SHOWN else ""
    behind = len(rows) - front
    return title + (f"; {counted(behind, 'finalist')} behind it" if behind else "")


def _columns(
    title: str, head: str, firsts: Sequence[Text], cells: Mapping[str, Sequence[str]]
) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)  # narrow enough for 80 columns
    table.add_column(head, min_width=max((first.cell_len for first in firsts), default=0))
    for name in cells:
        table.add_column(name, justify="right", overflow="fold")
    for first, *others in zip(firsts, *cells.values(), strict=True):
        table.add_row(first, *others)
    return table


def _lines(
    title: str, head: str, firsts: Sequence[Text], cells: Mapping[str, Sequence[str]]
) -> RenderableType:
    """Return each network's name, and below it a line for each of its values."""
    parts: list[RenderableType] = [title]
    for first, *values in zip(firsts, *cells.values(), strict=True):
        rows = Table.grid(padding=(0, 1))
        for name, value in zip(cells, values, strict=True):
            rows.add_row(f"  {' '.join(name.split())}", value)
        parts += [first, rows]
    return Group(*parts)


def _names(path: Path, keys: Sequence[str], room: int) -> tuple[list[str], bool]:
    """Return what to call networks in so many columns, and whether these are their keys."""
    if _width(keys) <= room:
        return list(keys), True
    genomes: dict[str, str] = {}
    for name in ("evaluations", "front"):  # which has the last word
        frame = tables.read(path / f"{name}.csv", text=results.TEXT)
        if "genome" in frame:
            genomes |= dict(zip(frame["key"], frame["genome"].astype(str), strict=True))
    names = []
    for key in keys:
        text = files.escaped(genomes.get(key, key))
        names.append(key if len(key) <= min(room, len(text)) else _shortened(text, room))
    return names, False


def _shortened(text: str, room: int) -> str:
    """Return a text without what is before its end, if it is too long."""
    if len(text) <= room:
        return text
    end = (room - 1) // 3
    return f"{text[: room - 1 - end]}…{text[-end:]}"


def _widest(parts: Callable[[str], Sequence[str]], texts: Sequence[str]) -> int:
    """Return the width of texts of which each is cut into parts, one below the other."""
    return _width([part for text in texts for part in parts(text)])


def _width(texts: Sequence[str]) -> int:
    return max(map(len, texts), default=0)


def number(value: Any) -> str:
    """Return a value of a metric as text."""
    if pd.isna(value):
        return "-"
    if abs(value) >= 1e12:
        return f"{value:.4g}"
    return f"{int(value):,}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4f}"


def _expected(row: pd.Series[Any], first: str) -> str:
    """What a model expects of a network, with the standard deviation."""
    value = row[f"model_{first}"]
    return "-" if pd.isna(value) else f"{number(value)} ± {row[f'model_{first}_std']:.4f}"


def _final(row: pd.Series[Any], first: str) -> str:
    """The mean over the seeds of the finals, with their standard deviation."""
    if pd.isna(row["finals_winner"]):
        return "-"
    spread = row.get(f"finals_{first}_std")
    text = number(row[f"finals_{first}"]) + ("" if pd.isna(spread) else f" ± {spread:.4f}")
    failed = row["finals_failed"]
    return text if pd.isna(failed) or not failed else f"{text}, {int(failed)} failed"


def _caption(rows: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """Say how long the networks of each column were trained."""
    if not settings.get("data"):
        return ""  # nothing was trained
    budget = settings.get("budget")
    scored = SCORED.get(settings["evaluator"]["name"])
    parts = [f"search: {scored or f'one training{length(budget)}'}"]
    for name in map(str, rows.columns):
        noise = rows[name].dropna()
        if name.startswith("model_") and name.endswith("_noise") and len(noise):
            metric = name.removeprefix("model_").removesuffix("_noise")
            parts.append(
                f"model: expected from all trainings, ± standard deviation; {metric} of one "
                f"training varies by ± {noise.iloc[0]:.2g}"
            )
    seeds = rows["finals_seeds"].dropna()
    if len(seeds):
        limits = settings["finalists"].get("budget") or budget
        each = int(seeds.iloc[0])
        of = f"mean ± standard deviation over {each} seeds" if each > 1 else "another seed"
        parts.append(f"finals: {of}{length(limits)}")
    epochs = rows["full_epochs"].dropna()
    if len(epochs):
        parts.append(
            f"full: a training{length({'epochs': int(epochs.iloc[0])})} on all but the test images"
        )
    won = ["* winner"] if (rows["finals_winner"] == True).any() else []  # noqa: E712
    return "; ".join([*won, *parts])
