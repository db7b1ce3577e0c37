"""The state of a run after a generation, as plain data."""

from __future__ import annotations

import io
import logging
from dataclasses import asdict, dataclass
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
    torch.save(asdict(checkpoint), buffer)
    write_atomic(folder / f"generation-{checkpoint.generations:07d}.pt", buffer.getvalue())
    for old in _files(folder)[KEPT:]:
        old.unlink()


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that can be read; None before the first generation.

    Raises:
        UserError: it was written by a newer version.
    """
    for path in _files(folder):
        try:
            data = torch.load(path, weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            log.warning("%s cannot be read and is passed over: %s", path, error)
            continue
        if data["version"] > VERSION:
            raise UserError(f"{path} has version {data['version']}; known: up to {VERSION}")
        return Checkpoint(**data)
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("generation-*.pt"), reverse=True)
