"""A benchmark from its file to its folder: runs, a table of their results, a figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

from evonas import markdown, plugins, yamlfile
from evonas.bench import runs
from evonas.bench.figures import best_so_far
from evonas.bench.runs import Table
from evonas.bench.spec import Bench, load
from evonas.bench.summary import coverage, curves, summary
from evonas.core import UserError
from evonas.files import write_atomic
from evonas.jobs import machine
from evonas.markdown import counted
from evonas.plots.style import save, styled
from evonas.records.folder import (
    Hold,
    begin,
    environment,
    note_data,
    note_resume,
    note_start,
)

FILE = "bench.yaml"


class Benching:
    """A benchmark and the runs that it has so far; `opened` makes it and holds its folder.

    Iterating makes the runs that are missing; `finish` writes `summary.csv`, `summary.md` and the
    figure.
    """

    def __init__(self, bench: Bench, table: Table, folder: Path, workers: int) -> None:
        """Takes a benchmark whose folder is already held."""
        self.bench = bench
        self.table = table
        self.folder = folder
        self.workers = workers

    @property
    def count(self) -> int:
        """The number of all runs."""
        return len(self.bench.strategies) * self.bench.seeds

    def __iter__(self) -> Iterator[int]:
        return runs.run_all(self.bench, self.folder, self.workers)

    def finish(self) -> str:
        """Writes the results, and returns their summary as Markdown."""
        results = runs.read(self.folder / "runs.csv")
        rows = summary(self.bench, self.table, results)
        write_atomic(self.folder / "summary.csv", rows.to_csv(index=False, lineterminator="\n"))
        text = summary_text(self.bench, self.table, rows)
        write_atomic(self.folder / "summary.md", text)
        with styled():
            save(best_so_far(self.bench, curves(self.bench, results)), self.folder, "best")
        return text


@contextmanager
def opened(bench: Bench, folder: Path, *, workers: int | None = None) -> Iterator[Benching]:
    """Opens a benchmark in a new folder, or continues it in its own; holds the folder meanwhile.

    The user's Python files that the benchmark names may be imported from here on.

    Args:
        workers: the number of processes; without it, one per core.

    Raises:
        UserError: the table cannot be read, the folder holds something else, or the table or the
            files are not those that it began with.
    """
    own = plugins.allow(file for params in bench.strategies.values() for file in params.own_files())
    table = runs.read_table(bench)
    text = _dumped(bench)
    now = machine.environment(deterministic=True)
    fingerprint = table.evaluator.rows.fingerprint
    benching = Benching(bench, table, folder, workers or joblib.cpu_count())
    if not (folder / FILE).exists():
        with begin(folder, FILE) as hold:
            with hold.undone_on_mistake():
                note_start(folder, now, own)
                note_data(folder, fingerprint)
                write_atomic(folder / FILE, text, sync=True)
            yield benching
        return
    if _dumped(load(folder / FILE, written=True)) != text:  # the file may be of an earlier version
        raise UserError(f"{folder} holds another benchmark", hint="give --out with a new folder")
    with Hold(folder):
        note_data(folder, fingerprint)
        _check_files(folder, own)
        note_resume(folder, now)
        yield benching


def _check_files(folder: Path, own: plugins.Record) -> None:
    """Raise UserError if a Python file of the user's has changed since a benchmark began."""
    noted = environment(folder)
    began_with = {**noted.get("plugins", {}), **noted.get("helpers", {})}
    for file, digest in (pair for files in own.values() for pair in files.items()):
        if began_with.get(file) != digest:
            raise UserError(
                f"{file} has changed since {folder} began",
                hint="restore it, or give --out with a new folder",
            )


def summary_text(bench: Bench, table: Table, results: pd.DataFrame) -> str:
    """Return the summary as Markdown: a table, and notes on its columns."""
    several = len(bench.objectives) > 1
    first = "hypervolume" if several else bench.objectives[0].name
    points = [*bench.protocol.at, None]
    end = bench.protocol.simulated_seconds
    last = f"{end:g} s" if end is not None else f"{bench.protocol.queries:,}"
    header = ["strategy", "queries"]
    for point in points:
        header += [f"{first} after {last if point is None else f'{point:,}'}", "p against random"]
    header += bench.report
    header += [] if several else ["median queries to the optimum", "found"]
    rows = []
    for row in results.to_dict("records"):
        cells = [str(row["strategy"]), f"{row['queries']:.0f}"]
        for after in ("" if point is None else f"_at_{point}" for point in points):
            p = row.get(f"p_random{after}")
            cells += [_mean_text(row, f"value{after}", several), "" if pd.isna(p) else f"{p:.2g}"]
        cells += [_mean_text(row, name, several) for name in bench.report]
        if not several:
            ends = (row["median_queries"], row["median_low"], row["median_high"])
            median, low, high = (f"{x:g}" if x != float("inf") else "never" for x in ends)
            cells += [f"{median} ({low} to {high})", f"{row['found']:.1%}"]
        rows.append(cells)
    notes = [
        f"- {counted(bench.seeds, 'run')} each, seeds 0 to {bench.seeds - 1}; mean ± standard "
        f"error of the mean; a query is a distinct {bench.distinct.removesuffix('s')}.",
        "- p: two-sided Mann-Whitney test of the values to its left against random search's.",
    ]
    if several:
        instead = "".join(f", with {new} for {old}" for old, new in bench.score.items())
        notes.append(
            "- Hypervolume is that of a run's archive, all that it has evaluated, as a share of "
            f"that of the table's exact front{instead}. {counted(len(table.exact), 'genome')} are "
            f"on this front; it dominates {table.filled:.4f} of the box from its best values to "
            "the reference."
        )
    else:
        notes.append(
            "- A run ends when it finds the optimum of the table. The interval contains the median "
            f"with at least {coverage(bench.seeds):.0%}; runs that never find it come last."
        )
    return f"# {bench.name}\n\n{markdown.table(header, rows)}\n\n" + "\n".join(notes) + "\n"


def _dumped(bench: Bench) -> str:
    return yamlfile.dump(bench.model_dump(mode="json", exclude_none=True))


def _mean_text(row: Mapping[Any, Any], name: str, several: bool) -> str:
    digits = 4 if several and name.startswith("value") else 3
    error = row[f"{name}_se"]
    return f"{row[name]:.{digits}f}" + ("" if pd.isna(error) else f" ± {error:.{digits}f}")
