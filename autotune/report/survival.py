"""What `autotune survive` says, as a document and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from autotune.launch.service import loads_by_name
from autotune.planning.model_tables import how_sure
from autotune.planning.place import DOMAINS, Place, worst_loss
from autotune.planning.survive import PeakLoss, Survival, Way, Years
from autotune.report.answer import assumed_block
from autotune.report.document import finite
from autotune.report.evaluation_text import next_blocks
from autotune.report.study_words import command
from autotune.report.text_blocks import Block, Report, text_table
from autotune.space import format_plan, short_plan
from autotune.text.numbers import number
from costmodel.simulation.served import Served, percentile

STATISTICS = (50, 90, 99)
LATENCIES = {"ttft": "TTFT", "tpot": "TPOT of a request", "e2e": "End to end"}
MOST_PLACES = 64
"""Replicas whose places a document lists."""


def survival_document(found: Survival) -> dict[str, Any]:
    """The ways to survive, places, availability, and the loss at the peak. Latencies in seconds."""
    asked = found.study.resilience
    return finite(
        {
            "study": found.study.name,
            "survive": asked.survive,
            "k": asked.k,
            "degraded_load_frac": asked.degraded_load_frac,
            "degraded_latency_factor": asked.degraded_latency_factor,
            "load_requests_per_s": found.load_per_s,
            "cluster_gpus": found.study.cluster.gpus,
            "survives": found.best is not None,
            "best": None if found.best is None else _way(found, found.best),
            "without_failures": _way(found, found.plain),
            "ways": [_way(found, way) for way in found.ways],
            "placement": None if found.place is None else _placement(found.place, found.start_s, asked.detect_s),
            "years": None if found.years is None else _years(found.years, found.load_per_s),
            "years_without_more": None if found.years_plain is None else _years(found.years_plain, found.load_per_s),
            "peak_loss": None if found.peak is None else _peak(found, found.peak),
            "mtbf_h": {d: getattr(asked, f"{d}_mtbf_s") / 3600.0 for d in DOMAINS},
            "repair_h": {d: getattr(asked, f"{d}_repair_s") / 3600.0 for d in DOMAINS},
            "next": _next(found),
            "assumptions": [how_sure(found.study), *found.study.resilience_assumptions, *found.study.assumptions],
        }
    )


def _next(found: Survival) -> list[str]:
    """The launch files of the plan that survives; where the cluster has too few GPUs, the question with enough."""
    if found.best is None:
        least = min((way.gpus for way in found.ways), default=0)
        more = (f"cluster.gpus={least}",)
        return [command(found.study, "survive", settings=more).text] if least > found.study.cluster.gpus else []
    best = found.best
    result, gpus = best.offer.result, f"cluster.gpus={best.gpus}"
    layout = replace(result.layout, replicas=best.replicas)
    name, launch = short_plan(layout, dense=not found.study.arch.is_moe), ("--out", "launch")
    if not loads_by_name(found.study):
        return []
    settings = (gpus, *(() if found.study.engine == result.engine else (f"engine={result.engine}",)))
    return [command(found.study, "export", "--plan", name, "--target", result.engine, *launch, settings=settings).text]


def _way(found: Survival, way: Way) -> dict[str, Any]:
    layout = replace(way.offer.result.layout, replicas=way.replicas)
    return {
        "way": way.way,
        "plan": format_plan(layout, way.offer.result.engine),
        "short": short_plan(layout, dense=not found.study.arch.is_moe),
        "gpus_per_replica": way.offer.gpus,
        "capacity_per_replica_per_s": float(way.offer.capacities.each(way.replicas)),
        "degraded_capacity_per_replica_per_s": float(way.degraded.each(way.replicas - way.lost)),
        "replicas": way.replicas,
        "replicas_without_failures": way.replicas_without,
        "lost_at_worst": way.lost,
        "gpus": way.gpus,
        "gpus_without_failures": way.gpus_without,
        "fits": way.fits,
    }


def _placement(place: Place, start_s: float, detect_s: float) -> dict[str, Any]:
    return {
        "spare_replicas": place.spare_slots,
        "lost_at_worst": {d: worst_loss(place, d, 1) for d in DOMAINS},
        "down_s": detect_s + start_s if place.spare_slots else None,
        "replicas": [
            {
                "slot": slot,
                "gpus": [slot * place.replica_gpus, (slot + 1) * place.replica_gpus - 1],
                "nodes": list(place.domains_of(slot, "node")),
                "racks": list(place.domains_of(slot, "rack")),
            }
            for slot in place.running()[:MOST_PLACES]
        ],
    }


def _years(years: Years, load_per_s: float) -> dict[str, Any]:
    return {
        "replicas": years.replicas,
        "availability": years.availability,
        "availability_degraded": years.availability_degraded,
        "goodput_requests_per_year": years.goodput_per_year,
        "goodput_frac": years.goodput_per_year / (load_per_s * 365.25 * 86400.0),
        "failures_per_year": years.years.failures_per_year,
        "losses_per_year": years.years.losses_per_year,
        "replica_down_s": years.years.down_s,
        "up_frac": [float(x) for x in years.years.up_frac],
        "years_simulated": years.years.years,
    }


def _peak(found: Survival, peak: PeakLoss) -> dict[str, Any]:
    given = found.study.constraints
    event = peak.event
    sides = {"without": peak.counted(peak.run.without), "with_loss": peak.counted(peak.run.with_loss)}
    return {
        "requests": len(peak.run.without.requests),
        "length_s": peak.length_s,
        "lost_at_s": event.at_s,
        "lost_replicas": event.lost,
        "back_after_s": event.back_s,
        "retried": peak.run.retried,
        "counted_from_s": peak.shown[0],
        "counted_to_s": peak.shown[1],
        **{
            side: {
                "latencies": _latencies(served),
                "attainment_frac": float(
                    served.keeps(ttft_s=given.ttft_s, tpot_s=given.tpot_s, e2e_s=given.e2e_s).mean()
                ),
            }
            for side, served in sides.items()
        },
    }


def _latencies(served: Served) -> dict[str, dict[str, float]]:
    values = {"ttft": served.ttft_s, "tpot": served.tpot_s[served.requests.output > 1], "e2e": served.e2e_s}
    return {
        name: {"mean": float(np.mean(v)) if v.size else float("nan"), **{f"p{s}": percentile(v, s) for s in STATISTICS}}
        for name, v in values.items()
    }


def survival_report(document: Mapping[str, Any]) -> Report:
    """The cheapest way to survive, the others, and what a loss does."""
    many = "" if document["k"] == 1 else "s"
    what = f"{document['k']} {document['survive']}{many}"
    best, plain = document["best"], document["without_failures"]
    if best is None:
        reason = f"The cluster has too few GPUs to survive the loss of {what}."
    else:
        more = best["gpus"] - plain["gpus"]
        reason = (
            f"{best['short']} on {best['gpus']:,} GPUs survives the loss of {what}, by {best['way']}: "
            f"{more:,} GPUs more than without failures."
        )
    level = "every limit holds for the whole load"
    if document["degraded_load_frac"] < 1.0 or document["degraded_latency_factor"] > 1.0:
        level = (
            f"{document['degraded_load_frac']:.0%} of the load is served, with latencies up to "
            f"{document['degraded_latency_factor']:g} times the limits"
        )
    blocks = [_ways_block(document)]
    blocks += [] if document["placement"] is None else [_placement_block(document)]
    blocks += [] if document["years"] is None else [_years_block(document)]
    blocks += [] if document["peak_loss"] is None else [_peak_block(document)]
    return Report(
        headline=f"{document['study']}: {number(document['load_requests_per_s'])} requests/s with {what} lost",
        reason=reason,
        tone="bad" if best is None else "good",
        lines=(f"Asked for meanwhile: {level}.",),
        blocks=(*blocks, assumed_block(tuple(document["assumptions"])), *next_blocks(document)),
    )


def _ways_block(document: Mapping[str, Any]) -> Block:
    rows = [
        (
            w["short"],
            w["way"],
            f"{w['gpus']:,}" if w["fits"] else f"{w['gpus']:,}, too many",
            f"{w['gpus_without_failures']:,}",
            f"{w['lost_at_worst']} of {w['replicas']}",
            number(w["capacity_per_replica_per_s"]),
            number(w["capacity_per_replica_per_s"] * w["replicas"]),
        )
        for w in document["ways"]
    ]
    header = ("plan", "way", "GPUs", "without failures", "lost at worst", "requests/s a replica", "in all")
    return Block(title="Ways to survive", table=text_table(header, rows, texts=(0, 1)))


def _placement_block(document: Mapping[str, Any]) -> Block:
    place = document["placement"]
    rows = [(str(r["slot"]), _range(r["gpus"]), _range(r["nodes"]), _range(r["racks"])) for r in place["replicas"]]
    lost = ", ".join(f"a {domain} {count}" for domain, count in place["lost_at_worst"].items())
    back = (
        f"spare room for {place['spare_replicas']} replicas: a lost one serves again after {place['down_s']:,.0f} s"
        if place["spare_replicas"]
        else "no spare room: a lost replica serves again when its GPUs are repaired"
    )
    table = text_table(("slot", "GPUs", "hosts", "racks"), rows)
    return Block(title="Places", table=table, lines=(f"replicas that a loss takes down at worst: {lost}", back))


def _range(ends: list[int]) -> str:
    return f"{ends[0]}" if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}"


def _years_block(document: Mapping[str, Any]) -> Block:
    rows = []
    for title, key in (("this plan", "years"), ("only what the load needs", "years_without_more")):
        y = document[key]
        if y is not None:
            rows.append(
                (
                    title,
                    str(y["replicas"]),
                    f"{y['availability']:.4%}",
                    f"{y['availability_degraded']:.4%}",
                    f"{y['goodput_frac']:.4%}",
                    number(y["goodput_requests_per_year"]),
                    number(y["losses_per_year"]),
                    f"{y['replica_down_s'] / 60.0:,.0f} min",
                )
            )
    header = ("", "replicas", "whole load", "kept level", "goodput", "requests a year", "losses a year", "down for")
    years = document["years"]["years_simulated"]
    mtbf = ", ".join(f"{d} {h:,.0f} h" for d, h in document["mtbf_h"].items())
    repair = ", ".join(f"{d} {h:g} h" for d, h in document["repair_h"].items())
    lines = (
        f"whole load, kept level: share of the time in which they are served; {years:,.0f} years simulated",
        f"mean time between failures: {mtbf}; repair: {repair}",
    )
    return Block(title="Availability", table=text_table(header, rows), lines=lines)


def _peak_block(document: Mapping[str, Any]) -> Block:
    peak = document["peak_loss"]
    rows = []
    for name, title in LATENCIES.items():
        for side, words in (("without", "no loss"), ("with_loss", "loss")):
            figures = peak[side]["latencies"][name]
            rows.append((title, words, *(number(1e3 * figures[s]) for s in ("mean", "p50", "p90", "p99"))))
    without, loss = (f"{peak[side]['attainment_frac']:.2%}" for side in ("without", "with_loss"))
    back = "do not come back" if peak["back_after_s"] is None else f"are back after {peak['back_after_s']:,.0f} s"
    lines = (
        f"within limits: {without} without the loss, {loss} with it",
        (
            f"{peak['lost_replicas']} replicas are lost at {peak['lost_at_s']:,.0f} of {peak['length_s']:,.0f} s and "
            f"{back}; {peak['retried']:,} requests are sent again"
        ),
        (
            f"percentiles over requests that come between {peak['counted_from_s']:,.0f} and "
            f"{peak['counted_to_s']:,.0f} s, ms, from their first arrival"
        ),
    )
    header = ("latency, ms", "", "mean", "p50", "p90", "p99")
    return Block(title="A loss at the peak", table=text_table(header, rows, texts=(0, 1)), lines=lines)
