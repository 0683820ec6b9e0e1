"""What a plan does and why, as a page: the blocks of its report, with charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autotune.report.evaluation_tables import memory_by_stage
from autotune.report.evaluation_text import CHECKS, evaluation_blocks, stands_lines
from autotune.report.html.page_layout import Legend, Page, Tile, assumed_section, block_section, render_page
from autotune.report.svg.bars import Series, grouped_bars, stacked_bars
from autotune.report.svg.shapes import Chart
from autotune.report.text_blocks import Block
from autotune.report.verdict import Verdict
from autotune.report.vocabulary.titles import MEMORY_PARTS, TONES, memory_parts
from autotune.report.vocabulary.words import GIB, SHARES, asked, measure
from autotune.scoring.gpu_time import OPERATORS
from autotune.space.pool_plan import ROLES

MOST_TILES = 5
LEGEND = Legend((("first", "best plan of the study"), ("base", "this plan")))


def evaluation_page(document: Mapping[str, Any]) -> str:
    """The page of a document of `evaluation_document`."""
    charts, pooled = _charts(document), "pools" in document
    return render_page(
        Page(
            kind="evaluation",
            title=document["study"],
            facts=_facts(document),
            verdict=_verdict(document),
            steps=document["next"],
            tiles=() if pooled else _tiles(document["checks"]),
            sections=[
                *(
                    block_section(_drawn(block), charts.get(block.key, ()), LEGEND if block.key == "time" else None)
                    for block in evaluation_blocks(document)
                    if block.key != "conclusion"
                ),
                assumed_section(document["assumptions"]),
            ],
            made_by=document["command"],
        )
    )


def _facts(document: Mapping[str, Any]) -> list[str]:
    if "pools" in document:
        return [f"{document['pools'][role]['gpus']:,} GPUs that {role}" for role in ROLES]
    facts, knobs = [document["name"], f"{document['compatibility']['gpus_used']:,} GPUs"], document["knobs"]
    if knobs is not None:
        facts.append(f"{knobs['concurrency']:,} requests in flight")
        facts.append(f"chunks of {knobs['max_num_batched_tokens']:,} tokens")
    return facts


def _verdict(document: Mapping[str, Any]) -> Verdict:
    checks, binding = document["checks"], document["summary"]["binding"]
    return Verdict(
        kind=TONES[document["verdict"]],
        badge=document["verdict"],
        headline=f"{document['name']}: {sum(c['passed'] for c in checks)} of {len(checks)} checks pass.",
        lines=(document["conclusion"], f"What binds: {CHECKS.get(binding, binding)}."),
        reach=" ".join(stands_lines(document)),
    )


def _drawn(block: Block) -> Block:
    """Without the rows that charts show: of the times, all but what belongs to no phase, and the sum."""
    if block.key != "time" or block.table is None:
        return block
    return replace(block, table=replace(block.table, rows=block.table.rows[-2:]))


def _tiles(checks: Sequence[Mapping[str, Any]]) -> list[Tile]:
    """The checks that fail, then those that pass with the least room."""
    first = sorted(checks, key=lambda c: (c["passed"], c["margin_frac"] is None, c["margin_frac"] or 0.0))[:MOST_TILES]
    return [
        Tile(
            title=CHECKS.get(c["name"], c["name"]),
            value="∞" if c["grows"] else measure(c["value"], c["unit"]),
            unit="" if c["unit"] in SHARES else c["unit"].removesuffix(" per GPU of a stage"),
            small="" if c["limit"] is None else f"limit {asked(c['limit'], c['unit'])}",
            change="✓ passes" if c["passed"] else "✗ fails",
        )
        for c in first
    ]


def _charts(document: Mapping[str, Any]) -> dict[str, list[Chart]]:
    """Key of a block -> its charts."""
    out: dict[str, list[Chart]] = {}
    if "pools" in document:
        return out
    if document["time"]:
        out["time"] = [_time(document["time"], phase) for phase in ("prefill", "decode")]
    if document["memory"]:
        out["memory"] = [_memory(document)]
    return out


def _time(rows: Sequence[Mapping[str, Any]], phase: str) -> Chart:
    series = []
    for name, role, field in (("best plan", "first", "best_gpu_s"), ("this plan", "base", "gpu_s")):
        values = {r["operator"]: r[field] * 1e3 for r in rows if r["phase"] == phase and r[field] is not None}
        series += [Series(name=name, role=role, values=values)] if values else []
    return grouped_bars(f"{phase.capitalize()} of one request", unit="GPU-ms", words=OPERATORS, series=series)


def _memory(document: Mapping[str, Any]) -> Chart:
    """A bar for each stage: what is in use, of the kinds that a GPU holds, against the limit."""
    stages = {
        stage: {kind: size / GIB for kind, size in held.items()}
        for stage, held in memory_by_stage(document["memory"]).items()
    }
    capacity = max(sum(held.values()) for held in stages.values())
    limit = next((c for c in document["checks"] if c["name"] == "memory_util_frac"), None)
    return stacked_bars(
        "Memory of each GPU of a stage",
        unit="GiB",
        parts=MEMORY_PARTS,
        series=[Series(name=f"Stage {s}", role="base", values=memory_parts(held)) for s, held in stages.items()],
        capacity=capacity,
        limit=None if limit is None else (capacity * limit["limit"], f"limit {asked(limit['limit'], limit['unit'])}"),
    )
