"""The user's own Python files: `ops.py:mine` names a function in one.

A file is imported only if the command line permits it: by an experiment file that names it, or by
`--plugin FILE`, whose SHA-256 must be the one that the run folder recorded. A run folder alone
never makes evonas run anything.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from evonas.core import UserError

PATTERN = r"^.+\.py:[A-Za-z_]\w*$"

_allowed: dict[str, tuple[Path, str]] = {}  # by a file's name: its place and SHA-256


def file_of(reference: str) -> str | None:
    """Return the file that `FILE.py:NAME` names, or None for any other text."""
    return reference.rpartition(":")[0] if re.match(PATTERN, reference) else None


def anchored(reference: str, folder: Path) -> str:
    """Return a reference with its file resolved against `folder`; any other text as it is."""
    file, _, name = reference.rpartition(":")
    if not re.match(PATTERN, reference):
        return reference
    return f"{(folder / Path(file).expanduser()).resolve()}:{name}"


def allow(files: Iterable[str]) -> dict[str, str]:
    """Permit files to be imported as they are now; return the SHA-256 of each.

    Raises:
        UserError: a file cannot be read.
    """
    digests = {file: _digest(Path(file)) for file in files}
    for file, digest in digests.items():
        _allowed[file] = (Path(file), digest)
    return digests


def allow_again(recorded: Mapping[str, str], paths: Iterable[Path]) -> None:
    """Permit importing the files that a run folder recorded, from the paths that match them.

    Raises:
        UserError: a recorded file is missing, or its content has changed.
    """
    current = {_digest(path): path for path in paths}
    for file, digest in recorded.items():
        if digest not in current:
            raise UserError(
                f"this run depends on {file}",
                hint=f"add --plugin FILE, with the same content (SHA-256 {digest[:12]}...)",
            )
        _allowed[file] = (current[digest], digest)


def allow_recorded(folder: Path, paths: Iterable[Path]) -> None:
    """Call `allow_again` with the record in the `environment.json` of a folder."""
    try:
        plugins = json.loads((folder / "environment.json").read_text()).get("plugins", {})
        recorded = {str(file): str(digest) for file, digest in plugins.items()}
    except (OSError, ValueError, AttributeError):
        recorded = {}
    allow_again(recorded, paths)


def is_allowed(file: str) -> bool:
    """Whether a file may be imported."""
    return file in _allowed


def all_allowed() -> dict[str, tuple[Path, str]]:
    """Return all files that may be imported: where each is now, and its SHA-256."""
    return dict(_allowed)


def allow_in_worker(files: Mapping[str, tuple[Path, str]]) -> None:
    """Permit what another process permits; pickle then finds here what such a file defines."""
    _allowed.update(files)
    sys.meta_path.append(_Finder())


def import_allowed() -> None:
    """Import all permitted files; a mistake in one shows where it is used."""
    for file in _allowed:
        with suppress(UserError):
            _module(*allowed(file))


def place(file: str) -> Path:
    """Return where a file is now: it may have moved since it was named."""
    return _allowed[file][0] if file in _allowed else Path(file)


def allowed(file: str) -> tuple[Path, str]:
    """Return where a permitted file is now, and its SHA-256.

    Raises:
        UserError: the file may not be imported.
    """
    if file not in _allowed:
        raise UserError(f"{file} may not be imported", hint="permit it with --plugin FILE")
    return _allowed[file]


def load(reference: str) -> Callable[..., Any]:
    """Return the function that `FILE.py:NAME` names.

    Raises:
        UserError: the file may not be imported, has changed, cannot be imported, or has no such
            function.
    """
    file, _, name = reference.rpartition(":")
    path, digest = allowed(file)
    value = getattr(_module(path, digest), name, None)
    if not callable(value):
        raise UserError(f"{file} has no function {name}")
    function: Callable[..., Any] = value
    return function


@cache
def _module(path: Path, digest: str) -> ModuleType:
    """Import a file, which is read once, so that what runs is what was hashed."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"{path} changed while evonas was running", hint="start again")
    module = ModuleType(_module_name(digest))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look for it
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)
    except Exception as error:  # a user's module may raise anything
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


class _Finder(MetaPathFinder, Loader):
    """Imports permitted files by the names that their modules have in every process."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        digests = {digest for _, digest in _allowed.values()}
        return ModuleSpec(fullname, self) if fullname in map(_module_name, digests) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        for path, digest in _allowed.values():
            if _module_name(digest) == spec.name:
                return _module(path, digest)
        raise ImportError(f"no permitted file is called {spec.name}")

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing, since `_module` has run the file."""


def _module_name(digest: str) -> str:
    return f"evonas_plugin_{digest[:16]}"


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(str(error.strerror), hint="give a Python file", key=str(path)) from None
