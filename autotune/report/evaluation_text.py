"""An evaluation for people, from its JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.engines import engine_title
from autotune.metrics import METRICS
from autotune.report.evaluation_tables import (
    alternatives_block,
    balance_block,
    memory_block,
    strategy_block,
    time_block,
)
from autotune.report.pool_evaluation import pool_blocks
from autotune.report.text_blocks import Block, Cell, Line, Report, named, text_table, toned
from autotune.report.vocabulary.titles import LIMITS, TONES
from autotune.report.vocabulary.words import SHARES, asked, measure, short_unit, united
from autotune.scoring.overload import ENDLESS
from autotune.scoring.unsure_means import UNSURE
from autotune.text.numbers import number, probability, room_words, within
from costmodel.arch.catalog import GUESSED

CHECKS = {**LIMITS, "gpus": "GPUs"}
"""Check -> its title: the limits, and what is checked besides."""


def evaluation_report(document: Mapping[str, Any]) -> Report:
    """The verdict, the conclusion and every section."""
    return Report(
        headline=_headline(document),
        verdict=document["verdict"],
        reason=f". {document['conclusion']}",
        tone=TONES[document["verdict"]],
        lines=stands_lines(document),
        blocks=(*evaluation_blocks(document), assumed_block(document), *next_blocks(document)),
    )


def _headline(document: Mapping[str, Any]) -> str:
    """The study and the plan, and what it was asked for by where that is another way to write it."""
    asked, name = document["plan_text"], document["name"]
    same = asked in (name, document["plan"]) or asked == name.partition(":")[2]
    return f"{document['study']}: {name}" if same else f"{document['study']}: {asked}, which is {name}"


def stands_lines(document: Mapping[str, Any]) -> tuple[str, ...]:
    """What was never measured or is left idle, why it cannot be launched, what it is not held against, how sure."""
    refused = f"Export refuses it: {document['export_refuses']}." if document["export_refuses"] else ""
    said = said_openly(document, *UNSURE, GUESSED)
    left_out = (f"{text}." for text in document["assumptions"] if " left out here: " in text)
    return tuple(
        line for line in (document["never_measured"], document["leaves_idle"], refused, *left_out, *said) if line
    )


def said_openly(document: Mapping[str, Any], *begins: str) -> list[str]:
    """Assumptions that begin so, as sentences: those that are said whether all are asked for or not."""
    return [f"{text[0].upper()}{text[1:]}." for text in document["assumptions"] if text.startswith(begins)]


BRIEF = ("summary", "strategy", "rate_match", "claims", "next")
"""Blocks that a terminal shows without --verbose, of plans with pools too."""


def evaluation_blocks(document: Mapping[str, Any]) -> list[Block]:
    """The sections in their order, of a plan of either kind."""
    if "pools" in document:
        return [_summary(document), *pool_blocks(document)]
    out = [_summary(document), _compatibility(document["compatibility"])]
    if document["performance"]:
        out += [_performance(document["performance"], document["checks"]), time_block(document["time"])]
    out += [strategy_block(document["strategy"]), alternatives_block(document["strategy"])]
    if document["memory"]:
        out += [memory_block(document), balance_block(document["balance"])]
    if document["claims"]:
        out.append(_claims(document["claims"]))
    out.append(Block(key="conclusion", title="Conclusion", lines=(document["conclusion"],)))
    return out


def assumed_block(document: Mapping[str, Any]) -> Block:
    """What was assumed."""
    return Block(key="assumed", title="Assumed", lines=tuple(document["assumptions"]))


def next_blocks(document: Mapping[str, Any]) -> list[Block]:
    """The commands that follow, where some do."""
    lines = tuple(Line(text=step, whole=True) for step in document["next"])
    return [Block(key="next", title="Next", lines=lines)] if lines else []


def _summary(document: Mapping[str, Any]) -> Block:
    """The checks, and how the plan stands against the best."""
    rows = [
        (
            named(c["name"], CHECKS),
            toned("ok" if c["passed"] else "FAILS", TONES),
            "∞" if c["grows"] else "" if c["value"] is None else measure(c["value"], c["unit"]),
            "" if c["limit"] is None else asked(c["limit"], c["unit"]),
            "" if c["margin_frac"] is None else room_words(c["margin_frac"]),
            c["rests_on"] if c["unit"] in ("", *SHARES) else f"{c['unit']}; {c['rests_on']}",
        )
        for c in document["checks"]
    ]
    s, c = document["summary"], document["confidence"]
    binds = f"what binds: {CHECKS.get(s['binding'], s['binding'])}"
    endless = tuple(dict.fromkeys(f"∞: {c['rests_on']}" for c in document["checks"] if c["grows"]))
    lines = [binds, *endless, *_against_best(s)]
    if c is not None:
        first = ENDLESS if c["ttft_p90_s"] is None else f"{number(c['ttft_p10_s'])} to {number(c['ttft_p90_s'])} s"
        lines.append(
            f"keeps every limit with probability {probability(c['p_meets'])}; likely ranges (80 %): "
            f"TTFT {first}, TPOT "
            f"{number(c['tpot_p10_s'] * 1e3)} to {number(c['tpot_p90_s'] * 1e3)} ms, "
            f"{_served(c['requests_per_s_p10'], c['requests_per_s_p90'])} requests/s"
        )
    header = ("check", "", "value", "limit", "room", "of what")
    brief = []
    for row, c in zip(rows, document["checks"], strict=True):
        limit = row[3] and united(row[3], short_unit(CHECKS[c["name"]], c["unit"]))
        brief.append((*row[:3], limit, row[4]))
    return Block(
        key="summary",
        title="Summary",
        table=text_table(header, rows, texts=(0, 1, 5)),
        lines=tuple(lines),
        short=Block(title="Summary", table=text_table(header[:-1], brief, texts=(0, 1)), lines=(binds, *endless)),
    )


def _served(low: float, high: float) -> str:
    """What is served: at a rate that is surely carried, the rate."""
    return f"all {number(high)}" if low == high else f"{number(low)} to {number(high)}"


def _against_best(s: Mapping[str, Any]) -> list[str]:
    """The distance to the best plan, by the metric and by what ranks plans."""
    if s["best_plan"] is None:
        return ["the study has no plan that keeps every limit"]
    metric = METRICS[s["metric"]]
    best, mine = (metric.text(s[name]) for name in ("best_value", "value"))
    out = f"best plan of the study: {s['best_name']}, {within(metric.title)} {best} {metric.unit} (this plan: {mine})"
    if s["loses_against_best_frac"] is None:
        return [f"{out}; this plan has no rank: it breaks a limit"]
    if s["loses_against_best_frac"] <= 0.0:
        return [f"{out}; none is ahead of this plan"]
    in_time = s["loses_in"] != s["metric"]
    by = (
        "of those that serve alike, the time of a request"
        if in_time
        else ("the metric, the probability of keeping the limits counted")
    )
    behind = f"{s['loses_against_best_frac']:.1%} behind by what ranks plans ({by})"
    return [f"{out}; this plan is {behind}, and better with probability {probability(s['p_better_than_best'])}"]


def _compatibility(part: Mapping[str, Any]) -> Block:
    rows = [
        (a["axis"], str(a["value"]), str(a.get("ranks_together", "")), a["tier"], a["maps_to"]) for a in part["axes"]
    ]
    nodes = "one node" if part["nodes"] == 1 else f"each of {part['nodes']:,} nodes"
    where = f"{part['ranks_per_node']} ranks on {nodes}"
    layers = ", ".join(str(n) for n in part["stage_layers"])
    lines = [
        f"GPUs: {part['gpus_used']:,} of {part['gpus']:,}, {where}; layers of the stages: {layers}",
        f"attention heads per rank: {part['heads_per_rank']:g}; {_kv_heads(part)}",
    ]
    experts = part.get("expert_modules")
    if experts is not None:
        lines.append(
            f"expert modules: {experts['distinct']:,} distinct, {experts['instances']:,} instances in all replicas, "
            f"{experts['instances_per_gpu']:g} per GPU, {experts['per_gpu_per_layer']:g} per GPU and layer"
        )
    for engine in part["engines"]:
        words = "launches it" if engine["launches"] else f"cannot: {'; '.join(engine['forbidden_by'])}"
        lines.append(f"{engine_title(engine['engine'])}: {words}")
    table = text_table(("axis", "value", "ranks together", "links", "is"), rows, texts=(0, 3, 4))
    return Block(key="compatibility", title="Compatibility", table=table, lines=tuple(lines))


def _kv_heads(part: Mapping[str, Any]) -> str:
    copies = part["kv_copies"]
    if part["kv_is_latent"]:
        return f"KV: one latent for all heads (MLA), the same on {copies:g} ranks of a TP group"
    each = "" if copies == 1.0 else f", each on {copies:g} ranks of a TP group"
    return f"KV heads per rank: {part['kv_heads_per_rank']:g}{each}"


def _performance(part: Mapping[str, Any], checks: Sequence[Mapping[str, Any]]) -> Block:
    load, full, target = (part[n] for n in ("tokens_per_ms", "tokens_per_ms_at_saturation", "tokens_per_ms_target"))
    rows = [
        (
            words,
            *(number(x[name] * 1e3, 4) for x in (load, full)),
            "" if target is None else number(target[name] * 1e3, 4),
        )
        for name, words in (
            ("per_gpu_of_a_stage", "one GPU of a stage"),
            ("per_pipeline", f"one pipeline (x {part['gpus_of_a_stage']})"),
            ("in_all", f"in all (x {part['replicas']} replicas)"),
        )
    ]
    ttft = "" if part["ttft_limit_s"] is None else f" (limit {number(part['ttft_limit_s'], 6)} s)"
    tpot = "" if part["tpot_limit_s"] is None else f" (limit {number(part['tpot_limit_s'] * 1e3, 6)} ms)"
    at_load = f"{part['requests_in_flight']:,} requests in flight, {number(part['requests_per_s'], 4)} requests/s"
    at_most = f"{full['requests_in_flight']:,} in flight, chunks of {full['max_num_batched_tokens']:,} tokens"
    full_latency = f"TTFT {number(full['ttft_longest_s'])} s, TPOT {number(full['tpot_s'] * 1e3)} ms"
    first = "grows without bound" if part["ttft_longest_s"] is None else f"{number(part['ttft_longest_s'])} s"
    latency = f"{first}{ttft}, TPOT {number(part['tpot_s'] * 1e3)} ms{tpot}"
    shares = {n: f"{part[f'{n}_util_frac']:.1%}" for n in ("gpu", "compute", "bandwidth", "memory")}
    held = {c["name"]: c["value"] for c in checks}
    fits = held["kv_capacity"] > 0.0 and held["memory_util_frac"] <= 1.0
    lines = (
        *(() if fits else ("it does not fit its GPUs' memory: these are figures of what could not run",)),
        f"at the study's load: {at_load}; at saturation: {at_most}, {full_latency}",
        f"TTFT at the longest prompt {latency}",
        (
            f"GPU busy {shares['gpu']} of the time; of peak FLOP/s {shares['compute']}, of peak memory bandwidth "
            f"{shares['bandwidth']}, of memory {shares['memory']}"
        ),
    )
    table = text_table(("tokens/s through", "at the load", "at saturation", "target"), rows)
    return Block(key="performance", title="Performance", table=table, lines=lines)


def _claims(claims: Sequence[Mapping[str, Any]]) -> Block:
    rows: list[Sequence[str | Cell]] = [
        (c["claim"], toned(c["status"], TONES), _plain(c["claimed"]), _plain(c["computed"]), c["reason"])
        for c in claims
    ]
    counts = {s: sum(c["status"] == s for c in claims) for s in ("confirmed", "refuted", "undecidable")}
    return Block(
        key="claims",
        title="Claims",
        table=text_table(("claim", "status", "claimed", "computed", "because"), rows, texts=(0, 1, 4)),
        lines=(", ".join(f"{n} {status}" for status, n in counts.items()),),
    )


def _plain(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return ("no", "yes")[value] if isinstance(value, bool) else number(value, 4)
