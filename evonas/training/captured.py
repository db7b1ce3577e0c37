"""A training step that a GPU replays as one graph, instead of being sent each of its operations."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from evonas.training.batches import sent

WARM_UP = 3  # steps before a step is recorded; torch recommends as many
WAITED = "synchronizing CUDA operation"  # in torch's warning of an operation that waits

log = logging.getLogger("evonas")

Step = Callable[[], Tensor]
OnBatch = Callable[[Tensor], Tensor]


class Recorder(Protocol):
    """Runs steps, and records one; `Direct` and `CudaGraphs` are such."""

    def run(self, step: Step) -> Tensor:
        """Run a step, which a later one may be recorded after."""

    def waits(self, step: Step) -> tuple[Tensor, bool]:
        """Run a step; return its loss too, and whether it waited for the device."""

    def record(self, step: Step) -> Step:
        """Return what repeats a step on what its tensors hold by then; it is not run here.

        Raises:
            RuntimeError: the step cannot be recorded, or memory ran out.
        """


class Captured:
    """A training step, recorded after it was run a few times, and then replayed.

    A recording repeats what the device did, and none of the Python code. So a step is recorded only
    if all steps do the same on other images, as far as that shows: one that draws random numbers,
    changes a plain attribute of the network, or waits for the device is run as it is, and so is a
    batch of another size. `refusal` says why, or is empty.

    Args:
        recorder: by default, CUDA graphs on a GPU, and on the CPU the step itself.
    """

    def __init__(
        self, network: nn.Module, device: torch.device, recorder: Recorder | None = None
    ) -> None:
        self.refusal = ""
        self._network = network
        self._device = device
        self._recorder = recorder or (CudaGraphs() if device.type == "cuda" else Direct())
        self._runs = 0
        self._input: Tensor | None = None  # where a replay finds its batch
        self._replay: Step | None = None

    def run(self, step: OnBatch, drawn: Tensor) -> Tensor:
        """Run a step, always the same one, on a batch.

        Args:
            step: trains on what it is given, on the device; returns the loss, (). It changes
                nothing but tensors.
            drawn: the batch, as `Batches.draw` returned it.

        Returns:
            (), the loss, which the next step may overwrite.
        """
        given = sent(drawn, self._device)
        if self._replay is not None and self._input is not None:
            if given.shape != self._input.shape:
                return step(given)
            self._input.copy_(given)
            return self._replay()
        if self.refusal:
            return step(given)
        self._runs += 1
        if self._runs < WARM_UP:
            return self._recorder.run(lambda: step(given))
        return self._last_before(step, given)

    def _last_before(self, step: OnBatch, given: Tensor) -> Tensor:
        """Run the last step of the warm-up, and record the next one if this one allows it."""
        before = _leavings(self._network, self._device)
        loss, waited = self._recorder.waits(lambda: step(given))
        after = _leavings(self._network, self._device)
        if before != after:
            self._refuse("it draws random numbers, or its attributes change")
        elif waited:
            self._refuse("its code waits for values")
        else:
            self._record(step, given.clone())
        return loss

    def _record(self, step: OnBatch, given: Tensor) -> None:
        try:
            self._replay = self._recorder.record(lambda: step(given))
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            self._refuse(str(error).strip().partition("\n")[0])
        else:
            self._input = given

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        _tell(reason)


class Direct:
    """Records nothing: a step is run each time."""

    def run(self, step: Step) -> Tensor:
        return step()

    def waits(self, step: Step) -> tuple[Tensor, bool]:
        return step(), False

    def record(self, step: Step) -> Step:
        return step


class CudaGraphs:
    """Records steps as CUDA graphs, in a stream of their own, as torch asks for.

    A recording that fails may leave torch's generator of random numbers in a state in which it
    refuses to draw, so what is known to make one fail is found out before (`waits`).
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def run(self, step: Step) -> Tensor:
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            loss = step()
        current.wait_stream(self._stream)
        return loss

    def waits(self, step: Step) -> tuple[Tensor, bool]:
        with _waits_told() as told:
            loss = self.run(step)
        return loss, any(WAITED in str(each.message) for each in told)

    def record(self, step: Step) -> Step:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # Other threads may pin memory meanwhile, as a DataLoader's does.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                loss = step()
        finally:
            torch.cuda.set_stream(current)  # torch does not, if the recording fails

        def replay() -> Tensor:
            graph.replay()
            return loss

        return replay


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Let the steps of an optimizer be recorded: their learning rate and count are on the device.

    The learning rate becomes one tensor, which all groups share.
    """
    on_gpu = device.type == "cuda"
    dtype = torch.float32 if on_gpu else torch.float64  # the CPU's steps use it as a Python float
    lr = torch.tensor(float(optimizer.param_groups[0]["lr"]), dtype=dtype, device=device)
    for group in optimizer.param_groups:
        group |= {"lr": lr, "foreach": False}  # which takes no tensor for a learning rate
        if on_gpu:
            group["fused"] = True
            if "capturable" in group:
                group["capturable"] = True
    if on_gpu:
        for state in optimizer.state.values():
            if "step" in state:
                state["step"] = state["step"].to(device, torch.float32)
    # The steps of the warm-up are not recorded, as Adam would remark.
    optimizer._warned_capturable_if_run_uncaptured = True


@contextmanager
def _waits_told() -> Iterator[list[warnings.WarningMessage]]:
    """Have torch warn of whatever waits for a GPU, and collect the warnings."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield told
    finally:
        torch.cuda.set_sync_debug_mode(before)


def hidden(network: nn.Module) -> list[Any]:
    """Return what no state of torch's holds: Python's and NumPy's generators, and attributes."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  # a network may use it
    generators = [random.getstate(), (name, np.asarray(keys).tobytes(), *rest)]
    plain = (bool, int, float, str, type(None))
    attributes = [
        {name: value for name, value in vars(module).items() if isinstance(value, plain)}
        for module in network.modules()
    ]
    return [*generators, attributes]


def _leavings(network: nn.Module, device: torch.device) -> list[Any]:
    """Return what a step must leave as it was: random generators, and a network's attributes."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state())
    return [*hidden(network), *(state.numpy().tobytes() for state in states)]


@cache  # each reason once in a process
def _tell(reason: str) -> None:
    log.info("a training is not recorded as a CUDA graph: %s", reason)
