"""`autotune study`: what a storage holds."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

import click
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotune.cli.options import wants_json
from autotune.files import write_file
from autotune.report.document import finite
from autotune.report.files import table_csv, to_json
from autotune.report.terminal import Terminal
from autotune.storage import default_location
from autotune.storage.browse import Studies, Summary, best_trial, is_feasible
from autotune.storage.optuna_trials import named_constraints

WIDTH = 156


def _studies(storage: str | None) -> Studies:
    return Studies(str(default_location()) if storage is None else storage)


def _console() -> Console:
    return Terminal(width=None if sys.stdout.isatty() else WIDTH)


def _summary_document(summary: Summary) -> dict[str, Any]:
    started = None if summary.started is None else summary.started.isoformat(timespec="seconds")
    return {**asdict(summary), "directions": list(summary.directions), "started": started}


def run_list(*, storage: str | None, as_json: bool, as_table: bool) -> None:
    """The studies of a storage."""
    studies = _studies(storage)
    found = studies.summaries()
    if wants_json(as_json, as_table):
        click.echo(to_json({"storage": studies.location, "studies": [_summary_document(s) for s in found]}), nl=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("study", "trials", "feasible", "best", "plan", "first stored"):
        table.add_column(title, justify="right" if title in ("trials", "feasible", "best") else "left", no_wrap=True)
    for s in found:
        best = "-" if s.best_value is None else f"{s.best_value:,.4g}"
        when = "-" if s.started is None else s.started.isoformat(sep=" ", timespec="minutes")
        table.add_row(escape(s.name), f"{s.trials:,}", f"{s.feasible:,}", best, escape(s.best_plan or "-"), when)
    console = _console()
    console.print(table)
    console.print(f"{len(found)} studies in {escape(studies.location)}", highlight=False)


def run_show(*, name: str, storage: str | None, top: int, as_json: bool, as_table: bool) -> None:
    """One study, its best trials first."""
    studies = _studies(storage)
    summary, trials = studies.summary(name), studies.trials(name)
    broken = Counter(code for t in trials for code, excess in named_constraints(t).items() if excess > 0.0)
    sign = -1.0 if summary.directions[0] == "maximize" else 1.0
    feasible = sorted((t for t in trials if is_feasible(t) and t.values), key=lambda t: sign * t.values[0])[:top]
    if wants_json(as_json, as_table):
        document = {
            **_summary_document(summary),
            "storage": studies.location,
            "attributes": studies.attributes(name),
            "broken": dict(broken),
            "trials": [_trial_document(t) for t in feasible],
        }
        click.echo(to_json(finite(document)), nl=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("trial", "value", "plan", "parameters"):
        table.add_column(title, justify="right" if title in ("trial", "value") else "left")
    for t in feasible:
        params = " ".join(f"{k}={v}" for k, v in t.params.items())
        table.add_row(str(t.number), f"{t.values[0]:,.5g}", escape(str(t.user_attrs.get("plan", "-"))), escape(params))
    console = _console()
    console.print(table)
    said = f"{summary.trials:,} trials, {summary.feasible:,} feasible, {summary.directions[0]} the first objective"
    console.print(said, highlight=False)
    for code, count in broken.most_common():
        console.print(f"  {escape(code)}: broken by {count:,}", highlight=False)
    best = best_trial(trials, summary.directions)
    if best is None:
        console.print("No trial keeps every constraint.")


def _trial_document(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name,
        "values": trial.values,
        "params": trial.params,
        "constraints": named_constraints(trial),
        "attributes": trial.user_attrs,
    }


def run_export(*, name: str, storage: str | None, as_format: str, out: str | None) -> None:
    """Every trial of a study, as CSV or JSON."""
    studies = _studies(storage)
    trials = studies.trials(name)
    text = (
        to_json(finite({"study": name, "trials": [_trial_document(t) for t in trials]}))
        if as_format == "json"
        else table_csv([_row(t) for t in trials])
    )
    if out is None:
        click.echo(text, nl=False)
    else:
        from pathlib import Path

        write_file(Path(out), text)
        click.echo(f"{len(trials):,} trials in {out}", err=True)


def _row(trial: FrozenTrial) -> dict[str, Any]:
    plain = {k: v for k, v in trial.user_attrs.items() if isinstance(v, (str, int, float, bool))}
    return {
        "number": trial.number,
        "state": trial.state.name,
        **{f"value_{i}": v for i, v in enumerate(trial.values or ())},
        **{f"params_{k}": v for k, v in trial.params.items()},
        **{f"constraint_{k}": v for k, v in named_constraints(trial).items()},
        **{f"user_attrs_{k}": v for k, v in plain.items()},
    }


def run_delete(*, name: str, storage: str | None, yes: bool) -> None:
    """Remove one study from its storage."""
    studies = _studies(storage)
    summary = studies.summary(name)
    if not yes:
        click.confirm(f"Delete {summary.name} with its {summary.trials:,} trials from {studies.location}?", abort=True)
    studies.delete(name)
    click.echo(f"deleted {summary.name}, {summary.trials:,} trials", err=True)
