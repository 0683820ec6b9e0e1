"""`python -m tests.year`: hourly runs of re-tuning over a year on a fake clock, counted: decisions, switches, time.

The hours of a month are played in a row, with what happens to the log, the state or the traffic in their middle.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from autotune.retuning.retune_once import Outcome, retune
from autotune.study import Study, study_from_document
from costmodel.errors import InputError

START_S, HOUR_S, MONTH_S, WINDOW_S = 1.704e9, 3600.0, 30.4 * 86400.0, 120.0
EVENTS = (
    "quiet",
    "step",
    "spike",
    "slow drift",
    "empty log",
    "late log",
    "doubled log",
    "clock back an hour",
    "torn ledger",
    "study changed",
    "log cut short",
    "alternating every two hours",
)
"""One for each month."""


def question(budget: int = 4096) -> Study:
    """An 8B model on eight GPUs, served by the plan that is right for it."""
    return study_from_document(
        {
            "name": "year",
            "engine": "vllm",
            "model": "llama-3.1-8b",
            "cluster": {"gpus": 8, "gpu": "l40s"},
            "workload": {"isl": 400, "osl": 150},
            "constraints": {"ttft_ms": 800, "tpot_ms": 50},
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
    refused: dict[str, int] = field(default_factory=dict)
    """Event -> hours in a row at its end that were refused."""
    kept_cpu_s: list[float] = field(default_factory=list)
    tuned_cpu_s: list[float] = field(default_factory=list)
    ledger_bytes: int = 0

    def text(self) -> str:
        """The figures, one a line."""
        kept, tuned = (np.array(x or [0.0]) for x in (self.kept_cpu_s, self.tuned_cpu_s))
        return "\n".join(
            (
                f"decisions: {self.decisions.total()} ({dict(self.decisions)}), rules: {dict(self.rules)}",
                f"switches: {len(self.switches)} {self.switches}",
                f"CPU seconds where it keeps without tuning: median {np.median(kept):.3f}, most {kept.max():.3f}",
                f"CPU seconds where it tunes: median {np.median(tuned):.2f}, most {tuned.max():.2f}",
                f"ledger: {self.ledger_bytes} bytes, {self.ledger_bytes / max(self.decisions.total(), 1):.0f} each",
                f"months that ended in refusals: {[e for e, hours in self.refused.items() if hours]}",
            )
        )


def rate_at(hour: int, event: str, after: bool, progress: float) -> tuple[float, int]:
    """Requests per second and mean prompt tokens of an hour: day and night, weekends, and the month's event."""
    day = 6.0 + 3.0 * np.sin(2.0 * np.pi * (hour % 24 - 9) / 24.0)
    rate, isl = float(day * (0.6 if hour // 24 % 7 > 4 else 1.0)), 400
    if event == "step" and after:
        rate *= 2.0
    if event == "spike" and 0.5 <= progress < 0.6:
        rate *= 3.0
    if event == "slow drift":
        isl = int(400 * (1.0 + progress))
    if event == "alternating every two hours" and hour // 2 % 2:
        rate, isl = 0.5, 8000
    return rate, isl


def write_log(path: Path, end_s: float, rate: float, isl: int, seed: int) -> None:
    """Requests of the window that ends then."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(rate * WINDOW_S)
    at = np.sort(end_s - WINDOW_S * rng.random(count))
    lengths = np.maximum(rng.lognormal(np.log((isl, 150)), 0.3, (count, 2)), 1.0).astype(int)
    lines = [f"{t:.3f},{a},{b}\n" for t, (a, b) in zip(at.tolist(), lengths.tolist(), strict=True)]
    path.write_text("arrived_at,isl,osl\n" + "".join(lines), encoding="utf-8")


def play(hours_a_month: int, folder: Path) -> Year:
    """A year of so many runs a month."""
    year, state, log = Year(), folder / "state", folder / "requests.csv"
    for month, event in enumerate(EVENTS):
        refused = 0
        for hour in range(hours_a_month):
            progress = hour / hours_a_month
            after, middle = progress >= 0.5, hour == hours_a_month // 2
            now_s = START_S + month * MONTH_S + hour * HOUR_S
            rate, isl = rate_at(hour, event, after, progress)
            write_log(log, now_s - (HOUR_S if event == "late log" and middle else 0.0), rate, isl, 1000 * month + hour)
            study = question(8192 if event == "study changed" and after else 4096)
            if middle:
                now_s = _trouble(event, log, state, now_s)
            outcome = _run(study, log, state, now_s, year)
            refused = refused + 1 if outcome is None or outcome.entry["decision"] == "refuse" else 0
            if outcome is not None and outcome.applied and outcome.entry["decision"] == "switch":
                year.switches.append((event, hour, outcome.current_plan))
        year.refused[event] = refused
    year.ledger_bytes = (state / "ledger.jsonl").stat().st_size
    return year


def _trouble(event: str, log: Path, state: Path, now_s: float) -> float:
    """What goes wrong in the middle of a month; the clock after it."""
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
    return now_s - HOUR_S if event == "clock back an hour" else now_s


def _run(study: Study, log: Path, state: Path, now_s: float, year: Year) -> Outcome | None:
    start = time.process_time()
    try:
        outcome = retune(study, str(log), state, window_s=WINDOW_S, now_s=now_s, clock_s=now_s, apply=True)
    except InputError as error:
        year.decisions["unread"] += 1
        year.rules[str(error)[:80]] += 1
        return None
    took = time.process_time() - start
    year.decisions[outcome.entry["decision"]] += 1
    year.rules[outcome.entry["rule"]] += 1
    (year.kept_cpu_s if outcome.entry["rule"] == "no_drift" else year.tuned_cpu_s).append(took)
    return outcome


def main() -> int:
    """0 where no month ended in refusals."""
    parser = argparse.ArgumentParser(prog="python -m tests.year")
    parser.add_argument("--hours", type=int, default=8, help="runs of each of the twelve months; a whole one: 730")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        year = play(given.hours, Path(folder))
    click.echo(year.text())
    return int(any(year.refused.values()))


if __name__ == "__main__":
    sys.exit(main())
