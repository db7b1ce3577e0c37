"""The training step that a GPU replays, here on the CPU, where a recording is the step itself."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from evonas.data.dataset import split
from evonas.data.digits import Digits, DigitsParams
from evonas.networks.decode import decode
from evonas.training import captured
from evonas.training.batches import ResidentData, resident
from evonas.training.captured import WARM_UP, CudaGraphs, Direct, Step
from evonas.training.loop import Hardware, Trainer, seeded
from evonas.training.recipe import Recipe
from genomes.nasbench201 import NASBench201
from tests.helpers.changing import Changing

SPACE = NASBench201()
RICH = Recipe(pad_crop=1, flip=True, cutout=3, clip=1.0, label_smoothing=0.1, schedule="one_cycle")
MIXED = Recipe(warm_up=0.2, ema=0.3, pad_crop="auto", rand_augment=2, mixup=0.2, cutmix=1.0)
STEPS = 12


@pytest.fixture(scope="module")
def digits() -> ResidentData:
    return resident(split(Digits(DigitsParams()), DigitsParams())[0], torch.device("cpu"))


class Fake(Direct):
    """Counts what it is asked for; a recording may fail, or a step be said to wait."""

    def __init__(self, error: Exception | None = None, waited: bool = False) -> None:
        self.error, self.waited = error, waited
        self.runs = self.recordings = self.replays = 0

    def run(self, step: Step) -> Tensor:
        self.runs += 1
        return step()

    def waits(self, step: Step) -> tuple[Tensor, bool]:
        return self.run(step), self.waited

    def record(self, step: Step) -> Step:
        self.recordings += 1
        if self.error is not None:
            raise self.error

        def replay() -> Tensor:
            self.replays += 1
            return step()

        return replay


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    found = Fake()
    monkeypatch.setattr(captured, "Direct", lambda: found)
    return found


def cell() -> nn.Module:
    with seeded(0, "cpu"):
        return decode(SPACE, SPACE.parse("2-1-0-1-0-1"), in_channels=1, channels=4, cells=1)


def trainer(
    data: ResidentData,
    recipe: Recipe = RICH,
    network: nn.Module | None = None,
    *,
    capture: bool = True,
    micro_batch: int | None = None,
) -> Trainer:
    return Trainer(
        network or cell(), data, recipe, 3, Hardware(), micro_batch=micro_batch, capture=capture
    )


def losses(of: Trainer, first: int = 0, steps: int = STEPS) -> list[float]:
    rows = of.epoch()[:steps]
    return [of.step(each, (first + i) / (2 * STEPS)).item() for i, each in enumerate(rows)]


def weights(of: Trainer) -> Tensor:
    return nn.utils.parameters_to_vector(of.network.parameters())


@pytest.mark.parametrize(
    "recipe",
    [
        *(RICH, MIXED, Recipe(), Recipe(momentum=0)),
        Recipe(optimizer="adamw", lr=2e-3, momentum=0.5),
    ],
)
def test_a_captured_training_has_the_loss_curve_of_one_that_is_not(
    digits: ResidentData, recipe: Recipe
) -> None:
    plain, recorded = trainer(digits, recipe, capture=False), trainer(digits, recipe)
    assert losses(plain) == losses(recorded)
    assert torch.equal(weights(plain), weights(recorded))
    for each in (plain, recorded):
        each.put_average(each.network)
    assert torch.equal(weights(plain), weights(recorded))
    assert plain.captured is None
    assert recorded.captured is not None
    assert recorded.captured.refusal == ""


def test_what_is_drawn_and_averaged_is_new_in_each_replay(
    digits: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step computes with Python's numbers, a recording would repeat as it was."""
    fake = Fake()
    monkeypatch.setattr(captured, "Direct", lambda: fake)
    recorded = trainer(digits, MIXED)
    seen: list[str] = []

    def made(drawn: Tensor) -> tuple[Tensor, Tensor]:
        batch = type(recorded.batches).made(recorded.batches, drawn)
        seen.append(batch[1].numpy().tobytes().hex())
        return batch

    monkeypatch.setattr(recorded.batches, "made", made)
    averages = []
    for i, rows in enumerate(recorded.epoch()[:STEPS]):
        recorded.step(rows, i / STEPS)
        assert recorded.average is not None
        averages.append(recorded.average.state()[0].clone())
    assert fake.replays == STEPS - WARM_UP
    assert len(set(seen)) == STEPS
    assert not any(torch.equal(one, other) for one, other in pairwise(averages))


def test_a_step_is_recorded_once_and_then_replayed(digits: ResidentData, fake: Fake) -> None:
    losses(trainer(digits))
    assert (fake.runs, fake.recordings, fake.replays) == (WARM_UP, 1, STEPS - WARM_UP)


@pytest.mark.parametrize(
    ("error", "waited", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), False, "CUDA out of memory"),
        (RuntimeError("operation not permitted\nwhen capturing"), False, "operation not permitted"),
        (None, True, "its code waits for values"),
    ],
)
def test_a_step_that_cannot_be_recorded_is_run_each_time(
    digits: ResidentData, fake: Fake, error: Exception | None, waited: bool, reason: str
) -> None:
    fake.error, fake.waited = error, waited
    refused = trainer(digits)
    assert losses(refused) == losses(trainer(digits, capture=False))
    assert refused.captured is not None
    assert refused.captured.refusal == reason
    assert (fake.recordings, fake.replays) == (0 if waited else 1, 0)


@pytest.mark.parametrize("how", ["module", "function", "python", "counts"])
def test_a_network_that_draws_or_changes_is_not_recorded(
    digits: ResidentData, fake: Fake, how: str
) -> None:
    changing = trainer(digits, network=Changing(how))
    losses(changing)
    assert changing.captured is not None
    assert changing.captured.refusal == "it draws random numbers, or its attributes change"
    assert fake.recordings == 0


def test_a_network_of_the_users_own_is_recorded_if_it_does_the_same_at_each_step(
    digits: ResidentData, fake: Fake
) -> None:
    losses(trainer(digits, network=Changing("not at all")))
    assert fake.replays == STEPS - WARM_UP


def test_a_batch_of_another_size_is_not_replayed(digits: ResidentData, fake: Fake) -> None:
    recorded, plain = trainer(digits), trainer(digits, capture=False)
    assert losses(recorded) == losses(plain)
    replays = fake.replays
    (some,) = {each.step(torch.arange(10), 0.5).item() for each in (recorded, plain)}
    assert some > 0
    assert fake.replays == replays


def test_micro_batches_are_not_recorded(digits: ResidentData, fake: Fake) -> None:
    halved = trainer(digits, micro_batch=32)
    losses(halved)
    assert halved.captured is None
    assert fake.runs == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_captured_training_goes_on_from_its_state_as_plain_data(
    digits: ResidentData, fake: Fake, optimizer: str
) -> None:
    recipe = Recipe(optimizer=optimizer, lr=2e-3)
    whole = trainer(digits, recipe)
    losses(whole)
    state = copy.deepcopy(whole.state_dict())  # as a checkpoint has it
    assert [type(group["lr"]) for group in state["optimizer"]["param_groups"]] == [float, float]
    resumed = trainer(digits, recipe)
    losses(resumed, steps=WARM_UP + 1)  # its recording must not outlive what it was made of
    resumed.load_state_dict(state)
    assert losses(resumed, STEPS) == losses(whole, STEPS)
    assert fake.recordings == 3


def test_a_training_that_has_ended_holds_no_memory(
    digits: ResidentData, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even until the garbage collector comes by: another process may need it on the GPU."""
    monkeypatch.setattr(fake, "record", lambda _: lambda: torch.zeros(()))  # a graph has no Python
    network = cell()
    there = weakref.ref(network)
    gc.disable()
    try:
        ended = trainer(digits, network=network)
        losses(ended)
        del ended, network
        assert there() is None
    finally:
        gc.enable()


class FakeCuda:
    """What `CudaGraphs` asks of `torch.cuda`: streams, and a recording that may fail at its end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.streams = ["default"]
        self.ordered: list[tuple[str, str]] = []  # who waited for whom
        self.mode = 0
        self.broken = False
        self.replays = 0
        cuda, made = torch.cuda, self

        class Stream:
            def __init__(self, name: str = "side") -> None:
                self.name = name

            def wait_stream(self, other: Stream) -> None:
                made.ordered.append((self.name, other.name))

        class Graph:
            def replay(self) -> None:
                made.replays += 1

        @contextmanager
        def stream(of: Stream) -> Iterator[None]:
            made.streams.append(of.name)
            yield
            made.streams.pop()

        @contextmanager
        def graph(_: Graph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
            made.streams.append(stream.name)
            yield
            if made.broken:  # as torch, which then leaves the stream set
                raise RuntimeError("operation failed due to a previous error during capture")
            made.streams.pop()

        def set_mode(mode: int | str) -> None:
            made.mode = {"default": 0, "warn": 1}.get(mode, mode)  # type: ignore[assignment,call-overload]

        monkeypatch.setattr(cuda, "Stream", Stream)
        monkeypatch.setattr(cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(cuda, "current_stream", lambda: Stream(made.streams[-1]))
        monkeypatch.setattr(cuda, "set_stream", lambda of: made.streams.append(of.name))
        monkeypatch.setattr(cuda, "stream", stream)
        monkeypatch.setattr(cuda, "graph", graph)
        monkeypatch.setattr(cuda, "get_sync_debug_mode", lambda: made.mode)
        monkeypatch.setattr(cuda, "set_sync_debug_mode", set_mode)


def test_a_step_runs_in_a_stream_of_its_own_in_order_with_what_is_around_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = FakeCuda(monkeypatch)
    graphs = CudaGraphs()
    seen = graphs.run(lambda: torch.tensor(len(cuda.streams)))
    assert int(seen) == 2  # the default one, and its own
    assert cuda.ordered == [("side", "default"), ("default", "side")]
    assert cuda.streams == ["default"]


@pytest.mark.parametrize("waited", [True, False])
def test_a_step_that_waits_is_known_by_torchs_warning(
    monkeypatch: pytest.MonkeyPatch, waited: bool
) -> None:
    cuda = FakeCuda(monkeypatch)

    def step() -> Tensor:
        assert cuda.mode == 1
        if waited:
            warnings.warn(
                "called a synchronizing CUDA operation (Triggered internally)", stacklevel=1
            )
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)
        return torch.zeros(())

    assert CudaGraphs().waits(step)[1] is waited
    assert cuda.mode == 0


def test_a_recording_is_replayed_and_one_that_fails_leaves_the_stream_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = FakeCuda(monkeypatch)
    calls: list[str] = []

    def step() -> Tensor:
        calls.append(cuda.streams[-1])
        return torch.ones(())

    replay = CudaGraphs().record(step)
    assert [float(replay()), float(replay())] == [1.0, 1.0]
    assert (calls, cuda.replays) == (["side"], 2)
    assert cuda.streams[-1] == "default"
    cuda.broken = True
    with pytest.raises(RuntimeError, match="during capture"):
        CudaGraphs().record(step)
    assert cuda.streams[-1] == "default"
