"""TensorBoard: event files in the run folder."""

from __future__ import annotations

from typing import ClassVar

from evonas.loggers import Described, Event, Mark, Record

FOLDER = "tensorboard"
EVENTS: tuple[Event, ...] = ("evaluation", "generation")


class TensorBoard:
    """Scalars in `tensorboard/evaluation` and `tensorboard/generation`, each with its own steps.

    After a kill, what the files have from the first step on that may be written again is hidden by
    TensorBoard (`purge_step`). Steps of evaluations and of generations differ, so each has a folder
    of its own.
    """

    PACKAGES: ClassVar = ("tensorboard",)

    def __init__(self, described: Described, mark: Mark) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.mark = mark
        self._writers = {
            event: SummaryWriter(
                str(described.path / FOLDER / event),
                purge_step=getattr(mark, event),
                flush_secs=10,  # for whoever looks on meanwhile
            )
            for event in EVENTS
        }

    def write(self, record: Record) -> None:
        for name, value in record.metrics.items():
            tag = f"{record.event}/{name}"
            self._writers[record.event].add_scalar(tag, value, record.number)

    def flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def close(self, *, finished: bool) -> None:
        for writer in self._writers.values():
            writer.close()
