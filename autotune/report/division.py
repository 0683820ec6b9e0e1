"""What `autotune divide` says, as a document and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autotune.planning.divide_cluster import Division, Period, Units
from autotune.planning.model_tables import NO_PLAN, how_sure
from autotune.report.document import finite
from autotune.report.evaluation_text import assumed_block, next_blocks
from autotune.report.text_blocks import Block, Report, text_table
from autotune.space import format_plan, short_plan
from autotune.text.numbers import number


def division_document(found: Division, *, steps: Sequence[str] = ()) -> dict[str, Any]:
    """Every period's division, what one more unit is worth, and what the present division loses; `steps` follow."""
    study, present = found.study, found.present
    return finite(
        {
            "study": study.name,
            "unit": study.unit,
            "gpu_types": [
                {"gpu": t.name, "units": t.units, "gpus_per_unit": t.unit_gpus, "gpus": t.units * t.unit_gpus}
                for t in study.types
            ],
            "serves_all": found.serves_all,
            "next": list(steps),
            "value": found.value,
            "most_value": sum(
                p.share_of_day * m.share.weight
                for p in found.periods
                for m, awake in zip(study.models, p.awake, strict=True)
                if awake
            ),
            "periods": [_period(found, p) for p in found.periods],
            "present": None
            if present is None
            else {
                "value": present.value,
                "lost_value": found.value - present.value,
                "models": [
                    {"name": m.share.name, "gpus": _gpus(found, units)}
                    for m, units in zip(study.models, present.units, strict=True)
                ],
                "lost_requests_per_s": _lost(found),
            },
            "assumptions": _assumptions(found),
        }
    )


def _gpus(found: Division, units: Units) -> dict[str, int]:
    return {t.name: u * t.unit_gpus for t, u in zip(found.study.types, units, strict=True)}


def _lost(found: Division) -> float:
    """Requests per second that the present division does not serve and the best one does, mean over the day."""
    present = found.present
    if present is None:
        return 0.0
    return sum(
        period.share_of_day * (best - now) * model.rate_per_s
        for period, row in zip(found.periods, present.served_frac, strict=True)
        for best, now, model in zip(period.served_frac, row, found.study.models, strict=True)
    )


def _period(found: Division, period: Period) -> dict[str, Any]:
    types = found.study.types
    held = [sum(units[a] for units in period.units) for a in range(len(types))]
    return {
        "from_h": period.from_h,
        "to_h": period.to_h,
        "value": period.value,
        "models": [_model(found, period, i) for i in range(len(period.units))],
        "spare_gpus": {t.name: (t.units - n) * t.unit_gpus for t, n in zip(types, held, strict=True)},
        "gain_of_one_more": {t.name: gain for t, gain in zip(types, period.cluster_gain, strict=True)},
    }


def _model(found: Division, period: Period, i: int) -> dict[str, Any]:
    model, units, types = found.study.models[i], period.units[i], found.study.types
    gains = dict(zip((t.name for t in types), period.gain_of_one_more[i], strict=True))
    return {
        "name": model.share.name,
        "weight": model.share.weight,
        "awake": period.awake[i],
        "gpus": _gpus(found, units),
        "asked_requests_per_s": model.rate_per_s if period.awake[i] else 0.0,
        "served_frac": period.served_frac[i],
        "served_requests_per_s": period.served_frac[i] * model.rate_per_s,
        "plans": [row for a, u in enumerate(units) if (row := _plan(found, i, a, u)) is not None],
        "gain_of_one_more": gains,
        "requests_per_s_of_one_more": {n: g / model.share.weight * model.rate_per_s for n, g in gains.items()},
    }


def _plan(found: Division, i: int, axis: int, units: int) -> dict[str, Any] | None:
    """What serves a model on the GPUs of one type."""
    table = found.tables[i][axis]
    if int(table.offer[units]) == NO_PLAN or not units:
        return None
    offer, replicas = table.offers[int(table.offer[units])], int(table.replicas[units])
    layout = replace(offer.result.layout, replicas=replicas)
    return {
        "gpu": found.study.types[axis].name,
        "plan": format_plan(layout, offer.result.engine),
        "short": short_plan(layout, dense=not found.study.models[i].studies[axis].arch.is_moe),
        "engine": offer.result.engine,
        "replicas": replicas,
        "gpus_in_use": replicas * offer.gpus,
        "capacity_requests_per_s": float(table.capacity_per_s[units]),
        "max_num_batched_tokens": offer.result.knobs.max_num_batched_tokens,
    }


def _assumptions(found: Division) -> list[str]:
    said = ["a model's value is its weight times the share of its requests that is served within its limits"]
    said.append(how_sure(*(study for model in found.study.models for study in model.studies)))
    if len(found.periods) > 1:
        said.append("what handing GPUs over between models takes is not counted")
    return said


def division_report(document: Mapping[str, Any]) -> Report:
    """The divisions, and what follows from them."""
    types = ", ".join(f"{t['gpus']:,} {t['gpu']}" for t in document["gpu_types"])
    share = document["value"] / document["most_value"] if document["most_value"] else 0.0
    said = (
        "Every model is served whole." if document["serves_all"] else f"{share:.1%} of what there is to gain is served."
    )
    return Report(
        headline=f"{document['study']}: {len(document['periods'][0]['models'])} models on {types}",
        reason=said,
        tone="good" if document["serves_all"] else "open",
        blocks=(
            *(_period_block(document, p) for p in document["periods"]),
            *([] if document["present"] is None else [_present_block(document)]),
            assumed_block(document),
            *next_blocks(document),
        ),
    )


def _period_block(document: Mapping[str, Any], period: Mapping[str, Any]) -> Block:
    rows = []
    for m in period["models"]:
        plans = ", ".join(f"{p['short']}" for p in m["plans"]) or "–"
        room = sum(p["capacity_requests_per_s"] for p in m["plans"])
        rows.append(
            (
                m["name"],
                _counts(m["gpus"]) if m["awake"] else "asleep",
                plans if m["awake"] else "–",
                number(m["asked_requests_per_s"]),
                number(room),
                f"{m['served_frac']:.1%}" if m["awake"] else "–",
                ", ".join(f"{gain:+.3f}" for gain in m["gain_of_one_more"].values()),
                ", ".join(f"{more:+,.1f}" for more in m["requests_per_s_of_one_more"].values()),
            )
        )
    unit = document["unit"]
    header = (
        "model",
        "GPUs",
        "plan",
        "requests/s",
        "room for",
        "served",
        f"one {unit} more: value",
        "requests/s",
    )
    spare = _counts(period["spare_gpus"])
    gains = ", ".join(f"{gain:+.3f} ({name})" for name, gain in period["gain_of_one_more"].items())
    lines = (
        f"value {period['value']:.3f}; spare GPUs: {spare}",
        f"one {unit} more in the cluster, divided anew: {gains}",
    )
    whole = (period["from_h"], period["to_h"]) == (0.0, 24.0)
    title = "Division" if whole else f"Division from {period['from_h']:g} to {period['to_h']:g} o'clock"
    return Block(title=title, table=text_table(header, rows, texts=(0, 1, 2)), lines=lines)


def _present_block(document: Mapping[str, Any]) -> Block:
    present = document["present"]
    rows = [(m["name"], _counts(m["gpus"])) for m in present["models"]]
    lost = (
        f"the present division is worth {present['value']:.3f}, {present['lost_value']:.3f} less than the best; it "
        f"serves {present['lost_requests_per_s']:,.1f} requests/s less"
    )
    return Block(title="Present division", table=text_table(("model", "GPUs"), rows, texts=(0, 1)), lines=(lost,))


def _counts(gpus: Mapping[str, int]) -> str:
    if len(gpus) == 1:
        return f"{next(iter(gpus.values())):,}"
    return ", ".join(f"{n:,} {name}" for name, n in gpus.items() if n) or "0"
