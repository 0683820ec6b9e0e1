"""A headless Chromium, driven over its own debugging pipe: no driver, no port, nothing to install beside the browser.

`python -m tests.report.browser PAGE.html OUT.png [WIDTH] [dark] [HEIGHT]` takes a screenshot.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ANSWER_S = 60.0


def find_browser() -> str | None:
    """Path of a Chromium, or nothing."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One tab. Commands and events are JSON, ended by a NUL (Chrome DevTools Protocol)."""

    def __init__(self, to: int, out: int) -> None:
        self._to, self._out = to, out
        self._ids = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self.problems: list[str] = []
        """What the page complained of: exceptions, console errors and warnings, blocked content."""
        self.requests: list[str] = []
        self._loaded = False
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """A command and its answer; events that come before it are noted."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            got = self._next()
            if got.get("id") == number:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']}")
                result: dict[str, Any] = got["result"]
                return result

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._out], [], [], max(deadline - time.monotonic(), 0.0))
            if not ready:
                raise TimeoutError(f"the browser said nothing for {ANSWER_S:g} s")
            part = os.read(self._out, 1 << 16)
            if not part:
                raise RuntimeError("the browser has gone")
            self._rest += part
        line, self._rest = self._rest.split(b"\0", 1)
        got: dict[str, Any] = json.loads(line)
        self._note(got.get("method", ""), got.get("params", {}))
        return got

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True

    def open(self, page: Path, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a file in a window of that size."""
        self.problems.clear()
        self.requests.clear()
        self.media(dark=dark)
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self._loaded = False
        self.send("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._next()

    def media(self, *, dark: bool = False, kind: str = "") -> None:
        """Light or dark, screen or print."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=kind, features=[scheme])

    def value(self, script: str) -> Any:
        """What an expression evaluates to, as JSON can hold it."""
        got = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in got:
            raise RuntimeError(json.dumps(got["exceptionDetails"]))
        return got["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key on whatever has the focus."""
        shown = {"Enter": "\r", " ": " "}.get(key, "")
        common = {"key": key, "windowsVirtualKeyCode": code, "text": shown}
        self.send("Input.dispatchKeyEvent", type="keyDown" if shown else "rawKeyDown", **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def point(self, x: float, y: float) -> None:
        """Move the pointer."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, *, whole: bool = True) -> bytes:
        """PNG of the page, or of the window."""
        got = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(got["data"])

    def pdf(self) -> bytes:
        """The page on paper."""
        got = self.send("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(got["data"])


@contextmanager
def browser(program: str) -> Iterator[Browser]:
    """A browser with an empty profile of its own; ended, and its profile removed, with the context."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        its_in, our_out = _high_pipe()
        our_in, its_out = _high_pipe()
        # Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
        start = f'exec "$0" "$@" 3<&{its_in} 4>&{its_out}'
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        options += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run", "about:blank"]
        process = subprocess.Popen(
            ["bash", "-c", start, program, *options],
            pass_fds=(its_in, its_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_in)
        os.close(its_out)
        try:
            yield Browser(our_out, our_in)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(our_out)
            os.close(our_in)


def _high_pipe() -> tuple[int, int]:
    """A pipe whose ends are none of the descriptors that the browser is given."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]


def main(page: str, out: str, width: str = "1280", scheme: str = "light", height: str = "0") -> None:
    """A screenshot of the whole page, or of its first `height` pixels."""
    program = find_browser()
    if program is None:
        sys.exit(f"none of {', '.join(NAMES)} is installed")
    with browser(program) as tab:
        tab.open(Path(page), width=int(width), height=int(height) or 900, dark=scheme == "dark")
        if not int(height):
            full = int(tab.value("document.documentElement.scrollHeight"))
            tab.send(
                "Emulation.setDeviceMetricsOverride",
                width=int(width),
                height=full,
                deviceScaleFactor=1,
                mobile=int(width) < 600,
            )
        Path(out).write_bytes(tab.screenshot(whole=False))
        for problem in tab.problems:
            sys.stderr.write(f"{problem}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
