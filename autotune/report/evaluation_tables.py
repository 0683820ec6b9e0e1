"""Why a plan does what it does: verdicts on its axes, time by operator, memory and balance by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.report.text_blocks import Block, Cell, named, text_table, toned
from autotune.report.vocabulary.titles import MEMORY, TONES
from autotune.report.vocabulary.words import gib
from autotune.scoring.gpu_time import operator_title

MOST_STAGES = 8
"""Stages shown one by one; of more, the fullest."""


def strategy_block(rows: Sequence[Mapping[str, Any]]) -> Block:
    """The verdict on each axis."""
    shown = [(v["axis"], str(v["value"]), toned(v["verdict"], TONES), _loss(v["loss_frac"]), v["reason"]) for v in rows]
    header, title = ("axis", "value", "verdict", "loses", "because"), "Strategy, axis by axis"
    brief = text_table(header[:-1], [row[:-1] for row in shown], texts=(0, 2))
    table = text_table(header, shown, texts=(0, 2, 4))
    return Block(key="strategy", title=title, table=table, short=Block(title=title, table=brief))


def _loss(frac: float | None) -> str:
    return "" if frac is None else f"{frac:.1%}"


def alternatives_block(rows: Sequence[Mapping[str, Any]]) -> Block:
    """Loss of the best plan with each value of each axis; values that no axis has a plan with are left out."""
    found = {
        v["axis"]: {a["value"]: a["loss_frac"] for a in [v, *v["alternatives"]] if a["loss_frac"] is not None}
        for v in rows
    }
    values = sorted({n for losses in found.values() for n in losses} | {v["value"] for v in rows})

    def cell(axis: str, value: int, own: int) -> str:
        shown = _loss(found[axis].get(value)) or "none"
        return f"[{shown}]" if value == own else shown

    cells = [(v["axis"], *(cell(v["axis"], n, v["value"]) for n in values)) for v in rows]
    return Block(
        key="alternatives",
        title="Other values of each axis",
        table=text_table(("axis", *(str(n) for n in values)), cells),
        lines=(
            "what the best plan with the value loses against the best of all, all else free; [in brackets]: this plan",
            "none: no plan with this value keeps every limit, and none with a value that is not listed",
        ),
    )


def time_block(rows: Sequence[Mapping[str, Any]]) -> Block:
    """GPU time of a request by operator, beside the best plan's."""

    def ms(seconds: float | None) -> str:
        return "" if seconds is None else f"{seconds * 1e3:,.2f}".replace("-", "−")

    shown = [(operator_title(r["operator"], r["phase"]), ms(r["gpu_s"]), ms(r["best_gpu_s"])) for r in rows]
    mine, best = (sum(r[n] or 0.0 for r in rows) for n in ("gpu_s", "best_gpu_s"))
    shown.append(("All", ms(mine), ms(best) if best else ""))
    table = text_table(("GPU-ms of a request", "this plan", "best plan"), shown)
    return Block(key="time", title="Time by operator", table=table)


def memory_by_stage(rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Stage -> kind -> bytes, in the order of the stages; of more than `MOST_STAGES`, the fullest."""
    stages: dict[int, dict[str, float]] = {}
    for row in rows:
        stages.setdefault(row["stage"], {})[row["kind"]] = row["bytes"]
    fullest = sorted(stages, key=lambda s: stages[s].get("free", 0.0))[:MOST_STAGES]
    return {s: stages[s] for s in sorted(fullest)}


def memory_block(document: Mapping[str, Any]) -> Block:
    """What each rank of a stage holds, and what would fit."""
    stages = memory_by_stage(document["memory"])
    found = {kind for held in stages.values() for kind in held}
    rows: list[Sequence[str | Cell]] = [
        (named(kind, MEMORY), *(gib(held.get(kind, 0.0)) for held in stages.values()))
        for kind in MEMORY
        if kind in found
    ]
    rows.append(("All", *(gib(sum(held.values())) for held in stages.values())))
    c = document["capacity"]
    context = c["model_context_tokens"]
    longest = "any" if c["longest_prompt_tokens"] is None else f"{c['longest_prompt_tokens']:,} tokens"
    known = f"the study's: {c['longest_prompt_of_study_tokens']:,}"
    known += "" if context is None else f"; the model itself takes {context:,}"
    lines = [
        f"largest batch that fits: {c['largest_batch_requests']:,.0f} requests ({c['requests_in_flight']:,} in flight)",
        f"longest prompt that fits, by memory alone: {longest} ({known})",
        "every rank of a stage holds the same; the cache is that of the mean number of running requests",
    ]
    count = len({row["stage"] for row in document["memory"]})
    if len(stages) < count:
        lines.append(f"the {len(stages)} fullest of {count} stages")
    header = ("GiB on each rank", *(f"stage {s}" for s in stages))
    return Block(key="memory", title="Memory", table=text_table(header, rows), lines=tuple(lines))


def balance_block(part: Mapping[str, Any]) -> Block:
    """How even the stages are, and the expert ranks."""
    rows = [
        (
            str(s["stage"]),
            str(s["layers"]),
            f"{s['params'] / 1e9:,.2f}",
            f"{s['prefill_step_s'] * 1e3:.2f}",
            f"{s['decode_step_s'] * 1e3:.2f}",
        )
        for s in part["stages"]
    ]
    over = part["slowest_over_mean_stage"]
    lines = [f"slowest over mean stage: prefill {over['prefill']:.3f}, decode {over['decode']:.3f}"]
    if "token_imbalance" in part:
        lines.append(
            f"experts per GPU and layer: {part['experts_per_gpu_per_layer']:g}; expert skew {part['expert_skew']:g}"
        )
        lines += [
            f"with {found['redundant_experts']} redundant experts{' (the plan)' if found['is_the_plans'] else ''} the "
            f"fullest expert rank gets {found['prefill_fullest_over_mean_rank']:.2f} times the mean's tokens in "
            f"prefill, {found['decode_fullest_over_mean_rank']:.2f} in decode"
            for found in part["token_imbalance"]
        ]
        if part["expert_skew"] == 0.0:
            lines.append(
                "routing is taken as balanced (skew 0): what is uneven is chance among few tokens, which redundant "
                "experts do not even out; see workload.expert_skew"
            )
    header = ("stage", "layers", "B parameters", "prefill ms", "decode ms")
    return Block(key="balance", title="Load balance", table=text_table(header, rows), lines=tuple(lines))
