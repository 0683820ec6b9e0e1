"""All faults in a row, with their figures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from pathlib import Path
from random import Random

from tests.postgresql import Server
from tests.torture import faults
from tests.torture.faults import KINDS, Site
from tests.torture.harness import Counts, reference

Injection = tuple[str, Callable[[], Counts]]


def run(
    folder: Path,
    server: Server | None,
    random: Random,
    *,
    kinds: Sequence[str] = KINDS,
    kills: int,
    rounds: int,
    limit_s: float = inf,
    loud: bool = True,
) -> Counts:
    """Inject every fault, the kinds of storage beside one another.

    Args:
        folder: where everything happens.
        server: a PostgreSQL server; None: without.
        random: decides where and when.
        kinds: of storage; PostgreSQL needs a server.
        kills: kill -9 of the tuner, on each kind of storage.
        rounds: of every other fault on every kind of storage.
        limit_s: nothing new is begun after this; what was not injected by then is an error.
        loud: print a line for every fault.
    """
    start = time.monotonic()
    answer = reference(folder / "reference")
    total = Counts()

    def all_of(kind: str, seed: int) -> Counts:
        site = Site(folder / kind, server, Random(seed), answer, start + limit_s)  # noqa: S311  # not for secrets
        mine = Counts()
        for what, inject in _plan(site, kind, kills, rounds):
            began = time.monotonic()
            counts = inject()
            mine.add(counts)
            if loud:
                sys.stdout.write(f"{what}: {counts.line()} in {time.monotonic() - began:.1f} s\n")
                sys.stdout.flush()
        return mine

    with ThreadPoolExecutor(len(kinds)) as threads:
        for counts in threads.map(all_of, kinds, [random.getrandbits(32) for _ in kinds]):
            total.add(counts)
    return total


def _plan(site: Site, kind: str, kills: int, rounds: int) -> list[Injection]:
    """Every fault of one kind of storage."""
    plan: list[Injection] = [
        (f"one of four workers killed, {kind}", partial(faults.one_of_four, site, kind, rounds)),
        (f"two starts at once, {kind}", partial(faults.two_starts, site, kind, rounds)),
        (f"Ctrl-C, {kind}", partial(faults.interrupts, site, kind, rounds)),
        (f"clock jumps, {kind}", partial(faults.clocks, site, kind, rounds)),
        (f"storage gone and back, {kind}", partial(faults.gone_and_back, site, kind, rounds)),
        (f"disk full, {kind}", partial(faults.full_disk, site, kind, rounds)),
        (f"read-only output, {kind}", partial(faults.read_only, site, kind, rounds)),
    ]
    if kind == "journal.log":
        plan.append(("damaged journal", partial(faults.damage, site, 3 * rounds)))
    plan.append((f"kill -9 of the tuner, {kind}", partial(faults.kills, site, kind, kills)))
    return plan
