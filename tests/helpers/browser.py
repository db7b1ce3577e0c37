"""Chromium without a window, spoken to in its own protocol through a pipe.

The protocol is https://chromedevtools.github.io/devtools-protocol: JSON, each message ended by a
null byte. Chromium reads from file descriptor 3 and writes to 4.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-extensions", "--disable-background-networking", "--disable-dev-shm-usage"),
    "--remote-debugging-pipe",
)
# Moves the pipe's ends to where Chromium looks for them. They are copied aside first, for one may
# lie where the other belongs.
LAUNCH = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3])
os.dup2(reads, 3), os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 60.0  # seconds; a busy machine needs some for a start
KEYS = {"Enter": ("Enter", 13, "\r"), "ArrowRight": ("ArrowRight", 39, ""), "Tab": ("Tab", 9, "")}

CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")


class Page:
    """A page in the browser, and what has happened in it.

    Attributes:
        requests: the address of each request.
        complaints: errors and warnings of the console, and exceptions that nothing has caught.
    """

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._session = to, back, ""
        self._last, self._unread = 0, b""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._loaded = False
        target = self("Target.createTarget", url="about:blank")["targetId"]
        attached = self("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> Any:
        """Calls a method of the protocol, and returns its result."""
        self._last += 1
        number = self._last
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def open(self, file: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Opens a file in a window of some size, in the light theme or the dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self("Page.navigate", url=file.resolve().as_uri())
        while not self._loaded:
            self._read()
        self.run("new Promise(done => setTimeout(done, 200))")

    def run(self, script: str) -> Any:
        """Evaluates JavaScript, and returns its value."""
        found = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def move(self, x: float, y: float) -> None:
        """Moves the mouse."""
        self("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        """Moves the mouse, and clicks."""
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draws the mouse from one place to another with its button pressed."""
        self.move(*start)
        for kind, (x, y) in (("Pressed", start), ("Moved", end), ("Released", end)):
            place = {"x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
            self("Input.dispatchMouseEvent", type=f"mouse{kind}", **place)

    def press(self, key: str) -> None:
        """Presses a key."""
        name, code, text = KEYS.get(key, (key, ord(key[0].upper()), key))
        of = {"key": name, "windowsVirtualKeyCode": code}
        self("Input.dispatchKeyEvent", type="keyDown", **of, **({"text": text} if text else {}))
        self("Input.dispatchKeyEvent", type="keyUp", **of)

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._back], [], [], max(0.0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            piece = os.read(self._back, 1 << 16)
            assert piece, "Chromium has ended"
            self._unread += piece
        text, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Page.loadEventFired":
            self._loaded = True


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page of a new browser, which ends with the block.

    Args:
        profile: a folder for what the browser writes.
    """
    assert CHROMIUM is not None
    (reads, to), (back, writes) = os.pipe(), os.pipe()
    command = [sys.executable, "-c", LAUNCH, str(reads), str(writes), CHROMIUM, *FLAGS]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={profile}"],
        pass_fds=(reads, writes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(reads)
    os.close(writes)
    try:
        yield Page(to, back)
    finally:
        process.kill()
        process.wait()
        os.close(to)
        os.close(back)
