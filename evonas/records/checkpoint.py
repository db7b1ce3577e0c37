"""The state of a run after a generation, as plain data."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch

from evonas.core import State, UserError
from evonas.records.files import write_atomic

VERSION = 1
KEPT = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Attributes:
    generations, evaluations: how many are done.
    strategy: its state.
    tables: the size of each growing table in bytes; what lies beyond is newer.
    """

    generations: int
    evaluations: int
    strategy: State
    tables: dict[str, int]
    version: int = VERSION


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the newest checkpoint and lets go of those before the last two."""
    buffer = io.BytesIO()
    torch.save({name: getattr(checkpoint, name) for name in Checkpoint.__slots__}, buffer)
    write_atomic(
        folder / f"generation-{checkpoint.generations:07d}.pt", buffer.getvalue(), sync=True
    )
    for old in _files(folder)[KEPT:]:
        old.unlink()


def newest_first(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints that can be read.

    Raises:
        UserError: one was written by a newer version.
    """
    for path in _files(folder):
        try:
            data = torch.load(path, weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            log.warning("%s cannot be read and is passed over: %s", path, error)
            continue
        if data["version"] > VERSION:
            raise UserError(f"{path} has version {data['version']}; known: up to {VERSION}")
        yield Checkpoint(**data)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("generation-*.pt"), reverse=True)
