"""A benchmark against its prediction: for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.metrics import METRICS, Metric
from autotune.report.document import finite
from autotune.report.text_blocks import Block, Cell, Report, text_table, toned
from autotune.report.vocabulary.plan_names import name_of_key
from autotune.report.vocabulary.titles import TONES
from autotune.report.vocabulary.words import signed
from autotune.text.numbers import probability
from autotune.validation.verify import CheckedRun, Verification


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
                "learnt": found.learnt,
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
        "arrivals": "open" if run.result.reported.open_loop else "closed",
        "tool": run.result.reported.tool,
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
                "judged": q.judged,
            }
            for q in run.quantities
        },
    }


def verification_report(document: Mapping[str, Any]) -> Report:
    """The same for people."""
    runs = [
        Block(
            title=f"{run['id']}: {run['concurrency']:,.0f} in flight, {run['isl']:,.0f} prompt and {run['osl']:,.0f} "
            "output tokens",
            table=text_table(
                ("", "predicted", "likely range", "measured", "", ""),
                [_cells(_metric(name), row) for name, row in run["metrics"].items()],
                texts=(0, 4, 5),
            ),
        )
        for run in document["runs"]
    ]
    places = [
        (
            _place(row["after"]),
            _place(row["before"]),
            name_of_key(row["plan"]) + (" (measured)" if row["plan"] == document["plan"] else ""),
        )
        for row in document["ranking"]["plans"]
    ]
    ranking = text_table(("after", "before", "plan"), places, texts=(0, 1, 2))
    return Report(
        headline=f"{name_of_key(document['plan'])} of {document['study']}",
        blocks=(
            *runs,
            Block(title="What the runs say", table=ranking, lines=_verdict(document)),
            Block(title="Assumed", lines=tuple(document["assumptions"])),
        ),
    )


def _metric(name: str) -> Metric:
    """The metric of a row; a percentile (`ttft_p99_s`) is simulated and has no metric of its own."""
    if name in METRICS:
        return METRICS[name]
    latency, percentile, _ = name.split("_")
    return Metric(name=name, title=f"{latency.upper()} {percentile}", unit="s")


def _cells(metric: Metric, row: Mapping[str, Any]) -> tuple[str | Cell, ...]:
    ratio = row["measured_over_predicted"]
    where = "inside" if row["inside"] else "OUTSIDE" if row["judged"] else "outside, not judged"
    said = "not measured" if row["inside"] is None else where
    return (
        metric.label,
        metric.text(row["predicted"]),
        f"{metric.text(row['p10'])} to {metric.text(row['p90'])}",
        metric.text(row["measured"]),
        toned(said, TONES),
        "" if ratio is None else signed(ratio - 1.0),
    )


def _verdict(document: Mapping[str, Any]) -> tuple[str, ...]:
    ranking = document["ranking"]
    rows = [row for run in document["runs"] for row in run["metrics"].values()]
    what = "that is judged" if any(row["inside"] is False and not row["judged"] for row in rows) else "measured"
    first = (
        f"Everything {what} lies in its interval."
        if document["inside"]
        else "Something measured lies outside its interval: the prediction was surer than it should have been."
    )
    before, after = (
        None if plan is None else name_of_key(plan) for plan in (ranking["best_before"], ranking["best_after"])
    )
    if not ranking["learnt"]:
        second = "The ranking learns nothing from this: see what is assumed."
    elif not ranking["changes"]:
        second = (
            "With this learnt, no plan keeps every limit." if after is None else "With this learnt, the same leads."
        )
    elif after is None:
        second = f"With this learnt, no plan keeps every limit; {before} led before."
    elif before is None:
        second = f"With this learnt, {after} keeps every limit; none did before."
    else:
        sure = ranking["p_best_after_is_better"]
        how = "it breaks a limit now" if sure is None else f"better with a probability of {probability(sure)}"
        apart = "" if sure is None or ranking["told_apart"] else ", which does not tell them apart"
        second = f"With this learnt, {after} leads instead of {before}: {how}{apart}."
    return first, second


def _place(value: int | None) -> str:
    return "–" if value is None else str(value)
