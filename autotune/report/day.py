"""What `autotune plan-day` shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.planning.day_program import REPLICA
from autotune.planning.schedule_files import clock
from autotune.report.answer import assumed_block
from autotune.report.text_blocks import Block, Line, Report, text_table
from autotune.report.vocabulary.words import count
from autotune.text.numbers import number, probability


def day_report(document: Mapping[str, Any]) -> Report:
    """The schedule, the plans that it is made of, and what it was worth on a recorded day."""
    total, fixed, risk = document["total"], document["fixed"], document["p_break"]
    cost = "" if total["cost_usd"] is None else f", {number(total['cost_usd'])} US dollars"
    said = (
        f"{number(total['gpu_hours'])} GPU-hours{cost}, {document['saved_frac']:.0%} less than the "
        f"{number(fixed['gpu_hours'])} of replicas that are enough all day; {count(total['changes'], 'change')}."
    )
    short = [s for s in document["steps"] if s["short_frac"] > 0.0]
    if short:
        most = max(s["short_frac"] for s in short)
        steps = count(len(short), "step")
        said = f"The cluster is too small in {steps}: up to {most:.0%} of the load finds no room. {said}"
    days = count(document["traffic"]["days"], "day")
    return Report(
        headline=f"{document['study']}: a day of {count(len(document['steps']), 'step')}, by {days} of traffic",
        reason=said,
        tone="bad" if short else "good",
        lines=(
            (
                f"P(a limit breaks in any step) {probability(risk['of_day'])} by the forecast, "
                f"{probability(risk['of_day_with_calibration'])} with the cost model's own errors"
            ),
        ),
        blocks=(*day_blocks(document), assumed_block(tuple(document["assumptions"]))),
    )


def day_blocks(document: Mapping[str, Any]) -> tuple[Block, ...]:
    """Schedule, plans, replay."""
    return _schedule(document), _plans(document), _replay(document)


def _schedule(document: Mapping[str, Any]) -> Block:
    rows = [
        (
            clock(s["start_s"]),
            _running(document["plans"][s["plan_index"]], s["replicas"]),
            s["change"] or "–",
            f"{s['gpus']:,}",
            f"{number(s['load_per_s'])} ({number(s['load_low_per_s'])} to {number(s['load_high_per_s'])})",
            number(s["planned_per_s"]),
            number(s["capacity_per_s"]),
            probability(s["p_break"]),
        )
        for s in document["steps"]
    ]
    header = ("from, UTC", "plan x replicas", "change", "GPUs", "load (80 % range)", "planned", "capacity", "P(break)")
    lines = (
        (
            "load, planned and capacity in requests/s, of the fullest minute; there is room for what is planned, "
            f"which a step's load exceeds with probability {document['risk_of_step']:g}"
        ),
        (
            f"a replica starts before the step that needs it; a change is made where it saves "
            f"{document['change_gpu_hours']:g} GPU-hours or more"
        ),
    )
    return Block(title="Schedule", table=text_table(header, rows, texts=(0, 1, 2)), lines=lines)


def stretches_block(document: Mapping[str, Any]) -> Block:
    """The schedule with a row for each stretch in which the same replicas run: what a page has beside its chart."""
    stretches: list[list[Mapping[str, Any]]] = []
    for step in document["steps"]:
        last = stretches[-1][-1] if stretches else None
        follows = last is not None and last["start_s"] + document["step_s"] == step["start_s"]
        if last is not None and follows and last["plan"] == step["plan"]:
            stretches[-1].append(step)
        else:
            stretches.append([step])
    rows = [
        (
            f"{clock(steps[0]['start_s'])}–{clock(steps[-1]['start_s'] + document['step_s'])}",
            _running(document["plans"][steps[0]["plan_index"]], steps[0]["replicas"]),
            f"{steps[0]['gpus']:,}",
            number(max(s["planned_per_s"] for s in steps)),
            number(min(s["capacity_per_s"] for s in steps)),
            probability(max(s["p_break"] for s in steps)),
        )
        for steps in stretches
    ]
    header = ("UTC", "plan x replicas", "GPUs", "planned, at most", "capacity, at least", "P(break), at most")
    table = text_table(header, rows, texts=(0, 1))
    return Block(title="Schedule", table=table, lines=_schedule(document).lines)


def _running(plan: Mapping[str, Any], replicas: Mapping[str, int]) -> str:
    """`TP2 x 8`, or of pools `P:TP1 x 3 + D:TP4 x 5`."""
    return " + ".join(f"{_pool(k['role'])}{k['replica']} x {replicas[k['role']]}" for k in plan["kinds"])


def _pool(role: str) -> str:
    return "" if role == REPLICA else f"{role[0].upper()}:"


def _plans(document: Mapping[str, Any]) -> Block:
    rows = [
        (
            f"{place}",
            f"{_pool(kind['role'])}{kind['replica']}",
            p["engine"],
            str(kind["gpus"]),
            f"{number(kind['capacity_per_s']['least'])} to {number(kind['capacity_per_s']['most'])}",
            f"{p['simulated_over_closed_form']:.0%}",
            f"{kind['start_s']:,.0f} s",
            f"{kind['drain_s']:,.0f} s",
            f"{p['steps']}",
        )
        for place, p in enumerate(document["plans"], start=1)
        for kind in p["kinds"]
    ]
    header = ("plan", "replica", "engine", "GPUs", "requests/s", "simulated", "starts in", "drains in", "steps")
    lines = (
        (
            "requests/s: what one replica takes within the limits, over the traffic of a day; simulated: what it "
            "keeps of the closed form's figure once single requests are served"
        ),
        *(
            ["P and D: workers of the prefill and of the decode pool of one plan, which have its number"]
            * (len(rows) > len(document["plans"]))
        ),
    )
    return Block(title="Plans", table=text_table(header, rows, texts=(1, 2)), lines=lines)


def _replay(document: Mapping[str, Any]) -> Block:
    replay = document["replay"]
    parts = (("as it came", "strategies"), ("with surges", "with_surges"))
    rows = [_strategy(name, s) for name, part in parts for s in replay[part]]
    header = ("traffic", "strategy", "GPU-hours", "US dollars", "within limits", "steps that break one")
    starts = ", ".join(clock(start) for start, _ in replay["surges_s"])
    surges = (
        f"surges: twice the load from {starts} on" if starts else "nothing came that day, so that there is no surge"
    )
    seen = "by a schedule made from the days before" if replay["unseen"] else "by a schedule made from that day"
    lines: list[str | Line] = [
        (f"day {replay['day'] + 1} of the log, {replay['requests']:,} requests, simulated {seen}; {surges}"),
        *(f"{s['strategy']}: {s['is']}" for s in replay["strategies"]),
    ]
    return Block(title="Replay", table=text_table(header, rows, texts=(0, 1)), lines=tuple(lines))


def _strategy(traffic: str, s: Mapping[str, Any]) -> tuple[str, ...]:
    share = "–" if s["attainment_frac"] is None else f"{s['attainment_frac']:.2%}"
    return traffic, s["strategy"], number(s["gpu_hours"]), number(s["cost_usd"]), share, str(s["steps_broken"])
