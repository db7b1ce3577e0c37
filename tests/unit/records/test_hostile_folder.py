"""Run folders that someone else made, that are damaged, or whose disk fails."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from evonas.cli import finishing
from tests.helpers.tabular import evonas, run, write_experiment

OUTSIDE = "export PATH=/usr/bin\n"
MORE = ("--set", "stop.generations=3")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finishing, "draw", lambda run_dir, only=(): None)
        return run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(autouse=True)
def not_for_ever() -> Iterator[None]:
    """Ends what waits for a pipe."""

    def late(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def line_of(result: Result, status: int) -> str:
    """The one line that says what is wrong."""
    assert result.exit_code == status, result.output
    lines = [
        each
        for each in result.stderr.splitlines()
        if "resuming " not in each and "starting in" not in each
    ]
    assert len(lines) == 1, result.output
    assert "internal error" not in lines[0]
    return lines[0]


@pytest.mark.parametrize(
    "name",
    [
        *("log.txt", "lock", "journal", "evaluations.csv", "generations.csv", "timings.csv"),
        *(".environment.json.part", ".config.yaml.part", ".front.csv.part", "figures/front.png"),
        *("weights/g0-1.safetensors", "supernet/checkpoint.pt"),
    ],
)
def test_no_link_is_followed(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "profile"
    outside.write_text(OUTSIDE)
    link = folder / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    assert f"{link}: is a link" in line_of(evonas("resume", folder, *MORE), 2)
    assert f"{link}: is a link" in line_of(evonas("show", folder), 2)
    assert outside.read_text() == OUTSIDE


@pytest.mark.parametrize("name", ["scratch", "weights", "checkpoints", "figures"])
def test_no_folder_that_is_a_link_is_entered(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for theirs in ("trace-1", "mine.safetensors", "g0-0.safetensors", "generation-9.pt"):
        (outside / theirs).write_text(OUTSIDE)
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).symlink_to(outside)
    assert "is a link" in line_of(evonas("resume", folder, *MORE), 2)
    assert all(file.read_text() == OUTSIDE for file in outside.iterdir())
    assert len(list(outside.iterdir())) == 4


def test_the_run_folder_itself_may_be_named_by_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(folder)
    assert evonas("resume", tmp_path / "latest", *MORE).exit_code == 0


def test_a_file_with_another_name_is_not_changed(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "profile"
    outside.write_text(OUTSIDE)
    (folder / "log.txt").unlink()
    os.link(outside, folder / "log.txt")
    assert "has another name elsewhere" in line_of(evonas("resume", folder, *MORE), 2)
    assert outside.read_text() == OUTSIDE


def test_a_new_run_does_not_write_through_a_link_in_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "profile"
    outside.write_text(OUTSIDE)
    out = tmp_path / "out"
    out.mkdir()
    (out / "log.txt").symlink_to(outside)
    assert "is a link" in line_of(evonas("run", write_experiment(tmp_path), "--out", out), 2)
    assert outside.read_text() == OUTSIDE
    assert [entry.name for entry in out.iterdir()] == ["log.txt"]


def to_pipe(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def to_folder(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


@pytest.mark.parametrize("change", [to_pipe, to_folder])
@pytest.mark.parametrize("command", ["resume", "show", "report"])
@pytest.mark.parametrize("name", ["journal", "evaluations.csv", "lock", "environment.json"])
def test_a_pipe_or_folder_in_place_of_a_file_is_told_in_a_line(
    folder: Path, change: Callable[[Path], None], command: str, name: str
) -> None:
    change(folder / name)
    result = evonas(command, folder)
    assert result.exit_code in (0, 2, 3), result.output
    assert "Traceback" not in result.output
    assert "internal error" not in result.output
    if change is to_pipe or command == "resume":
        kind = "a named pipe" if change is to_pipe else "folder"
        assert kind in line_of(result, result.exit_code).replace("Is a directory", "folder")


CONTENTS = {
    "nothing": b"",
    "bytes": bytes(range(256)) * 20,
    "list": b"[]\n",
    "null": b"null\n",
    "deep": b"[" * 100_000,
    "text": b"a,b\n1,2\n",
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(
    "name", ["environment.json", "evaluations.csv", "timings.csv", "journal", "finalists.csv"]
)
def test_damage_is_told_in_lines_or_mended(folder: Path, name: str, content: str) -> None:
    (folder / name).write_bytes(CONTENTS[content])
    for command in ("show", "report", "resume"):
        result = evonas(command, folder)
        assert result.exit_code in (0, 2), result.output
        assert "internal error" not in result.output
        assert len(result.stderr.splitlines()) <= 4


def test_a_damaged_run_folder_shows_no_traceback_in_a_comparison(
    folder: Path, finished: Path, tmp_path: Path
) -> None:
    (folder / "environment.json").write_text("[]")
    result = evonas("compare", folder, finished, "--out", tmp_path / "compared")
    assert "environment.json is damaged" in line_of(result, 2)


def change_a_digit(folder: Path) -> None:
    journal = folder / "journal"
    text = journal.read_text()
    assert '"loss": 0.' in text
    journal.write_text(text.replace('"loss": 0.', '"loss": 0.9', 1))


def test_a_changed_digit_in_the_journal_is_noticed_and_costs_one_evaluation(
    folder: Path, finished: Path
) -> None:
    change_a_digit(folder)
    assert evonas("resume", folder).exit_code == 0
    assert (
        "line 1 is damaged; skipped: its digest does not match" in (folder / "log.txt").read_text()
    )
    for name in ("evaluations.csv", "front.csv", "fronts.csv", "generations.csv"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()


def test_an_old_journal_without_digests_is_read_and_what_differs_from_it_made_again(
    folder: Path, finished: Path
) -> None:
    journal = folder / "journal"
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert all(record.pop("digest") for record in records)
    journal.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    assert evonas("resume", folder).exit_code == 0
    assert (folder / "front.csv").read_bytes() == (finished / "front.csv").read_bytes()
    change_a_digit(folder)
    assert evonas("resume", folder).exit_code == 0
    front, rows = ((folder / f"{name}.csv").read_text() for name in ("front", "evaluations"))
    assert ("0.9" in front) <= ("0.9" in rows)
    assert "0.9" in rows


def test_a_line_without_a_digest_after_one_that_has_one_is_left_out(folder: Path) -> None:
    journal = folder / "journal"
    lines = journal.read_text().splitlines()
    record = json.loads(lines[1])
    del record["digest"]
    journal.write_text("\n".join([lines[0], json.dumps(record), *lines[2:]]) + "\n")
    assert evonas("resume", folder).exit_code == 0
    assert "line 2 is damaged" in (folder / "log.txt").read_text()


def test_a_key_that_is_not_its_genomes_names_no_file(folder: Path, tmp_path: Path) -> None:
    """The sender has signed all anew."""
    import hashlib

    import torch

    journal = folder / "journal"
    record = json.loads(journal.read_text().splitlines()[0])
    key, evil = record["key"], "../../evil"
    (folder / "scratch" / "theirs").write_text("weights")
    changed = []
    for line in journal.read_text().splitlines():
        record = json.loads(line)
        record.pop("digest", None)
        if record["key"] == key:
            record |= {"key": evil, "weights": "theirs"}
        changed.append(json.dumps(record))
    journal.write_text("\n".join(changed) + "\n")
    for table in ("evaluations.csv", "fronts.csv", "timings.csv"):
        (folder / table).write_text((folder / table).read_text().replace(f",{key},", f",{evil},"))
    [*_, newest] = sorted((folder / "checkpoints").iterdir())
    state = torch.load(newest, weights_only=True)
    for name, mark in state["tables"].items():
        content = (folder / name).read_bytes()
        mark["size"] = len(content)
        mark["digest"] = hashlib.blake2b(content, digest_size=16).hexdigest()
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    torch.save(state, newest)
    digest = hashlib.blake2b(newest.read_bytes(), digest_size=8).hexdigest()
    newest.rename(newest.with_name(f"generation-0000002-{digest}.pt"))
    assert evonas("resume", folder).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert evil not in (folder / "front.csv").read_text()


ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J"


def test_text_of_files_reaches_the_terminal_without_escape_sequences(folder: Path) -> None:
    for name in ("front.csv", "timings.csv"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("g", ESCAPES).replace("ok", f"crashed{ESCAPES}"))
    (folder / "lock").write_text(ESCAPES)
    shown = evonas("show", folder)
    assert "\\x1b" in shown.output
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("name: quick", f'name: "{ESCAPES[:4]}"', 1))
    for result in (shown, evonas("show", folder), evonas("resume", folder)):
        assert not any(char in result.output for char in "\x1b\x07\x9b")


def fails(patch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let every attempt to write the file end with an error of the disk."""
    real = os.open

    def opened(path: str, flags: int, *rest: int, **more: int) -> int:
        if Path(path).name == name and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *rest, **more)

    patch.setattr(os, "open", opened)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("journal", errno.ENOSPC),
        ("evaluations.csv", errno.EIO),
        (".front.csv.part", errno.EACCES),
        (".environment.json.part", errno.EROFS),
        ("log.txt", errno.ENOSPC),
        ("lock", errno.EROFS),
        (".config.yaml.part", errno.EDQUOT),
    ],
)
def test_a_disk_that_fails_is_told_in_a_line_and_the_run_goes_on_later(
    folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    with monkeypatch.context() as patch:
        fails(patch, name, number)
        line = line_of(evonas("resume", folder, *MORE), 3)
    assert os.strerror(number) in line
    assert name in line
    assert line.endswith(f"then continue: evonas resume {folder}")
    assert evonas("resume", folder, *MORE).exit_code == 0
    before = (finished / "evaluations.csv").read_text()
    assert (folder / "evaluations.csv").read_text().startswith(before)


@pytest.mark.parametrize("limit", [0, 300, 1500])
def test_a_full_disk_is_told_in_a_line_and_the_run_goes_on_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        result = evonas("resume", folder, *MORE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in line_of(result, 3)
    assert evonas("resume", folder, *MORE).exit_code == 0
