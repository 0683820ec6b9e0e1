"""What a plan does and why, as a page: the sections of the text report, with charts. Depends on its document alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autotune.report.evaluation_text import SHARES, blocks
from autotune.report.html.bars import Series, grouped_bars, stacked_bars
from autotune.report.html.page_layout import GIB, Section, Tile, block_tables, document_page
from autotune.report.html.shapes import Chart
from autotune.report.html.tune_sections import EXPERTS, MEMORY_PARTS, NOT_WEIGHTS
from autotune.report.html.verdict import Verdict
from autotune.report.vocabulary.words import LIMITS, MEMORY, OPERATORS, percent, probability
from autotune.text.numbers import exact, number

TONES = {"OPTIMAL": "good", "ACCEPTABLE": "open", "HARMFUL": "bad", "INFEASIBLE": "bad"}
TONES |= {"confirmed": "good", "refuted": "bad", "undecidable": "open", "ok": "good", "FAILS": "bad"}
WORDS = {**LIMITS, **MEMORY, "gpus": "GPUs", "free": "Free", "all": "All"}
MOST_STAGES = 8
"""Stages drawn one by one; of more, the fullest."""
MOST_TILES = 5
LEGEND = (("first", "best plan of the study"), ("base", "this plan"))


def evaluation_page(document: Mapping[str, Any]) -> str:
    """The page of an `evaluation_document`."""
    checks = document["checks"]
    passed = document["verdict"] == "PASSED"
    kept = f"{sum(c['passed'] for c in checks)} of {len(checks)} checks pass"
    charts = _charts(document)
    sections = []
    for block in blocks(document):
        if block.title in ("Conclusion", "Assumed"):
            continue
        drawn = charts.get(block.title, ())
        if block.title == TIME_TITLE:
            block = replace(block, rows=block.rows[-2:])  # the charts hold the others
        sections.append(
            Section(
                key=block.title.split(",")[0].lower().replace(" ", "-"),
                title=block.title,
                legend=LEGEND if block.title == TIME_TITLE else (),
                charts=drawn,
                tables=block_tables(block, WORDS, TONES),
                lines=block.lines,
            )
        )
    binding = document["summary"]["binding"]
    return document_page(
        kind="evaluation",
        title=document["study"],
        facts=[document["plan"], f"{document['compatibility']['gpus_used']:,} GPUs", *_load(document)],
        verdict=Verdict(
            kind="good" if passed else "bad",
            badge=document["verdict"],
            headline=f"{document['plan_text']}: {document['verdict']}, {kept}.",
            lines=(document["conclusion"], f"What binds: {LIMITS.get(binding, binding)}."),
        ),
        tiles=_tiles(checks),
        sections=sections,
        assumptions=document["assumptions"],
    )


TIME_TITLE = "Time by operator"


def _load(document: Mapping[str, Any]) -> list[str]:
    knobs = document["knobs"]
    if knobs is None:
        return []
    return [f"{knobs['concurrency']:,} requests in flight", f"chunks of {knobs['max_num_batched_tokens']:,} tokens"]


def _tiles(checks: Sequence[Mapping[str, Any]]) -> tuple[Tile, ...]:
    """The checks that fail, then those that pass with the least room."""
    first = sorted(checks, key=lambda c: (c["passed"], c["margin_frac"] is None, c["margin_frac"] or 0.0))[:MOST_TILES]
    return tuple(
        Tile(
            title=WORDS.get(c["name"], c["name"]),
            value=_figure(c),
            unit="" if c["unit"] in SHARES else c["unit"].removesuffix(" per GPU of a stage"),
            small="" if c["limit"] is None else f"limit {_limit(c)}",
            change="✓ passes" if c["passed"] else "✗ fails",
        )
        for c in first
    )


def _figure(check: Mapping[str, Any]) -> str:
    value = check["value"]
    if value is None:
        return "–"
    if check["unit"] == "probability":
        return probability(value)
    return percent(value, 1 if 0.99 < value < 1.0 else 0) if check["unit"] in SHARES else number(value)


def _limit(check: Mapping[str, Any]) -> str:
    limit = check["limit"]
    return percent(limit, 1 if 0.99 < limit < 1.0 else 0) if check["unit"] in SHARES else exact(limit)


def _charts(document: Mapping[str, Any]) -> dict[str, tuple[Chart, ...]]:
    """Title of a block -> its charts."""
    out: dict[str, tuple[Chart, ...]] = {}
    if document["time"]:
        out[TIME_TITLE] = tuple(_time(document["time"], phase) for phase in ("prefill", "decode"))
    if document["memory"]:
        out["Memory"] = (_memory(document),)
    return out


def _time(rows: Sequence[Mapping[str, Any]], phase: str) -> Chart:
    mine = {r["operator"]: r["gpu_s"] * 1e3 for r in rows if r["phase"] == phase}
    series = [Series(name="this plan", role="base", values=mine)]
    best = {r["operator"]: r["best_gpu_s"] * 1e3 for r in rows if r["phase"] == phase and r["best_gpu_s"] is not None}
    if best:
        series.insert(0, Series(name="best plan", role="first", values=best))
    return grouped_bars(f"{phase.capitalize()} of one request", unit="GPU-ms", words=OPERATORS, series=series)


def _memory(document: Mapping[str, Any]) -> Chart:
    """A bar for each stage: what is in use, of the kinds that a GPU holds, against the limit."""
    stages: dict[int, dict[str, float]] = {}
    free: dict[int, float] = {}
    for row in document["memory"]:
        kind, held = row["kind"], row["bytes"] / GIB
        if kind == "free":
            free[row["stage"]] = held
            continue
        part = "experts" if kind in EXPERTS else kind if kind in NOT_WEIGHTS else "weights"
        stage = stages.setdefault(row["stage"], {})
        stage[part] = stage.get(part, 0.0) + held
    capacity = sum(stages[0].values()) + free.get(0, 0.0)
    fullest = sorted(sorted(stages, key=lambda s: -sum(stages[s].values()))[:MOST_STAGES])
    limit = next((c for c in document["checks"] if c["name"] == "memory_util_frac"), None)
    return stacked_bars(
        "Memory of each GPU of a stage",
        unit="GiB",
        parts=MEMORY_PARTS,
        series=[Series(name=f"Stage {s}", role="base", values=stages[s]) for s in fullest],
        capacity=capacity,
        limit=None if limit is None else (capacity * limit["limit"], f"limit {_limit(limit)}"),
    )
