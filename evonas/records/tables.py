"""The tables of a run: plain CSV, which `pandas.read_csv` opens as it is."""

from __future__ import annotations

import hashlib
import io
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evonas import files
from evonas.core import (
    Cost,
    Evaluation,
    Generation,
    Objective,
    Question,
    Status,
    UserError,
    finite,
)
from evonas.data.dataset import Places
from evonas.metrics import SIMULATED_SECONDS
from evonas.records.archive import Archive
from genomes import Genome, SearchSpace
from genomes.operators import mean_hamming

Row = Mapping[str, Any]

OUTDATED = "finalists.outdated"  # an empty file beside `finalists.csv`

TIMING_COLUMNS = (
    *("phase", "generation", "index", "key", "seed", "budget", "status", "attempts", "worker"),
    *("started", "seconds", "training_seconds", "epochs", "steps", "from_cache", "message"),
)


class Table:
    """A table that grows. Numbers are written so that they read back the same.

    A table with other columns, which an older version wrote, is emptied: no checkpoint matches it
    then, and the run is rebuilt from its journal.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = list(columns)
        header = _csv([], self.columns, header=True)
        if not path.exists() or not files.read(path).startswith(header):
            write_table(path, [], self.columns)
        self._measure()

    def mark(self) -> dict[str, int | str]:
        """Return the table's size in bytes, and a digest of them."""
        return {"size": self._size, "digest": self._digest.hexdigest()}

    def begins_as(self, mark: Mapping[str, Any] | None) -> bool:
        """Return whether the table begins with its content at the mark; False without a mark."""
        if mark is None:
            return False
        digest: str = _digest(files.read(self.path)[: mark["size"]]).hexdigest()
        return digest == str(mark["digest"])

    def clear(self) -> None:
        """Delete all rows, keeping the header."""
        write_table(self.path, [], self.columns)
        self._measure()

    def append(self, rows: Iterable[Row]) -> None:
        content = _csv(rows, self.columns, header=False)
        files.append(self.path, content)
        self._size += len(content)
        self._digest.update(content)

    def cut(self, size: int) -> None:
        """Drop what was written after the table had this size."""
        files.cut(self.path, size)
        self._measure()

    def _measure(self) -> None:
        content = files.read(self.path)
        self._size, self._digest = len(content), _digest(content)


def _digest(content: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(content, digest_size=16)


def write_table(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Write a whole table, replacing the file."""
    files.write_atomic(path, _csv(rows, columns, header=True))


def write_split(run_dir: Path, places: Places) -> None:
    """Write `split.csv`, which image is in which part, unless a run that is resumed has it."""
    path = run_dir / "split.csv"
    if path.exists():
        return
    parts = zip(places.images, places.labels.tolist(), places.parts.tolist(), strict=True)
    columns = ("image", "label", "part")
    write_table(path, (dict(zip(columns, row, strict=True)) for row in parts), columns)


def read(
    path: Path, columns: Collection[str] | None = None, text: Collection[str] = ()
) -> pd.DataFrame:
    """Read the complete rows of a table, to which a run may be adding.

    Args:
        columns: those to read, if present; None for all.
        text: columns that are text, whatever they look like.
    """
    content = files.read(path)
    selected = None if columns is None else set(columns).__contains__
    complete = io.BytesIO(content[: content.rfind(b"\n") + 1])
    return pd.read_csv(complete, usecols=selected, dtype=dict.fromkeys(text, "str"))


def outdated(run_dir: Path) -> bool:
    """Return whether the search has gone on, or its finals have changed, since the last finals."""
    return (run_dir / OUTDATED).exists()


def winner(run_dir: Path) -> pd.Series[Any] | None:
    """Return the winner's row of `finalists.csv`, or None if there is no winner yet.

    Until new finals are over it is that of the last ones (`outdated`).

    Raises:
        UserError: the table is damaged.
    """
    path = run_dir / "finalists.csv"
    if not path.exists():
        return None
    try:
        finalists = read(path, text=("key", "genes"))
        winners = finalists[finalists["winner"].astype(str) == "True"]
    except (OSError, ValueError, KeyError):
        raise UserError(
            f"{path} is damaged", hint=f"write it again with `evonas resume {run_dir}`"
        ) from None
    return None if winners.empty else winners.iloc[0]


def read_text(path: Path) -> pd.DataFrame:
    """Read a table, with every cell as its text."""
    return pd.read_csv(io.BytesIO(files.read(path)), dtype=str, keep_default_na=False)


def as_text(rows: Iterable[Row], columns: Sequence[str]) -> pd.DataFrame:
    """Return rows as `read_text` reads them back."""
    content = io.BytesIO(_csv(rows, columns, header=True))
    return pd.read_csv(content, dtype=str, keep_default_na=False)


def stagnation(path: Path) -> int:
    """Return how many of the last generations in `generations.csv` left the hypervolume as it was.

    Numbers are written exactly, so it is the same where its text is.
    """
    return stagnant(read_text(path)["hypervolume"].tolist())


def stagnant(volumes: Sequence[object]) -> int:
    """Return how many of the last values are equal to the one before them."""
    equal = 0
    for later, earlier in itertools.pairwise(reversed(volumes)):
        if later != earlier:
            break
        equal += 1
    return equal


def evaluation_columns(metrics: Sequence[str]) -> tuple[str, ...]:
    return (
        *("generation", "index", "key", "genome", "genes", "parents", "origin", "budget", "seed"),
        *("status", "cached", "deterministic"),
        *metrics,
    )


def evaluation_rows(
    generation: Generation, first: int, space: SearchSpace, metrics: Sequence[str]
) -> list[Row]:
    """Return one row per candidate; `first` is the index of the first."""
    rows: list[Row] = []
    for i, (question, evaluation, cached) in enumerate(
        zip(generation.questions, generation.evaluations, generation.cached, strict=True)
    ):
        candidate = evaluation.candidate
        rows.append(
            {
                "generation": generation.index,
                "index": first + i,
                **network_cells(question, evaluation, space),
                "parents": " ".join(candidate.parents),
                "origin": candidate.origin,
                "status": str(evaluation.status),
                "cached": cached,
                "deterministic": evaluation.deterministic,
                **{name: evaluation.values.get(name) for name in metrics},
            }
        )
    return rows


def tells(row: Mapping[Any, Any], evaluation: Evaluation, metrics: Sequence[str]) -> bool:
    """Return whether a row of `evaluations.csv`, read as text, has an evaluation's values.

    Raises:
        ValueError: a value is no number.
    """

    def same(text: str, value: float | None) -> bool:
        nothing = value is None or math.isnan(value)
        return nothing if text == "" else (not nothing and float(text) == value)

    values = evaluation.values
    return row["status"] == str(evaluation.status) and all(
        same(row[name], values.get(name)) for name in metrics
    )


def generation_columns(
    objectives: Sequence[Objective], metrics: Sequence[str] = ()
) -> tuple[str, ...]:
    return (
        *("generation", "evaluations", "trained", "hits", "faults"),
        *(str(status) for status in Status if status is not Status.OK),
        *(f"{o.name}_{what}" for o in objectives for what in ("best", "mean", "worst")),
        *("diversity", "distinct", "front_size", "hypervolume"),
        *((SIMULATED_SECONDS.name,) if SIMULATED_SECONDS.name in metrics else ()),
    )


def generation_row(generation: Generation, archive: Archive, space: SearchSpace) -> Row:
    """Return counts and statistics of one generation, and of the archive's front after it.

    `trained` counts evaluations answered neither by an earlier one nor by cheap values, `faults`
    those that failed, and a column named after a status those with it. Best, mean and worst are
    over successful evaluations. `diversity` is the mean Hamming distance of the genomes, in genes;
    dead ones are equal. `distinct` counts networks; `simulated_seconds` is what the run has spent
    so far on a table that has them.
    """
    evaluations = generation.evaluations
    genes = [_live(evaluation.candidate.genome, space) for evaluation in evaluations]
    statuses = [evaluation.status for evaluation in evaluations]
    row: dict[str, Any] = {
        "generation": generation.index,
        "evaluations": len(evaluations),
        "trained": sum(
            e.cost.attempts > 0 and not cached
            for e, cached in zip(evaluations, generation.cached, strict=True)
        ),
        "hits": sum(generation.cached),
        "faults": sum(status.failed for status in statuses),
        **{str(status): statuses.count(status) for status in Status},
        "diversity": mean_hamming(np.array(genes)),
        "distinct": len({question.key for question in generation.questions}),
        "front_size": len(archive.front),
        "hypervolume": archive.hypervolume(),
        SIMULATED_SECONDS.name: generation.simulated_seconds,
    }
    for objective in archive.objectives:
        name = objective.name
        values = [
            e.values[name]
            for e in evaluations
            if e.status is Status.OK and finite(e.values, [name])
        ]
        if values:
            ends = (min(values), max(values))
            best, worst = ends if objective.goal == "min" else reversed(ends)
            mean = float(np.mean(values))
            row |= {f"{name}_best": best, f"{name}_mean": mean, f"{name}_worst": worst}
    return row


def _live(genome: Genome, space: SearchSpace) -> list[int]:
    """Return the choices of the genes counted from 1, with 0 for each dead gene."""
    live = space.live(genome)
    return [(gene + 1) * alive for gene, alive in zip(genome.genes, live, strict=True)]


def fronts_columns(objectives: Sequence[Objective]) -> tuple[str, ...]:
    return ("generation", "key", *(objective.name for objective in objectives))


def fronts_rows(generation: int, archive: Archive) -> list[Row]:
    """Return the front after a generation, with its objectives alone."""
    return [
        {"generation": generation, "key": entry.question.key}
        | {o.name: entry.evaluation.values[o.name] for o in archive.objectives}
        for entry in archive.front
    ]


def front_columns(metrics: Sequence[str]) -> tuple[str, ...]:
    return ("key", "genome", "genes", "generation", "index", "budget", "seed", *metrics)


def front_rows(archive: Archive, space: SearchSpace) -> list[Row]:
    """Return the front with all metrics, the best by the first objective first."""
    return [
        {
            **entry.evaluation.values,  # first, since an evaluator may give more than it declares
            "generation": entry.generation,
            "index": entry.index,
            **network_cells(entry.question, entry.evaluation, space),
        }
        for entry in archive.front
    ]


def network_cells(question: Question, evaluation: Evaluation, space: SearchSpace) -> Row:
    genome = evaluation.candidate.genome
    return {
        "key": question.key,
        "genome": space.describe(genome),
        "genes": genome.text,
        "budget": question.budget,
        "seed": question.seed,
    }


def timing_row(
    phase: str,
    question: Question,
    evaluation: Evaluation,
    generation: int | None,
    index: int | None,
) -> Row:
    cost: Cost = evaluation.cost
    return {
        "phase": phase,
        "generation": generation,
        "index": index,
        "key": question.key,
        "seed": question.seed,
        "budget": question.budget,
        "status": str(evaluation.status),
        "attempts": cost.attempts,
        "worker": cost.worker,
        "started": round(cost.started, 3),
        "seconds": round(cost.seconds, 4),
        "training_seconds": round(cost.training_seconds, 4),
        "epochs": cost.epochs,
        "steps": cost.steps,
        "from_cache": cost.from_cache,
        "message": evaluation.message,
    }


def seconds_of_trainings(timings: Path) -> tuple[float, float]:
    """Return the mean time of a training of the search, and what it took beside its steps.

    Of the latter, the slowest tenth is left out: a worker's first training has to be sent the data.

    Args:
        timings: the path of `timings.csv`.
    """
    rows = read(timings)
    ended = rows["phase"].eq("search") & rows["status"].eq("ok") & ~rows["from_cache"].astype(bool)
    if not ended.any():
        return 0.0, 0.0
    beside = (rows["seconds"] - rows["training_seconds"])[ended]
    return float(rows["training_seconds"][ended].mean()), float(beside.quantile(0.9))


def _csv(rows: Iterable[Row], columns: Sequence[str], *, header: bool) -> bytes:
    frame = pd.DataFrame(list(rows), columns=list(columns), dtype=object)
    text: str = frame.to_csv(index=False, header=header, lineterminator="\n")
    return text.encode(errors="backslashreplace")  # of what an exception says, half a character
