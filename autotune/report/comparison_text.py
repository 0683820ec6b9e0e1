"""A comparison for people: the same tables on a terminal and in Markdown, from the JSON document."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

from autotune.comparison.verdict import duration_words
from autotune.report.text_blocks import Block, markdown_blocks, print_blocks
from autotune.scoring.gpu_time import WORDS
from autotune.text.escaping import markdown_text
from autotune.text.numbers import figure

_COLOURS = {"switch": "green", "keep": "cyan", "undecided": "yellow", "refuse": "red"}
_TIMES_SHOWN = 0.005
"""Operators whose change is below this share of a request's GPU time are summed up in one row."""
_MILLISECONDS = ("tpot_s",)


def print_comparison(console: Console, document: dict[str, Any]) -> None:
    """Everything on a terminal."""
    colour = _COLOURS[document["verdict"]]
    console.print(f"[bold]{escape(headline(document))}[/]", highlight=False)
    console.print(
        f"[bold {colour}]{document['verdict'].upper()}[/]: {escape(document['reason'])}.",
        highlight=False,
        soft_wrap=True,
    )
    print_blocks(console, blocks(document))


def comparison_markdown(document: dict[str, Any]) -> str:
    """Everything as Markdown (tables as GitHub renders them)."""
    reason = markdown_text(document["reason"])
    out = [f"# {markdown_text(headline(document))}", "", f"**{document['verdict'].upper()}**: {reason}."]
    return "\n".join(out + markdown_blocks(blocks(document))) + "\n"


def headline(document: dict[str, Any]) -> str:
    """What is compared, on one line."""
    candidate = document["candidate"]
    other = "no candidate" if candidate is None else candidate["plan"]
    name = "" if document["traffic"] is None else f", traffic of {document['traffic']}"
    return (
        f"{document['study']}: {document['current']['plan']} (current) against {other}, "
        f"{document['model']} on {document['gpus']} x {document['gpu']}{name}"
    )


def blocks(document: dict[str, Any]) -> list[Block]:
    """The parts in the order of a decision."""
    out: list[Block] = []
    if document["metrics"]:
        out += [_metrics(document), _margins(document), _time(document), _memory(document)]
    if document["robustness"] is not None:
        out.append(_robustness(document))
    if document["cost"] is not None:
        out.append(_cost(document))
    if document["switch"] is not None:
        out.append(_switch(document))
    out.append(Block(title="Assumed", lines=tuple(document["assumptions"])))
    return out


def _metrics(document: dict[str, Any]) -> Block:
    mark = document["objective"]["metric"]
    rows = [("in flight", *(f"{document[s]['knobs']['concurrency']:,}" for s in ("current", "candidate")), "", "")]
    chunk = [f"{document[side]['knobs']['max_num_batched_tokens']:,}" for side in ("current", "candidate")]
    rows.append(("tokens a step", *chunk, "", ""))
    for m in document["metrics"]:
        scale, unit = (1e3, " (ms)") if m["name"] in _MILLISECONDS else (1.0, "")
        name = f"{m['name']}{unit}{' *' if m['name'] == mark else ''}"
        rows.append(
            (
                name,
                _number(m["current"], scale),
                _number(m["candidate"], scale),
                _change(m["difference_frac"]),
                "" if m["p_better"] is None else f"{m['p_better']:.0%}",
            )
        )
    rows.append(
        (
            "P(meets every limit)",
            *(f"{document[s]['confidence']['p_meets']:.0%}" for s in ("current", "candidate")),
            "",
            "",
        )
    )
    lines = (f"* ranked by; the candidate is better with probability {document['p_better']:.0%}, limits counted",)
    header = ("metric", "current", "candidate", "difference", "P(better)")
    return Block(title="Metrics", header=header, rows=rows, lines=lines)


def _margins(document: dict[str, Any]) -> Block:
    rows = [
        (
            row["code"],
            f"{figure(row['limit'])} {row['unit']}",
            _room(row["current_excess"]),
            _room(row["candidate_excess"]),
        )
        for row in document["margins"]
    ]
    return Block(
        title="Limits, and the room left under each", header=("limit", "value", "current", "candidate"), rows=rows
    )


def _room(excess: float | None) -> str:
    if excess is None:
        return "broken"
    return figure(-excess) if excess <= 0.0 else f"broken by {figure(excess)}"


def _time(document: dict[str, Any]) -> Block:
    shown = [r for r in document["time"] if abs(r["gain_frac"]) >= _TIMES_SHOWN]
    rest = [r for r in document["time"] if abs(r["gain_frac"]) < _TIMES_SHOWN]
    rows = [
        (
            WORDS[r["operator"]] if r["phase"] == "rest" else f"{r['phase']}: {WORDS[r['operator']]}",
            f"{r['current_gpu_s']:.4f}",
            f"{r['candidate_gpu_s']:.4f}",
            "" if r["phase"] == "rest" else _change(r["difference_frac"]),
            f"{-r['gain_frac']:+.1%}",
        )
        for r in shown
    ]
    if rest:
        sums = [sum(r[f"{side}_gpu_s"] for r in rest) for side in ("current", "candidate")]
        rows.append(
            (
                f"{len(rest)} others",
                f"{sums[0]:.4f}",
                f"{sums[1]:.4f}",
                "",
                f"{-sum(r['gain_frac'] for r in rest):+.1%}",
            )
        )
    whole = [sum(r[f"{side}_gpu_s"] for r in document["time"]) for side in ("current", "candidate")]
    total = _change(whole[1] / whole[0] - 1.0)
    rows.append(("all, GPUs / requests per second", f"{whole[0]:.4f}", f"{whole[1]:.4f}", total, total))
    return Block(
        title="Where it comes from: GPU-seconds of a request",
        header=("phase and operator", "current", "candidate", "difference", "of all"),
        rows=rows,
        lines=tuple(document["where_from"]),
    )


def _memory(document: dict[str, Any]) -> Block:
    rows = [
        (
            kind.replace("_", " "),
            f"{x['current'] / 1e9:.2f}",
            f"{x['candidate'] / 1e9:.2f}",
            f"{x['difference'] / 1e9:+.2f}",
        )
        for kind, x in document["memory_bytes"].items()
        if max(x["current"], x["candidate"]) >= 5e6
    ]
    return Block(
        title="Memory of the fullest GPU, GB", header=("kind", "current", "candidate", "difference"), rows=rows
    )


def _robustness(document: dict[str, Any]) -> Block:
    found = document["robustness"]
    work, calibration = found["workload"], found["calibration"]
    lines = [_wins(work)]
    if work["lost"]:
        shown = "; ".join(_changes(c) for c in work["lost"][:4])
        lines.append(f"it loses with {shown}{'; …' if len(work['lost']) > 4 else ''}")
    if work["skipped"]:
        lines.append(f"{work['skipped']} scenarios were left out: too long for the model's context")
    lines.append(
        f"it wins in {calibration['wins_frac']:.0%} of {calibration['draws']:,} draws of the calibration's errors"
        + ("" if found["joint_wins_frac"] is None else f", {found['joint_wins_frac']:.0%} over all scenarios and draws")
    )
    lines += [
        (
            f"from {flip['in_flight']:,} in flight ({flip['requests_per_s']:,.2f} requests/s) on the "
            f"{_who(flip['better_above'])} is better, by {flip['because']}"
        )
        for flip in found["order_flips"]
    ]
    if not found["order_flips"]:
        who = found["better_at_low_load"]
        said = "neither stands out at any load" if who is None else f"the {_who(who)} is better at every load"
        lines.append(f"{said} from 1 to {found['swept_to_in_flight']:,} in flight")
    return Block(title="How far that holds", lines=tuple(lines))


def _wins(work: dict[str, Any]) -> str:
    return (
        f"the candidate wins in {work['candidate_wins']} of {work['scenarios']} workload scenarios (prompts, outputs "
        "and a given load halved and doubled; expert skew; prefix hits)"
    )


def _who(name: str) -> str:
    return "current plan" if name == "current" else name


def _changes(changes: dict[str, float]) -> str:
    words = [f"{k} x {v:g}" if k in ("prompts", "outputs", "load") else f"{k} {v:g}" for k, v in changes.items()]
    return " and ".join(words) or "the study's own traffic"


def _cost(document: dict[str, Any]) -> Block:
    cost = document["cost"]
    rows = []
    for name, key in (("all tokens", "per_million_tokens"), ("output tokens", "per_million_output_tokens")):
        pair = cost[key]
        change = _change(pair["candidate"] / pair["current"] - 1.0)
        rows.append((name, f"${pair['current']:.3f}", f"${pair['candidate']:.3f}", change))
    title = f"Cost of a million tokens at ${cost['price_per_gpu_hour']:g} per GPU and hour"
    return Block(title=title, header=("", "current", "candidate", "difference"), rows=rows)


def _switch(document: dict[str, Any]) -> Block:
    cost = document["switch"]
    if not cost["restart"]:
        return Block(title="The switch", lines=("nothing restarts: both plans are started by the same command",))
    return Block(title="The switch", lines=tuple(_steps(cost) + _what_is_lost(cost)))


def _steps(cost: dict[str, Any]) -> list[str]:
    whole = (
        f"{cost['gpus_restarted']} GPUs restart, {cost['replicas_down_at_once']} replica(s) of the current plan down "
        f"at a time, in {len(cost['waves'])} step(s): {duration_words(cost['duration_s'])} in all"
    )
    weights = (
        f"{cost['weight_bytes'] / 1e9:,.0f} GB of weights to load from {cost['weights_from']}, "
        f"{cost['weight_bytes_per_gpu'] / 1e9:,.1f} GB a GPU"
    )
    each = (
        f"each step: drain {cost['drain_s']:.0f} s, load {cost['load_s']:.0f} s, start {cost['startup_s']:.0f} s, "
        f"warm up {cost['warmup_s']:.0f} s"
    )
    return [whole, weights, each]


def _what_is_lost(cost: dict[str, Any]) -> list[str]:
    room = (
        f"capacity at its least {cost['least_capacity_requests_per_s']:,.2f} requests/s against a load of "
        f"{cost['load_requests_per_s']:,.2f}: {cost['lost_requests']:,.0f} requests that are served today find no room"
    )
    idle = f"{cost['gpu_s'] / 3600:,.1f} GPU-hours serve nothing"
    if cost["price"] is not None:
        idle += f", ${cost['price']:,.2f}"
    paid = "the gain never pays for it"
    if cost["payback_s"] is not None:
        paid = f"the gain has paid for it {duration_words(cost['payback_s'])} after its start"
    return [room, f"{cost['requests_drained']:,} requests in flight are drained", idle, paid]


def _number(value: float | None, scale: float = 1.0) -> str:
    return "-" if value is None else figure(value * scale)


def _change(frac: float | None) -> str:
    if frac is None:
        return ""
    return "=" if abs(frac) < 5e-5 else f"{frac:+.1%}"
