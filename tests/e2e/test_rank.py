"""`evonas rank`: a supernet's scores against training alone, killed and called again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from evonas import config
from evonas.cli import app
from evonas.core import Budget, Evaluation, SearchFailed, Status, UserError, derive_seed
from evonas.jobs.rank import NAMES, Ranking, opened
from evonas.jobs.search import start
from evonas.records.journal import Journal
from genomes import NASBench201

EXPERIMENT = """
name: ranked
seed: 3
space: {name: nasbench201, channels: 4, cells: 1}
data: {name: digits, subset: 300}
strategy: {name: random, population: 2}
evaluator: {name: supernet, epochs: 1, pool: 0, recipe: {lr: 0.1, batch_size: 64, pad_crop: 1}}
objectives: [{name: val_error}, {name: params}]
stop: {generations: 1}
finalists: {top: 0, budget: {steps: 4}}
parallel: {workers: 1, timeout: 120}
"""
TABLES = ("networks.csv", "summary.csv")


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    """What the intervals are is tested in `unit/test_rank.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evonas.jobs.rank.RESAMPLES", 200)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose supernet is trained, and that has not searched yet."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "ranked.yaml").write_text(EXPERIMENT)
    with start(config.load(folder / "ranked.yaml"), folder / "run") as run:
        for _ in run.prepare():
            pass
    return folder / "run"


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    return copied(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def ranked(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six networks, in one go, with two workers."""
    path = copied(trained, tmp_path_factory.mktemp("ranked") / "run")
    with opened(path, 6, workers=2) as ranking:
        for _ in ranking:
            pass
        ranking.finish()
    return path


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def answer_all(
    ranking: Ranking, answer: Callable[[int, bool], Evaluation | tuple[float, float]]
) -> None:
    """Made-up answers in the journal, in place of trainings.

    Args:
        answer: from the number of a network, and whether it is trained alone, to its error and
            parameters.
    """
    for alone in (False, True):
        for i, genome in enumerate(ranking.genomes):
            asked = ranking._asked(genome, alone)
            question, candidate = asked.question, asked.candidate
            found = answer(i, alone)
            if isinstance(found, tuple):
                values = {"val_error": found[0], "params": found[1], "flops": 2 * found[1]}
                found = Evaluation(candidate, values)
            ranking.journal.add(question, found)


def command(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files of a run but those of its ranking."""
    files = (path for path in folder.rglob("*") if path.is_file())
    parts = ((path.relative_to(folder), path.read_bytes()) for path in files)
    return {str(path): content for path, content in parts if path.parts[0] != "rank"}


def test_networks_are_scored_and_trained_alone_and_the_run_stays_as_it_was(
    trained: Path, ranked: Path
) -> None:
    found = pd.read_csv(ranked / "rank" / "networks.csv")
    columns = "key genome genes params flops supernet_error alone_error status"
    assert found.columns.tolist() == columns.split()
    assert found["key"].nunique() == 6
    space = NASBench201()
    for row in found.itertuples():
        genome = space.parse(str(row.genome))
        assert genome.text == row.genes
        assert space.canonical(genome) == genome
        assert space.key(genome) == row.key
    assert found["status"].tolist() == ["ok"] * 6
    assert found[["supernet_error", "alone_error"]].min().min() > 0
    assert (found["supernet_error"] != found["alone_error"]).any()
    assert contents(ranked) == contents(trained)
    assert not list((ranked / "scratch").glob("*.safetensors"))


def test_the_seeds_and_the_budget_are_those_of_the_question(ranked: Path) -> None:
    journal = Journal(ranked / "rank" / "journal")
    with opened(ranked, 6) as ranking:
        for genome in ranking.genomes:
            asked = ranking._asked(genome, alone=True)
            question, candidate = asked.question, asked.candidate
            assert question.seed == derive_seed(3, question.key, "rank")
            assert question.budget == "steps=4"
            assert candidate.budget == Budget(steps=4)
            answer = journal.get(question)
            assert answer is not None
            assert answer.cost.steps == 4
    assert len(journal) == 12
    journal.close()


def test_the_statistics_are_scipys_on_the_written_table(ranked: Path) -> None:
    found = pd.read_csv(ranked / "rank" / "networks.csv")
    summary = pd.read_csv(ranked / "rank" / "summary.csv").set_index("statistic")
    pair = found["supernet_error"], found["alone_error"]
    tau, rho = stats.kendalltau(*pair).statistic, stats.spearmanr(*pair).statistic
    assert summary.loc["kendall_tau", "value"] == pytest.approx(tau)
    assert summary.loc["spearman", "value"] == pytest.approx(rho)
    assert (summary["low"] <= summary["value"]).all()
    assert (summary["value"] <= summary["high"]).all()
    assert summary["n"].tolist() == [6, 6]
    assert summary["budget"].tolist() == ["steps=4"] * 2


@pytest.mark.usefixtures("no_workers")
def test_killed_and_called_again_with_one_worker_it_trains_what_is_missing(
    run_dir: Path, ranked: Path
) -> None:
    with opened(run_dir, 6, workers=1) as ranking:
        for count in ranking:
            if count >= 8:  # all scores, and two trainings
                break
        first = ranking.journal.added
    assert 8 <= first < 12
    with opened(run_dir, 6, workers=1) as ranking:
        counts = list(ranking)
        assert ranking.journal.added == 12 - first
        assert (counts[0], counts[-1]) == (first, 12)
        ranking.finish()
    assert (run_dir / "rank" / "journal").read_bytes().count(b"\n") == 12
    for name in TABLES:
        told = (run_dir / "rank" / name).read_bytes()
        assert told == (ranked / "rank" / name).read_bytes(), name
    assert not list((run_dir / "scratch").glob("*.safetensors"))


def test_called_again_it_trains_nothing_and_says_the_same(ranked: Path) -> None:
    before = {name: (ranked / "rank" / name).read_bytes() for name in TABLES}
    status, told = command("rank", ranked, "--sample", 6)
    assert status == 0, told
    assert "6 networks, steps=4" in told
    for name in NAMES.values():
        assert f"{name}: " in told
    assert "best by score: g" in told
    assert "of the 3 best by score" in told
    assert (ranked / "rank" / "journal").read_bytes().count(b"\n") == 12
    assert before == {name: (ranked / "rank" / name).read_bytes() for name in TABLES}


@pytest.mark.figures
def test_its_figure_alone_is_drawn(ranked: Path, tmp_path: Path) -> None:
    path = copied(ranked, tmp_path / "run")
    status, told = command("rank", path, "--sample", 6)
    assert (status, "figures: 1 figure\n" in told) == (0, True), told
    assert {file.name for file in (path / "figures").iterdir()} == {
        f"rank.{kind}" for kind in ("png", "svg", "csv")
    }


def test_a_larger_sample_begins_with_a_smaller(run_dir: Path) -> None:
    samples = []
    for count in (4, 9):
        with opened(run_dir, count) as ranking:
            samples.append(ranking.genomes)
            assert ranking.count == 2 * count
    assert samples[1][:4] == samples[0]
    space = NASBench201()
    assert len({space.key(genome) for genome in samples[1]}) == 9


def test_what_the_best_by_score_comes_to_is_told(run_dir: Path) -> None:
    with opened(run_dir, 12) as ranking:
        # By score as drawn; alone, the first is the third best, and then each is worse.
        alone = [3, 1, 2, *range(4, 13)]
        answer_all(ranking, lambda i, own: ((alone[i] if own else i + 1) / 100, 10))
        told = ranking.finish()
        key = ranking.space.key(ranking.genomes[0])
    assert (
        f"best by score: {key}, number 3 of 12 when trained alone, with an error of 0.0300" in told
    )
    assert "the best has 0.0100" in told
    assert "of the 10 best by score, 10 are among the 10 best when trained alone (8.3 exp" in told
    assert "Kendall's tau: 0.939 (95 % interval " in told


def test_failed_trainings_are_left_out_and_told(run_dir: Path) -> None:
    def answer(i: int, alone: bool) -> Evaluation | tuple[float, float]:
        if alone and i in (1, 2):
            failed = Status.DIVERGED if i == 1 else Status.CRASHED
            return Evaluation(ranking._asked(ranking.genomes[i], alone).candidate, {}, failed)
        return (0.1 * (i + 1), 10)

    with opened(run_dir, 6) as ranking:
        answer_all(ranking, answer)
        assert list(ranking) == [12] * 12
        told = ranking.finish()
    assert "4 networks, drawn at random" in told
    assert "2 more failed and are left out: crashed 1, diverged 1" in told
    found = pd.read_csv(run_dir / "rank" / "networks.csv")
    assert found["status"].tolist() == ["ok", "diverged", "crashed", "ok", "ok", "ok"]
    assert found["alone_error"].isna().tolist() == [False, True, True, False, False, False]
    assert found["params"].tolist() == [10] * 6
    assert pd.read_csv(run_dir / "rank" / "summary.csv")["n"].tolist() == [4, 4]
    assert "diverged" in (run_dir / "rank" / "log.txt").read_text()


def test_too_few_that_ended_well_fail_and_leave_no_summary(run_dir: Path) -> None:
    def answer(i: int, alone: bool) -> Evaluation | tuple[float, float]:
        if i >= 2:
            candidate = ranking._asked(ranking.genomes[i], alone).candidate
            return Evaluation(candidate, {}, Status.DIVERGED)
        return (0.1, 10)

    (run_dir / "rank").mkdir()
    (run_dir / "rank" / "summary.csv").write_text("of an earlier call\n")
    with opened(run_dir, 5) as ranking:
        answer_all(ranking, answer)
        with pytest.raises(SearchFailed, match=r"2 of 5 networks ended well.*diverged 3"):
            ranking.finish()
    assert not (run_dir / "rank" / "summary.csv").exists()
    assert len(pd.read_csv(run_dir / "rank" / "networks.csv")) == 5


def test_where_all_are_tied_there_is_no_statistic(run_dir: Path) -> None:
    with opened(run_dir, 4) as ranking:
        answer_all(ranking, lambda i, alone: (0.5 if alone else 0.1 * i, 10))
        assert "Kendall's tau: undefined, since all networks are tied" in ranking.finish()
    summary = pd.read_csv(run_dir / "rank" / "summary.csv")
    assert summary[["value", "low", "high"]].isna().all(axis=None)


def test_networks_that_the_constraints_turn_down_are_left_out(run_dir: Path) -> None:
    with opened(run_dir, 20) as ranking:
        flops = [ranking._desk.evaluator.cheap(genome)["flops"] for genome in ranking.genomes]
        all_ = ranking.genomes
    limit = sorted(flops)[9]
    path = run_dir / "config.yaml"
    path.write_text(f"{EXPERIMENT}constraints: [{{name: flops, max: {limit}.0}}]\n")
    with opened(run_dir, 5) as ranking:
        assert (
            list(ranking.genomes) == [g for g, f in zip(all_, flops, strict=True) if f <= limit][:5]
        )


def test_a_run_that_shares_no_weights_is_refused(run_dir: Path) -> None:
    path = run_dir / "config.yaml"
    text = EXPERIMENT.replace("supernet, epochs: 1, pool: 0,", "train,")
    path.write_text(f"{text}budget: {{steps: 2}}\n")
    status, told = command("rank", run_dir)
    assert status == 2
    assert (
        f"{run_dir}: its evaluator train shares no weights; give a run with the evaluator" in told
    )
    assert not (run_dir / "rank").exists()


def test_a_supernet_that_is_not_trained_is_not_trained_by_it(run_dir: Path) -> None:
    (run_dir / "supernet" / "weights.safetensors").unlink()
    status, told = command("rank", run_dir)
    assert status == 2
    assert (
        f"{run_dir}: its supernet is not fully trained; run `evonas resume {run_dir}` first" in told
    )
    assert not (run_dir / "supernet" / "weights.safetensors").exists()


def test_without_a_budget_it_asks_for_one(run_dir: Path) -> None:
    path = run_dir / "config.yaml"
    path.write_text(EXPERIMENT.replace(", budget: {steps: 4}", ""))
    status, told = command("rank", run_dir)
    assert (status, "--epochs: is missing, and the run has no fina" in told) == (2, True)
    with opened(run_dir, 3, epochs=5) as ranking:
        assert ranking.budget == Budget(epochs=5)


def test_two_processes_do_not_rank_in_one_folder(run_dir: Path) -> None:
    with (
        opened(run_dir, 3),
        pytest.raises(UserError, match="is being written by process"),
        opened(run_dir, 3),
    ):
        pass
    with opened(run_dir, 3):
        pass  # it is free again


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["away"], "does not exist; give a run folder"),
        (["run", "--sample", "2"], "greater than or equal to 3"),
        (["run", "--epochs", "0"], "greater than or equal to 1"),
    ],
)
def test_mistakes_are_told(run_dir: Path, arguments: list[str], told: str) -> None:
    name, *rest = arguments
    status, output = command("rank", run_dir.with_name(name), *rest)
    assert status == 2
    assert told in output


def test_interrupted_it_says_how_many_results_are_saved(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(ranking: Ranking) -> Iterator[int]:
        answer_all(ranking, lambda i, alone: (0.1, 10))
        yield 6
        raise KeyboardInterrupt

    monkeypatch.setattr(Ranking, "__iter__", interrupted)
    status, told = command("rank", run_dir, "--sample", 3)
    assert status == 130
    assert "interrupted; 6 results saved. To continue: the same command\n" in told
    with opened(run_dir, 3):
        pass  # it is free again
