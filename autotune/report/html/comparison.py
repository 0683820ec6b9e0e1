"""The plan in production against a candidate, as a page: the blocks of its report, with charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.metrics import METRICS
from autotune.report.comparison_text import comparison_blocks, metric_text, remarks
from autotune.report.html.page_layout import Legend, Page, Tile, assumed_section, block_section, render_page
from autotune.report.svg.bars import Series, grouped_bars, stacked_bars
from autotune.report.svg.capacity import capacity_chart
from autotune.report.svg.shapes import Chart
from autotune.report.verdict import Verdict
from autotune.report.vocabulary.titles import MEMORY_PARTS, TONES, memory_parts
from autotune.report.vocabulary.words import GIB, signed
from autotune.scoring.gpu_time import OPERATORS
from autotune.text.numbers import number, probability

SIDES = (("candidate", "first"), ("current", "base"))
LEGEND = Legend((("first", "candidate"), ("base", "current plan")))
TOLD_IN_TILES = ("ttft_longest_s", "ttft_s", "tpot_s")


def comparison_page(document: Mapping[str, Any]) -> str:
    """The page of a document of `comparison_document`."""
    current, candidate, verdict = document["current"], document["candidate"], document["verdict"]
    other = "no candidate" if candidate is None else candidate["name"]
    facts = [f"{document['model']} on {document['gpus']:,} × {document['gpu']}", f"current {current['name']}"]
    facts.append(f"candidate {other}")
    facts += [] if document["traffic"] is None else [f"traffic of {document['traffic']}"]
    badge, reason = verdict.capitalize(), document["reason"]
    headline = f"{badge}: {current['name']} or {'no other plan' if candidate is None else other}."
    if document["rule"] == "not_measured":
        headline, badge = f"Measure {other} before you switch from {current['name']}.", "Measure first"
    if verdict == "keep":
        headline = f"Keep {current['name']}."
    elif verdict == "switch" and candidate is not None:
        headline = f"Switch to {other}."
    charts = _charts(document)
    legends = {key: LEGEND for key in ("time", "memory") if charts.get(key)}
    return render_page(
        Page(
            kind="comparison",
            title=document["study"],
            facts=facts,
            verdict=Verdict(
                kind=TONES[verdict],
                badge=badge,
                headline=headline,
                lines=(f"{reason[:1].upper()}{reason[1:]}.",),
                reach=" ".join(remarks(document)),
            ),
            tiles=_tiles(document),
            sections=[
                *(
                    block_section(block, charts.get(block.key, ()), legends.get(block.key))
                    for block in comparison_blocks(document)
                    if block.key not in ("assumed", "next")
                ),
                assumed_section(document["assumptions"]),
            ],
            steps=document["next"],
            made_by=document["command"],
        )
    )


def _tiles(document: Mapping[str, Any]) -> list[Tile]:
    rows = {m["name"]: m for m in document["metrics"]}
    wanted = dict.fromkeys([document["objective"]["metric"], *TOLD_IN_TILES])
    out = []
    for name in wanted:
        if name not in rows or (name == "ttft_s" and "ttft_longest_s" in rows):
            continue
        row, metric = rows[name], METRICS[name]
        before, now = (metric_text(document, row, side) for side in ("current", "candidate"))
        out.append(
            Tile(
                title=metric.title,
                value=now,
                unit=metric.unit,
                small="" if before == metric.text(None) else f"current plan: {before}",
                change=f"{signed(row['difference_frac'])} vs current",
            )
        )
    if document["p_better"] is not None:
        out.append(Tile(title="Candidate is better", value=probability(document["p_better"]), unit="likely"))
    switch = document["switch"]
    if switch is not None and switch["payback_s"] is not None:
        minutes = number(switch["payback_s"] / 60.0)
        out.append(Tile(title="Pays for the switch", value=minutes, unit="min after its start"))
    return out


def _charts(document: Mapping[str, Any]) -> dict[str, list[Chart]]:
    """Key of a block -> its charts."""
    out: dict[str, list[Chart]] = {}
    if document["time"]:
        out["time"] = [
            grouped_bars(
                f"{phase.capitalize()} of one request",
                unit="GPU-ms",
                words=OPERATORS,
                series=[_gpu_ms(document, phase, side, role) for side, role in SIDES],
            )
            for phase in ("prefill", "decode")
        ]
    if document["memory_bytes"]:
        series = [
            Series(
                name=side,
                role=role,
                values=memory_parts({kind: held[side] / GIB for kind, held in document["memory_bytes"].items()}),
            )
            for side, role in SIDES
        ]
        out["memory"] = [stacked_bars("Memory of the fullest GPU", unit="GiB", parts=MEMORY_PARTS, series=series)]
    switch = document["switch"]
    if switch is not None and switch["waves"]:
        waves = [(w["duration_s"], w["capacity_requests_per_s"]) for w in switch["waves"]]
        before, after = (float(document[s]["capacity_requests_per_s"] or 0.0) for s in ("current", "candidate"))
        out["switch"] = [capacity_chart(waves, before=before, after=after, load=switch["load_requests_per_s"])]
    return out


def _gpu_ms(document: Mapping[str, Any], phase: str, side: str, role: str) -> Series:
    rows = [r for r in document["time"] if r["phase"] == phase]
    return Series(name=side, role=role, values={r["operator"]: r[f"{side}_gpu_s"] * 1e3 for r in rows})
