"""Files written whole or not at all, a lock that a dead process cannot hold, and the log."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path
from typing import IO

from evonas.core import Evaluation, UserError

LOGGERS = ("evonas", "py.warnings")  # the latter has what `logging.captureWarnings` catches


def write_atomic(path: Path, content: bytes | str, *, sync: bool = False) -> None:
    """Write aside and rename into place; with `sync`, the file also survives a power cut."""
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.part")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    aside.replace(path)
    if sync:
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def weights_left(run_dir: Path, evaluation: Evaluation) -> Path | None:
    """The file in which an answer's weights were left, None if there were none; it may be gone."""
    name = Path(evaluation.weights).name  # no journal leads out of its folder
    return run_dir / "scratch" / name if name else None


def lock(run_dir: Path) -> IO[str]:
    """Lock the run folder for this process, until the file is closed or the process ends.

    Raises:
        UserError: another process has locked it.
    """
    file = (run_dir / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise UserError(
            f"{run_dir} is being written by process {owner}",
            hint="wait for it to finish, or stop it",
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def is_locked(run_dir: Path) -> bool:
    """Return whether a process has locked the run folder."""
    try:
        with (run_dir / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def log_to(path: Path) -> logging.Handler:
    """Make evonas log to a file, and Python's warnings, until `end_log`."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("evonas").setLevel(logging.INFO)
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    return handler


def end_log(handler: logging.Handler) -> None:
    """End what `log_to` has begun."""
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)
    handler.close()
