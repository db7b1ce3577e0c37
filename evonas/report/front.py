"""The table of a run's best networks: what the search, the finals and full trainings measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table

from evonas.markdown import counted, length
from evonas.metrics import COUNTED, SCORED, VALIDATED
from evonas.records import results

SHOWN = 20  # rows of the front
OPTIONAL = (
    *("finals_winner", "finals_seeds", "finals_failed"),
    *("full_test_error", "full_epochs"),
)


def front_table(path: Path, settings: Mapping[str, Any]) -> tuple[Table, str]:
    """Return a table with a row for each network of the front and each finalist, and a caption.

    Errors, losses and the like stand under what they were measured by; sizes are the same for all.

    Args:
        settings: those of the run, as `config.yaml` has them.

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
    if f"finals_{first}" in rows and known["finals_winner"].notna().any():
        columns[f"{first}\nfinals"] = known.apply(_final, axis=1, first=str(first))
    if known["full_test_error"].notna().any():
        columns["test_error\nfull"] = known["full_test_error"].map(number)
    shown = known.index[(known.index < SHOWN) | known["finals_winner"].notna()]
    return _drawn(known, shown, columns, path), _caption(known, settings)


def _drawn(
    rows: pd.DataFrame, shown: pd.Index[int], columns: Mapping[str, pd.Series[str]], path: Path
) -> Table:
    front = int(rows["on_front"].sum())
    title = f"front of {path}: {counted(front, 'network')}"
    title += f", the first {SHOWN}" if front > SHOWN else ""
    behind = len(rows) - front
    title += f"; {counted(behind, 'finalist')} behind it" if behind else ""
    table = Table(title=title, box=box.SIMPLE_HEAD)  # narrow enough for 80 columns
    table.add_column("key", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    won = rows["finals_winner"] == True  # noqa: E712  (it is NaN where there were no finals)
    for i in shown:
        table.add_row(
            f"{rows['key'][i]}{' *' if won[i] else ''}", *(column[i] for column in columns.values())
        )
    return table


def number(value: Any) -> str:
    """Return a value of a metric as text."""
    if pd.isna(value):
        return "-"
    if abs(value) >= 1e12:
        return f"{value:.4g}"
    return f"{int(value):,}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4f}"


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
