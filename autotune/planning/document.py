"""A day's plan as one document of plain values: what the terminal, the page, the JSON and the schedule files show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from autotune.planning.day_program import Schedule
from autotune.planning.plan_day import DayPlan, Outcome, ReplayedDay
from autotune.planning.replica_capacity import ScaledPlan
from autotune.planning.schedule_files import launched
from autotune.planning.strategies import FIXED, PLANNED, STRATEGIES
from autotune.space import format_plan, short_plan
from autotune.space.pooled_planstring import format_pooled
from autotune.study import Study, opens_clusters

HOUR_S = 3600.0
WRITTEN_BY = "autotune plan-day"


def day_document(found: DayPlan) -> dict[str, Any]:
    """Everything that `autotune plan-day` says. Times of day in seconds from midnight UTC; rates per second."""
    question = found.question
    return {
        "written_by": WRITTEN_BY,
        "study": found.study.name,
        "traffic": {
            "source": found.source,
            "requests": int(found.loads.requests.times_s.size * found.loads.requests.requests_each),
            "days": found.forecast.days,
        },
        "step_s": question.step_s,
        "whole_day": found.loads.whole_day,
        "gpus": found.rules.gpus,
        "min_replicas": question.min_replicas,
        "change_gpu_hours": question.change_gpu_h,
        "risk_of_step": question.risk,
        "forecast": {
            "log_sd": found.forecast.log_sd,
            "day_log_sd": found.forecast.day_log_sd,
            "step_log_sd": found.forecast.step_log_sd,
            "assumed": found.forecast.assumed,
            "weekend_factor": found.forecast.weekend_factor,
        },
        "plans": [_plan(found, plan) for plan in found.plans],
        "steps": [_step(found, k) for k in range(found.planned_per_s.size)],
        "keeps": found.keeps,
        "total": _total(found, found.schedule),
        "fixed": _total(found, found.fixed),
        "saved_frac": 1.0 - found.schedule.gpu_s / found.fixed.gpu_s,
        "p_break": {"of_day": found.risk.of_day, "of_day_with_calibration": found.risk.of_day_with_calibration},
        "replay": _replay(found, found.replay),
        "assumptions": _assumptions(found),
    }


def _price(found: DayPlan) -> float | None:
    return found.study.cluster.gpu.price_per_hour


def _total(found: DayPlan, schedule: Schedule) -> dict[str, Any]:
    hours, price = schedule.gpu_s / HOUR_S, _price(found)
    return {"gpu_hours": hours, "cost_usd": None if price is None else hours * price, "changes": schedule.changes}


def _plan(found: DayPlan, plan: ScaledPlan) -> dict[str, Any]:
    used = found.schedule.plan == found.plans.index(plan)
    return {
        "replica": _short(found, plan),
        "plan": _full(plan, [1] * len(plan.kinds)),
        "engine": plan.result.engine,
        "kinds": [_kind(found, plan, side) for side in range(len(plan.kinds))],
        "simulated_over_closed_form": plan.simulated_frac,
        "capacity_log_sd": plan.capacity_log_sd,
        "weight_dtype": plan.result.knobs.weight_dtype,
        "kv_dtype": plan.result.knobs.kv_dtype,
        "steps": int(used.sum()),
        "launch": _launch(found, plan),
    }


def _launch(found: DayPlan, plan: ScaledPlan) -> dict[str, Any]:
    """What of `autotune export` writes the plan as it was counted, with the replicas of the fullest step."""
    target, counts = launched(found.study, plan, found.planned_per_s)
    knobs, of_kinds = plan.result.knobs, zip(counts, plan.kinds, strict=True)
    said = {
        "cluster.gpus": sum(n * kind.gpus for n, kind in of_kinds),
        "search.max_num_batched_tokens": None if plan.result.pools else [knobs.max_num_batched_tokens],
        "search.weight_dtype": None if knobs.weight_dtype is None else [knobs.weight_dtype],
        "search.kv_dtype": None if knobs.kv_dtype is None else [knobs.kv_dtype],
    }
    settings = [f"{name}={json.dumps(value)}" for name, value in said.items() if value is not None]
    return {"plan": _full(plan, counts), "target": target, "settings": [*settings, "baseline="]}


def _kind(found: DayPlan, plan: ScaledPlan, side: int) -> dict[str, Any]:
    """What is scaled of a plan: `role` is `replica`, or the pool's."""
    kind, pools = plan.kinds[side], plan.result.pools
    knobs = plan.result.knobs if pools is None else (pools.prefill, pools.decode)[side]
    return {
        "role": plan.roles[side],
        "replica": short_plan(plan.layouts[side], dense=not found.study.arch.is_moe),
        "gpus": kind.gpus,
        "nodes": max(kind.gpus // found.study.cluster.gpus_per_node, 1),
        "capacity_per_s": {"least": float(kind.capacity_per_s.min()), "most": float(kind.capacity_per_s.max())},
        "start_s": kind.start_s,
        "drain_s": kind.drain_s,
        "max_num_batched_tokens": knobs.max_num_batched_tokens,
    }


def _short(found: DayPlan, plan: ScaledPlan) -> str:
    """One replica, or one worker of each pool: `TP2`, or `P:TP1 + D:TP4`."""
    names = [short_plan(layout, dense=not found.study.arch.is_moe) for layout in plan.layouts]
    return names[0] if len(names) == 1 else " + ".join(f"{letter}:{n}" for letter, n in zip("PD", names, strict=True))


def _full(plan: ScaledPlan, counts: Sequence[int]) -> str:
    """The plan string with so many replicas of each kind."""
    layouts = [replace(layout, replicas=n) for layout, n in zip(plan.layouts, counts, strict=False)]
    if len(layouts) == 1:
        return format_plan(layouts[0], plan.result.engine)
    return format_pooled(plan.result.engine, (None, layouts[0]), (None, layouts[1]))


def _step(found: DayPlan, k: int) -> dict[str, Any]:
    schedule, likely = found.schedule, found.forecast
    plan = found.plans[int(schedule.plan[k])]
    counts = schedule.replicas[k].tolist()
    return {
        "start_s": int(found.loads.starts_s[k]),
        "load_per_s": float(likely.median_per_s[k]),
        "load_low_per_s": float(likely.quantile(0.1)[k]),
        "load_high_per_s": float(likely.quantile(0.9)[k]),
        "planned_per_s": float(found.planned_per_s[k]),
        "plan": _full(plan, counts),
        "plan_index": int(schedule.plan[k]),
        "replicas": dict(zip(plan.roles, counts, strict=False)),
        "prefill_per_decode": counts[0] / counts[1] if len(plan.kinds) > 1 else None,
        "gpus": sum(n * kind.gpus for n, kind in zip(counts, plan.kinds, strict=False)),
        "capacity_per_s": float(schedule.room_per_s[k]),
        "p_break": float(found.risk.of_step[k]),
        "short_frac": float(schedule.short_frac[k]),
        "change": _change(found, k),
    }


def _change(found: DayPlan, k: int) -> str:
    """How a step differs from the one before: `+2`, of pools `P+1 D-2`, or `plan`; empty where it does not."""
    plan, replicas = found.schedule.plan, found.schedule.replicas
    before = k - 1 if k or found.rules.cyclic else k
    if plan[k] != plan[before]:
        return "plan"
    letters = ("",) if len(found.plans[int(plan[k])].kinds) == 1 else ("P", "D")
    moved = zip(letters, (replicas[k] - replicas[before]).tolist(), strict=False)
    return " ".join(f"{letter}{more:+d}" for letter, more in moved if more)


def _replay(found: DayPlan, replay: ReplayedDay) -> dict[str, Any]:
    return {
        "day": replay.number,
        "unseen": replay.unseen,
        "requests": replay.requests,
        "load_per_s": [float(x) for x in replay.load_per_s],
        "strategies": [_outcome(found, o) for o in replay.as_it_came],
        "surges_s": [list(window) for window in replay.surges_s],
        "with_surges": [_outcome(found, o) for o in replay.with_surges],
    }


def _outcome(found: DayPlan, outcome: Outcome) -> dict[str, Any]:
    hours, price = outcome.fleet.gpu_s / HOUR_S, _price(found)
    return {
        "strategy": outcome.fleet.strategy,
        "is": STRATEGIES[outcome.fleet.strategy],
        "gpu_hours": hours,
        "cost_usd": None if price is None else hours * price,
        "attainment_frac": outcome.replay.attainment_frac,
        "steps_broken": outcome.replay.steps_broken,
        "attainment_by_step": [float(x) for x in outcome.replay.attainment],
        "broken_by_step": [list(codes) for codes in outcome.replay.broken],
        "serving": [
            {
                "start_s": s.start_s,
                "end_s": s.end_s,
                "plan_index": s.plan,
                "replicas": dict(zip(found.plans[s.plan].roles, s.replicas, strict=False)),
            }
            for s in outcome.fleet.stretches
        ]
        if outcome.fleet.strategy in (PLANNED, FIXED)
        else [],
    }


def left_out(study: Study) -> list[str]:
    """GPUs that the study names and the day is not planned on."""
    home, others = study.cluster, study.axes.other_gpus
    said = []
    if others:
        named = ", ".join(f"{c.gpus:,} x {c.gpu.name}" for c in others)
        said.append(f"cluster.also is left out: a day is planned on {home.gpus:,} x {home.gpu.name}, without {named}")
    if opens_clusters(study):
        said.append(
            f"search.gpus and search.gpu are left out: a day is planned on {home.gpus:,} x {home.gpu.name} alone"
        )
    return said


def _assumptions(found: DayPlan) -> list[str]:
    said = left_out(found.study)
    said += ["a step's load is that of its fullest minute; a replica takes what both closed form and simulation allow"]
    if found.forecast.assumed:
        said.append(f"the forecast of a step is off by {found.forecast.log_sd:.0%}: one day alone says nothing of that")
    if any(plan.result.pools for plan in found.plans):
        said.append("of a plan with pools each worker takes what it does beside as much of the other pool as it needs")
    if found.forecast.weekend_factor is not None:
        day = "a weekend day" if found.loads.weekend()[-1] else "a weekday"
        factor = found.forecast.weekend_factor
        said.append(f"the day that is planned is {day} (UTC); weekends have {factor:.2f} times the load of weekdays")
    if not found.loads.whole_day:
        said.append("the log does not cover a whole day: the steps that it covers are planned, and nothing around them")
    if not found.replay.unseen:
        said.append("the replayed day is one that the schedule was made from: there are no earlier days to make it of")
    switch = [text for text in found.study.operation_assumptions if text.startswith("switch.")]
    return [*said, *found.study.assumptions, *switch]
