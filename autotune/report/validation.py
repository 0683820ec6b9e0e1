"""The tables of `autotune validate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotune.validation.published import PublishedPoint


def print_validation(console: Console, document: dict[str, Any]) -> None:
    """Errors by part of the file, then rankings."""
    console.print(f"{document['runs']:,} runs, {document['coverage']:.1%} predicted", highlight=False)
    for line in document["assumptions"]:
        console.print(f"assumed: {escape(line)}", highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("runs of", no_wrap=True)
    for quantity in ("TPOT", "TTFT"):
        for title in ("runs", "mean", "median", "p90", "bias", "in p10-p90"):
            table.add_column(f"{quantity}\n{title}", justify="right", no_wrap=True)
    parts = [("all", document["overall"])]
    for name in ("by_gpu", "by_engine", "by_model"):
        parts += list(document[name].items())
    for name, errors in parts:
        table.add_row(escape(name), *_cells(errors["tpot"]), *_cells(errors["ttft"]))
    console.print(table)
    console.print("Errors are |predicted / measured - 1|; bias is the median of predicted / measured, less 1.")
    tau = document["kendall_tau"]
    console.print(
        f"Kendall tau within {tau['groups']} groups (gpu, engine, model, precision, isl, osl): throughput per GPU "
        f"{tau['throughput_per_gpu']:.3f}, TPOT {tau['tpot']:.3f}",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("SLO task: picked by", "groups", "regret strict", "regret lenient", "over by > 10 %"):
        table.add_column(title, justify="left" if "picked" in title else "right")
    for name, score in document["slo_task"].items():
        table.add_row(
            _PICKS[name],
            str(score["groups"]),
            f"{score['strict_regret']:.1%}",
            f"{score['lenient_regret']:.1%}",
            f"{score['over_by_a_tenth']:.1%}",
        )
    console.print(table)
    console.print(
        "The limit is a group's median measured TPOT. Regret: throughput lost against the best that keeps it; a "
        "broken limit is a total loss (strict), or only when broken by more than 10 % (lenient)."
    )
    _print_reliability(console, document["reliability"])
    console.print("Statements that a run meets, or breaks, a TPOT limit between 0.7 and 1.4 times its group's median.")
    _print_reliability(console, document["reliability_better"])
    console.print("Statements that one run of a group has more throughput per GPU than another.")


def _print_reliability(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("said with P of", "statements", "mean P", "true"):
        table.add_column(title, justify="right")
    for r in rows:
        said = f"{r['p_from']:.1f} to {r['p_to']:.1f}"
        table.add_row(said, f"{r['statements']:,}", f"{r['mean_p']:.2f}", f"{r['share_true']:.2f}")
    console.print(table)


_PICKS = {
    "expected": "P(meets) x predicted throughput",
    "point": "best predicted to meet the limit",
    "random": "at random",
}


def _cells(errors: dict[str, Any] | None) -> tuple[str, ...]:
    if errors is None:
        return ("0", *("-",) * 5)
    return (
        f"{errors['runs']:,}",
        f"{errors['mape']:.1%}",
        f"{errors['median']:.1%}",
        f"{errors['p90']:.1%}",
        f"{errors['bias']:+.1%}",
        f"{errors['inside_p10_p90']:.0%}",
    )


def print_published(console: Console, points: Sequence[PublishedPoint], *, title: str = "DeepSeek-V3 on H800") -> None:
    """Published deployments beside our figures; nothing was fitted on them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (title, "published", "ours", "ratio", "unit", "source"):
        table.add_column(name, justify="right" if name in ("published", "ours", "ratio") else "left")
    for p in points:
        table.add_row(p.name, f"{p.published:,.0f}", f"{p.predicted:,.0f}", f"{p.ratio:.2f}", p.unit, p.source)
    console.print(table)
    for p in points:
        console.print(f"  - {p.name}: {p.assumed}", highlight=False)
    console.print(
        "Profiled steps are fully loaded. The production day is an average over uneven load and uneven routing, of "
        "which ours knows no more than is named above."
    )
