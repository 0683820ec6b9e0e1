"""Every fault in its long form, bounded in time: `python -m tests.torture [seed]`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests import postgresql
from tests.torture.faults import FILES
from tests.torture.suite import run

LIMIT_S = 280.0
"""Nothing is begun after this, so that five minutes are not passed."""
KILLS, ROUNDS = 200, 3


def main() -> int:
    """Print the figures; exit code 1 where anything that must not be was."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else time.time_ns() % 1_000_000
    sys.stdout.write(f"seed {seed}\n")
    # what a killed process has written is there whether the disk knows of it or not, so memory will do, and is faster
    memory = "/dev/shm"  # noqa: S108  # a fresh folder of ours in it
    room = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="autotune-torture-", dir=room) as folder:
        where, random = Path(folder), Random(seed)  # noqa: S311  # decides where a process is killed
        if postgresql.binaries():
            with postgresql.running() as one, postgresql.running() as other:
                total = run(where, [one, other], random, kills=KILLS, rounds=ROUNDS, limit_s=LIMIT_S)
        else:
            sys.stdout.write(f"SKIPPED: everything on PostgreSQL: {postgresql.NEEDS}\n")
            total = run(where, [], random, kinds=FILES, kills=KILLS, rounds=ROUNDS, limit_s=LIMIT_S)
    for wrong in total.wrong:
        sys.stdout.write(f"WRONG {wrong}\n")
    sys.stdout.write(total.line() + "\n")
    return int(bool(total.wrong or total.lost or total.duplicated or total.half_written))


if __name__ == "__main__":
    sys.exit(main())
