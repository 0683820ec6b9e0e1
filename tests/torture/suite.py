"""All faults in a row, with their figures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from random import Random

from tests.postgresql import Server
from tests.torture import faults
from tests.torture.faults import FILES, KINDS, POSTGRESQL, Site
from tests.torture.harness import Counts, reference

Injection = tuple[str, Callable[[], Counts]]


def run(
    folder: Path,
    servers: Sequence[Server],
    random: Random,
    *,
    kinds: Sequence[str] = KINDS,
    kills: int,
    rounds: int,
    limit_s: float = inf,
    brief: bool = False,
) -> Counts:
    """Inject every fault, the kinds of storage beside one another.

    Args:
        folder: where everything happens.
        servers: of PostgreSQL, which share the kills between them, as those take longest; empty: without.
        random: decides where and when.
        kinds: of storage; PostgreSQL needs a server.
        kills: kill -9 of the tuner, on each kind of storage.
        rounds: of every other fault on every kind of storage.
        limit_s: nothing new is begun after this; what was not injected by then is an error.
        brief: the short form: what differs between kinds of storage, and no lines of text.
    """
    start = time.monotonic()
    answer = reference(folder / "reference")
    total = Counts()

    def all_of(lane: Lane, seed: int) -> Counts:
        site = Site(folder / lane.name, lane.server, Random(seed), answer, start + limit_s)  # noqa: S311  # not for secrets
        mine = Counts()
        for what, inject in _plan(site, lane, rounds, brief=brief):
            began = time.monotonic()
            counts = inject()
            mine.add(counts)
            if not brief:
                sys.stdout.write(f"{what}: {counts.line()} in {time.monotonic() - began:.1f} s\n")
                sys.stdout.flush()
        return mine

    lanes = _lanes(kinds, servers, kills)
    with ThreadPoolExecutor(len(lanes)) as threads:
        for counts in threads.map(all_of, lanes, [random.getrandbits(32) for _ in lanes]):
            total.add(counts)
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Faults that come one after another, beside those of other lanes."""

    name: str
    kind: str
    server: Server | None = None
    kills: int
    only_kills: bool = False


def _lanes(kinds: Sequence[str], servers: Sequence[Server], kills: int) -> list[Lane]:
    lanes = [Lane(name=kind, kind=kind, kills=kills) for kind in kinds if kind in FILES]
    if POSTGRESQL in kinds:
        # the first, which has the other faults too, takes half as many
        most = 2 * len(servers) - 1
        ends = [kills * (2 * i + 1) // most for i in range(len(servers))]
        shares = [end - before for end, before in zip(ends, [0, *ends], strict=False)]
        lanes += [
            Lane(name=f"{POSTGRESQL}-{i}", kind=POSTGRESQL, server=server, kills=share, only_kills=i > 0)
            for i, (server, share) in enumerate(zip(servers, shares, strict=True))
        ]
    return lanes


def _plan(site: Site, lane: Lane, rounds: int, *, brief: bool) -> list[Injection]:
    """Every fault of one lane."""
    kind = lane.kind
    kills = (f"kill -9 of the tuner, {kind}", partial(faults.kills, site, kind, lane.kills))
    if lane.only_kills:
        return [kills]
    of_storages: list[Injection] = [
        (f"one of three shares killed, {kind}", partial(faults.shards, site, kind, rounds)),
        (f"two starts at once, {kind}", partial(faults.two_starts, site, kind, rounds)),
        (f"storage gone and back, {kind}", partial(faults.gone_and_back, site, kind, rounds)),
    ]
    ctrl_c = (f"Ctrl-C, {kind}", partial(faults.interrupts, site, kind, rounds))
    of_folders: list[Injection] = [
        (f"disk full, {kind}", partial(faults.full_disk, site, kind, rounds)),
        (f"read-only output, {kind}", partial(faults.read_only, site, kind, rounds)),
    ]
    if brief:
        return [*of_storages, *([ctrl_c] if kind == "journal.log" else []), kills]
    if kind == "journal.log":
        of_storages.append(("damaged journal", partial(faults.damage, site, 3 * rounds)))
    return [*of_storages, ctrl_c, *of_folders, kills]
