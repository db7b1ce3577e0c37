"""Journal, checkpoint, archive and tables, without a training in sight."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evonas.core import (
    Budget,
    Candidate,
    Cost,
    Evaluation,
    Generation,
    Metric,
    Objective,
    Question,
    SearchFailed,
    Status,
    Stop,
)
from evonas.loop import Desk, evolve
from evonas.metrics import FLOPS, PARAMS, VAL_ERROR, VAL_LOSS
from evonas.protocols import Setting
from evonas.records import checkpoint, tables
from evonas.records.archive import Archive, known_references
from evonas.records.files import lock, weights_left
from evonas.records.journal import Journal
from evonas.records.run import RunFolder
from evonas.strategies.genetic import Genetic, GeneticParams
from genomes import Genome, NASBench201

SPACE = NASBench201()
ERROR, SIZE = Objective(name="val_error"), Objective(name="params")
TABLES = ("evaluations.csv", "generations.csv", "fronts.csv", "front.csv", "timings.csv")


class Free:
    """Values from genes and seed; notes what it was asked."""

    metrics = (Metric("val_error"), Metric("params"))
    fingerprint = ""

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget
        self.asked: list[Genome] = []

    def cheap(self, genome: Genome) -> Mapping[str, float]:
        return {"params": 1 + sum(genome.genes)}

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        self.asked.append(candidate.genome)
        values = {"val_error": (seed % 997) / 997, **self.cheap(candidate.genome)}
        return Evaluation(candidate, values)


class Trained(Free):
    """Leaves weights in `scratch/`: the text of the genome, under a name of its own choice."""

    def __init__(
        self,
        run_dir: Path,
        name: Callable[[int], str] = "{}.weights".format,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(budget)
        self.scratch = run_dir / "scratch"
        self.name = name

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        found = super().evaluate(candidate, seed)
        (self.scratch / self.name(seed)).write_text(candidate.genome.text)
        return replace(found, weights=self.name(seed))


def evaluation(error: float, size: float, status: Status = Status.OK) -> Evaluation:
    genome = SPACE.genome([0] * 6)
    return Evaluation(Candidate(genome), {"val_error": error, "params": size}, status)


def generation(index: int, *evaluations: Evaluation) -> Generation:
    questions = tuple(Question(f"g{index}-{i}", i) for i in range(len(evaluations)))
    return Generation(index, questions, evaluations, (False,) * len(evaluations))


def search(folder: Path, generations: int, evaluator: Free | None = None) -> Free:
    """Runs, or goes on with, a free search; gives the evaluator back."""
    folder.mkdir(exist_ok=True)
    run = RunFolder(
        folder,
        space=SPACE,
        metrics=("val_error", "params"),
        objectives=(ERROR, SIZE),
        references=(1.0, 25.0),
    )
    strategy = Genetic(GeneticParams(population=8), Setting(SPACE, (ERROR, SIZE), seed=4))
    if run.strategy is not None:
        strategy.load_state_dict(run.strategy)
    evaluator = evaluator or Free()
    for found in evolve(
        strategy,
        Desk(evaluator, SPACE, answers=run.journal, budget=evaluator.budget, seed=9),
        stop=Stop(generations=generations),
        since=run.archive.position,
    ):
        run.record(found, strategy.state_dict())
    run.close()
    return evaluator


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


def test_journal_gives_back_what_it_was_told(tmp_path: Path) -> None:
    question = Question("g0-1", 2**62 + 1, "epochs=3")
    cost = Cost(seconds=1.5, training_seconds=1.25, epochs=3, steps=48, worker=7, attempts=2)
    told = Evaluation(
        Candidate(SPACE.genome([1] * 6)),
        {"val_error": 0.1 + 0.2, "params": 4822},
        Status.OK,
        cost,
        'with "quotes"\nand a new line',
        False,
        "0f.safetensors",
    )
    journal = Journal(tmp_path / "journal")
    journal.add(question, told)
    journal.close()
    assert Journal(tmp_path / "journal").get(question) == told


@pytest.mark.parametrize("torn", [b'{"key": "g1", "se', b"\xff\xfe", b"{}"])
def test_journal_cuts_off_a_torn_last_line_and_goes_on(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.add(Question("g1", 1), evaluation(0.5, 1))
    journal.close()
    with path.open("ab") as file:
        file.write(torn)
    journal = Journal(path)
    journal.add(Question("g2", 2), evaluation(0.25, 2))
    journal.close()
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["g1", "g2"]


def test_journal_leaves_out_a_damaged_line_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    for i in range(3):
        journal.add(Question(f"g{i}", i), evaluation(0.5, 1))
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b'{"key": "g1"}\n'
    path.write_bytes(b"".join(lines))
    journal = Journal(path)
    known = [journal.get(Question(f"g{i}", i)) is not None for i in range(3)]
    assert known == [True, False, True]


def test_resuming_at_every_generation_gives_the_same_tables(tmp_path: Path) -> None:
    search(tmp_path / "whole", 6)
    for stop in range(1, 6):
        folder = tmp_path / f"from-{stop}"
        search(folder, stop)
        search(folder, 6)
        before, after = contents(tmp_path / "whole"), contents(folder)
        for name in TABLES[:4]:
            assert before[name] == after[name], name


def damage_checkpoint(folder: Path) -> None:
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:100])


def damage_all_checkpoints(folder: Path) -> None:
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(b"")


def lose_rows(folder: Path) -> None:
    path = folder / "evaluations.csv"
    path.write_bytes(path.read_bytes()[:500])


def lose_a_table(folder: Path) -> None:
    (folder / "fronts.csv").unlink()


def blank_rows(folder: Path) -> None:
    path = folder / "evaluations.csv"
    lines = path.read_bytes().split(b"\n")
    lines[9:17] = [b" " * len(line) for line in lines[9:17]]
    path.write_bytes(b"\n".join(lines))


def zero_the_end(folder: Path) -> None:
    path = folder / "evaluations.csv"
    path.write_bytes(path.read_bytes()[:700].ljust(path.stat().st_size, b"\0"))


def change_a_cell(folder: Path) -> None:
    path = folder / "generations.csv"
    path.write_bytes(path.read_bytes().replace(b"\n1,8,", b"\n1,9,"))


def flip_a_bit(folder: Path) -> None:
    for path in (folder / "checkpoints").iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def add_rows(folder: Path) -> None:
    for name in ("evaluations.csv", "timings.csv"):
        with (folder / name).open("ab") as file:
            file.write(b"5,40,half a r")


@pytest.mark.parametrize(
    "damage",
    [
        damage_checkpoint,
        damage_all_checkpoints,
        flip_a_bit,
        lose_rows,
        blank_rows,
        zero_the_end,
        change_a_cell,
        lose_a_table,
        add_rows,
    ],
)
def test_a_damaged_folder_is_replayed_from_its_journal(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    search(tmp_path / "whole", 6)
    search(tmp_path / "hurt", 4)
    damage(tmp_path / "hurt")
    resumed = search(tmp_path / "hurt", 6)
    assert len(resumed.asked) == 2 * 8  # generations 4 and 5, and nothing again
    before, after = contents(tmp_path / "whole"), contents(tmp_path / "hurt")
    for name in TABLES[:4]:
        assert before[name] == after[name], name


def test_a_folder_whose_tables_have_other_columns_is_replayed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = [name for name in tables.TIMING_COLUMNS if name != "from_cache"]
    with monkeypatch.context() as patch:
        patch.setattr(tables, "TIMING_COLUMNS", older)
        search(tmp_path / "old", 2)
    search(tmp_path / "whole", 3)
    assert len(search(tmp_path / "old", 3).asked) == 8  # those of generation 2
    before, after = contents(tmp_path / "whole"), contents(tmp_path / "old")
    assert all(before[name] == after[name] for name in TABLES[:4])
    timings = pd.read_csv(tmp_path / "old" / "timings.csv")
    assert tuple(timings.columns) == tables.TIMING_COLUMNS
    assert len(timings) == len(pd.read_csv(tmp_path / "whole" / "timings.csv"))


def test_a_journal_that_lost_trainings_costs_those_and_no_more(tmp_path: Path) -> None:
    search(tmp_path / "whole", 5)
    search(tmp_path / "hurt", 5)
    path = tmp_path / "hurt" / "journal"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:10] + lines[13:]))
    resumed = search(tmp_path / "hurt", 5)
    assert len(resumed.asked) == 3
    before, after = contents(tmp_path / "whole"), contents(tmp_path / "hurt")
    for name in TABLES[:4]:
        assert before[name] == after[name], name


def front_weights(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in (folder / "weights").iterdir()}


def killed_before_weights_are_kept(evaluator: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generation with its checkpoint, and all weights still in `scratch/`."""
    folder = evaluator.scratch.parent

    def killed(self: RunFolder) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_keep_weights", killed)
        with pytest.raises(KeyboardInterrupt):
            search(folder, 1, evaluator)
    assert front_weights(folder) == {}


def test_weights_are_those_that_the_answers_name(tmp_path: Path) -> None:
    search(tmp_path, 4, Trained(tmp_path))
    front = pd.read_csv(tmp_path / "front.csv")
    assert front_weights(tmp_path) == {key: key[1:] for key in front["key"]}
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_kill_costs_no_weights_of_the_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: bool
) -> None:
    killed_before_weights_are_kept(Trained(tmp_path), monkeypatch)
    if not checkpoints:
        damage_all_checkpoints(tmp_path)
    assert search(tmp_path, 1).asked == []
    front = pd.read_csv(tmp_path / "front.csv")
    assert front_weights(tmp_path) == {key: key[1:] for key in front["key"]}


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_journal_that_names_no_weights_has_them_where_version_0_1_0_left_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: bool
) -> None:
    budget = Budget(epochs=3)

    def name(seed: int) -> str:  # `scratch/ID.safetensors`, the ID as 0.1.0 made it
        digest = hashlib.blake2b(f"{seed}/epochs=3".encode(), digest_size=8)
        return f"{digest.hexdigest()}.safetensors"

    killed_before_weights_are_kept(Trained(tmp_path, name, budget), monkeypatch)
    journal = tmp_path / "journal"
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert all(record.pop("weights") and record.pop("digest") for record in records)
    journal.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    if not checkpoints:
        damage_all_checkpoints(tmp_path)
    assert search(tmp_path, 1, Free(budget)).asked == []
    front = pd.read_csv(tmp_path / "front.csv")
    assert front_weights(tmp_path) == {key: key[1:] for key in front["key"]}


def test_a_journal_names_no_file_outside_its_folder(tmp_path: Path) -> None:
    found = replace(evaluation(0.5, 1), weights="../../theirs")
    assert weights_left(tmp_path, found) == tmp_path / "scratch" / "theirs"
    assert weights_left(tmp_path, evaluation(0.5, 1)) is None


def test_only_the_last_checkpoints_are_kept_and_they_are_plain_data(tmp_path: Path) -> None:
    search(tmp_path / "run", 5)
    held = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert [name[:18] for name in held] == ["generation-0000004", "generation-0000005"]
    for name in held:
        loaded = torch.load(tmp_path / "run" / "checkpoints" / name, weights_only=True)
        assert loaded["version"] == 1
    newest = next(checkpoint.newest_first(tmp_path / "run" / "checkpoints"))
    assert newest.generations == 5
    assert newest.evaluations == 40


def test_a_checkpoint_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

    content = pickle.dumps(Evil())
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    (tmp_path / f"generation-0000001-{digest}.pt").write_bytes(content)
    assert list(checkpoint.newest_first(tmp_path)) == []
    assert not (tmp_path / "executed").exists()


def test_a_network_asked_again_is_a_hit_and_stands_once_on_the_front(tmp_path: Path) -> None:
    folder = tmp_path
    run = RunFolder(
        folder, space=SPACE, metrics=("val_error", "params"), objectives=(ERROR,), references=(1,)
    )
    twice = [Candidate(SPACE.parse(text)) for text in ("1-2-0-1-2-1", "1-1-0-2-2-1")]
    assert SPACE.key(twice[0].genome) == SPACE.key(twice[1].genome)

    class Asks:
        def ask(self) -> list[Candidate]:
            return twice

        def tell(self, evaluations: object) -> None: ...

        def state_dict(self) -> dict[str, object]:
            return {}

        def load_state_dict(self, state: object) -> None: ...

    evaluator = Free()
    for found in evolve(
        Asks(), Desk(evaluator, SPACE, answers=run.journal), stop=Stop(generations=2)
    ):
        run.record(found, {})
    assert len(evaluator.asked) == 1
    rows = pd.read_csv(folder / "evaluations.csv")
    assert rows["cached"].tolist() == [False, True, True, True]
    assert len(set(rows["val_error"])) == 1
    assert len(pd.read_csv(folder / "front.csv")) == 1
    assert pd.read_csv(folder / "generations.csv")["hits"].tolist() == [1, 2]


def test_failed_and_infeasible_evaluations_stay_off_the_front() -> None:
    archive = Archive((ERROR, SIZE), (1.0, 10.0))
    archive.add(
        generation(
            0,
            evaluation(0.0, 0.0, Status.DIVERGED),
            evaluation(0.0, 1.0, Status.INFEASIBLE),
            evaluation(math.nan, 1.0),
            evaluation(math.inf, 1.0),
            evaluation(0.5, 5.0),
        )
    )
    assert [entry.index for entry in archive.front] == [4]
    assert archive.faults == {"diverged": 1}
    assert archive.hypervolume() == pytest.approx(0.5 * 5.0)


points = st.tuples(st.floats(0, 1), st.floats(0, 10))


@given(st.lists(st.lists(points, min_size=1, max_size=6), min_size=1, max_size=6))
def test_archive_hypervolume_never_falls(batches: list[list[tuple[float, float]]]) -> None:
    archive = Archive((ERROR, SIZE), (1.0, 10.0))
    before = 0.0
    for index, batch in enumerate(batches):
        archive.add(generation(index, *(evaluation(*point) for point in batch)))
        assert archive.hypervolume() >= before - 1e-12
        before = archive.hypervolume()


@given(st.lists(points, min_size=1, max_size=20), st.integers(1, 5))
def test_archive_front_does_not_depend_on_how_generations_are_cut(
    batch: list[tuple[float, float]], size: int
) -> None:
    def front(cut: int) -> list[tuple[float, ...]]:
        archive = Archive((ERROR, SIZE), (1.0, 10.0))
        for index, start in enumerate(range(0, len(batch), cut)):
            archive.add(generation(index, *(evaluation(*p) for p in batch[start : start + cut])))
        return sorted(map(tuple, archive.losses().tolist()))

    assert front(size) == front(len(batch))


def test_reference_is_the_worst_of_the_first_generation_where_nothing_else_is_known() -> None:
    loss, accuracy = Objective(name="loss"), Objective(name="accuracy", goal="max")

    def told(*values: tuple[float, float]) -> list[Evaluation]:
        candidate = Candidate(SPACE.genome([0] * 6))
        return [Evaluation(candidate, {"loss": a, "accuracy": b}) for a, b in values]

    archive = Archive((loss, accuracy), (None, None))
    assert math.isnan(archive.hypervolume())
    archive.add(generation(0, *told((2.0, 0.5), (3.0, 0.75), (math.inf, math.nan))))
    assert archive.references == [3.0, 0.5]
    archive.add(generation(1, *told((9.0, 0.1))))
    assert archive.references == [3.0, 0.5]
    assert archive.hypervolume() == 0.0
    archive.add(generation(2, *told((1.0, 0.75))))
    assert archive.hypervolume() == pytest.approx((3 - 1) * (0.75 - 0.5))


class Bounding(Free):
    """An evaluator that knows how large its networks can be."""

    metrics = (VAL_ERROR, VAL_LOSS, PARAMS, FLOPS)

    def most(self) -> Mapping[str, float]:
        return {"params": 91842, "flops": 1e6}


def test_references_known_before_the_first_training() -> None:
    objectives = (
        Objective(name="val_error"),
        Objective(name="params"),
        Objective(name="val_loss"),
        Objective(name="flops", reference=7.0),
        Objective(name="params", goal="max"),
    )
    references = known_references(objectives, Bounding())
    assert references == [1.0, 91842, None, 7.0, None]


def test_a_run_ends_when_its_last_evaluations_all_failed_and_not_before() -> None:
    archive = Archive((ERROR,), (1.0,))
    crashed = Evaluation(Candidate(SPACE.genome([0] * 6)), {}, Status.CRASHED, message="no luck")
    timeout = Evaluation(Candidate(SPACE.genome([0] * 6)), {}, Status.TIMEOUT, message="late")
    archive.add(generation(0, *[crashed] * 6))
    archive.check_alive()  # six are fewer than ten
    archive.add(generation(1, *[crashed] * 5, evaluation(0.5, 1)))
    archive.add(generation(2, *[crashed] * 6))
    archive.check_alive()  # one ended well
    archive.add(generation(3, *[timeout] * 3, *[crashed] * 3))
    with pytest.raises(SearchFailed, match="last 10 evaluations all failed, 7 of them: crashed"):
        archive.check_alive()


def test_tables_give_numbers_back_to_the_last_digit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [float(v) for v in rng.random(200) * 10.0 ** rng.integers(-12, 12, 200)]
    table = tables.Table(tmp_path / "table.csv", ["number", "count"])
    table.append({"number": value, "count": i} for i, value in enumerate(values))
    read = pd.read_csv(tmp_path / "table.csv")
    assert read["number"].tolist() == values
    assert read["count"].tolist() == list(range(200))


def test_a_generations_row_counts_and_sums_up() -> None:
    archive = Archive((ERROR, Objective(name="params", goal="max")), (1.0, 0.0))
    found = generation(
        0,
        evaluation(0.25, 3),
        evaluation(0.75, 1),
        evaluation(0.1, 9, Status.INFEASIBLE),
        Evaluation(Candidate(SPACE.genome([1] * 6)), {}, Status.CRASHED),
    )
    archive.add(found)
    row = tables.generation_row(found, archive, SPACE)
    expected = {
        "evaluations": 4,
        "trained": 4,
        "hits": 0,
        "faults": 1,
        "crashed": 1,
        "infeasible": 1,
        "diverged": 0,
        "val_error_best": 0.25,
        "val_error_mean": 0.5,
        "val_error_worst": 0.75,
        "params_best": 3,
        "params_worst": 1,
        "distinct": 4,
        "front_size": 1,
        "diversity": 3.0,  # three equal genomes and one that differs in all six genes
    }
    assert {name: row[name] for name in expected} == expected


def test_a_full_disk_leaves_the_journal_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "journal")
    journal.add(Question("g0", 0), evaluation(0.5, 1))
    writes = journal._file.write

    class Full:
        """Writes ten bytes, then has no room."""

        fileno = journal._file.fileno
        name = journal._file.name
        room = 10

        def write(self, content: bytes) -> int | None:
            if not self.room:
                raise OSError(28, "No space left on device")
            self.room = 0
            return writes(content[:10])

    file = journal._file
    monkeypatch.setattr(journal, "_file", Full())
    with pytest.raises(OSError, match="No space"):
        journal.add(Question("g1", 1), evaluation(0.5, 1))
    assert journal.get(Question("g1", 1)) is None
    monkeypatch.setattr(journal, "_file", file)
    journal.add(Question("g2", 2), evaluation(0.5, 1))
    lines = (tmp_path / "journal").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["g0", "g2"]


def test_diversity_counts_live_genes_only() -> None:
    """Two cells of one edge to the output, whose other op leads nowhere, and one of two edges."""
    cells = [SPACE.genome(genes) for genes in ([3, 0, 0, 2, 0, 0], [2, 0, 0, 2, 0, 0])]
    archive = Archive((ERROR,), (1.0,))
    for more, expected in ([], 0.0), ([SPACE.genome([2, 0, 0, 2, 1, 0])], 4 / 3):
        found = generation(0, *(Evaluation(Candidate(g), {"val_error": 0.5}) for g in cells + more))
        assert tables.generation_row(found, archive, SPACE)["diversity"] == pytest.approx(expected)


def test_what_its_cheap_values_turn_down_was_not_trained(tmp_path: Path) -> None:
    found = generation(0, evaluation(0.5, 1))
    turned_down = Evaluation(
        Candidate(SPACE.genome([1] * 6)), {"params": 9}, Status.INFEASIBLE, Cost(attempts=0)
    )
    archive = Archive((ERROR, SIZE), (1.0, 10.0))
    both = generation(0, *found.evaluations, turned_down)
    archive.add(both)
    row = tables.generation_row(both, archive, SPACE)
    assert (row["evaluations"], row["trained"], row["infeasible"]) == (2, 1, 1)


def test_whoever_goes_on_deletes_the_shared_memory_of_a_killed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shm"
    dead = 2**22 + 1  # beyond what Linux gives
    for pid in (dead, os.getpid()):
        (shared / f"joblib_memmapping_folder_{pid}_1_2").mkdir(parents=True)
        (shared / f"joblib_memmapping_folder_{pid}_1_2" / "images").write_bytes(b"0" * 9)
        (shared / f"sem.loky-{pid}-x").touch()
    monkeypatch.setattr("evonas.records.files.SHARED_MEMORY", shared)
    for pid in (dead, os.getpid()):
        (tmp_path / "lock").write_text(f"{pid}\n")
        lock(tmp_path).close()
    left = {entry.name for entry in shared.iterdir()}
    assert left == {f"joblib_memmapping_folder_{os.getpid()}_1_2", f"sem.loky-{os.getpid()}-x"}
