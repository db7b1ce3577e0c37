"""Weights in `scratch/`, a lock that a dead process cannot hold, and the log."""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import nullcontext, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from evonas import files
from evonas.core import Evaluation, UserError

INDENT = "\n    "  # of the lines of a traceback
SHARED_MEMORY = Path("/dev/shm")
LOGGERS = ("evonas", "py.warnings")  # the latter has what `logging.captureWarnings` catches


def weights_left(run_dir: Path, evaluation: Evaluation) -> Path | None:
    """The file in which an answer's weights were left, None if there were none; it may be gone."""
    name = Path(evaluation.weights).name  # no journal leads out of its folder
    return run_dir / "scratch" / name if name not in ("", "..") else None


def lock(run_dir: Path) -> FileIO:
    """Lock the run folder for this process, until the file is closed or the process ends.

    Raises:
        UserError: another process has locked it.
    """
    path = run_dir / "lock"
    file = files.opened(path, "ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = files.read(path)[:20].strip()
        if before.isdigit():
            _sweep(int(before))
        file.truncate(0)
        files.write(file, f"{os.getpid()}\n".encode())
    except BlockingIOError:
        file.close()
        owner = files.read(path)[:20].strip()
        raise UserError(
            f"{run_dir} is being written by process {int(owner) if owner.isdigit() else 'unknown'}",
            hint="wait for it to finish, or stop it",
        ) from None
    except OSError:
        file.close()
        raise
    return file


def _sweep(pid: int) -> None:
    """Delete the shared memory of a process that was killed, and joblib's cleaner with it."""
    if Path(f"/proc/{pid}").exists():
        return
    for name in (f"sem.loky-{pid}-*", f"joblib_memmapping_folder_{pid}_*"):
        for entry in SHARED_MEMORY.glob(name):
            with suppress(OSError):  # another user's
                (files.clear if entry.is_dir() else files.remove)(entry)


def is_locked(run_dir: Path) -> bool:
    """Return whether a process has locked the run folder."""
    try:
        with files.opened(run_dir / "lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def log_to(path: Path, *, lenient: bool = False) -> logging.Handler:
    """Make evonas log to a file, and Python's warnings, until `end_log`.

    Args:
        lenient: whether what cannot be written is left out, as in a worker.
    """
    handler = _Log(path, lenient)
    logging.getLogger("evonas").setLevel(logging.INFO)
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    return handler


def end_log(handler: logging.Handler) -> None:
    """End what `log_to` has begun."""
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)
    handler.close()


class _Log(logging.Handler):
    """Writes records to a file, each on a line that no message can end.

    An OSError, such as on a full disk, reaches whoever logs, unless it is lenient.
    """

    def __init__(self, path: Path, lenient: bool) -> None:
        super().__init__()
        self._lenient = lenient
        self._file = files.opened(path, "ab")
        self.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError) if self._lenient else nullcontext():
            files.write(self._file, f"{self.format(record)}\n".encode())

    def close(self) -> None:
        self._file.close()
        super().close()


class _Lines(logging.Formatter):
    """Escapes what is not printable; a traceback follows its record, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return files.escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        lines = super().formatException(ei).splitlines()
        return "    " + INDENT.join(map(files.escaped, lines))
