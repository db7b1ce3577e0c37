"""Weights & Biases: a run that is stored in the run folder, and sent if the user says so."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from typing import ClassVar

from evonas.loggers import Described, Mark, Record


class WandB:
    """A run in `wandb/`, sent only if WANDB_MODE is `online`; else `wandb sync` sends it later.

    A resume goes on with the same id. Run folders have no links, so wandb makes none.
    """

    PACKAGES: ClassVar = ("wandb",)

    def __init__(self, described: Described, mark: Mark) -> None:
        import wandb

        self._run = wandb.init(
            project=described.name,
            name=described.path.name,
            id=mark.id or uuid.uuid4().hex[:16],
            resume="allow",
            mode=os.environ.get("WANDB_MODE", "offline"),
            dir=str(described.path),
            config=dict(described.settings),
            settings=wandb.Settings(symlink=False, silent=True),
        )
        for event in ("evaluation", "generation"):
            self._run.define_metric(event, hidden=True)
            self._run.define_metric(f"{event}/*", step_metric=event)
        self.mark = replace(mark, id=self._run.id)

    def write(self, record: Record) -> None:
        named = {f"{record.event}/{name}": value for name, value in record.metrics.items()}
        self._run.log({record.event: record.number, **named})

    def flush(self) -> None:
        pass

    def close(self, *, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
