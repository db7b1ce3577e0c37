"""Folders of results: begun once, held by one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evonas.core import UserError
from evonas.records.folder import Hold, begin, environment, note_data, note_resume, note_start


def test_a_folder_is_held_by_one_and_free_again_after_it(tmp_path: Path) -> None:
    hold = begin(tmp_path / "new", "config.yaml")
    with pytest.raises(UserError, match="is being written by process"):
        begin(tmp_path / "new", "config.yaml")
    hold.release()
    Hold(tmp_path / "new").release()


def test_the_slower_of_two_starts_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new"

    def quicker(self: Hold, path: Path) -> None:
        """Another process begins, writes and ends, just before we have the lock."""
        monkeypatch.undo()
        (path / "config.yaml").write_text("theirs")
        Hold.__init__(self, path)

    monkeypatch.setattr(Hold, "__init__", quicker)
    with pytest.raises(UserError, match="already exists"):
        begin(path, "config.yaml")
    assert (path / "config.yaml").read_text() == "theirs"
    Hold(path).release()  # it is free


def start_and_raise(path: Path, error: Exception) -> None:
    with begin(path, "config.yaml") as hold, hold.undone_on_mistake():
        (path / "config.yaml").touch()
        (path / "scratch").mkdir()
        raise error


def test_what_a_start_has_written_is_taken_away_after_a_users_mistake_alone(
    tmp_path: Path,
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    for path, kept in ((tmp_path / "new", False), (tmp_path / "link", True)):
        with pytest.raises(UserError):
            start_and_raise(path, UserError("no such data"))
        assert path.exists() == kept
    assert list(target.iterdir()) == []
    with pytest.raises(ZeroDivisionError):
        start_and_raise(tmp_path / "other", ZeroDivisionError())
    assert (tmp_path / "other" / "config.yaml").exists()
    assert "ZeroDivisionError" in (tmp_path / "other" / "log.txt").read_text()


@pytest.mark.parametrize("name", [".space.json.part", "environment.json", "lock", "log.txt"])
def test_what_a_killed_start_leaves_is_no_hindrance(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    begin(tmp_path, "config.yaml").release()


@pytest.mark.parametrize(
    ("name", "says"), [("config.yaml", "already exists"), ("photo.jpg", "holds other files")]
)
def test_a_folder_with_something_in_it_is_refused_untouched(
    tmp_path: Path, name: str, says: str
) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=says):
        begin(tmp_path, "config.yaml")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_data_are_noted_once_and_held_against_that(tmp_path: Path) -> None:
    note_data(tmp_path, "abc")
    note_data(tmp_path, "abc")
    with pytest.raises(UserError, match="data changed since this run started; use a new folder"):
        note_data(tmp_path, "def")
    (tmp_path / "environment.json").write_text("{")
    with pytest.raises(UserError, match="is damaged; delete it to continue"):
        note_data(tmp_path, "abc")


def test_a_folder_is_let_go_of_in_every_case_and_a_bug_is_noted_in_its_log(tmp_path: Path) -> None:
    with Hold(tmp_path):
        pass
    with pytest.raises(UserError), Hold(tmp_path):
        raise UserError("no such data")
    assert (tmp_path / "log.txt").read_text() == ""
    with pytest.raises(ZeroDivisionError), Hold(tmp_path):
        raise ZeroDivisionError
    assert "ZeroDivisionError" in (tmp_path / "log.txt").read_text()
    Hold(tmp_path).release()  # it is free


def test_a_mistake_at_the_start_takes_the_folder_away_and_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with (
        pytest.raises(UserError),
        begin(path, "config.yaml") as hold,
        hold.undone_on_mistake(),
    ):
        raise UserError("no such data")
    assert not path.exists()
    begin(path, "config.yaml").release()  # it is free
    with pytest.raises(UserError), Hold(path):  # a later one leaves what is there
        raise UserError("no such network")
    assert path.exists()


def test_each_resume_is_noted_beside_what_a_folder_began_with(tmp_path: Path) -> None:
    note_start(tmp_path, {"python": "3.11"}, {"plugins": {"ops.py": "abc"}})
    note_data(tmp_path, "data")
    for version in ("3.12", "3.13"):
        note_resume(tmp_path, {"python": version})
    began_with = {"python": "3.11", "plugins": {"ops.py": "abc"}, "data": "data"}
    resumed = [{"python": "3.12"}, {"python": "3.13"}]
    assert environment(tmp_path) == {**began_with, "resumed": resumed}
    assert json.loads((tmp_path / "environment.json").read_text()) == environment(tmp_path)
    (tmp_path / "environment.json").unlink()
    note_resume(tmp_path, {"python": "3.14"})
    assert environment(tmp_path) == {"python": "3.14", "resumed": [{"python": "3.14"}]}
