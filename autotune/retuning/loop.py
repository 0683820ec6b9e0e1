"""The same in the foreground: run, wait, run again, until told to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType


def run_every(seconds: float, once: Callable[[], None]) -> None:
    """Call `once` now and every `seconds` after, never twice at a time, until SIGTERM or SIGINT.

    A call that is at work when the signal comes is finished; one that was missed meanwhile is made up for once.
    """
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # signal's signature
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        due_s = time.monotonic()
        while not stopped.wait(max(due_s - time.monotonic(), 0.0)):
            once()
            # of the calls that fell due while this one ran, the last is made at once and the others are left out
            due_s += seconds * max((time.monotonic() - due_s) // seconds, 1.0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
