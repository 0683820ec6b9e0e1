"""All faults in a row, with their figures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from tests.postgresql import Server
from tests.torture import faults
from tests.torture.faults import FILES, Site
from tests.torture.harness import Counts, reference


def run(
    folder: Path, server: Server | None, random: Random, *, kills: int, rounds: int, limit_s: float, loud: bool = True
) -> Counts:
    """Inject every fault.

    Args:
        folder: where everything happens.
        server: a PostgreSQL server; None: without.
        random: decides where and when.
        kills: kill -9 of the tuner, on each kind of storage.
        rounds: of every other fault on every kind of storage.
        limit_s: nothing new is begun after this.
        loud: print a line for every fault.
    """
    start = time.monotonic()
    site = Site(folder, server, random, reference(folder / "reference"))
    plan: list[tuple[str, Callable[[], Counts]]] = []
    for kind in site.kinds:
        plan += [
            (f"one of four workers killed, {kind}", partial(faults.one_of_four, site, kind, rounds)),
            (f"two starts at once, {kind}", partial(faults.two_starts, site, kind, rounds)),
            (f"Ctrl-C, {kind}", partial(faults.interrupts, site, kind, rounds)),
            (f"clock jumps, {kind}", partial(faults.clocks, site, kind, rounds)),
            (f"storage gone and back, {kind}", partial(faults.gone_and_back, site, kind, rounds)),
        ]
    plan += [(f"disk full, {kind}", partial(faults.full_disk, site, kind, rounds)) for kind in FILES]
    plan += [(f"read-only folder, {kind}", partial(faults.read_only, site, kind, rounds)) for kind in FILES]
    plan += [("damaged journal", partial(faults.damage, site, 3 * rounds))]
    plan += [(f"kill -9 of the tuner, {kind}", partial(faults.kills, site, kind, kills)) for kind in site.kinds]
    total = Counts()
    for what, inject in plan:
        if time.monotonic() - start > limit_s:
            total.wrong.append(f"{what}: not begun within {limit_s:.0f} s")
            continue
        began = time.monotonic()
        counts = inject()
        total.add(counts)
        if loud:
            sys.stdout.write(f"{what}: {counts.line()} in {time.monotonic() - began:.1f} s\n")
            sys.stdout.flush()
    return total
