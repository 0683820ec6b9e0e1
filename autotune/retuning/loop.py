"""The same in the foreground: run, wait, run again, until told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType

from apscheduler.schedulers.blocking import BlockingScheduler


def run_every(seconds: float, once: Callable[[], None]) -> None:
    """Call `once` now and every `seconds` after, never twice at a time, until SIGTERM or SIGINT.

    A call that is at work when the signal comes is finished; one that was missed meanwhile is made up for once.
    """
    scheduler = BlockingScheduler(timezone=UTC)

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # signal's signature
        scheduler.shutdown(wait=False)

    scheduler.add_job(
        once, "interval", seconds=seconds, next_run_time=datetime.now(UTC), max_instances=1, coalesce=True
    )
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        scheduler.start()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
