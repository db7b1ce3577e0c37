"""A folder of results: new or refused, held by one process, and what it was made with."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, Field

from evonas import files
from evonas.core import SearchFailed, UserError
from evonas.loop import error_text
from evonas.records.files import end_log, lock, log_to

ENVIRONMENT = "environment.json"
# What a start that was killed at once may leave; the marker comes last.
LEFTOVERS = frozenset({"lock", "log.txt", "space.json", ENVIRONMENT})

log = logging.getLogger("evonas")


class _Noted(BaseModel):
    """The types of what is read in `environment.json`, which has more."""

    deterministic: bool = True
    data: str = ""
    plugins: dict[str, str] = Field(default_factory=dict)
    resumed: list[dict[str, Any]] = Field(default_factory=list)


class Hold:
    """One process's hold on a folder: its lock, and the log that evonas writes there.

    A context manager: leaving it lets go of the folder.
    """

    def __init__(self, path: Path) -> None:
        """Lock the folder and open its log.

        Raises:
            UserError: another process has locked it, or there is a link in it.
        """
        self.path = path
        files.check_folder(path)
        self._lock = lock(path)
        try:
            self._log = log_to(path / "log.txt")
        except BaseException:
            self._lock.close()
            raise

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
        """Release the folder; an error that is a bug is logged first."""
        if isinstance(error, Exception) and not isinstance(error, UserError | SearchFailed):
            with suppress(OSError):  # a full disk may be the error
                log.error("ended with an error", exc_info=error)
        end_log(self._log)
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
        """Delete all that a start has written, when the start was a mistake."""
        files.clear(self.path)


def begin(path: Path, marker: str) -> Hold:
    """Take a folder that is new, empty or barely started.

    Args:
        marker: the file whose presence means that the folder can be resumed.

    Raises:
        UserError: the folder can be resumed, holds other files, or cannot be created.
    """
    try:
        files.make_folder(path, named=True)
        _refuse_unless_new(path, marker)
        hold = Hold(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be created: {error.strerror}", hint="choose another folder with --out"
        ) from None
    try:
        _refuse_unless_new(path, marker)  # another process may have been faster
    except UserError:
        hold.release()
        raise
    return hold


def check_run_folder(path: Path) -> None:
    """Raise UserError, saying what the folder is instead, unless it is a search's."""
    if (path / "config.yaml").is_file():
        files.check_folder(path)
        return
    if not path.exists():
        raise UserError(f"{path} does not exist", hint="give a run folder")
    if (path / "training.yaml").is_file():
        raise UserError(f"{path} holds a full training", hint="give the folder of a search")
    inside = sorted(str(file.parent) for file in path.glob("*/config.yaml"))
    hint = f"run folders in it: {', '.join(inside[:5])}" if inside else ""
    raise UserError(f"{path} is not a run folder: it has no config.yaml", hint=hint)


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Tell in a line if what is done within stumbles over the content of a folder's files."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        hint = f"`evonas resume {path}` writes its tables again"
        raise UserError(f"is damaged ({error_text(error)})", hint=hint, key=str(path)) from error


def note_start(
    path: Path, now: Mapping[str, Any], own: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Writes `environment.json`, of a folder that begins.

    Args:
        now: versions and hardware (`jobs.machine.environment`).
        own: the SHA-256 of each Python file of the user's that it uses (`plugins.Record`).
    """
    used = {kind: dict(digests) for kind, digests in (own or {}).items() if digests}
    _write_environment(path, {**now, **used})


def note_data(
    path: Path, fingerprint: str, parts: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Record the data's fingerprint in `environment.json`, or compare it with the one there.

    Args:
        parts: what is known of each part of the images (`guessing.parts_of`).

    Raises:
        UserError: the images, labels or split changed since the folder was begun.
    """
    noted = environment(path)
    if noted.setdefault("data", fingerprint) != fingerprint:
        raise UserError(
            "the data changed since this run started",
            hint="use a new folder or restore the data",
            key=str(path),
        )
    _write_environment(path, {**noted, **({"parts": dict(parts)} if parts else {})})


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
    if not file.exists():
        return {}
    try:
        noted: dict[str, Any] = json.loads(files.read(file))
        _Noted.model_validate(noted)
    except (ValueError, RecursionError):
        raise UserError(f"{file} is damaged", hint="delete it to continue") from None
    return noted


def _write_environment(path: Path, noted: Mapping[str, Any]) -> None:
    files.write_atomic(path / ENVIRONMENT, json.dumps(noted, indent=2) + "\n")


def _refuse_unless_new(path: Path, marker: str) -> None:
    names = {entry.name for entry in path.iterdir()}
    if marker in names:
        raise UserError(
            f"{path} already exists",
            hint=f"resume it with `evonas resume {path}`, or choose another folder with --out",
        )
    if any(name not in LEFTOVERS and not name.endswith(".part") for name in names):
        raise UserError(f"{path} holds other files", hint="choose a new or empty folder with --out")
