"""The faults, one function each: inject, go on, count.

A fault counts only where it met a run: one that came after the run had ended is tried again, and where too few can
be injected, that is an error of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from tests.postgresql import Server
from tests.torture import disks
from tests.torture.harness import Counts, How, Place, Run, undisturbed

FILES = ("journal.log", "runs.db")
POSTGRESQL = "postgresql"
KINDS = (*FILES, POSTGRESQL)
TRIES = 10
"""Attempts for every fault that has to be injected."""
MOMENTS = 5
"""Batches, of the study's seven, before the last of which a fault comes."""
CHAIN = 8
"""Kills of one study in a row before a run is let finish."""


class Site:
    """Makes places: a fresh storage of a kind each. One thread at a time uses a site."""

    def __init__(
        self, folder: Path, server: Server | None, random: Random, answer: Mapping[str, Any], deadline_s: float
    ) -> None:
        """Where, with which server, what a run must answer, and the monotonic time after which nothing is begun."""
        self.folder, self.server, self.random = folder, server, random
        self.answer, self.deadline_s = answer, deadline_s
        self._made = 0
        self._run: dict[str, tuple[float, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def place(self, kind: str, folder: Path | None = None) -> Place:
        """A fresh one."""
        self._made += 1
        name = f"{self._made}-{kind}"
        where, notes = (folder or self.folder) / name, self.folder / f"{name}.notes"
        if kind != POSTGRESQL:
            return Place(where, str(where / kind), notes)
        if self.server is None:
            raise ValueError("no server")
        self.server.empty()
        return Place(where, self.server.url, notes)

    def run(self, kind: str, *, again: bool = False) -> tuple[float, int]:
        """Seconds of an undisturbed run on this kind of storage, as busy as the machine is, and bytes it writes."""
        if again or kind not in self._run:
            place = self.place(kind)
            _, took_s = undisturbed(place)
            self._run[kind] = took_s, place.written_bytes()
            place.remove()
        return self._run[kind]

    def at_work(self, place: Place, *runs: Run) -> int:
        """Let runs work until a random moment of theirs, or their end; the batches that they have scored by then."""
        batches = self.random.randint(0, MOMENTS)
        while not all(run.begun or not run.alive for run in runs):
            time.sleep(0.002)
        while place.batches() < batches and any(run.alive for run in runs):
            time.sleep(0.002)
        time.sleep(self.random.uniform(0.0, 0.02))
        return place.batches()

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.deadline_s

    def finish(self, place: Place, counts: Counts, what: str, *, keep: bool = False) -> bool:
        """Run once more undisturbed, which must succeed, and check everything; whether it did succeed."""
        run = place.start()
        code = run.wait()
        if code:
            counts.wrong.append(f"{what}: exit {code} on resuming: {run.stderr[-500:]}")
            return False
        place.check(counts, json.loads(run.stdout), self.answer, what)
        if not keep:
            place.remove()
        return True

    def repeat(self, what: str, rounds: int, attempt: Callable[[Counts, str], tuple[bool, bool]]) -> Counts:
        """Try until `rounds` faults have met a run.

        Args:
            what: the fault, for people.
            rounds: faults to inject.
            attempt: returns whether the fault met a run, and whether all went on afterwards.
        """
        counts = Counts()
        for _ in range(rounds * TRIES):
            if counts.faults == rounds or self.late:
                break
            met, went_on = attempt(counts, what)
            counts.faults += met
            counts.resumed += met and went_on
        if counts.faults < rounds:
            counts.wrong.append(f"{what}: {counts.faults} of {rounds} injected{' in the time' if self.late else ''}")
        return counts


def ended(run: Run, counts: Counts, what: str, codes: tuple[int, ...]) -> int:
    """A run that a fault met ends with one of these codes, a word, and never a traceback; the code."""
    code = run.wait()
    said = run.stderr
    if code:
        run.gave_up()
    if code not in codes:
        counts.wrong.append(f"{what}: exit {code}, not {codes}: {said[-500:]}")
    if "Traceback" in said:
        counts.wrong.append(f"{what}: traceback: {said[-800:]}")
    if code == 2 and not said.startswith("error: "):
        counts.wrong.append(f"{what}: no message: {said[-300:]!r}")
    return code


def kills(site: Site, kind: str, number: int) -> Counts:
    """kill -9 of the tuner at random points of its run; after each, a run that may be killed again, and at last not."""
    counts, what = Counts(), f"kill -9 on {kind}"
    chains = late = 0
    while counts.faults < number and not site.late:
        # others may have come to use the machine, or gone: then kills come after the end of a run
        site.run(kind, again=chains % 5 == 0 or late > CHAIN // 4)
        chains += 1
        place = site.place(kind)
        known: set[str] = set()
        met = late = 0
        for _ in range(CHAIN):
            if counts.faults + met == number or site.late:
                break
            run = place.start()
            time.sleep(site.random.uniform(0.0, 1.0) * site.run(kind)[0])
            run.signal(signal.SIGKILL)
            killed = ended(run, counts, what, (0, -signal.SIGKILL)) == -signal.SIGKILL
            met, late = met + killed, late + (not killed)
            counts.half_written += place.half_written()
            now = place.stored()
            counts.lost += len(known - now)
            known = now
        went_on = site.finish(place, counts, what)
        counts.faults += met
        counts.resumed += met * went_on  # each by the run that followed
    if counts.faults < number:
        counts.wrong.append(f"{what}: {counts.faults} of {number} injected in the time")
    return counts


def shards(site: Site, kind: str, rounds: int) -> Counts:
    """Three shares at once, of which one is killed and done again: no plan is scored twice, and `tune` has them all."""

    def attempt(counts: Counts, what: str) -> tuple[bool, bool]:
        place = site.place(kind)
        runs = {number: place.start(How(slow_s=0.02), shard=f"{number}/3") for number in (1, 2, 3)}
        site.at_work(place, *runs.values())
        victim = site.random.choice(list(runs))
        runs[victim].signal(signal.SIGKILL)
        met = ended(runs[victim], counts, what, (0, -signal.SIGKILL)) == -signal.SIGKILL
        for number in set(runs) - {victim}:
            ended(runs[number], counts, what, (0,))
        ended(place.start(shard=f"{victim}/3"), counts, what, (0,))
        before = place.batches()
        went_on = site.finish(place, counts, what, keep=True)
        counts.duplicated += place.batches() - before  # there was nothing left to score
        place.remove()
        return met, went_on

    return site.repeat(f"one of three shares on {kind}", rounds, attempt)


def two_starts(site: Site, kind: str, rounds: int) -> Counts:
    """The same command twice at once: both answer, and each plan is stored once, whoever scored it."""

    def attempt(counts: Counts, what: str) -> tuple[bool, bool]:
        place = site.place(kind)
        runs = [place.start(), place.start()]
        codes = [ended(run, counts, what, (0,)) for run in runs]
        if any(codes):
            return True, False
        place.log.unlink()  # both may have scored what neither had stored
        for run in runs:
            place.check(counts, json.loads(run.stdout), site.answer, what)
        place.remove()
        return True, True

    return site.repeat(f"two starts on {kind}", rounds, attempt)


def interrupts(site: Site, kind: str, rounds: int) -> Counts:
    """Ctrl-C: a word, exit code 130, and the next run goes on."""

    def attempt(counts: Counts, what: str) -> tuple[bool, bool]:
        place = site.place(kind)
        run = place.start(How(slow_s=0.01))
        before = site.at_work(place, run)
        run.signal(signal.SIGINT)
        # what came before the command looked, or after it had answered, is an ordinary end
        code = ended(run, counts, what, (130, 0))
        if code == 130 and "interrupted" not in run.stderr:
            counts.wrong.append(f"{what}: no word of it")
        if code == 0 and before and place.batches() > before + 1:
            counts.wrong.append(f"{what}: went on as if nothing had been")
        return code == 130, site.finish(place, counts, what)

    return site.repeat(f"Ctrl-C on {kind}", rounds, attempt)


def full_disk(site: Site, kind: str, rounds: int) -> Counts:
    """No room: on a small tmpfs where one can be mounted, else by a limit on the size of files."""

    def attempt(counts: Counts, what: str) -> tuple[bool, bool]:
        room_bytes = int(site.random.uniform(0.05, 0.9) * site.run(kind)[1])
        with disks.small(site.folder / "small", room_bytes) as disk:
            place = site.place(kind, disk)
            run = place.start(How() if disk else How(file_bytes=room_bytes // 2))
            met = ended(run, counts, what, (0, 2)) == 2
            counts.half_written += place.half_written()
            if disk:
                disks.resize(disk, 64 << 20)
            return met, site.finish(place, counts, what)

    return site.repeat(f"full disk, {kind}", rounds, attempt)


def read_only(site: Site, kind: str, rounds: int) -> Counts:
    """A folder that may be read and not written: one message, and all goes well once it may be written."""

    def attempt(counts: Counts, what: str) -> tuple[bool, bool]:
        with disks.small(site.folder / "small", 64 << 20) as disk:
            place = site.place(kind, disk)
            place.out.mkdir()
            place.log.touch()
            run = place.start(How(slow_s=0.02))
            site.at_work(place, run)
            folders = (place.folder, place.out)
            disks.freeze(disk, folders, frozen=True)
            met = ended(run, counts, what, (0, 2)) == 2
            disks.freeze(disk, folders, frozen=False)
            return met, site.finish(place, counts, what)

    if os.geteuid() == 0 and not disks.mountable(site.folder / "small"):
        sys.stdout.write("SKIPPED: read-only folder: root writes everywhere, and no tmpfs can be mounted\n")
        return Counts()
    return site.repeat(f"read-only folder, {kind}", rounds, attempt)


def gone_and_back(site: Site, kind: str, rounds: int) -> Counts:
    """The storage goes away under a run: a server that comes back is waited for, a file is an error until then.

    A run that has not reached the server before it goes is told so at once, which is an error as well.
    """

    def server(counts: Counts, what: str, place: Place, run: Run) -> bool:
        if site.server is None:
            raise ValueError("no server")
        met = run.alive
        site.server.stop(signal.SIGQUIT)
        time.sleep(0.5)
        site.server.start()
        ended(run, counts, what, (0, 2))
        return met and place is run.place

    def file(counts: Counts, what: str, place: Place, run: Run) -> bool:
        here, aside = Path(place.location), Path(f"{place.location}.aside")
        met = run.alive
        try:
            here.rename(aside)
        except FileNotFoundError:  # the run had not made it yet
            met = False
        ended(run, counts, what, (0, 2))
        if aside.exists():
            for made_meanwhile in place.folder.glob(f"{kind}*"):
                if made_meanwhile != aside:
                    made_meanwhile.unlink()
            aside.rename(here)
            place.log.unlink(missing_ok=True)  # what was stored in between went with the file that stood in
        return met

    def attempt(counts: Counts, what: str) -> tuple[bool, bool]:
        place = site.place(kind)
        run = place.start(How(slow_s=0.05))
        site.at_work(place, run)
        met = (server if kind == "postgresql" else file)(counts, what, place, run)
        return met, site.finish(place, counts, what)

    return site.repeat(f"{kind} gone and back", rounds, attempt)


def damage(site: Site, rounds: int) -> Counts:
    """A journal that is cut off anywhere goes on; one with rubbish inside is refused until it is moved away."""
    turn = 0

    def attempt(counts: Counts, what: str) -> tuple[bool, bool]:
        nonlocal turn
        place = site.place("journal.log")
        ended(place.start(), counts, what, (0,))
        file = Path(place.location)
        whole = file.read_bytes()
        at = site.random.randrange(1, len(whole) - 64)
        if turn % 3 == 0:
            file.write_bytes(whole[:at])
        else:
            rubbish = bytes(64) if turn % 3 == 1 else site.random.randbytes(64)
            file.write_bytes(whole[:at] + rubbish + whole[at + 64 :])
        turn += 1
        place.log.unlink()  # what the journal has forgotten is scored again
        if ended(place.start(), counts, what, (0, 2)) == 2:
            file.rename(f"{file}.damaged")  # as the message says
            place.log.unlink(missing_ok=True)
        return True, site.finish(place, counts, what)

    return site.repeat("damaged journal", rounds, attempt)
