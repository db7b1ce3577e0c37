"""Python files of the user's own: `ops.py:mine` names a function in one.

None is imported unless this process has been told that it may be: by the experiment file on the
command line, or by `--plugin FILE`, whose SHA-256 is then that in the run folder's record. A run
folder alone never makes evonas run anything.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from evonas.core import UserError

PATTERN = r"^.+\.py:[A-Za-z_]\w*$"

_allowed: dict[str, tuple[Path, str]] = {}  # a file as it is named: where it is now, its SHA-256


def file_of(reference: str) -> str | None:
    """The file that `FILE.py:NAME` names; None for what is no such reference."""
    return reference.rpartition(":")[0] if re.match(PATTERN, reference) else None


def anchored(reference: str, folder: Path) -> str:
    """A reference whose file is as seen from `folder`, made absolute; all else as it is."""
    file, _, name = reference.rpartition(":")
    if not re.match(PATTERN, reference):
        return reference
    return f"{(folder / Path(file).expanduser()).resolve()}:{name}"


def allow(files: Iterable[str]) -> dict[str, str]:
    """Lets files be imported as they are now; returns each one's SHA-256.

    Raises:
        UserError: one cannot be read.
    """
    digests = {file: _digest(Path(file)) for file in files}
    for file, digest in digests.items():
        _allowed[file] = (Path(file), digest)
    return digests


def allow_again(recorded: Mapping[str, str], given: Iterable[Path]) -> None:
    """Lets the files that a run folder has on record be imported from those given, if they agree.

    Raises:
        UserError: one is not given, or is not what it was.
    """
    found = {_digest(path): path for path in given}
    for file, digest in recorded.items():
        if digest not in found:
            raise UserError(
                f"the run was begun with {file}; allowed: --plugin FILE, its content as it was "
                f"(SHA-256 {digest[:12]}...)"
            )
        _allowed[file] = (found[digest], digest)


def allow_recorded(folder: Path, given: Iterable[Path]) -> None:
    """`allow_again` with what the `environment.json` of a folder has on record."""
    try:
        told = json.loads((folder / "environment.json").read_text()).get("plugins", {})
        recorded = {str(file): str(digest) for file, digest in told.items()}
    except (OSError, ValueError, AttributeError):
        recorded = {}
    allow_again(recorded, given)


def is_allowed(file: str) -> bool:
    """Whether a file may be imported."""
    return file in _allowed


def place(file: str) -> Path:
    """Where a file is: it may have moved since it was named."""
    return _allowed[file][0] if file in _allowed else Path(file)


def allowed(file: str) -> tuple[Path, str]:
    """Where a file that may be imported is now, and its SHA-256.

    Raises:
        UserError: it may not.
    """
    if file not in _allowed:
        raise UserError(f"{file} may not be imported; allowed: --plugin FILE")
    return _allowed[file]


def load(reference: str) -> Callable[..., Any]:
    """The function that `FILE.py:NAME` names.

    Raises:
        UserError: the file may not be imported, has changed, cannot be imported, or has no such
            function.
    """
    file, _, name = reference.rpartition(":")
    path, digest = allowed(file)
    found = getattr(_module(path, digest), name, None)
    if not callable(found):
        raise UserError(f"{file} has no function {name}")
    function: Callable[..., Any] = found
    return function


@cache
def _module(path: Path, digest: str) -> ModuleType:
    """What is imported is what was hashed: the file is read once."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"{path} has changed since it was looked at; allowed: to start again")
    module = ModuleType(f"evonas_plugin_{digest[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look for it there
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except Exception as error:  # a user's module may raise whatever it likes
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; allowed: a Python file") from None
