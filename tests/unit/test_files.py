"""Files: no link is followed, and nothing but `evonas.files` writes, moves or deletes."""

from __future__ import annotations

import ast
import errno
import logging
import os
from functools import cache
from io import FileIO
from pathlib import Path

import pytest

import evonas
from evonas import files, plots, yamlfile
from evonas.core import UserError
from evonas.records.files import log_to

# Ways to write, move or delete, by the last name of what is called.
WRITING = {
    *("write_text", "write_bytes", "touch", "unlink", "rmdir", "rename", "renames", "symlink_to"),
    *("hardlink_to", "link_to", "chmod", "mkdir", "makedirs", "removedirs", "truncate", "rmtree"),
    *(
        "copyfile",
        "copy2",
        "copytree",
        "copyfileobj",
        "mkfifo",
        "save_file",
        "savefig",
        "to_parquet",
    ),
    *("savez", "savetxt", "tofile", "FileHandler", "NamedTemporaryFile", "mkstemp", "extractall"),
    *("imsave", "FileIO", "fdopen", "open"),
}
ALLOWED = {
    "data/image_folder.py: Image.open",  # Pillow reads a picture
    "export/images.py: Image.open",
    "plots/front.py: ?.rename",  # a column
    "records/files.py: file.truncate",  # a lock that has been opened
}


@cache
def calls() -> list[tuple[str, ast.Call, str, str]]:
    """Each call: its file, itself, the name that is called, and that of what it is called on."""
    root = Path(evonas.__file__).parent
    found = []
    for file in sorted(root.rglob("*.py")):
        place = file.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.append((place, node, node.func.id, ""))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                on = node.func.value
                name = on.id if isinstance(on, ast.Name) else "?"
                found.append((place, node, node.func.attr, name))
    return found


def writes(call: ast.Call, name: str, on: str) -> bool:
    if on == "files":  # evonas.files
        return False
    if on in ("os", "shutil") and name in ("remove", "replace", "move", "copy"):
        return True
    if name == "replace":  # Path.replace has one argument, str.replace two
        return on != "" and len(call.args) == 1 and not call.keywords
    if name == "to_csv":  # without a path it returns text
        return bool(call.args)
    if (on, name) == ("torch", "save"):
        return not (isinstance(call.args[1], ast.Name) and call.args[1].id == "buffer")
    return name in WRITING


def test_nothing_but_one_module_opens_moves_or_deletes_files() -> None:
    found = {
        f"{place}: {on}.{name}"
        for place, call, name, on in calls()
        if place != "files.py" and writes(call, name, on)
    }
    assert found == ALLOWED


def test_the_terminal_is_written_to_where_texts_are_escaped() -> None:
    ways = {("typer", "echo"), ("click", "echo"), ("", "print"), ("", "Console")}
    found = [place for place, _, name, on in calls() if (on, name) in ways]
    assert found == ["cli/telling.py"]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "profile"
    path.write_text("theirs")
    return path


def test_a_file_is_written_in_place_of_a_link_and_of_its_part(
    tmp_path: Path, outside: Path
) -> None:
    for name in ("a.csv", ".a.csv.part"):
        (tmp_path / name).symlink_to(outside)
    files.write_atomic(tmp_path / "a.csv", "ours")
    assert (tmp_path / "a.csv").read_text() == "ours"
    assert not (tmp_path / "a.csv").is_symlink()
    assert outside.read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "profile"]


def test_what_fails_leaves_the_old_file_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_atomic(tmp_path / "a.csv", "old")

    def full(file: FileIO, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.csv'"):
        files.write_atomic(tmp_path / "a.csv", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "old"


def test_nothing_is_read_changed_moved_or_copied_through_a_link(
    tmp_path: Path, outside: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(outside)
    for use in (
        lambda: files.read(link),
        lambda: files.append(link, b"more"),
        lambda: files.cut(link, 1),
        lambda: files.move(link, tmp_path / "moved"),
        lambda: files.copy(link, tmp_path / "copied"),
        lambda: files.make_folder(link),
        lambda: log_to(link),
    ):
        with pytest.raises(UserError, match="is a link"):
            use()
    assert files.read(link, links=True) == b"theirs"  # as a user names it
    files.remove(link)
    assert outside.read_text() == "theirs"


def test_clearing_a_folder_leaves_what_its_links_lead_to(tmp_path: Path, outside: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").symlink_to(outside)
    (folder / "all").symlink_to(tmp_path)
    files.clear(folder)
    assert not folder.exists()
    assert outside.read_text() == "theirs"


def test_a_pipe_and_a_device_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a named pipe"), (Path("/dev/zero"), "a device")):
        for links in (False, True):
            with pytest.raises(UserError, match=f"is {kind}, not a plain file"):
                files.read(path, links=links)
        with pytest.raises(UserError, match="is a device or a pipe"):
            yamlfile.read(path)


def test_a_name_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="File name too long"):
        files.read(tmp_path / ("x" * 300))


@pytest.mark.parametrize("key", ["g0-1-2", "g" + "0-" * 300, "../../x", "a/b", ".hidden", "g\n1"])
def test_a_key_names_a_file_in_its_folder(key: str, tmp_path: Path) -> None:
    name = files.short(key)
    assert (name == key) == (key == "g0-1-2")
    assert name != files.short(key + "0")
    files.write_atomic(tmp_path / f"{name}.safetensors", "")
    assert [path.stem for path in tmp_path.iterdir()] == [name]


def test_a_line_of_the_log_is_one_line_whatever_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = log_to(tmp_path / "log.txt")
    log = logging.getLogger("evonas")
    monkeypatch.setattr(log, "propagate", False)  # pytest-xdist cannot send half a character
    try:
        log.warning("%s", "crashed\nrm -rf ~\n\x1b[2J \u2028 \ud800")
        try:
            int("no\nrm -rf ~\nthis")
        except ValueError:
            log.exception("ended")
    finally:
        log.removeHandler(handler)
        handler.close()
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[0].endswith(r"WARNING crashed\nrm -rf ~\n\x1b[2J \u2028 \ud800")
    assert lines[1].endswith("ERROR ended")
    assert all(line.startswith("    ") for line in lines[2:])


def test_figures_are_not_drawn_into_a_folder_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    training = tmp_path / "training"
    training.mkdir()
    (training / "training.yaml").touch()
    (training / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        plots.draw(training)
