"""A run folder: created once, written generation by generation, restored after a kill."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from evonas import files
from evonas.core import STATE, Candidate, Generation, Objective, Question, State
from evonas.records import checkpoint as checkpoints
from evonas.records import tables
from evonas.records.archive import Archive
from evonas.records.files import weights_left
from evonas.records.journal import Journal
from genomes import SearchSpace

log = logging.getLogger(__name__)


class RunFolder:
    """The growing part of a run folder, which its lock keeps to one process at a time."""

    def __init__(
        self,
        path: Path,
        *,
        space: SearchSpace,
        metrics: Sequence[str],
        objectives: Sequence[Objective],
        references: Sequence[float | None],
        traces: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Open the folder, restored to the last checkpoint that its files confirm.

        Args:
            traces: the columns of the strategy's own tables, by table (`core.Traced`).
        """
        self.path = path
        self.space = space
        self.metrics = tuple(metrics)
        self.archive = Archive(objectives, references)
        self.journal = Journal(path / "journal")
        self.strategy: State | None = None  # as of the last checkpoint
        for name in ("checkpoints", "weights", "scratch"):
            files.make_folder(path / name)
        self.evaluations = tables.Table(
            path / "evaluations.csv", tables.evaluation_columns(self.metrics)
        )
        self.generations = tables.Table(
            path / "generations.csv", tables.generation_columns(objectives, self.metrics)
        )
        self.fronts = tables.Table(path / "fronts.csv", tables.fronts_columns(objectives))
        self.timings = tables.Table(path / "timings.csv", tables.TIMING_COLUMNS)
        self.traces = {
            name: tables.Table(path / f"{name}.csv", ("generation", *columns))
            for name, columns in (traces or {}).items()
        }
        self._growing = (
            *(self.evaluations, self.generations, self.fronts, self.timings),
            *self.traces.values(),
        )
        self._restore()

    def record(
        self,
        generation: Generation,
        strategy: State | None,
        traces: Mapping[str, Sequence[tables.Row]] | None = None,
    ) -> tables.Row:
        """Flush the journal to disk, then write the tables, then the checkpoint that marks them.

        An incomplete generation comes without the strategy's state and gets no checkpoint: a
        resume with more seconds to spend drops its rows and writes the complete generation.

        Returns:
            The generation's row in `generations.csv`.
        """
        archive, first = self.archive, self.archive.evaluations
        archive.add(generation)
        self.journal.sync()
        self.evaluations.append(tables.evaluation_rows(generation, first, self.space, self.metrics))
        row = tables.generation_row(generation, archive, self.space)
        self.generations.append([row])
        self.fronts.append(tables.fronts_rows(generation.index, archive))
        self.timings.append(
            tables.timing_row("search", question, evaluation, generation.index, first + i)
            for i, (question, evaluation, cached) in enumerate(
                zip(generation.questions, generation.evaluations, generation.cached, strict=True)
            )
            if not cached and evaluation.cost.attempts
        )
        for name, rows in (traces or {}).items():
            self.traces[name].append({"generation": generation.index, **row} for row in rows)
        self._write_front()
        if strategy is not None:
            checkpoints.save(
                self.path / "checkpoints",
                checkpoints.Checkpoint(
                    archive.generations,
                    archive.evaluations,
                    strategy,
                    {table.path.name: table.mark() for table in self._growing},
                    simulated_seconds=archive.simulated_seconds,
                ),
            )
        self._keep_weights()
        for evaluation in generation.evaluations:
            file = weights_left(self.path, evaluation)
            if file is not None:
                files.remove(file)
        return {name: value for name, value in row.items() if name in self.generations.columns}

    def weights(self, name: str) -> Path:
        return self.path / "weights" / f"{files.short(name)}.safetensors"

    def clean_scratch(self) -> None:
        for pattern in ("*.safetensors", f"*{STATE}", ".*.part"):
            for file in (self.path / "scratch").glob(pattern):
                files.remove(file)

    def close(self) -> None:
        self.journal.close()

    def _write_front(self) -> None:
        tables.write_table(
            self.path / "front.csv",
            tables.front_rows(self.archive, self.space),
            tables.front_columns(self.metrics),
        )

    def _keep_weights(self) -> None:
        """Keep the weights of the front under their keys; delete those of other networks asked."""
        kept = set()
        for entry in self.archive.front:
            kept.add(files.short(entry.question.key))
            file = weights_left(self.path, entry.evaluation)
            if file is not None and file.exists():
                files.move(file, self.weights(entry.question.key))
        asked = set(map(files.short, self.archive.keys))
        for file in (self.path / "weights").glob("*.safetensors"):
            if file.stem in asked and file.stem not in kept:
                files.remove(file)

    def _restore(self) -> None:
        """Go back to the newest checkpoint that tables and journal confirm.

        Rows after it are dropped, and the archive is rebuilt. Without such a checkpoint, the run
        starts over, with the answers that are in the journal.
        """
        for checkpoint in checkpoints.newest_first(self.path / "checkpoints"):
            marks = checkpoint.tables
            if all(table.begins_as(marks.get(table.path.name)) for table in self._growing):
                for table in self._growing:
                    table.cut(int(marks[table.path.name]["size"]))
                archive = self._rebuilt()
                if archive is not None and self._names_its_own(archive):
                    archive.simulated_seconds = checkpoint.simulated_seconds
                    self.archive = archive
                    self.strategy = checkpoint.strategy
                    self._write_front()
                    self._keep_weights()
                    return
            log.warning("tables or journal do not match a checkpoint; trying an older one")
        for table in self._growing:
            table.clear()

    def _rebuilt(self) -> Archive | None:
        """Return the archive of `evaluations.csv`, with exact values from the journal.

        Returns:
            None if a row is not of this space, or not what the journal has.
        """
        archive = Archive(self.archive.objectives, self.archive.references)
        try:
            rows = tables.read_text(self.evaluations.path)
            for index, group in rows.groupby(rows["generation"].astype(int), sort=True):
                archive.add(self._generation(int(str(index)), group))
        except (ValueError, LookupError) as error:
            log.warning("%s: %s", self.evaluations.path, error)
            return None
        return archive

    def _generation(self, index: int, rows: pd.DataFrame) -> Generation:
        """Return the generation of some rows.

        Raises:
            ValueError: a row is not of this space, or not what the journal has.
        """
        questions, evaluations = [], []
        for row in rows.to_dict("records"):
            question = Question(row["key"], int(row["seed"]), row["budget"])
            answer = self.journal.get(question)
            if answer is None or not tables.tells(row, answer, self.metrics):
                raise ValueError(f"the journal has not the values of {question.key}")
            genome = self.space.genome(map(int, row["genes"].split("-")))
            questions.append(question)
            evaluations.append(replace(answer, candidate=Candidate(genome)))
        cached = tuple((rows["cached"] == "True").tolist())
        return Generation(index, tuple(questions), tuple(evaluations), cached)

    def _names_its_own(self, archive: Archive) -> bool:
        """Return whether the keys on the front, which name files, are those of its genomes."""
        return all(
            self.space.key(entry.evaluation.candidate.genome) == entry.question.key
            for entry in archive.front
        )
