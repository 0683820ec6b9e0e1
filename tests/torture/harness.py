"""Commands run as forks of a warmed interpreter, so that hundreds can be killed in minutes; and what must hold after.

Every command logs what it scores and what it has stored, so that work done twice is seen wherever it is done.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from autotune.storage.browse import Studies

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "studies" / "deepseek-v3-128xh200.toml"
OVERRIDES = (
    "cluster.gpus=4",
    "model=gpt-oss-120b",
    "engine=sglang",
    "baseline.plan=tp4",
    "search.max_num_batched_tokens=[4096]",
    "workload.concurrency=320",
)
"""A study of few plans, so that a run takes a fraction of a second."""
POLL = threading.Lock()
"""Held wherever `multiprocessing` may ask for exit codes: `start` asks for those of all processes, a code can be read
from its pipe once, and of two threads that ask for the same one, the second reads nothing and calls it 255."""
BATCH = 3
"""Plans scored at a time, so that even a small study has many moments to be killed in."""


@dataclass(slots=True)
class Counts:
    """What was done and what came of it."""

    faults: int = 0
    resumed: int = 0
    lost: int = 0
    duplicated: int = 0
    half_written: int = 0
    wrong: list[str] = field(default_factory=list)
    """Anything else that must not be: a traceback, another answer, an exit code."""

    def add(self, other: Counts) -> None:
        """Sum up."""
        for name in ("faults", "resumed", "lost", "duplicated", "half_written", "wrong"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def line(self) -> str:
        """The last line of the output."""
        names = ("faults", "resumed", "lost", "duplicated", "half_written")
        return " ".join(f"{name}={getattr(self, name)}" for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What is different about one run."""

    file_bytes: int | None = None
    """No file may grow beyond this."""
    slow_s: float = 0.0
    """Sleep after every batch."""


class Place:
    """One storage with its output folder, and every run on it."""

    def __init__(self, folder: Path, location: str, notes: Path | None = None) -> None:
        """Make the folders; what the runs say and do is written down in `notes`, which no fault touches."""
        self.folder, self.location = folder, location
        self.notes = notes or folder / "notes"
        self.out = folder / "out"
        self.log = self.notes / "scored.log"
        self.killed: set[int] = set()
        self._runs = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.notes.mkdir(parents=True, exist_ok=True)

    def stored(self) -> set[str]:
        """Keys of the trials stored, read past the code that is tested where that can be; none before there are any."""
        if not self.location.endswith(".log"):
            query = "SELECT value_json FROM trial_user_attributes WHERE key = 'plan_key'"
            return {json.loads(text) for text in self._column(query)}
        return set(self.keys()) if Path(self.location).exists() else set()

    def _column(self, query: str) -> list[str]:
        if self.location.startswith("postgresql"):
            import psycopg

            with contextlib.suppress(psycopg.errors.UndefinedTable), psycopg.connect(self.location) as connection:
                return [text for (text,) in connection.execute(query)]
            return []
        if Path(self.location).exists():
            with (
                contextlib.suppress(sqlite3.OperationalError),
                contextlib.closing(sqlite3.connect(self.location, timeout=10.0)) as connection,
            ):
                return [text for (text,) in connection.execute(query)]
        return []

    def batches(self) -> int:
        """Batches that its runs have scored by now, each given once for every time."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else ()
        return -(-sum(line.startswith("scored") for line in lines) // BATCH)

    def written_bytes(self) -> int:
        """Size of the storage's and the results' files."""
        files = (p for p in self.folder.rglob("*") if p.is_file() and self.notes not in p.parents)
        return sum(p.stat().st_size for p in files)

    def remove(self) -> None:
        """Take it away."""
        for folder in (self.folder, self.notes):
            shutil.rmtree(folder, ignore_errors=True)

    def start(self, how: How | None = None, *, shard: str | None = None) -> Run:
        """Start `autotune tune` on the study, or on a share of it."""
        self._runs += 1
        options = [x for o in OVERRIDES for x in ("--set", o)]
        argv = ["tune", str(STUDY), *options, "--storage", self.location, "--json"]
        argv += ["--top", "0", "--out", str(self.out)] if shard is None else ["--shard", shard]
        files = {name: str(self.notes / f"{self._runs}.{name}") for name in ("stdout", "stderr", "begun")}
        for name in files.values():
            Path(name).touch()
            Path(name).chmod(0o666)
        process = CONTEXT.Process(target=_command, args=(argv, files, str(self.log), how or How()))
        with POLL:
            process.start()
        return Run(place=self, process=process, files=files)

    def keys(self) -> list[str]:
        """Keys of the trials stored."""
        studies = Studies(self.location)
        trials = [t for name in studies.names() for t in studies.study(name).trials]
        unfinished = [t.number for t in trials if t.state not in ("COMPLETE", "PRUNED") or t.damaged]
        if unfinished:
            raise AssertionError(f"unfinished or damaged trials {unfinished}")
        return [t.plan for t in trials]

    def repeated(self) -> int:
        """Plans scored again after they were stored, or by two runs of which none was killed."""
        scored: dict[str, list[int]] = {}
        stored: set[str] = set()
        again = 0
        for line in self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else ():
            what, pid, key = line.split(" ", 2)
            if what == "stored":
                stored.add(key)
                continue
            again += key in stored
            scored.setdefault(key, []).append(int(pid))
        return again + sum(len(set(pids) - self.killed) > 1 for pids in scored.values())

    def half_written(self) -> int:
        """Result files that are there and not whole."""
        wrong = 0
        result, plans = self.out / "result.json", self.out / "plans.csv"
        if result.exists():
            try:
                json.loads(result.read_text(encoding="utf-8"))
            except ValueError:
                wrong += 1
        if plans.exists():
            lines = plans.read_text(encoding="utf-8").splitlines()
            wrong += not lines or len({line.count(",") for line in lines}) != 1 or len(lines) != PLANS + 1
        return wrong

    def check(self, counts: Counts, document: Mapping[str, Any], reference: Mapping[str, Any], what: str) -> None:
        """After a run that finished: every plan there, once, and the answer that of an undisturbed run."""
        times = Counter(self.keys())
        counts.lost += PLANS - len(times)
        counts.duplicated += sum(times.values()) - len(times) + self.repeated()
        counts.half_written += self.half_written()
        if answer(document) != answer(reference):
            counts.wrong.append(f"{what}: another answer than without the fault")


PLANS = 0
"""Plans of the study; set by `reference`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One command under way."""

    place: Place
    process: BaseProcess
    files: Mapping[str, str]

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        with POLL:
            return self.process.is_alive()

    @property
    def begun(self) -> bool:
        """Whether the command itself runs: what comes before it is the harness's."""
        return bool(Path(self.files["begun"]).stat().st_size)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the command has ended; its exit code says whether it was met."""
        if self.process.pid is not None and self.alive:
            self.gave_up()
            with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal
                os.kill(self.process.pid, number)

    def gave_up(self) -> None:
        """What it scored and did not store may be scored again."""
        if self.process.pid is not None:
            self.place.killed.add(self.process.pid)

    def wait(self, timeout_s: float = 60.0) -> int:
        """Exit code; -9 where it was killed."""
        wait_for([self.process.sentinel], timeout_s)
        with POLL:
            code = self.process.exitcode
        if code is None:
            self.process.kill()
            raise TimeoutError(f"still running after {timeout_s} s: {self.stderr}")
        return code

    @property
    def stdout(self) -> str:
        """All of it."""
        return Path(self.files["stdout"]).read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """All of it."""
        return Path(self.files["stderr"]).read_text(encoding="utf-8")


def answer(document: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal in every answer to one question."""
    return {name: value for name, value in document.items() if name not in ("scored_now", "storage", "elapsed_s")}


def undisturbed(place: Place) -> tuple[dict[str, Any], float]:
    """The answer of one process that nothing happens to, and how long it takes."""
    start = time.monotonic()
    run = place.start()
    code = run.wait()
    if code:
        raise RuntimeError(f"exit {code}: {run.stderr}")
    return json.loads(run.stdout), time.monotonic() - start


def reference(folder: Path) -> dict[str, Any]:
    """What every run must answer."""
    global PLANS
    document, _ = undisturbed(Place(folder, str(folder / "journal.log")))
    PLANS = document["counts"]["valid"]
    return document


def _command(argv: list[str], files: Mapping[str, str], log: str, how: How) -> None:
    """In the fork: the command line with its doors watched."""
    for number, name in ((1, files["stdout"]), (2, files["stderr"])):
        handle = os.open(name, os.O_WRONLY | os.O_APPEND)
        os.dup2(handle, number)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    watch = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    _watch(watch, how)
    if how.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (how.file_bytes, how.file_bytes))
    from autotune.cli.main import main

    sys.argv = ["autotune", *argv]
    code: object = 0
    try:
        Path(files["begun"]).write_text("yes", encoding="utf-8")
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:  # what a user would see
        traceback.print_exc()
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code if isinstance(code, int) else 1)


def _watch(log: int, how: How) -> None:
    """Write down what is scored, and what is stored after that; slow down."""
    from autotune.storage import Store
    from autotune.tuning import batches
    from autotune.tuning.executor import Executor, score

    batches.BATCH_CANDIDATES = BATCH
    real_scored, real_add = Executor.scored, Store.add

    def tell(what: str, keys: list[str]) -> None:
        os.write(log, "".join(f"{what} {os.getpid()} {key}\n" for key in keys).encode())

    def watched(self: Any, study: Any, batches: Any, scorer: Any = score) -> Any:
        def scored(asked: Any, batch: Any) -> Any:
            results = scorer(asked, batch)
            tell("scored", [p.key for p in results])
            time.sleep(how.slow_s)
            return results

        return real_scored(self, study, batches, scored)

    def stored(self: Any, records: Any) -> int:
        added = real_add(self, records)
        tell("stored", [r.key for r in records])
        return added

    Executor.scored, Store.add = watched, stored  # type: ignore[method-assign]


def _context() -> Any:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "autotune.tuning.shard",
            "psycopg",
            "sqlalchemy.dialects.postgresql.psycopg",
            "tests.torture.warm",
        ]
    )
    return context


CONTEXT = _context()
