"""The plan in production against a candidate, as a page. Depends on the fields of `comparison_document` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.metrics import METRICS
from autotune.report.comparison_text import blocks
from autotune.report.html.bars import Series, grouped_bars, stacked_bars
from autotune.report.html.page_layout import Section, Tile, block_tables, document_page
from autotune.report.html.rolling import capacity_chart
from autotune.report.html.shapes import Chart
from autotune.report.html.tune_sections import EXPERTS, MEMORY_PARTS, NOT_WEIGHTS
from autotune.report.html.verdict import Verdict
from autotune.report.vocabulary.words import LIMITS, MEMORY, OPERATORS, probability, signed
from autotune.text.numbers import number

KINDS = {"switch": ("good", "Switch"), "keep": ("good", "Keep"), "undecided": ("open", "Undecided")}
SIDES = (("candidate", "first"), ("current", "base"))
LEGEND = (("first", "candidate"), ("base", "current plan"))
WORDS = {
    **{name: m.title for name, m in METRICS.items()},
    **LIMITS,
    **MEMORY,
    "tpot_s (ms)": "TPOT, ms",
    "stage_tokens_per_s_per_gpu": "Throughput per GPU of a stage",
    "compute_util_frac": "Of peak FLOP/s",
    "bandwidth_util_frac": "Of peak memory bandwidth",
    "kv_capacity_sequences": "Requests that the KV cache holds",
}
TONES: Mapping[str, str] = {}


def comparison_page(document: Mapping[str, Any]) -> str:
    """The page of a `comparison_document`."""
    kind, badge = KINDS.get(document["verdict"], ("bad", document["verdict"]))
    current, candidate = document["current"], document["candidate"]
    other = "no candidate" if candidate is None else candidate["plan"]
    facts = [
        f"{document['model']} on {document['gpus']:,} × {document['gpu']}",
        f"current {current['plan']}",
        f"candidate {other}",
    ]
    if document["traffic"] is not None:
        facts.append(f"traffic of {document['traffic']}")
    text = document["reason"]
    drawn = _charts(document)
    sections = []
    for i, block in enumerate(b for b in blocks(dict(document)) if b.title != "Assumed"):
        charts = next((c for start, c in drawn if block.title.startswith(start)), ())
        sections.append(
            Section(
                key=f"part-{i}",
                title=block.title,
                legend=LEGEND if charts and not block.title.startswith("The switch") else (),
                charts=charts,
                tables=block_tables(block, WORDS, TONES),
                lines=block.lines,
            )
        )
    return document_page(
        kind="comparison",
        title=document["study"],
        facts=facts,
        verdict=Verdict(
            kind=kind, badge=badge, headline=_headline(document, badge), lines=(f"{text[:1].upper()}{text[1:]}.",)
        ),
        tiles=_tiles(document),
        sections=sections,
        assumptions=document["assumptions"],
    )


def _headline(document: Mapping[str, Any], badge: str) -> str:
    current, candidate = document["current"], document["candidate"]
    if document["verdict"] == "switch" and candidate is not None:
        return f"Switch to {candidate['plan']}."
    if document["verdict"] == "keep":
        return f"Keep {current['plan']}."
    return f"{badge}: {current['plan']} or {'no other plan' if candidate is None else candidate['plan']}."


def _tiles(document: Mapping[str, Any]) -> tuple[Tile, ...]:
    wanted = dict.fromkeys([document["objective"]["metric"], "ttft_longest_s", "ttft_s", "tpot_s"])
    rows = {m["name"]: m for m in document["metrics"]}
    out = []
    for name in wanted:
        if name not in rows or name not in METRICS or (name == "ttft_s" and "ttft_longest_s" in rows):
            continue
        row, metric = rows[name], METRICS[name]
        out.append(
            Tile(
                title=metric.title,
                value="–" if row["candidate"] is None else number(row["candidate"] * metric.factor),
                unit=metric.unit,
                small="" if row["current"] is None else f"current plan: {number(row['current'] * metric.factor)}",
                change=f"{signed(row['difference_frac'])} vs current",
            )
        )
    if document["p_better"] is not None:
        out.append(Tile(title="Candidate is better", value=probability(document["p_better"]), unit="likely"))
    switch = document["switch"]
    if switch is not None and switch["payback_s"] is not None:
        paid = Tile(title="Pays for the switch", value=number(switch["payback_s"] / 60.0), unit="min after its start")
        out.append(paid)
    return tuple(out)


def _charts(document: Mapping[str, Any]) -> tuple[tuple[str, tuple[Chart, ...]], ...]:
    """(beginning of a block's title, its charts)"""
    out: list[tuple[str, tuple[Chart, ...]]] = []
    if document["time"]:
        charts = []
        for phase, title in (("prefill", "Prefill of one request"), ("decode", "Decode of one request")):
            series = [_gpu_ms(document, phase, side, role) for side, role in SIDES]
            charts.append(grouped_bars(title, unit="GPU-ms", words=OPERATORS, series=series))
        out.append(("Where it comes from", tuple(charts)))
    if document["memory_bytes"]:
        out.append(("Memory", (_memory(document["memory_bytes"]),)))
    switch = document["switch"]
    if switch is not None and switch["waves"]:
        waves = [(w["duration_s"], w["capacity_requests_per_s"]) for w in switch["waves"]]
        before, after = (float(document[s]["capacity_requests_per_s"] or 0.0) for s in ("current", "candidate"))
        load = switch["load_requests_per_s"]
        out.append(("The switch", (capacity_chart(waves, before=before, after=after, load=load),)))
    return tuple(out)


def _gpu_ms(document: Mapping[str, Any], phase: str, side: str, role: str) -> Series:
    rows = [r for r in document["time"] if r["phase"] == phase]
    return Series(name=side, role=role, values={r["operator"]: r[f"{side}_gpu_s"] * 1e3 for r in rows})


def _memory(kinds: Mapping[str, Mapping[str, float]]) -> Chart:
    series = []
    for side, role in SIDES:
        found: dict[str, float] = {}
        for kind, held in kinds.items():
            part = "experts" if kind in EXPERTS else kind if kind in NOT_WEIGHTS else "weights"
            found[part] = found.get(part, 0.0) + held[side] / 1e9
        series.append(Series(name=side, role=role, values=found))
    return stacked_bars("Memory of the fullest GPU", unit="GB", parts=MEMORY_PARTS, series=series)
