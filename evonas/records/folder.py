"""A folder of results: new or refused, held by one process, and what it was made with."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evonas.core import SearchFailed, UserError
from evonas.records import files

ENVIRONMENT = "environment.json"
# What a start that was killed at once may leave; the marker comes last.
LEFTOVERS = frozenset({"lock", "log.txt", "space.json", ENVIRONMENT})

log = logging.getLogger("evonas")


class Hold:
    """One process's hold on a folder: its lock, and the log that evonas writes there.

    A context manager: leaving it lets go of the folder.
    """

    def __init__(self, path: Path) -> None:
        """Takes the folder.

        Raises:
            UserError: another process has it.
        """
        self.path = path
        self._lock = files.lock(path)
        self._log = files.log_to(path / "log.txt")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release(error)

    def release(self, error: object = None) -> None:
        """Lets go of the folder, with a last line in its log for an error that is a bug."""
        if isinstance(error, Exception) and not isinstance(error, UserError | SearchFailed):
            log.error("ended with an error", exc_info=error)
        log.removeHandler(self._log)
        self._log.close()
        self._lock.close()

    @contextmanager
    def undone_on_mistake(self) -> Iterator[None]:
        """Takes away what a start has written if what is done within raises a UserError."""
        try:
            yield
        except UserError:
            self.undo()
            raise

    def undo(self) -> None:
        """Takes away what a start has written, for one that was a mistake from the outset."""
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if not self.path.is_symlink():
            self.path.rmdir()


def begin(path: Path, marker: str) -> Hold:
    """Takes a folder that is new, empty or was only just begun.

    Args:
        marker: the file whose presence says that the folder can be resumed.

    Raises:
        UserError: it can be resumed, holds something else, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        _refuse_unless_new(path, marker)
        hold = Hold(path)
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}; allowed: --out DIR") from None
    try:
        _refuse_unless_new(path, marker)  # another process may have been quicker
    except UserError:
        hold.release()
        raise
    return hold


def check_run_folder(path: Path) -> None:
    """Raises UserError if a folder is not a search's, with what it is instead."""
    if (path / "config.yaml").is_file():
        return
    if not path.exists():
        raise UserError(f"{path} does not exist; allowed: a run folder")
    if (path / "training.yaml").is_file():
        raise UserError(f"{path} is a full training's folder; allowed: that of a search")
    inside = sorted(str(found.parent) for found in path.glob("*/config.yaml"))
    hint = f"; run folders in it: {', '.join(inside[:5])}" if inside else ""
    raise UserError(f"{path} is no run folder: it has no config.yaml{hint}")


def note_start(path: Path, now: Mapping[str, Any], own: Mapping[str, str] | None = None) -> None:
    """Writes `environment.json`, of a folder that begins.

    Args:
        now: versions and hardware (`jobs.machine.environment`).
        own: the SHA-256 of each Python file of the user's that it uses.
    """
    _write_environment(path, {**now, **({"plugins": dict(own)} if own else {})})


def note_data(path: Path, fingerprint: str) -> None:
    """Writes the data's fingerprint into `environment.json`, or holds the data against it.

    Raises:
        UserError: the images, labels or split are not those that the folder began with.
    """
    noted = environment(path)
    if noted.setdefault("data", fingerprint) != fingerprint:
        raise UserError(
            f"{path}: the data are not those that it began with; "
            "allowed: a new folder, or the data as they were"
        )
    _write_environment(path, noted)


def note_resume(path: Path, now: Mapping[str, Any]) -> None:
    """Adds to `environment.json` what a folder goes on with; what it began with stays."""
    noted = {**now, **environment(path)}
    _write_environment(path, {**noted, "resumed": [*noted.get("resumed", []), dict(now)]})


def environment(path: Path) -> dict[str, Any]:
    """What `environment.json` of a folder has on record; nothing without the file.

    Raises:
        UserError: it is damaged.
    """
    file = path / ENVIRONMENT
    try:
        noted: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    except ValueError:
        raise UserError(f"{file} is damaged; allowed: to go on without it") from None
    return noted


def _write_environment(path: Path, noted: Mapping[str, Any]) -> None:
    files.write_atomic(path / ENVIRONMENT, json.dumps(noted, indent=2) + "\n")


def _refuse_unless_new(path: Path, marker: str) -> None:
    held = {entry.name for entry in path.iterdir()}
    if marker in held:
        raise UserError(
            f"{path} is there already; allowed: `evonas resume {path}` to go on with it, "
            "or --out with another folder"
        )
    if any(name not in LEFTOVERS and not name.endswith(".part") for name in held):
        raise UserError(f"{path} holds other files; allowed: --out with a new or empty folder")
