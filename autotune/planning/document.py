"""A day's plan as one document of plain values: what the terminal, the page, the JSON and the schedule files show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autotune.planning.day_program import Schedule
from autotune.planning.plan_day import DayPlan, Outcome, ReplayedDay
from autotune.planning.replica_capacity import ScaledPlan
from autotune.planning.strategies import FIXED, PLANNED, STRATEGIES
from autotune.space import format_plan, short_plan

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
        "p_break": {
            "of_day": found.risk.of_day,
            "of_day_with_calibration": found.risk.of_day_with_calibration,
        },
        "replay": _replay(found, found.replay),
        "assumptions": _assumptions(found),
    }


def _price(found: DayPlan) -> float | None:
    return found.study.cluster.gpu.price_per_hour


def _total(found: DayPlan, schedule: Schedule) -> dict[str, Any]:
    hours, price = schedule.gpu_s / HOUR_S, _price(found)
    return {"gpu_hours": hours, "cost_usd": None if price is None else hours * price, "changes": schedule.changes}


def _plan(found: DayPlan, plan: ScaledPlan) -> dict[str, Any]:
    one = replace(plan.result.layout, replicas=1)
    used = found.schedule.kind == found.plans.index(plan)
    return {
        "replica": short_plan(one, dense=not found.study.arch.is_moe),
        "plan": format_plan(one, plan.result.engine),
        "engine": plan.result.engine,
        "gpus_per_replica": plan.kind.gpus,
        "capacity_per_replica_per_s": {
            "least": float(plan.kind.capacity_per_s.min()),
            "most": float(plan.kind.capacity_per_s.max()),
        },
        "simulated_over_closed_form": plan.simulated_frac,
        "capacity_log_sd": plan.capacity_log_sd,
        "start_s": plan.kind.start_s,
        "drain_s": plan.kind.drain_s,
        "max_num_batched_tokens": plan.result.knobs.max_num_batched_tokens,
        "weight_dtype": plan.result.knobs.weight_dtype,
        "kv_dtype": plan.result.knobs.kv_dtype,
        "steps": int(used.sum()),
    }


def _step(found: DayPlan, k: int) -> dict[str, Any]:
    kind, replicas = int(found.schedule.kind[k]), int(found.schedule.replicas[k])
    plan = found.plans[kind]
    layout = replace(plan.result.layout, replicas=replicas)
    before = k - 1 if k or found.rules.cyclic else k
    changed = (kind, replicas) != (int(found.schedule.kind[before]), int(found.schedule.replicas[before]))
    likely = found.forecast
    return {
        "start_s": int(found.loads.starts_s[k]),
        "load_per_s": float(likely.median_per_s[k]),
        "load_low_per_s": float(likely.quantile(0.1)[k]),
        "load_high_per_s": float(likely.quantile(0.9)[k]),
        "planned_per_s": float(found.planned_per_s[k]),
        "plan": format_plan(layout, plan.result.engine),
        "plan_index": kind,
        "replicas": replicas,
        "gpus": replicas * plan.kind.gpus,
        "capacity_per_s": replicas * float(plan.kind.capacity_per_s[k]),
        "p_break": float(found.risk.of_step[k]),
        "short_frac": float(found.schedule.short_frac[k]),
        "change": _change(found, k, before) if changed else "",
    }


def _change(found: DayPlan, k: int, before: int) -> str:
    """How a step differs from the one before: `+2`, `-1`, or `plan`."""
    kinds, replicas = found.schedule.kind, found.schedule.replicas
    return "plan" if kinds[k] != kinds[before] else f"{int(replicas[k] - replicas[before]):+d}"


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
                "plan_index": s.kind,
                "replicas": s.replicas,
            }
            for s in outcome.fleet.stretches
        ]
        if outcome.fleet.strategy in (PLANNED, FIXED)
        else [],
    }


def _assumptions(found: DayPlan) -> list[str]:
    said = ["a step's load is that of its fullest minute; a replica takes what both closed form and simulation allow"]
    if found.forecast.assumed:
        said.append(f"the forecast of a step is off by {found.forecast.log_sd:.0%}: one day alone says nothing of that")
    if found.study.axes.disaggregated != "off":
        said.append("plans with separate pools for prefill and decode are not looked at: a day is planned in replicas")
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
