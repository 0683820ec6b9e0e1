"""What a storage holds: `autotune study list | show | export | delete`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from autotune.cli.options import SHOWN, NewFile

if TYPE_CHECKING:
    from autotune.report.text_blocks import Report
    from autotune.storage.browse import Studies, StudyView, TrialView

STORAGE = click.option(
    "--storage",
    help="Journal file, folder or database URL, as for `autotune tune`. Default: your data folder.",
)
NAME = click.argument("name")


@click.group()
def study() -> None:
    """List, show, export and delete the studies of a storage.

    They are plain Optuna studies: optuna-dashboard and optuna.visualization read them as well.

    \b
    autotune study list
    autotune study show reference-128-1a2b3c4d5e6f --storage out/journal.log
    autotune study export NAME --format csv --out trials.csv
    """


@study.command("list")
@STORAGE
@SHOWN
def list_studies(storage: str | None, as_json: bool) -> None:
    """List the studies: trials, feasible ones, the best plan of each, and what scored it."""
    from autotune.cli.output import show

    studies = _studies(storage)
    found = [_summary(studies.study(name)) for name in studies.names()]
    show({"storage": studies.location, "studies": found}, _list_report, as_json=as_json)


@study.command("show")
@NAME
@STORAGE
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="Trials to show, best first.")
@SHOWN
def show_study(name: str, storage: str | None, top: int, as_json: bool) -> None:
    """Show one study: its best feasible trials, and how many plans break each constraint."""
    from autotune.cli.output import show
    from autotune.storage.record import finite

    studies = _studies(storage)
    found = studies.study(name)
    broken = Counter(c for t in found.trials if not t.damaged for c, excess in t.constraints.items() if excess > 0.0)
    document = {
        **_summary(found),
        "count": len(found.trials),
        "storage": studies.location,
        "attributes": found.attributes,
        "broken": dict(broken.most_common()),
        "trials": [_trial(t) for t in found.ranked[:top]],
    }
    show(finite(document), _show_report, as_json=as_json)


@study.command()
@NAME
@STORAGE
@click.option("--format", "form", default="csv", show_default=True, type=click.Choice(["csv", "json"]))
@click.option("--out", type=NewFile(), help="File to write; default: stdout.")
def export(name: str, storage: str | None, form: str, out: str | None) -> None:
    """Write every trial of a study: parameters, values, excess of each constraint, attributes."""
    from pathlib import Path

    from autotune.files import write_file
    from autotune.report.files import table_csv, to_json
    from autotune.storage.record import finite

    trials = _studies(storage).study(name).trials
    text = (
        to_json(finite({"study": name, "trials": [_trial(t) for t in trials]}))
        if form == "json"
        else table_csv([_row(t) for t in trials])
    )
    if out is None:
        click.echo(text, nl=False)
    else:
        write_file(Path(out), text)
        click.echo(f"{len(trials):,} trials in {out}", err=True)


@study.command()
@NAME
@STORAGE
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, storage: str | None, yes: bool) -> None:
    """Delete one study with all its trials. Asks first."""
    studies = _studies(storage)
    trials = len(studies.study(name).trials)
    if not yes:
        click.confirm(f"Delete {name} with its {trials:,} trials from {studies.location}?", abort=True)
    studies.delete(name)
    click.echo(f"deleted {name}, {trials:,} trials", err=True)


def _studies(storage: str | None) -> Studies:
    from autotune.storage import default_location
    from autotune.storage.browse import Studies

    return Studies(str(default_location()) if storage is None else storage)


def _summary(found: StudyView) -> dict[str, Any]:
    from autotune.study.fingerprint import model_age

    ours = any(t.ours for t in found.trials)
    best = next(iter(found.ranked), None)
    started = min((t.started for t in found.trials if t.started is not None), default=None)
    return {
        "name": found.name,
        "directions": list(found.directions),
        "metrics": list(found.metrics),
        "trials": len(found.trials),
        "feasible": sum(t.feasible for t in found.trials),
        "damaged": sum(t.damaged for t in found.trials),
        "best_value": None if best is None else best.values[0],
        "best_plan": None if best is None else best.plan or None,
        "started": None if started is None else started.isoformat(timespec="seconds"),
        "ours": ours,
        "earlier_model": model_age(found.model) if ours else None,
        "overrides": list(found.overrides),
    }


def _trial(trial: TrialView) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "values": trial.values,
        "params": trial.params,
        "constraints": trial.constraints,
        "attributes": trial.attributes,
        **({"damaged": True} if trial.damaged else {}),
    }


def _row(trial: TrialView) -> dict[str, Any]:
    flat = {**trial.attributes, **trial.attributes.get("metrics", {})} if trial.ours else trial.attributes
    plain = {k: v for k, v in flat.items() if isinstance(v, (str, int, float, bool))}
    return {
        "number": trial.number,
        "state": trial.state,
        **{f"value_{i}": v for i, v in enumerate(trial.values)},
        **{f"params_{k}": v for k, v in trial.params.items()},
        **{f"constraint_{k}": v for k, v in trial.constraints.items()},
        **{f"user_attrs_{k}": v for k, v in plain.items()},
        **({"damaged": True} if trial.damaged else {}),
    }


def _list_report(document: dict[str, Any]) -> Report:
    from autotune.report.text_blocks import Block, Line, Report, text_table
    from autotune.report.vocabulary.plan_names import name_of_key
    from autotune.report.vocabulary.words import count

    rows, notes = [], []
    for s in document["studies"]:
        best = "–" if s["best_value"] is None else f"{s['best_value']:,.4g}"
        when = "–" if s["started"] is None else s["started"][:16].replace("T", " ")
        settings = " ".join(s["overrides"]) or "–"
        plan = "–" if s["best_plan"] is None else name_of_key(s["best_plan"])
        rows.append((s["name"], f"{s['trials']:,}", f"{s['feasible']:,}", best, plan, when, settings))
        if s["earlier_model"]:
            notes.append(
                Line(text=f"{s['name']} is of {s['earlier_model']}: `tune` scores its plans anew", tone="open")
            )
        if s["damaged"]:
            notes.append(Line(text=f"{s['name']} has {s['damaged']:,} damaged trials, which do not count", tone="bad"))
    titles = ("study", "trials", "feasible", "best", "plan", "first stored", "--set")
    table = text_table(titles, rows, texts=(0, 4, 5, 6))
    return Report(
        headline=f"{count(len(rows), 'study', 'studies')} in {document['storage']}",
        blocks=(Block(title="Studies", table=table, lines=tuple(notes)),),
    )


def _show_report(document: dict[str, Any]) -> Report:
    from autotune.report.text_blocks import Block, Report, text_table
    from autotune.report.vocabulary.plan_names import name_of_key

    d = document
    rows = [
        (str(t["number"]), f"{t['values'][0]:,.5g}", name_of_key(plan) if plan else "–", _settings(t["params"]))
        for t, plan in ((t, t["attributes"].get("plan")) for t in d["trials"])
    ]
    metric = d["metrics"][0] if d["metrics"] else "the first objective"
    lines = [f"{d['directions'][0]} {metric}"]
    lines += [f"set: {' '.join(d['overrides'])}"] if d["overrides"] else []
    lines += [f"of {d['earlier_model']}"] if d["earlier_model"] else []
    broken = tuple(f"{code}: broken by {count:,}" for code, count in d["broken"].items())
    return Report(
        headline=f"{d['name']}: {d['count']:,} trials, {d['feasible']:,} feasible",
        lines=tuple(lines),
        blocks=(
            Block(
                title="Best trials",
                table=text_table(("trial", "value", "plan", "parameters"), rows, texts=(2, 3)),
                lines=() if rows else ("no trial keeps every constraint",),
            ),
            Block(title="Limits", lines=broken or ("no trial breaks one",)),
        ),
    )


def _settings(params: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items())
