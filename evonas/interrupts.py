"""Ctrl-C, and SIGTERM as schedulers send it: never lost, and heard once.

Python raises an exception wherever it happens to be, and that may be lost: in a callback of the
import system, in a `__del__`, in a library that catches everything. And a second one would disturb
what the first one brought to an end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STATUS = 130
LIMIT = 5.0  # seconds that a process has to end in good order


class Interrupt(KeyboardInterrupt):
    """A signal to this process, which tells it from what a user's network may raise."""


# What a signal to this process raises: Python's own exception, unless `heard` is in charge.
_real: tuple[type[BaseException], ...] = (KeyboardInterrupt,)
_delays = 0
_came = False  # whether a signal has come


def _interrupted() -> str:
    return "interrupted"


_words: Callable[[], str] = _interrupted


def is_real(error: BaseException) -> bool:
    """Return whether an exception may come from a signal to this process."""
    return isinstance(error, _real)


def ignore(*numbers: signal.Signals) -> None:
    """Ignore signals, in a process that its driver ends, or that is ending anyway."""
    global _real
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    _real = ()


def leave_at_once() -> None:
    """Let a signal end the command without ado, while it has nothing to bring to an end.

    In a program that imports evonas nothing changes.
    """
    script, module = [*map(os.path.basename, sys.orig_argv[1:3]), "", ""][:2]
    if script == "evonas" or (script, module) == ("-m", "evonas"):
        _listen(_leave)


@contextmanager
def heard() -> Iterator[None]:
    """Let the first signal raise `Interrupt` within the block, and ignore the later ones.

    Whatever the block ends with after that, it is taken for the interrupt, which pydantic for one
    turns into an error of its own. If it has not ended `LIMIT` seconds after the signal, the
    process ends with the words that `saying` has set, and with status 130.
    """
    global _real, _words, _came
    numbers = (*SIGNALS, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    before_real, hook = _real, sys.unraisablehook
    _words = _interrupted

    def lost(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, Interrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
        else:
            hook(unraisable)

    _real, _came = (Interrupt,), False
    sys.unraisablehook = lost
    signal.signal(signal.SIGALRM, _leave)
    _listen(_raise)
    try:
        yield
    except BaseException as error:
        if _came and not isinstance(error, Interrupt):
            raise Interrupt from None
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
        _real = before_real


@contextmanager
def saying(words: Callable[[], str]) -> Iterator[None]:
    """Set what is said after a signal within the block."""
    global _words
    _words = words
    yield
    _words = _interrupted  # after a signal they stay


def words() -> str:
    """Return what is said after a signal."""
    return _words()


@contextmanager
def delayed() -> Iterator[None]:
    """Delay a signal until the end of what must be done whole, such as the start of a process."""
    global _delays
    before = _came
    _delays += 1
    try:
        yield
    finally:
        _delays -= 1
    if _came and not before and not _delays:
        raise Interrupt


def _listen(handler: Callable[..., None]) -> None:
    for number in SIGNALS:
        # A shell has its background jobs ignore Ctrl-C.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _raise(*_: object) -> None:
    global _came
    _came = True
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    if not _delays:
        raise Interrupt


def _leave(*_: object) -> None:
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a progress bar has hidden it
    os.write(2, f"{show_cursor}{_words()}\n".encode())
    os._exit(STATUS)
