"""A benchmark against its prediction: as a document and on a terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.markup import escape
from rich.table import Table

from autotune.report.console import Terminal
from autotune.report.document import finite
from autotune.validation.verify import CheckedRun, Verification

WIDTH = 120
_UNITS = {
    "ttft_s": ("TTFT", 1e3, "ms"),
    "tpot_s": ("TPOT", 1e3, "ms"),
    "output_tokens_per_s": ("output", 1.0, "tokens/s"),
    "total_tokens_per_s": ("prompt and output", 1.0, "tokens/s"),
}


def verification_document(found: Verification, *, source: str, said: tuple[str, ...] = ()) -> dict[str, Any]:
    """The whole verification; SI units, intervals are p10 to p90."""
    return finite(
        {
            "result": source,
            "study": found.study.name,
            "plan": found.plan,
            "objective": found.study.objective.metric,
            "inside": found.inside,
            "runs": [_run(run) for run in found.runs],
            "ranking": {
                "changes": found.changes,
                "best_before": found.best_before,
                "best_after": found.best_after,
                "p_best_after_is_better": found.p_best_after_is_better,
                "told_apart": found.told_apart,
                "plans": [{"plan": p.plan, "before": p.before, "after": p.after} for p in found.places],
            },
            "assumptions": [*said, *found.assumptions],
        }
    )


def _run(run: CheckedRun) -> dict[str, Any]:
    measured = run.result.run
    return {
        "id": measured.id,
        "isl": measured.mean_isl,
        "osl": measured.mean_osl,
        "concurrency": measured.concurrency,
        "replicas_driven": run.result.replicas,
        "failed_requests": run.result.failed,
        "metrics": {
            q.name: {
                "predicted": q.predicted,
                "p10": q.p10,
                "p90": q.p90,
                "measured": q.measured,
                "measured_over_predicted": q.measured / q.predicted,
                "inside": q.inside,
            }
            for q in run.quantities
        },
    }


def print_verification(document: dict[str, Any]) -> None:
    """The same for people."""
    console = Terminal(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    console.print(f"[bold]{escape(document['plan'])}[/] of {escape(document['study'])}")
    for run in document["runs"]:
        console.print(
            f"{escape(run['id'])}: {run['concurrency']:,.0f} in flight, {run['isl']:,.0f} prompt and {run['osl']:,.0f} "
            "output tokens"
        )
        table = Table("", "predicted", "p10 to p90", "measured", "", "", box=None, pad_edge=False, header_style="bold")
        for column in table.columns[1:4]:
            column.justify = "right"
        for name, row in run["metrics"].items():
            table.add_row(*_cells(name, row))
        console.print(table)
    for text in _verdict(document):
        console.print(text)
    places = Table("after", "before", "plan", box=None, pad_edge=False, header_style="bold")
    for row in document["ranking"]["plans"]:
        mark = " (measured)" if row["plan"] == document["plan"] else ""
        places.add_row(_place(row["after"]), _place(row["before"]), escape(row["plan"]) + mark)
    console.print(places)
    for text in document["assumptions"]:
        console.print(f"  - {escape(text)}")


def _cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    title, factor, unit = _UNITS[name]
    digits = ",.0f" if factor == 1.0 else ",.1f"

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value * factor:{digits}}"

    ratio = row["measured_over_predicted"]
    said = "not measured" if row["inside"] is None else "inside" if row["inside"] else "OUTSIDE"
    return (
        f"{title}, {unit}",
        shown(row["predicted"]),
        f"{shown(row['p10'])} to {shown(row['p90'])}",
        shown(row["measured"]),
        said,
        "" if ratio is None else f"{ratio - 1.0:+.0%}",
    )


def _verdict(document: dict[str, Any]) -> tuple[str, ...]:
    ranking = document["ranking"]
    first = (
        "Everything measured lies in its interval."
        if document["inside"]
        else "Something measured lies outside its interval: the prediction was surer than it should have been."
    )
    before, after = ranking["best_before"], ranking["best_after"]
    if not ranking["changes"]:
        second = (
            "With this learnt, no plan keeps every limit." if after is None else "With this learnt, the same leads."
        )
    elif after is None:
        second = f"With this learnt, no plan keeps every limit; {escape(before)} led before."
    elif before is None:
        second = f"With this learnt, {escape(after)} keeps every limit; none did before."
    else:
        sure = ranking["p_best_after_is_better"]
        how = "it breaks a limit now" if sure is None else f"better with a probability of {sure:.0%}"
        apart = "" if sure is None or ranking["told_apart"] else ", which does not tell them apart"
        second = f"With this learnt, {escape(after)} leads instead of {escape(before)}: {how}{apart}."
    return first, second


def _place(value: int | None) -> str:
    return "-" if value is None else str(value)
