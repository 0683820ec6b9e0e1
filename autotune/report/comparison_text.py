"""A comparison for people, from its JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from autotune.comparison.verdict import duration_words
from autotune.metrics import METRICS
from autotune.report.comparison import SIDES
from autotune.report.evaluation_text import assumed_block, next_blocks, said_openly
from autotune.report.text_blocks import Block, Cell, Report, named, text_table
from autotune.report.vocabulary.titles import LIMITS, MEMORY, TONES
from autotune.report.vocabulary.words import GIB, asked, count, gib, measure, percent, signed, united
from autotune.scoring.gpu_time import OPERATORS, operator_title
from autotune.scoring.overload import WAITING, overload_of
from autotune.text.numbers import number, probability
from costmodel.arch.catalog import GUESSED

_SHOWN_FRAC = 0.005
"""Operators whose change is below this share of a request's GPU time are summed up in one row."""
_SHOWN_BYTES = 5e6
STEP_PARTS = {"drain": "drain", "load": "load", "startup": "start", "warmup": "warm up"}
_MOST_LOST = 4
"""Scenarios that the candidate loses, named one by one."""


def comparison_report(document: Mapping[str, Any]) -> Report:
    """The verdict and its reason, and the parts in the order of a decision."""
    return Report(
        headline=headline(document),
        verdict=document["verdict"].upper(),
        reason=f": {document['reason']}.",
        tone=TONES[document["verdict"]],
        lines=remarks(document),
        blocks=tuple(comparison_blocks(document)),
    )


def remarks(document: Mapping[str, Any]) -> tuple[str, ...]:
    """What the verdict rests on: what was never measured, and how the current plan is started."""
    own = document["current"].get("started_with")
    out = [f"Never measured: {', '.join(document['never_measured'])}."] if document["never_measured"] else []
    out += [f"The current plan is started with {', '.join(own)}."] if own else []
    return (*out, *said_openly(document, GUESSED, f"current plan: {GUESSED}"))


BRIEF = ("simulated", "metrics", "switch", "next")
"""Blocks that a terminal shows without --verbose."""
BRIEF_METRICS = ("output_tokens_per_s_per_gpu", "requests_per_s", "ttft_longest_s", "tpot_s", "memory_util_frac")
"""Metrics of which it shows a row, beside the one that ranks."""


def headline(document: Mapping[str, Any]) -> str:
    """What is compared, on one line."""
    candidate = document["candidate"]
    other = "no candidate" if candidate is None else candidate["name"]
    name = "" if document["traffic"] is None else f", traffic of {document['traffic']}"
    return (
        f"{document['study']}: {document['current']['name']} (current) against {other} (candidate), "
        f"{document['model']} on {document['cluster']}{name}"
    )


def comparison_blocks(document: Mapping[str, Any]) -> list[Block]:
    """The parts in the order of a decision."""
    out: list[Block] = []
    if "simulated" in document:
        out.append(_simulated(document["simulated"]))
    if document["metrics"]:
        out += [_metrics(document), _margins(document["margins"]), _time(document), _memory(document["memory_bytes"])]
    if document["robustness"] is not None:
        out.append(_robustness(document["robustness"]))
    if document["cost"] is not None:
        out.append(_cost(document["cost"]))
    if document["switch"] is not None:
        out.append(_switch(document["switch"]))
    return [*out, *next_blocks(document), assumed_block(document)]


def _metrics(document: Mapping[str, Any]) -> Block:
    knobs = [document[side]["knobs"] for side in SIDES]
    labels = {name: metric.label for name, metric in METRICS.items()}
    rows: list[Sequence[str | Cell]] = [
        ("Requests in flight", *(f"{k['concurrency']:,}" for k in knobs), "", ""),
        ("Tokens a step", *(f"{k['max_num_batched_tokens']:,}" for k in knobs), "", ""),
    ]
    local = [document[side].get("pools", {}).get("max_local_prefill_tokens", 0) for side in SIDES]
    if local[0] != local[1]:
        rows.insert(0, ("Local prefill, tokens", *(f"{tokens:,}" if tokens else "none" for tokens in local), "", ""))
    alike = knobs[0]["max_num_batched_tokens"] == knobs[1]["max_num_batched_tokens"]
    brief = rows[:-1] if alike else rows[:]
    for m in document["metrics"]:
        metric, ranks = METRICS[m["name"]], m["name"] == document["objective"]["metric"]
        rows.append(
            (
                named(metric.name, labels, " *" if ranks else ""),
                *(metric_text(document, m, side) for side in SIDES),
                signed(m["difference_frac"]),
                "" if m["p_better"] is None else probability(m["p_better"]),
            )
        )
        brief += rows[-1:] if ranks or metric.name in BRIEF_METRICS else []
    meets = [document[side]["confidence"]["p_meets"] for side in SIDES]
    rows.append(("Keeps every limit", *(probability(p) for p in meets), "", ""))
    sure, header = probability(document["p_better"]), ("metric", *SIDES, "difference", "P(better)")
    ranks_by = f"* ranked by; the candidate is better with probability {sure}, limits counted"
    lines = (ranks_by, *_endless(document))
    return Block(
        key="metrics",
        title="Metrics",
        table=text_table(header, rows),
        lines=lines,
        short=Block(title="Metrics", table=text_table(header, [*brief, rows[-1]]), lines=lines),
    )


def metric_text(document: Mapping[str, Any], row: Mapping[str, Any], side: str) -> str:
    """A side's figure of a row of the metrics, `∞` where it grows without bound."""
    endless = row["name"] in WAITING and overload_of(document[side]["breakdown"]) is not None
    return METRICS[row["name"]].text(inf if endless else row[side])


def _endless(document: Mapping[str, Any]) -> list[str]:
    """What `∞` means, for each side where it stands."""
    found = [(side, overload_of(document[side]["breakdown"])) for side in SIDES]
    return [f"∞: with the {side} plan it {overload.words}" for side, overload in found if overload is not None]


def _simulated(found: Mapping[str, Any]) -> Block:
    """The requests of the log, served one by one by both plans."""
    rows = []
    for side in SIDES:
        share, latencies = found[side]["within_limits_frac"], found[side]["latencies_s"]
        kept = f"{percent(share['value'])} ({percent(share['low'])} to {percent(share['high'])})"
        cells = [number(1e3 * latencies[name][s]) for name in ("ttft", "tpot", "itl") for s in ("p95", "p99")]
        rows.append((side, kept, *cells))
    header = ("plan", "within limits", *(f"{n} {s} ms" for n in ("TTFT", "TPOT", "ITL") for s in ("p95", "p99")))
    what = {found[side]["sampled"] or f"all {found[side]['requests']:,} requests" for side in SIDES}
    line = f"Simulated: {' / '.join(sorted(what))}. Within limits: share of requests that keep all of them at once."
    return Block(key="simulated", title="The log's requests", table=text_table(header, rows), lines=(line,))


def _margins(margins: Sequence[Mapping[str, Any]]) -> Block:
    rows = [
        (
            named(row["code"], LIMITS),
            united(asked(row["limit"], row["unit"]), row["unit"]),
            *(_room(row[f"{side}_excess"], row["unit"], row["limit"]) for side in SIDES),
        )
        for row in margins
    ]
    table = text_table(("limit", "value", *SIDES), rows)
    return Block(key="limits", title="Limits, and the room left under each", table=table)


def _room(excess: float | None, unit: str, limit: float) -> str | Cell:
    if excess is None:
        return Cell(text="broken", tone="bad")
    amount = measure(
        abs(excess) if abs(excess) > 1e-5 * abs(limit) else 0.0, "of time" if unit == "probability" else unit
    )
    return amount if excess <= 0.0 else Cell(text=f"broken by {amount}", tone="bad")


def _time(document: Mapping[str, Any]) -> Block:
    every = document["time"]
    rows = [
        (
            OPERATORS[r["operator"]] if r["phase"] == "rest" else operator_title(r["operator"], r["phase"]),
            *(_gpu_ms(r[f"{side}_gpu_s"]) for side in SIDES),
            "" if r["phase"] == "rest" else signed(r["difference_frac"]),
            signed(-r["gain_frac"]),
        )
        for r in every
        if abs(r["gain_frac"]) >= _SHOWN_FRAC
    ]
    rest = [r for r in every if abs(r["gain_frac"]) < _SHOWN_FRAC]
    if rest:
        sums = [_gpu_ms(sum(r[f"{side}_gpu_s"] for r in rest)) for side in SIDES]
        rows.append((f"{len(rest)} others", *sums, "", signed(-sum(r["gain_frac"] for r in rest))))
    whole = [sum(r[f"{side}_gpu_s"] for r in every) for side in SIDES]
    total = signed(whole[1] / whole[0] - 1.0)
    rows.append(("All, GPUs / requests per second", *(_gpu_ms(value) for value in whole), total, total))
    return Block(
        key="time",
        title="Where it comes from: GPU-ms of a request",
        table=text_table(("operator and phase", *SIDES, "difference", "of all"), rows),
        lines=tuple(document["where_from"]),
    )


def _gpu_ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f}".replace("-", "−")


def _memory(kinds: Mapping[str, Mapping[str, float]]) -> Block:
    rows = [
        (
            named(kind, MEMORY),
            gib(held["current"]),
            gib(held["candidate"]),
            f"{held['difference'] / GIB:+,.2f}".replace("-", "−"),
        )
        for kind, held in kinds.items()
        if max(held["current"], held["candidate"]) >= _SHOWN_BYTES
    ]
    table = text_table(("kind", *SIDES, "difference"), rows)
    return Block(key="memory", title="Memory of the fullest GPU, GiB", table=table)


def _robustness(found: Mapping[str, Any]) -> Block:
    work, calibration = found["workload"], found["calibration"]
    won = f"{work['candidate_wins']} of {work['scenarios']} workload scenarios"
    varied = "prompts, outputs and a given load halved and doubled; expert skew; prefix hits"
    lines = [f"the candidate wins in {won} ({varied})"]
    if work["lost"]:
        shown = "; ".join(_changes(c) for c in work["lost"][:_MOST_LOST])
        lines.append(f"it loses with {shown}{'; …' if len(work['lost']) > _MOST_LOST else ''}")
    if work["skipped"]:
        lines.append(f"{work['skipped']} scenarios were left out: too long for the model's context")
    joint = found["joint_wins_frac"]
    lines.append(
        f"it wins in {percent(calibration['wins_frac'])} of {calibration['draws']:,} draws of the calibration's errors"
        + ("" if joint is None else f", {percent(joint)} over all scenarios and draws")
    )
    lines += [
        f"from {flip['in_flight']:,} in flight ({flip['requests_per_s']:,.2f} requests/s) on the "
        f"{_who(flip['better_above'])} is better, by {flip['because']}"
        for flip in found["order_flips"]
    ]
    if not found["order_flips"]:
        who = found["better_at_low_load"]
        said = "neither stands out at any load" if who is None else f"the {_who(who)} is better at every load"
        lines.append(f"{said} from 1 to {found['swept_to_in_flight']:,} in flight")
    return Block(key="robustness", title="How far that holds", lines=tuple(lines))


def _who(name: str) -> str:
    return "current plan" if name == "current" else name


def _changes(changes: Mapping[str, float]) -> str:
    words = [f"{k} x {v:g}" if k in ("prompts", "outputs", "load") else f"{k} {v:g}" for k, v in changes.items()]
    return " and ".join(words) or "the study's own traffic"


def _cost(cost: Mapping[str, Any]) -> Block:
    rows = []
    for name, key in (("All tokens", "per_million_tokens"), ("Output tokens", "per_million_output_tokens")):
        old, new = (cost[key][side] for side in SIDES)
        rows.append((name, f"${old:.3f}", f"${new:.3f}", signed(new / old - 1.0)))
    title = f"Cost of a million tokens at ${cost['price_per_gpu_hour']:g} per GPU and hour"
    return Block(key="cost", title=title, table=text_table(("", *SIDES, "difference"), rows))


def _switch(cost: Mapping[str, Any]) -> Block:
    if not cost["restart"]:
        lines: tuple[str, ...] = ("nothing restarts: both plans are started by the same command",)
        return Block(key="switch", title="The switch", lines=lines)
    down = f"{count(cost['replicas_down_at_once'], 'replica')} of the current plan down at a time"
    steps = f"in {count(len(cost['waves']), 'step')}: {duration_words(cost['duration_s'])} in all"
    each = ", ".join(f"{words} {cost[f'{name}_s']:.0f} s" for name, words in STEP_PARTS.items())
    size = f"{cost['weight_bytes'] / 1e9:,.0f} GB of weights to load from {cost['weights_from']}"
    room, load = (number(cost[f"{name}_requests_per_s"], 4) for name in ("least_capacity", "load"))
    lost = f"{cost['lost_requests']:,.0f} requests that are served today find no room"
    paid = "the gain never pays for it"
    if cost["payback_s"] is not None:
        paid = f"the gain has paid for it {duration_words(cost['payback_s'])} after its start"
    lines = (
        f"{cost['gpus_restarted']} GPUs restart, {down}, {steps}",
        f"{size}, {cost['weight_bytes_per_gpu'] / 1e9:,.1f} GB a GPU",
        f"each step: {each}",
        f"capacity at its least {room} requests/s against a load of {load}: {lost}",
        f"{cost['requests_drained']:,} requests in flight are drained",
        f"{cost['gpu_s'] / 3600:,.1f} GPU-hours serve nothing"
        + ("" if cost["price"] is None else f", ${cost['price']:,.2f}"),
        paid,
    )
    title = "The switch"
    return Block(
        key="switch", title=title, lines=lines, short=Block(title=title, lines=(lines[0], *lines[3:4], *lines[5:]))
    )
