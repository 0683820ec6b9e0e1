"""`autotune retune`, `retune accept` and `retune history`."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from autotune.cli.commands.retune import EXIT_BUSY, EXIT_REFUSED, EXIT_SWITCH, TIMEOUT
from autotune.cli.options import wants_json
from autotune.cli.tune import progress_bar
from autotune.report.console import Terminal
from autotune.report.files import to_json
from autotune.report.retuning import history_document, print_history, print_retune, retune_document
from autotune.retuning.ledger import read_ledger
from autotune.retuning.lock import BusyError
from autotune.retuning.metrics import write_metrics
from autotune.retuning.retune_once import Outcome, accept, retune
from autotune.study import load_study
from costmodel.errors import InputError

WIDTH = 156
UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def run_retune(
    *,
    study: str,
    overrides: tuple[str, ...],
    traffic: str,
    state: str,
    window: str,
    now: str | None,
    apply: bool,
    detailed_exitcode: bool,
    metrics: str | None,
    as_json: bool,
    as_table: bool,
    timeout: str = TIMEOUT,
) -> int:
    """Decide, show and say it in the exit code."""
    started = time.perf_counter()
    seconds, end = duration_s(window, "--window"), None if now is None else time_s(now, "--now")
    timeout_s = duration_s(timeout, "--timeout")
    loaded = load_study(Path(study), overrides)
    try:
        with progress_bar(quiet=wants_json(as_json, as_table)) as report:
            outcome = retune(
                loaded,
                traffic,
                Path(state),
                window_s=seconds,
                now_s=end,
                timeout_s=timeout_s,
                apply=apply,
                progress=report,
            )
    except BusyError as error:
        return _busy(error)
    if metrics is not None:
        write_metrics(Path(metrics), outcome, duration_s=time.perf_counter() - started)
    _show(outcome, as_json=wants_json(as_json, as_table))
    decision = outcome.entry["decision"]
    if decision == "refuse":
        return EXIT_REFUSED
    return EXIT_SWITCH if detailed_exitcode and decision == "switch" else 0


def run_accept(*, state: str, decision: str | None, now: str | None, as_json: bool, as_table: bool) -> int:
    """Put a recommended switch into production."""
    at = time.time() if now is None else time_s(now, "--now")
    try:
        outcome = accept(Path(state), decision, now_s=at)
    except BusyError as error:
        return _busy(error)
    _show(outcome, as_json=wants_json(as_json, as_table))
    return 0


def run_history(*, state: str, last: int, as_json: bool, as_table: bool) -> None:
    """Show the ledger."""
    folder = Path(state)
    if not folder.is_dir():
        raise InputError.single("--state", f"must be a folder that `autotune retune` made, got {state}")
    document = history_document(read_ledger(folder))
    if wants_json(as_json, as_table):
        click.echo(to_json({**document, "entries": document["entries"][-last:]}), nl=False)
    else:
        print_history(_console(), document, last=last)


def _show(outcome: Outcome, *, as_json: bool) -> None:
    document = retune_document(outcome)
    if as_json:
        click.echo(to_json(document), nl=False)
    else:
        print_retune(_console(), document)


def _console() -> Console:
    return Terminal(width=None if sys.stdout.isatty() else WIDTH)


def _busy(error: BusyError) -> int:
    click.echo(f"busy: {error}", err=True)
    return EXIT_BUSY


def duration_s(text: str, path: str) -> float:
    """`90m`, `24h`, `7d`, or seconds.

    Raises:
        InputError: it is none of them, or not more than zero.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?", text.strip())
    seconds = 0.0 if found is None else float(found[1]) * UNITS_S[found[2] or "s"]
    if not 0.0 < seconds <= 1e9:
        raise InputError.single(path, f"must be a time of more than 0 such as 90m, 24h or 7d, got {text!r}")
    return seconds


def time_s(text: str, path: str) -> float:
    """Unix seconds of an ISO 8601 time (UTC where it names no zone) or of a number.

    Raises:
        InputError: it is neither, or lies beyond the year 9999.
    """
    try:
        seconds = float(text)
    except ValueError:
        try:
            read = datetime.fromisoformat(text)
            seconds = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
        except ValueError as error:
            message = f"must be ISO 8601 such as 2026-11-24T03:00:00Z, or Unix seconds, got {text!r}"
            raise InputError.single(path, message) from error
    if not 0.0 <= seconds < 253402300800.0:
        raise InputError.single(path, f"must lie between 1970 and 9999, got {text!r}")
    return seconds
