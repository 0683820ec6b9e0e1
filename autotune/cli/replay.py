"""`autotune retune replay`."""

from __future__ import annotations

import sys
from pathlib import Path

from autotune.cli.options import wants_json
from autotune.cli.retune import WIDTH, duration_s
from autotune.cli.tune import progress_bar
from autotune.files import write_file
from autotune.report.console import Terminal
from autotune.report.files import to_json
from autotune.report.replay import print_replay, replay_document, replay_markdown
from autotune.report.replay_plot import replay_svg
from autotune.retuning.replay import replay
from autotune.study import load_study
from autotune.traffic import read_traffic
from costmodel.errors import InputError

MIN_LOAD, MAX_LOAD = 0.01, 10.0


def run_replay(
    *,
    study: str,
    overrides: tuple[str, ...],
    traffic: tuple[str, ...],
    step: str,
    window: str,
    load: str,
    begin: str,
    plot: str | None,
    markdown: str | None,
    as_json: bool,
    as_table: bool,
) -> None:
    """Walk the traces and show what came of it."""
    step_s, window_s = duration_s(step, "--step"), duration_s(window, "--window")
    if window_s < step_s:
        raise InputError.single("--window", f"must be at least a step, {step_s:g} s, got {window_s:g} s")
    load_frac = _load_frac(load)
    loaded = load_study(Path(study), overrides)
    logs = [read_traffic(source) for source in traffic]
    quiet = wants_json(as_json, as_table)
    with progress_bar(quiet=quiet) as report:
        found = replay(
            loaded,
            logs,
            step_s=step_s,
            window_s=window_s,
            load_frac=load_frac,
            from_baseline=begin == "baseline",
            progress=report,
        )
    document = replay_document(found)
    if plot is not None:
        write_file(Path(plot), replay_svg(document))
    if markdown is not None:
        write_file(Path(markdown), replay_markdown(document))
    if quiet:
        sys.stdout.write(to_json(document))
    else:
        print_replay(Terminal(width=None if sys.stdout.isatty() else WIDTH), document)


def _load_frac(text: str) -> float | None:
    if text == "as-is":
        return None
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not MIN_LOAD <= share <= MAX_LOAD:
        raise InputError.single("--load", f"must be as-is, or a share from {MIN_LOAD:g} to {MAX_LOAD:g}, got {text!r}")
    return share
