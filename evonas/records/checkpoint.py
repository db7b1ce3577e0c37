"""The state of a run after a generation, as plain data."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter

from evonas import files
from evonas.core import State, UserError

VERSION = 1
KEEP = 2  # how many checkpoints are kept

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a run after a generation.

    Attributes:
        generations, evaluations: how many are complete.
        strategy: its state.
        tables: the mark of each growing table (`Table.mark`); rows beyond it are newer.
        simulated_seconds: how many the run has spent.
    """

    generations: int
    evaluations: int
    strategy: State
    tables: dict[str, dict[str, int | str]]
    version: int = VERSION
    simulated_seconds: float = 0.0


_Checkpoint = TypeAdapter(Checkpoint)


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the newest checkpoint and lets go of those before the last two."""
    content = _content({name: getattr(checkpoint, name) for name in Checkpoint.__slots__})
    name = f"generation-{checkpoint.generations:07d}-{_digest(content)}.pt"
    files.write_atomic(folder / name, content, sync=True)
    for old in _files(folder)[KEEP:]:
        files.remove(old)


def write(path: Path, state: State) -> None:
    """Writes plain data and tensors, whole or not at all; `torch.load` reads them."""
    files.write_atomic(path, _content(state), sync=True)


def newest_first(folder: Path) -> Iterator[Checkpoint]:
    """Yield the intact checkpoints, those whose digest is the one in their name.

    Raises:
        UserError: a newer version wrote one of them.
    """
    for path in _files(folder):
        content = files.read(path)
        if path.stem.rpartition("-")[2] != _digest(content):
            log.warning("%s is damaged; skipped", path)
            continue
        try:
            data = torch.load(io.BytesIO(content), weights_only=True)
            version = int(data["version"])
            checkpoint = _Checkpoint.validate_python(data) if version <= VERSION else None
        except Exception as error:  # zip, pickle and torch may raise anything
            log.warning("%s is damaged; skipped: %s", path, type(error).__name__)
            continue
        if checkpoint is None:
            raise UserError(
                f"{path} has version {version}",
                hint=f"this evonas reads versions up to {VERSION}; update it",
            )
        yield checkpoint


def _content(state: State) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("generation-*.pt"), reverse=True)
