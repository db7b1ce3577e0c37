"""What the figures of a page need of a run, by columns, and their JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evonas.core import Status
from evonas.plots.inline import inline
from evonas.plots.style import NotYet
from evonas.report import series
from evonas.report.answer import Answer
from evonas.report.sheets import failures

MOST_ROWS = 20_000  # evaluations in a page
IN_BRIEF = 1500  # if several runs share it
DRAWN = 700_000  # characters of drawings, some 500 cells of NAS-Bench-201
DRAWN_IN_BRIEF = 150_000
EXACT = 7  # digits


def columns(answer: Answer, *, brief: bool = False) -> dict[str, Any]:
    """Return a run as plain data and arrays; without rows while there are none."""
    frame = answer.candidates
    known: dict[str, Any] = {
        "objectives": len(answer.tables.objectives),
        "metrics": [dataclasses.asdict(shown) for shown in answer.shown.values()],
        "progress": list(series.progress(answer.tables)),
        "costs": list(series.costs(answer.tables)),
    }
    if brief:
        known["progress"] = known["progress"][: len(answer.tables.objectives)]
        known["costs"] = []
    if frame is None:
        return {**known, "rows": 0, "of": 0}
    frame = frame.reset_index(drop=True)
    fronts = _fronts(answer, frame)
    ever = fronts["row"].unique() if len(fronts) else np.zeros(0, dtype=np.int64)
    rows = _kept(frame, answer, ever, IN_BRIEF if brief else MOST_ROWS)
    frame, place = frame.iloc[rows], pd.Series(np.arange(len(rows)), index=rows)
    codes, keys = pd.factorize(frame["key"])
    code = {key: i for i, key in enumerate(keys)}
    texts: dict[str, Any] = {}
    for name in ("genome", "origin", "status", "budget"):
        numbers, names = pd.factorize(frame[name].astype(str))
        texts[name] = {"codes": numbers, "names": list(names)}
    first = frame.drop_duplicates("key")
    beyond = {key: facts for key in answer.networks.index if (facts := answer.facts(key))}
    return {
        **known,
        "rows": len(frame),
        "of": len(answer.candidates if answer.candidates is not None else ()),
        "keys": list(keys),
        "key": codes,
        "generation": frame["generation"].to_numpy() + 1,
        "index": frame["index"].to_numpy(),
        "cached": (frame["cached"].astype(str) == "True").to_numpy().astype(int),
        "parents": [
            [code[parent] for parent in dict.fromkeys(text.split()) if parent in code]
            for text in frame["parents"]
        ],
        "texts": texts,
        "values": {name: frame[name].to_numpy(dtype=np.float64) for name in answer.shown},
        "messages": _messages(answer, frame),
        "fronts": _by_generation(fronts, place),
        "winner": code.get(answer.winner, -1),
        "winnerWord": answer.word,
        "knee": code.get(answer.knee, -1),
        "finals": _finals(answer, code),
        "facts": {code[key]: facts for key, facts in beyond.items() if key in code},
        "ops": None if brief else series.ops(answer.tables),
        "drawings": _drawings(
            answer,
            first,
            code,
            frame.loc[frame.index.isin(ever), "key"],
            DRAWN_IN_BRIEF if brief else DRAWN,
        ),
    }


def dumps(value: Any) -> str:
    """Return plain data as JSON that can stand in a `script` element.

    NaN is null, and infinity 1e999, which JSON's grammar allows and JavaScript reads as infinity.
    """
    return _json(value).replace("<", "\\u003c")


def _json(value: Any) -> str:
    if isinstance(value, pd.Series):
        value = value.to_numpy()
    if isinstance(value, np.ndarray) and value.ndim > 1:
        value = list(value)
    if isinstance(value, np.ndarray):
        numbers = value.tolist()
        if value.dtype.kind in "iu":
            return f"[{','.join(map(str, numbers))}]"
        return f"[{','.join(map(_number, numbers))}]"
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(str(key))}:{_json(inner)}" for key, inner in value.items())
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_json, value))}]"
    if isinstance(value, float | np.floating):
        return _number(float(value))
    if isinstance(value, np.integer):
        return str(int(value))
    return json.dumps(value)


def _number(value: float) -> str:
    if math.isnan(value):
        return "null"
    if math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else f"{value:.{EXACT}g}"


def _fronts(answer: Answer, frame: pd.DataFrame) -> pd.DataFrame:
    """The members of each generation's front: `generation`, and `row` of their evaluation."""
    try:
        fronts = answer.tables.fronts
    except NotYet:
        return pd.DataFrame({"generation": [], "row": []})
    same = ["key", *(objective.name for objective in answer.tables.objectives)]
    first = frame[same].drop_duplicates().reset_index(names="row")
    found = fronts.merge(first, on=same, how="inner")[["generation", "row"]]
    return found.astype({"row": np.int64})


def _by_generation(fronts: pd.DataFrame, place: pd.Series[Any]) -> list[Any]:
    """Pairs of a generation, counted from 1, and the rows on its front; equal ones once."""
    found: list[Any] = []
    for generation, part in fronts.groupby("generation"):
        rows = place.reindex(part["row"]).dropna().to_numpy(dtype=np.int64)
        if not found or not np.array_equal(found[-1][1], rows):
            found.append((int(str(generation)) + 1, rows))
    return found


def _kept(
    frame: pd.DataFrame, answer: Answer, ever: NDArray[np.int64], most: int
) -> NDArray[np.int64]:
    """The rows that a page has: all or, of too many, those that matter and a share of the rest."""
    if len(frame) <= most:
        return np.arange(len(frame))
    firsts = frame.drop_duplicates("key")
    parents = dict(zip(firsts["key"], firsts["parents"], strict=True))
    row_of = dict(zip(firsts["key"], firsts.index, strict=True))
    waiting = [answer.winner, *map(str, answer.networks.index)]
    family: dict[str, None] = {}
    while waiting and len(family) < most // 2:  # with their ancestors
        key = waiting.pop(0)
        if key in parents and key not in family:
            family[key] = None
            waiting += parents[key].split()
    matter = {*ever.tolist(), *(row_of[key] for key in family)}
    rest = np.setdiff1d(np.arange(len(frame)), sorted(matter))
    share = np.linspace(0, len(rest) - 1, max(most - len(matter), 0)).astype(int)
    return np.union1d(sorted(matter), rest[np.unique(share)]).astype(np.int64)


def _messages(answer: Answer, frame: pd.DataFrame) -> dict[int, str]:
    """What went wrong, by the place of the row."""
    failed = failures(answer.tables)
    if failed.empty or "index" not in failed:
        return {}
    told = failed[failed["message"] != ""].dropna(subset=["index"])
    by_index = dict(zip(told["index"].astype(int), told["message"].astype(str), strict=True))
    return {i: by_index[index] for i, index in enumerate(frame["index"]) if index in by_index}


def _finals(answer: Answer, code: Mapping[str, int]) -> list[dict[str, Any]]:
    """Where the finals put networks: the means of their seeds, by objective."""
    found: list[dict[str, Any]] = []
    names = [objective.name for objective in answer.tables.objectives]
    first = names[0]
    for key in map(str, answer.networks.index):
        if key not in code:
            continue
        row = answer.row(key)
        values = {name: float(row.get(f"finals_{name}", math.nan)) for name in names}
        if not math.isnan(values[first]):
            spread = float(row.get(f"finals_{first}_std", math.nan))
            found.append({"key": code[key], "values": values, "spread": spread})
    return found


def _drawings(
    answer: Answer, first: pd.DataFrame, code: Mapping[str, int], ever: pd.Series[Any], most: int
) -> dict[int, str]:
    """Drawings by network: those that matter first, up to so many characters."""
    try:
        space = answer.tables.space
    except NotYet:
        return {}
    genes = dict(zip(first["key"], first["genes"], strict=True))
    objective = answer.tables.objectives[0]
    well = first[first["status"] == str(Status.OK)]
    ranked = well["key"].iloc[np.argsort(objective.sign * well[objective.name], kind="stable")]
    parents = {key for text in first["parents"] for key in text.split()}
    wanted = dict.fromkeys(
        key
        for key in (
            *(answer.winner, answer.knee, *answer.networks.index),
            *ever,
            *(key for key in ranked if key in parents),
            *ranked,
        )
        if key in genes
    )
    drawn: dict[int, str] = {}
    size = 0
    for key in wanted:
        try:
            drawing = inline(space, space.genome(map(int, str(genes[key]).split("-"))))
        except ValueError:
            continue  # genes of another space: space.json was exchanged
        size += len(drawing)
        if drawn and size > most:
            break
        drawn[code[key]] = drawing
    return drawn
