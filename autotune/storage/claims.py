"""Who scores what: the claims that make a storage a queue for any number of workers.

A plan that no trial holds yet is waiting. A worker claims some of those, scores them and adds them as whole
trials; what it has claimed, and when it last gave a sign of life, stand in system attributes of the Optuna
study, which are read and written under the storage's lock. A worker whose sign of life is too old, or whose
process is gone from this machine, is dead, and its claims are free again: its work is redone, by one worker.

A plan is stored once whatever happens, because `Store.add` looks at the keys again; claims only keep two workers
from doing the same work.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

CLAIM_PREFIX = "autotune:claim:"
"""System attribute of a worker's claim; JSON content of `Claim`, None once it is given back."""
BEAT_PREFIX = "autotune:beat:"
"""System attribute of a worker's last sign of life: `Beat`."""
BEAT_EVERY_S = 3.0
"""Time between two signs of life."""
DEAD_AFTER_S = 30.0
"""Age of the last sign of life from which a worker is dead: ten were missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that scores, known well enough to tell whether it lives."""

    id: str
    host: str
    machine: str
    """Boot of the kernel and process namespace: where it is equal, process numbers mean the same."""
    pid: int
    started: str
    """When the process started, so that a number used again is not taken for the same process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Plans that one worker is scoring."""

    worker: Worker
    keys: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Content of the attribute."""
        return {**asdict(self.worker), "keys": list(self.keys)}

    @classmethod
    def from_json(cls, content: object) -> Claim | None:
        """The claim; None where it was given back or is not ours to read."""
        if not isinstance(content, Mapping):
            return None
        try:
            worker = Worker(
                id=str(content["id"]),
                host=str(content["host"]),
                machine=str(content["machine"]),
                pid=int(content["pid"]),
                started=str(content["started"]),
            )
            return cls(worker=worker, keys=tuple(map(str, content["keys"])))
        except (KeyError, TypeError, ValueError):
            return None


def new_worker() -> Worker:
    """This process."""
    pid = os.getpid()
    return Worker(
        id=uuid.uuid4().hex[:16], host=socket.gethostname(), machine=_machine(), pid=pid, started=started(pid)
    )


def started(pid: int) -> str:
    """When a process started ("" if unknown), in ticks since the kernel's boot."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def process_lives(pid: int, since: str) -> bool:
    """Whether the process that had this number and start still runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user: it lives
        return True
    fields = _stat(pid)
    if fields and fields[0] in "ZX":  # ended, and its parent has not looked yet
        return False
    return not since or started(pid) in ("", since)


def _stat(pid: int) -> list[str]:
    """Fields of Linux' /proc/PID/stat from the state on (proc(5): the third); none elsewhere."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def dead(worker: Worker, beat: object, now: Sequence[float], me: Worker) -> bool:
    """Whether a worker will never finish what it claimed.

    Args:
        worker: the one in question.
        beat: content of its `BEAT_PREFIX` attribute: the clocks of `Store` at its last sign of life.
        now: the same clocks now (see `machine_clocks`).
        me: the process that asks.
    """
    here = worker.machine == me.machine
    if here and not process_lives(worker.pid, worker.started):
        return True
    if not isinstance(beat, (list, tuple)) or len(beat) != len(now):
        return True
    # the last clock is the one all machines share; the first, where there are two, that of one boot of one kernel,
    # which no one can set
    same_boot = worker.machine.partition("/")[0] == me.machine.partition("/")[0]
    index = 0 if same_boot else len(now) - 1
    if not same_boot and len(now) > 1 and worker.host == me.host:
        return True  # this machine was started again since
    try:
        age_s = now[index] - float(beat[index])
    except (TypeError, ValueError):
        return True
    # a sign of life from the future: the shared clock was set back, by an unknown amount
    return age_s > DEAD_AFTER_S or age_s < -DEAD_AFTER_S


def machine_clocks() -> tuple[float, float]:
    """Seconds since the boot, which cannot be set, and seconds since 1970, which can: for storages of one machine."""
    return time.monotonic(), time.time()


def choose(wanted: Iterable[str], stored: Collection[str], claimed: Collection[str], most: int) -> tuple[str, ...]:
    """The first `most` of `wanted` that are neither stored nor claimed."""
    chosen: list[str] = []
    for key in wanted:
        if len(chosen) >= most:
            break
        if key not in stored and key not in claimed:
            chosen.append(key)
    return tuple(chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The claims of a study, read under the storage's lock."""

    claimed: frozenset[str]
    """Keys that other, live workers are scoring."""
    abandoned: tuple[str, ...]
    """Ids of workers that are dead and whose attributes can go."""
    hosts: frozenset[str]
    """Hosts of the live workers, this one's left out."""


def survey(attrs: Mapping[str, Any], now: Sequence[float], me: Worker) -> Survey:
    """Sort the claims among a study's system attributes into those of the living and those of the dead."""
    claimed: set[str] = set()
    abandoned: list[str] = []
    hosts: set[str] = set()
    for name, content in attrs.items():
        if not name.startswith(CLAIM_PREFIX) or content is None:
            continue
        owner = name.removeprefix(CLAIM_PREFIX)
        claim = Claim.from_json(content)
        if owner == me.id:
            continue
        if claim is None or dead(claim.worker, attrs.get(BEAT_PREFIX + owner), now, me):
            abandoned.append(owner)
            continue
        claimed.update(claim.keys)
        if claim.worker.host != me.host:
            hosts.add(claim.worker.host)
    return Survey(claimed=frozenset(claimed), abandoned=tuple(abandoned), hosts=frozenset(hosts))


@lru_cache(maxsize=1)
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = socket.gethostname()
    try:
        namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        namespace = ""
    return f"{boot}/{namespace}"
