"""What one input may take of a reader: two seconds of CPU, so that a busy machine finds nothing, and 1 GB of memory."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

INPUT_S = 2.0
MEMORY_MB = 1024


@contextlib.contextmanager
def limited(seconds: float = INPUT_S, megabytes: int = MEMORY_MB) -> Iterator[None]:
    """Stop the block where it takes more than that, memory counted from what the process holds before it.

    In the main thread only; a process without `/proc` is not held to the memory.

    Raises:
        TimeoutError: more CPU time.
        MemoryError: more memory.
    """

    def stop(number: int, frame: object) -> NoReturn:  # noqa: ARG001  # signal's signature
        raise TimeoutError(f"more than {seconds} s of CPU")

    held = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    before = signal.signal(signal.SIGPROF, stop)
    try:
        if pages.exists():
            used = int(pages.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), held[1]))
        signal.setitimer(signal.ITIMER_PROF, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        resource.setrlimit(resource.RLIMIT_AS, held)
        signal.signal(signal.SIGPROF, before)
