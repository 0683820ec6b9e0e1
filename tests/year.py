"""`python -m tests.year`: hourly runs of re-tuning over a year on a fake clock, counted: decisions, switches, time.

At each of twenty events of the year some hours are played in a row, with what happens to the log, the state, the
traffic, the machine or the program in their middle.
"""

from __future__ import annotations

import argparse
import errno
import gc
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import click
import numpy as np

from autotune.cli.main import GARBAGE_LOOKED_FOR
from autotune.retuning.lock import BusyError
from autotune.retuning.retune_once import Outcome, retune
from autotune.study import Study, study_from_document
from costmodel.errors import InputError
from costmodel.version import MODEL_VERSION

START_S, HOUR_S, YEAR_S, WINDOW_S = 1.704e9, 3600.0, 365.25 * 86400.0, 120.0
LASTING = ("long prompts", "short prompts again")
"""What makes another plan right, and for good."""
EVENTS = (
    "quiet",
    "twice the load",
    "spike",
    "slow drift",
    "empty log",
    "late log",
    "doubled log",
    "log cut short",
    "clock back an hour",
    "torn ledger",
    *LASTING,
    "plan changed by hand",
    "read-only state",
    "full state",
    "two hosts at once",
    "end of summer time",
    "study changed",
    "other model version",
    "alternating every two hours",
)
"""What comes in the middle of a stretch, in the order of the year; the clocks change in late October."""
CLOCKS_CHANGE_S = 1729990800.0
"""2024-10-27 01:00 UTC, when 03:00 in Berlin became 02:00."""
BERLIN = ZoneInfo("Europe/Berlin")


def question(budget: int = 4096) -> Study:
    """An 8B model on eight H100, served by the plan that is right for it."""
    return study_from_document(
        {
            "name": "year",
            "engine": "vllm",
            "model": "llama-3.1-8b",
            "cluster": {"gpus": 8, "gpu": "h100"},
            "workload": {"isl": 400, "osl": 150},
            "constraints": {"ttft_ms": 500, "tpot_ms": 50},
            "search": {"max_num_batched_tokens": [budget]},
            "baseline": {"plan": "TP1"},
        },
        Path("year.toml"),
    )


@dataclass(slots=True)
class Year:
    """What happened."""

    decisions: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    switches: list[tuple[str, int, str]] = field(default_factory=list)
    """Event, hour of its stretch, and the new plan."""
    missed: list[str] = field(default_factory=list)
    """Events after whose last hour somebody who looks for the first time would switch."""
    refused: dict[str, int] = field(default_factory=dict)
    """Event -> hours in a row at its end that were refused."""
    kept_cpu_s: list[float] = field(default_factory=list)
    tuned_cpu_s: list[float] = field(default_factory=list)
    ledger_bytes: int = 0

    @property
    def false_switches(self) -> list[tuple[str, int, str]]:
        """Those for which there was no lasting reason, and those after the first of traffic that alternates."""
        first: set[str] = set()
        out = []
        for switch in self.switches:
            reasons = (*LASTING, "slow drift", "plan changed by hand", "alternating every two hours")
            if switch[0] not in reasons or switch[0] in first:
                out.append(switch)
            first.add(switch[0])
        return out

    def text(self) -> str:
        """The figures, one a line."""
        kept, tuned = (np.array(x or [0.0]) for x in (self.kept_cpu_s, self.tuned_cpu_s))
        decided = max(self.decisions.total(), 1)
        return "\n".join(
            (
                f"decisions: {self.decisions.total()} ({dict(self.decisions)}), rules: {dict(self.rules)}",
                f"switches: {len(self.switches)} {self.switches}",
                f"false switches: {len(self.false_switches)} ({len(self.false_switches) / decided:.1%} of decisions)",
                f"missed changes: {len(self.missed)} {self.missed}",
                f"CPU seconds where it keeps without tuning: median {np.median(kept):.3f}, most {kept.max():.3f}",
                f"CPU seconds where it tunes: median {np.median(tuned):.2f}, most {tuned.max():.2f}",
                f"ledger: {self.ledger_bytes} bytes, {self.ledger_bytes / decided:.0f} each",
                f"events that ended in refusals: {[e for e, hours in self.refused.items() if hours]}",
            )
        )


def start_s(event: str) -> float:
    """When the hours of an event begin: spread over the year, but for the night in which clocks change."""
    if event == "end of summer time":
        return CLOCKS_CHANGE_S - 2.0 * HOUR_S
    return START_S + EVENTS.index(event) / len(EVENTS) * YEAR_S


def rate_at(hour: int, event: str, progress: float) -> tuple[float, int]:
    """Requests per second and mean prompt tokens of an hour: day and night, weekends, and the event."""
    day = 6.0 + 3.0 * np.sin(2.0 * np.pi * (hour % 24 - 9) / 24.0)
    rate, isl = float(day * (0.6 if hour // 24 % 7 > 4 else 1.0)), 400
    if event == "twice the load" and progress >= 0.5:
        rate *= 2.0
    if event == "spike" and 0.5 <= progress < 0.6:
        rate *= 3.0
    if event == "slow drift":
        isl = int(400 * (1.0 + progress))
    if event == "long prompts" or (event == "alternating every two hours" and hour // 2 % 2):
        rate, isl = 0.4, 16000
    return rate, isl


def write_log(path: Path, end_s: float, traffic: tuple[float, int], seed: int, *, local: bool = False) -> None:
    """Requests of the window that ends then; `local`: their times as the clocks on the wall, with offset."""
    rng = np.random.default_rng(seed)
    rate, isl = traffic
    count = rng.poisson(rate * WINDOW_S)
    at = np.sort(end_s - WINDOW_S * rng.random(count))
    lengths = np.maximum(rng.lognormal(np.log((isl, 150)), 0.3, (count, 2)), 1.0).astype(int)
    times = [datetime.fromtimestamp(t, BERLIN).isoformat() if local else f"{t:.3f}" for t in at.tolist()]
    lines = [f"{t},{a},{b}\n" for t, (a, b) in zip(times, lengths.tolist(), strict=True)]
    path.write_text("arrived_at,isl,osl\n" + "".join(lines), encoding="utf-8")


def play(hours: int, folder: Path, events: Sequence[str] = EVENTS) -> Year:
    """A year of so many runs at each event."""
    year, state, log = Year(), folder / "state", folder / "requests.csv"
    for number, event in enumerate(events):
        refused = 0
        for hour in range(hours):
            middle, after = hour == hours // 2, hour >= hours / 2
            now_s = start_s(event) + hour * HOUR_S
            late_s = HOUR_S if event == "late log" and middle else 0.0
            traffic = rate_at(hour, event, hour / hours)
            write_log(log, now_s - late_s, traffic, 1000 * number + hour, local=event == "end of summer time")
            if middle:
                now_s = _trouble(event, log, state, now_s)
            study = question(8192 if event == "study changed" and after else 4096)
            with _fault(event if middle or (event == "other model version" and after) else ""):
                both = event == "two hosts at once" and middle
                outcome = (_two if both else _run)(study, log, state, now_s, year)
            refused = refused + 1 if outcome is None or outcome.entry["decision"] == "refuse" else 0
            if outcome is not None and outcome.applied and outcome.entry["decision"] == "switch":
                year.switches.append((event, hour, outcome.current_plan))
        year.refused[event] = refused
        look, alternates = folder / f"look{number}", event == "alternating every two hours"
        if outcome and not alternates and _would_switch(outcome.current_plan, study, log, look, now_s):
            year.missed.append(event)
    year.ledger_bytes = (state / "ledger.jsonl").stat().st_size
    return year


def _would_switch(plan: str, study: Study, log: Path, state: Path, now_s: float) -> bool:
    """Whether somebody who sees this window alone leaves the plan that runs."""
    running = replace(study, baseline=replace(study.baseline, plan=plan) if study.baseline else None)
    outcome = retune(running, str(log), state, window_s=WINDOW_S, now_s=now_s, clock_s=now_s)
    return bool(outcome.entry["decision"] == "switch")


def _trouble(event: str, log: Path, state: Path, now_s: float) -> float:
    """What goes wrong with files in the middle of a stretch; the clock after it."""
    content = log.read_text(encoding="utf-8")
    if event == "empty log":
        log.write_text("arrived_at,isl,osl\n", encoding="utf-8")
    if event == "doubled log":
        log.write_text(content + content.partition("\n")[2], encoding="utf-8")
    if event == "log cut short":
        log.write_text(content[: len(content) // 2], encoding="utf-8")
    if event == "torn ledger":
        with (state / "ledger.jsonl").open("ab") as file:
            file.write(b'{"schema": "autotune.')
    if event == "plan changed by hand":
        current = json.loads((state / "current.json").read_text(encoding="utf-8"))
        changed = {**current, "plan": "vllm:R8/PP1/ATP1/ADP1/MTP1/EP1"}
        (state / "current.json").write_text(json.dumps(changed), encoding="utf-8")
    return now_s - HOUR_S if event == "clock back an hour" else now_s


@contextmanager
def _fault(event: str) -> Iterator[None]:
    """What the system does meanwhile: nothing can be opened for writing, or written, or the model is another."""
    real_open = os.open

    def read_only(path: str, flags: int, *rest: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real_open(path, flags, *rest, **named)

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with ExitStack() as stack:
        if event == "read-only state":
            stack.enter_context(patch("autotune.files.os.open", read_only))
        if event == "full state":
            stack.enter_context(patch("autotune.files.os.write", side_effect=full))
        if event == "other model version":
            stack.enter_context(patch("autotune.study.fingerprint.MODEL_VERSION", MODEL_VERSION + 1))
        yield


def _two(study: Study, log: Path, state: Path, now_s: float, year: Year) -> Outcome | None:
    """The same run by two hosts: one decides, the other is told to wait or finds the decision."""
    lines = len((state / "ledger.jsonl").read_bytes().splitlines())

    def run() -> Outcome | None:
        try:
            return retune(study, str(log), state, window_s=WINDOW_S, now_s=now_s, clock_s=now_s, apply=True)
        except BusyError:
            return None

    with ThreadPoolExecutor(2) as hosts:
        found = [host.result() for host in [hosts.submit(run) for _ in range(2)]]
    done = [outcome for outcome in found if outcome is not None]
    made = len((state / "ledger.jsonl").read_bytes().splitlines()) - lines
    assert sum(not outcome.already_decided for outcome in done) == 1
    assert made == 1 + sum(outcome.entry["decision"] == "switch" for outcome in done[:1])
    _count(done[0], year)
    return done[0]


def _run(study: Study, log: Path, state: Path, now_s: float, year: Year) -> Outcome | None:
    start = time.process_time()
    try:
        outcome = retune(study, str(log), state, window_s=WINDOW_S, now_s=now_s, clock_s=now_s, apply=True)
    except InputError as error:
        year.decisions["unread"] += 1
        year.rules[str(error).rpartition(": ")[2][:80]] += 1
        return None
    took = time.process_time() - start
    (year.kept_cpu_s if outcome.entry["rule"] == "no_drift" else year.tuned_cpu_s).append(took)
    _count(outcome, year)
    return outcome


def _count(outcome: Outcome, year: Year) -> None:
    year.decisions[outcome.entry["decision"]] += 1
    year.rules[outcome.entry["rule"]] += 1


def main() -> int:
    """0 where no event ended in refusals, no change was missed, and at most 1 % of decisions were false switches."""
    parser = argparse.ArgumentParser(prog="python -m tests.year")
    parser.add_argument("--hours", type=int, default=8, help="runs at each event; a whole year: 438")
    given = parser.parse_args()
    gc.set_threshold(*GARBAGE_LOOKED_FOR)  # as the command has it
    with tempfile.TemporaryDirectory() as folder:
        year = play(given.hours, Path(folder))
    click.echo(year.text())
    many = len(year.false_switches) > 0.01 * year.decisions.total()
    return int(any(year.refused.values()) or bool(year.missed) or many)


if __name__ == "__main__":
    sys.exit(main())
