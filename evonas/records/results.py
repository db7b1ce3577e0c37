"""What is known of each network of a run: by the search, by the finals, and by a full training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from evonas import yamlfile
from evonas.core import UserError
from evonas.records import tables

TEXT = ("key", "genes", "genome", "budget")
FULL = ("epochs", "test_error", "test_error_se", "test_images")


def finals(path: Path) -> pd.DataFrame:
    """Return `finalists.csv` of a run by key, `winner` as a flag; without rows before the finals.

    Raises:
        UserError: the table is damaged.
    """
    if tables.winner(path) is None and not (path / "finalists.csv").exists():
        return pd.DataFrame({"winner": []}, index=pd.Index([], name="key"))
    frame = tables.read(path / "finalists.csv", text=TEXT).drop_duplicates("key").set_index("key")
    won = frame.pop("winner").astype(str) == "True"
    for name in map(str, frame.columns):
        if name not in TEXT and not name.endswith("_by_seed"):
            frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame.assign(winner=won)


def posterior(path: Path) -> pd.DataFrame:
    """Return `posterior.csv` of a run by key: what a model expects; empty if there is none.

    Raises:
        UserError: the table is damaged.
    """
    if not (path / "posterior.csv").exists():
        return pd.DataFrame(index=pd.Index([], name="key"))
    frame = tables.read(path / "posterior.csv", text=TEXT).drop_duplicates("key").set_index("key")
    return frame.drop(columns=[name for name in TEXT if name in frame])


def split(path: Path) -> pd.DataFrame:
    """Return how many images of each class each part has: a row a class, a column a part.

    Without rows where the folder has no `split.csv`.

    Raises:
        UserError: the table is damaged.
    """
    file = path / "split.csv"
    if not file.exists():
        return pd.DataFrame()
    try:
        places = tables.read(file, ("label", "part"), text=("part",))
        return pd.crosstab(places["label"], places["part"])
    except (ValueError, KeyError):
        hint = f"write it again with `evonas resume {path}`"
        raise UserError("is damaged", hint=hint, key=str(file)) from None


def full_trainings(path: Path) -> pd.DataFrame:
    """Return the finished full trainings of a run's networks by key, with the columns `FULL`.

    They are looked for in the folders beside the run's, where `evonas train` puts them; space, data
    and split must be the run's. Of several of a network, the longest counts, not the best.
    """
    mine = _trained_on(yamlfile.read(path / "config.yaml"))
    rows: list[dict[str, Any]] = []
    for file in sorted(path.resolve().parent.glob("*/result.csv")):
        try:
            settings = yamlfile.read(file.parent / "training.yaml")
            result = tables.read(file, ("key", *FULL), text=TEXT)
            if mine is not None and _trained_on(settings) == mine:
                row = result.iloc[0]
                numbers = {name: float(row.get(name, math.nan)) for name in FULL}
                rows.append({"key": str(row["key"]), **numbers})
        except (UserError, OSError, ValueError, LookupError):
            continue  # another folder's damage is not this run's
    frame = pd.DataFrame(rows, columns=["key", *FULL])
    frame = frame.sort_values("epochs", kind="stable", ascending=False)
    return frame.drop_duplicates("key").set_index("key")


def networks(path: Path) -> pd.DataFrame:
    """Return a row for each network of the front and each finalist, with all that is known of it.

    The front comes first, in its order. Columns: `key`; `on_front`; the metrics, as the search
    measured them, under their names; what a model expects, with `model_` before; the metrics of the
    finals, with `finals_` before; those of `FULL`, with `full_` before.

    Raises:
        UserError: a table is damaged.
    """
    front = tables.read(path / "front.csv", text=TEXT)
    finalists = finals(path).add_prefix("finals_")
    columns = list(front.columns)
    metrics = columns[columns.index("seed") + 1 :]
    rows = front[["key", *metrics]].assign(on_front=True)
    behind = [key for key in finalists.index if key not in set(front["key"])]
    if behind:
        asked = tables.read(path / "evaluations.csv", text=TEXT)
        asked = asked[asked["key"].isin(behind) & (asked["status"] == "ok")]
        asked = asked.drop_duplicates("key", keep="last").set_index("key").reindex(behind)
        rows = pd.concat([rows, asked.reset_index()[["key", *metrics]].assign(on_front=False)])
    found = rows.merge(
        posterior(path).add_prefix("model_"), how="left", left_on="key", right_index=True
    )
    found = found.merge(finalists, how="left", left_on="key", right_index=True)
    full = full_trainings(path).add_prefix("full_")
    return found.merge(full, how="left", left_on="key", right_index=True).reset_index(drop=True)


def _trained_on(settings: Any) -> tuple[Any, Any] | None:
    """Return space and data of a run, or of a full training; None if it trains nothing."""
    data = settings.get("data") if isinstance(settings, Mapping) else None
    if not isinstance(data, Mapping):
        return None
    return settings.get("space"), {key: data[key] for key in data if key != "subset"}
