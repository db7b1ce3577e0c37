"""The state of a run after a generation, as plain data."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from evonas.core import State, UserError
from evonas.records.files import write_atomic

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


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the newest checkpoint and lets go of those before the last two."""
    content = _content({name: getattr(checkpoint, name) for name in Checkpoint.__slots__})
    name = f"generation-{checkpoint.generations:07d}-{_digest(content)}.pt"
    write_atomic(folder / name, content, sync=True)
    for old in _files(folder)[KEEP:]:
        old.unlink()


def write(path: Path, state: State) -> None:
    """Writes plain data and tensors, whole or not at all; `torch.load` reads them."""
    write_atomic(path, _content(state), sync=True)


def newest_first(folder: Path) -> Iterator[Checkpoint]:
    """Yield the intact checkpoints, those whose digest is the one in their name.

    Raises:
        UserError: a newer version wrote one of them.
    """
    for path in _files(folder):
        content = path.read_bytes()
        if path.stem.rpartition("-")[2] != _digest(content):
            log.warning("%s is damaged; skipped", path)
            continue
        data = torch.load(io.BytesIO(content), weights_only=True)
        if data["version"] > VERSION:
            raise UserError(
                f"{path} has version {data['version']}",
                hint=f"this evonas reads versions up to {VERSION}; update it",
            )
        yield Checkpoint(**data)


def _content(state: State) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("generation-*.pt"), reverse=True)
