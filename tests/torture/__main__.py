"""Every fault in its long form, bounded in time: `python -m tests.torture [seed]`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests import postgresql
from tests.torture.suite import run

LIMIT_S = 300.0


def main() -> int:
    """Print the figures; exit code 1 where anything that must not be was."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else time.time_ns() % 1_000_000
    sys.stdout.write(f"seed {seed}\n")
    with tempfile.TemporaryDirectory(prefix="autotune-torture-") as folder:
        if postgresql.binaries():
            with postgresql.running() as server:
                total = run(Path(folder), server, Random(seed), kills=200, rounds=6, limit_s=LIMIT_S)  # noqa: S311
        else:
            sys.stdout.write(f"SKIPPED: everything on PostgreSQL: {postgresql.NEEDS}\n")
            total = run(Path(folder), None, Random(seed), kills=200, rounds=6, limit_s=LIMIT_S)  # noqa: S311
    for wrong in total.wrong:
        sys.stdout.write(f"WRONG {wrong}\n")
    sys.stdout.write(total.line() + "\n")
    return int(bool(total.wrong or total.lost or total.duplicated or total.half_written))


if __name__ == "__main__":
    sys.exit(main())
