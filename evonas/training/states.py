"""Files with the states of trainings, from which longer ones go on."""

from __future__ import annotations

import hashlib
import io
import logging
from contextlib import suppress
from pathlib import Path

import torch

from evonas import files
from evonas.core import STATE, State, state_name
from evonas.loop import Desk
from evonas.protocols import Continues, Strategy

SIZE = 16  # bytes of the digest that a file begins with

log = logging.getLogger("evonas")


def write_state(state: State, path: Path) -> None:
    """Write a state, whole or not at all; without room for it there is none, which costs time."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    with suppress(OSError):
        files.write_atomic(path, _digest(content) + content)


def read_state(path: Path) -> State | None:
    """Return a state, on the CPU; None if it is not there, or damaged."""
    try:
        content = files.read(path)
    except OSError:
        return None
    digest, content = content[:SIZE], content[SIZE:]
    if digest != _digest(content):
        log.warning("%s is damaged; the training begins anew", path)
        return None
    state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def keep_pending(folder: Path, strategy: Strategy, desk: Desk) -> None:
    """Delete the states in a folder from which a strategy will have no training go on."""
    pending = strategy.pending() if isinstance(strategy, Continues) else ()
    questions = [desk.question(candidate).question for candidate in pending]
    kept = {state_name(question.seed, question.budget) for question in questions}
    for file in folder.glob(f"*{STATE}"):
        if file.name not in kept:
            files.remove(file)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=SIZE).digest()
