"""The faults, one function each: inject, go on, count."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from tests.postgresql import Server
from tests.torture.harness import Counts, How, Place, Run

Reference = tuple[Mapping[str, Any], float]
FILES = ("journal.log", "runs.db")
KINDS = (*FILES, "postgresql")


class Site:
    """Makes places: a fresh storage of a kind each."""

    def __init__(self, folder: Path, server: Server | None, random: Random, reference: Reference) -> None:
        """Where, with which server, and what a run must answer."""
        self.folder, self.server, self.random = folder, server, random
        self.reference, self.run_s = reference
        self._made = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of storage that can be had here."""
        return KINDS if self.server is not None else FILES

    def place(self, kind: str, folder: Path | None = None) -> Place:
        """A fresh one."""
        self._made += 1
        where = (folder or self.folder) / f"{self._made}-{kind}"
        if kind != "postgresql":
            return Place(where, str(where / kind))
        if self.server is None:
            raise ValueError("no server")
        self.server.empty()
        return Place(where, self.server.url)

    def finish(self, place: Place, counts: Counts, what: str, *, command: str = "tune") -> None:
        """Run once more undisturbed, which must succeed, and check everything."""
        run = place.start(command)
        code = run.wait()
        if code:
            counts.wrong.append(f"{what}: exit {code} on resuming: {run.stderr[-500:]}")
            return
        counts.resumed += 1
        place.check(counts, json.loads(run.stdout), self.reference, what)
        shutil.rmtree(place.folder, ignore_errors=True)


def _stopped(run: Run, counts: Counts, what: str, codes: tuple[int, ...]) -> None:
    """A run that a fault met ends with one of these codes, a word, and never a traceback."""
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


def kills(site: Site, kind: str, number: int) -> Counts:
    """kill -9 of the tuner at random points of its run; after each, a run that may be killed again, and at last not."""
    counts = Counts()
    while counts.faults < number:
        place = site.place(kind)
        known: set[str] = set()
        for _ in range(min(8, number - counts.faults)):
            run = place.start()
            time.sleep(site.random.uniform(0.0, 1.0) * site.run_s)
            if run.signal(signal.SIGKILL):
                counts.faults += 1
                counts.resumed += 1  # by the run that follows, whose end is checked
            run.wait()
            counts.half_written += place.half_written()
            with contextlib.suppress(FileNotFoundError):
                now = set(place.keys())
                counts.lost += len(known - now)
                known = now
        site.finish(place, counts, f"kill -9 on {kind}")
        counts.resumed -= 1  # `finish` counted the last one again
    return counts


def one_of_four(site: Site, kind: str, rounds: int) -> Counts:
    """Four workers, of which one is killed; the other three do its work, and nobody does any twice."""
    counts = Counts()
    for _ in range(rounds):
        place = site.place(kind)
        workers = [place.start("worker", How(slow_s=0.02)) for _ in range(4)]
        time.sleep(site.random.uniform(0.3, 1.0) * site.run_s)
        counts.faults += site.random.choice(workers).signal(signal.SIGKILL)
        for worker in workers:
            _stopped(worker, counts, f"one of four on {kind}", (0, -9))
        site.finish(place, counts, f"one of four on {kind}")
    return counts


def two_starts(site: Site, kind: str, rounds: int) -> Counts:
    """The same command twice at once: both answer, each plan scored by one of them."""
    counts = Counts()
    for _ in range(rounds):
        place = site.place(kind)
        runs = [place.start(), place.start()]
        counts.faults += 1
        for run in runs:
            _stopped(run, counts, f"two starts on {kind}", (0,))
        documents = [json.loads(run.stdout) for run in runs]
        counts.duplicated += max(sum(d["scored_now"] for d in documents) - documents[0]["counts"]["valid"], 0)
        for document in documents:
            place.check(counts, document, site.reference, f"two starts on {kind}")
        counts.resumed += 1
    return counts


def interrupts(site: Site, kind: str, rounds: int) -> Counts:
    """Ctrl-C: a word, exit code 130, and the next run goes on."""
    counts = Counts()
    for _ in range(rounds):
        place = site.place(kind)
        run = place.start(how=How(slow_s=0.01))
        time.sleep(site.random.uniform(0.2, 1.2) * site.run_s)
        met = run.signal(signal.SIGINT)
        counts.faults += met
        # what came before the command looked, or after it had answered, is an ordinary end
        _stopped(run, counts, f"Ctrl-C on {kind}", (130, 0) if met else (0,))
        if run.wait() == 130 and "interrupted" not in run.stderr:
            counts.wrong.append(f"Ctrl-C on {kind}: no word of it")
        site.finish(place, counts, f"Ctrl-C on {kind}")
        counts.resumed -= not met
    return counts


def full_disk(site: Site, kind: str, rounds: int) -> Counts:
    """No room: on a small tmpfs where one can be mounted, else by a limit on the size of files."""
    counts = Counts()
    for _ in range(rounds):
        with _small_disk(site.folder / "small", site.random.randint(24, 220) * 1024) as disk:
            place = site.place(kind, disk)
            how = How() if disk else How(file_bytes=site.random.randint(4, 180) * 1024)
            run = place.start(how=how)
            counts.faults += 1
            _stopped(run, counts, f"full disk on {kind}", (0, 2))
            counts.half_written += place.half_written()
            if disk:
                _resize(disk, 64 << 20)
            site.finish(place, counts, f"full disk on {kind}")
    return counts


def read_only(site: Site, kind: str, rounds: int) -> Counts:
    """A folder that may be read and not written: one message, and all goes well once it may be written."""
    counts = Counts()
    for _ in range(rounds):
        with _small_disk(site.folder / "small", 64 << 20) as disk:
            if disk is None and os.geteuid() == 0:
                sys.stdout.write("SKIPPED: read-only folder: root writes everywhere, and no tmpfs can be mounted\n")
                return counts
            place = site.place(kind, disk)
            place.out.mkdir()
            place.log.touch()
            started = place.start(how=How(slow_s=0.02))
            time.sleep(site.random.uniform(0.0, 0.5) * site.run_s)
            if disk is None:
                place.folder.chmod(0o555)
                place.out.chmod(0o555)
            else:
                _freeze(disk, frozen=True)
            counts.faults += 1
            _stopped(started, counts, f"read-only folder of {kind}", (0, 2))
            if disk is None:
                place.folder.chmod(0o755)
                place.out.chmod(0o755)
            else:
                _freeze(disk, frozen=False)
            site.finish(place, counts, f"read-only folder of {kind}")
    return counts


def gone_and_back(site: Site, kind: str, rounds: int) -> Counts:
    """The storage goes away under a run: a server that comes back is waited for, a file is an error until then.

    A run that has not reached the server before it goes is told so at once, which is an error as well.
    """
    counts = Counts()
    for _ in range(rounds):
        place = site.place(kind)
        run = place.start(how=How(slow_s=0.05))
        time.sleep(site.random.uniform(0.3, 1.0) * site.run_s)
        counts.faults += 1
        if kind == "postgresql" and site.server is not None:
            site.server.stop(signal.SIGQUIT)
            time.sleep(0.5)
            site.server.start()
            _stopped(run, counts, f"{kind} gone and back", (0, 2))
        else:
            file, aside = Path(place.location), Path(f"{place.location}.aside")
            with contextlib.suppress(FileNotFoundError):
                file.rename(aside)
            _stopped(run, counts, f"{kind} gone and back", (0, 2))
            if aside.exists():
                for made_meanwhile in place.folder.glob(f"{kind}*"):
                    if made_meanwhile != aside:
                        made_meanwhile.unlink()
                aside.rename(file)
                place.log.unlink(missing_ok=True)  # what was stored in between went with the file that stood in
        site.finish(place, counts, f"{kind} gone and back")
    return counts


def damage(site: Site, rounds: int) -> Counts:
    """A journal that is cut off anywhere goes on; one with rubbish inside is refused until it is moved away."""
    counts = Counts()
    for turn in range(rounds):
        place = site.place("journal.log")
        place.start().wait()
        file = Path(place.location)
        whole = file.read_bytes()
        at = site.random.randrange(1, len(whole) - 64)
        if turn % 3 == 0:
            file.write_bytes(whole[:at])
        else:
            rubbish = bytes(64) if turn % 3 == 1 else site.random.randbytes(64)
            file.write_bytes(whole[:at] + rubbish + whole[at + 64 :])
        place.log.unlink()  # what the journal has forgotten is scored again
        counts.faults += 1
        run = place.start()
        _stopped(run, counts, "damaged journal", (0, 2))
        if run.wait() == 2:
            file.rename(f"{file}.damaged")  # as the message says
            place.log.unlink(missing_ok=True)
        site.finish(place, counts, "damaged journal")
    return counts


def clocks(site: Site, kind: str, rounds: int) -> Counts:
    """Workers whose clocks jump by hours and days: nobody is taken for dead, nothing is done twice."""
    counts = Counts()
    for _ in range(rounds):
        place = site.place(kind)
        jumps = [site.random.choice((3_600.0, 86_400.0, 3e8)) for _ in range(3)]
        runs = [place.start("worker", How(clock_s=jump, slow_s=0.02)) for jump in jumps]
        counts.faults += 1
        for run in runs:
            _stopped(run, counts, f"clock jumps on {kind}", (0,))
        site.finish(place, counts, f"clock jumps on {kind}")
    return counts


@contextlib.contextmanager
def _small_disk(folder: Path, size_bytes: int) -> Iterator[Path | None]:
    """A tmpfs of that size, or None where none can be mounted."""
    folder.mkdir(exist_ok=True)
    if not _mount(folder, size_bytes, 0):
        yield None
        return
    try:
        yield folder
    finally:
        _libc().umount2(os.fsencode(folder), 2)  # MNT_DETACH


def _freeze(folder: Path, *, frozen: bool) -> None:
    """Make a file system read-only, which waits for nobody who writes: a few tries where somebody does."""
    for _ in range(2_000):
        if _mount(folder, 64 << 20, 32 | int(frozen)):  # MS_REMOUNT, MS_RDONLY
            return
        time.sleep(0.001)
    raise OSError(f"{folder} cannot be remounted")


def _resize(folder: Path, size_bytes: int) -> None:
    if not _mount(folder, size_bytes, 32):  # MS_REMOUNT
        raise OSError(f"{folder} cannot be resized")


def _mount(folder: Path, size_bytes: int, flags: int) -> bool:
    options = f"size={size_bytes}".encode()
    return not _libc().mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
