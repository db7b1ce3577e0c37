"""A signal ends the command, wherever it falls, and is heard once."""

from __future__ import annotations

import contextlib
import signal
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from evonas import interrupts
from evonas.cli import telling
from evonas.core import Candidate, Status
from evonas.loop import Desk, guarded
from genomes import NASBench201
from tests.helpers.faults import Counting

SPACE = NASBench201()
TEXT = "1-1-1-1-1-1"
CANDIDATE = Candidate(SPACE.parse(TEXT))


@pytest.fixture(autouse=True)
def left(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Notes what is said when the process would end."""
    said: list[str] = []
    monkeypatch.setattr(interrupts, "_leave", lambda *_: said.append(interrupts.words()))
    # A shell has its background jobs ignore it, which is inherited.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in interrupts.SIGNALS]
    yield said
    assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    signal.signal(signal.SIGINT, inherited)


def wait_for(said: list[str]) -> None:
    end = time.monotonic() + 3
    while not said and time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_the_first_signal_ends_a_block_and_later_ones_do_not_disturb_its_end(
    number: signal.Signals, left: list[str]
) -> None:
    steps = []

    @interrupts.heard()
    def block() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGINT)
            steps.append("ended")

    with pytest.raises(interrupts.Interrupt):
        block()
    assert steps == ["ended"]
    assert not left


def test_an_error_that_a_library_makes_of_it_is_an_interrupt() -> None:
    def library() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ValueError("Error building the validator") from error

    with pytest.raises(interrupts.Interrupt), interrupts.heard():
        library()


def test_one_that_is_lost_in_a_callback_of_the_import_system_ends_the_process(
    left: list[str],
) -> None:
    class Lock:
        pass

    with interrupts.heard(), interrupts.saying(lambda: "7 results saved"):
        lock = Lock()
        callback = weakref.ref(lock, lambda _: signal.raise_signal(signal.SIGINT))
        del lock  # Python prints what a callback raises, and goes on
        wait_for(left)
    assert callback() is None
    assert left == ["7 results saved"]


def test_one_that_a_library_swallows_ends_the_process(
    left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupts, "LIMIT", 0.05)
    with interrupts.heard():
        with contextlib.suppress(BaseException):  # as careless libraries do
            signal.raise_signal(signal.SIGINT)
        wait_for(left)
    assert left == ["interrupted"]


def test_it_waits_for_what_must_be_done_whole() -> None:
    steps = []

    @interrupts.heard()
    def block() -> None:
        with interrupts.delayed():
            signal.raise_signal(signal.SIGINT)
            steps.append("whole")
        steps.append("not reached")

    with pytest.raises(interrupts.Interrupt):
        block()
    assert steps == ["whole"]


def test_a_network_that_raises_it_itself_has_crashed_where_signals_are_told_apart() -> None:
    evaluator = Counting({TEXT: "interrupts"})
    with interrupts.heard():
        assert guarded(evaluator, CANDIDATE, 1).status is Status.CRASHED
    with pytest.raises(KeyboardInterrupt):  # in a notebook it is the user's
        guarded(evaluator, CANDIDATE, 1)


class Interrupted(Counting):
    def cheap(self, genome: object) -> dict[str, float]:
        signal.raise_signal(signal.SIGINT)
        return {}


def test_a_signal_while_the_driver_measures_a_network_is_no_crash_of_it() -> None:
    desk = Desk(Interrupted(), SPACE)
    with pytest.raises(interrupts.Interrupt), interrupts.heard():
        desk._known(CANDIDATE)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "0 results"),
        ({"journal": 1}, "1 result"),
        ({"supernet/curve.csv": 4}, "3 epochs of the supernet"),
        ({"journal": 5, "supernet/curve.csv": 4}, "5 results and 3 epochs of the supernet"),
        ({"training.yaml": 9, "curve.csv": 3}, "2 epochs"),
        ({"bench.yaml": 9, "runs.csv": 8}, "7 runs"),
    ],
)
def test_what_is_kept_counts_all_that_is_kept(
    files: dict[str, int], said: str, tmp_path: Path
) -> None:
    for name, lines in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("line\n" * lines)
    assert telling.saved(tmp_path) == said
