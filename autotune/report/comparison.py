"""A comparison as a JSON document; its fields are a contract. Rendered by `comparison_text`."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import Any

from autotune.comparison import ComparedPlan, Comparison, SwitchCost
from autotune.comparison.values import KEEP, MetricRow, Robustness
from autotune.report.document import finite, plan_document
from autotune.report.study_words import baseline_settings, called, command, gpu_words, launch_steps
from autotune.scoring.plan_name import full_name
from autotune.scoring.reach import KINDS
from autotune.scoring.value_and_gain import Gain
from autotune.study import Study, own_option_words

SIDES = ("current", "candidate")


def comparison_document(found: Comparison) -> dict[str, Any]:
    """The whole comparison. Shares are 0 to 1, `_frac` differences are of the current plan's value."""
    study = found.study
    price = study.cluster.gpu.price_per_hour
    own = None if found.current.result is None else found.current.result.own_options
    return finite(
        {
            "study": study.name,
            "model": study.arch.name,
            "gpus": study.cluster.gpus,
            "gpu": study.cluster.gpu.name,
            "cluster": gpu_words(study),
            "traffic": found.traffic,
            "objective": asdict(study.objective),
            "verdict": found.verdict.verdict,
            "rule": found.verdict.rule,
            "reason": found.verdict.reason,
            "p_better": found.p_better,
            "same_plan": found.same_plan,
            "never_measured": [KINDS[kind] for kind in found.beyond],
            "not_priced": [] if own is None else list(own.not_priced),
            "next": _next(found),
            "command": _command(found),
            "current": side_document(found.current, study),
            "candidate": None if found.candidate is None else side_document(found.candidate, study),
            **(
                {}
                if not found.simulated
                else {"simulated": dict(zip(SIDES, map(asdict, found.simulated), strict=True))}
            ),
            "metrics": [_metric(row) for row in found.metrics],
            "margins": [asdict(row) for row in found.margins],
            "memory_bytes": {
                kind: {"current": old, "candidate": new, "difference": new - old}
                for kind, (old, new) in found.memory_bytes.items()
            },
            "time": [
                {**asdict(row), "difference_frac": _frac(row.current_gpu_s, row.candidate_gpu_s)} for row in found.time
            ],
            "where_from": list(found.where_from),
            "robustness": None if found.robustness is None else robustness_document(found.robustness),
            "cost": None
            if price is None or found.price_per_million_tokens is None
            else {
                "price_per_gpu_hour": price,
                "per_million_tokens": _pair(found.price_per_million_tokens),
                "per_million_output_tokens": _pair(found.price_per_million_output_tokens),
            },
            "switch": None if found.switch is None else switch_document(found.switch, found.gain),
            "assumptions": list(found.assumptions),
        }
    )


def _command(found: Comparison) -> str:
    """What is typed to see the comparison again; a plan that is started in a way of its own is told as the baseline."""
    told, runs = found.study.baseline, found.current.result
    own = told is not None and runs is not None and runs.own_options is not None
    settings = baseline_settings(told) if told is not None and own else ()
    options = [
        word
        for side, name in ((found.current, "--current"), (found.candidate, "--candidate"))
        if side is not None and not (own and side is found.current)
        for word in (name, side.text)
    ]
    return command(found.study, "compare", *options, settings=settings).text


def _next(found: Comparison) -> list[str]:
    """The commands that follow: launch files of both plans to measure, or of the candidate to start."""
    side = found.candidate
    if side is None or side.result is None or side.result.pools is not None or found.verdict.verdict == KEEP:
        return []
    named = "--plan", called(found.study, side.result)
    return [line.text for line in launch_steps(found.study, side.result, *named)]


def side_document(side: ComparedPlan, study: Study) -> dict[str, Any]:
    """One plan of the two."""
    named = None if side.result is None else full_name(study, side.result)
    own = None if side.result is None else side.result.own_options
    out: dict[str, Any] = {
        "name": named or side.plan,
        "text": side.text,
        "plan": side.plan,
        "engine": side.engine,
        "feasible": side.keeps,
        "rules_broken": list(side.rules_broken),
        "assumed": list(side.assumed),
        **({} if own is None else {"started_with": list(own_option_words(study, own))}),
        "capacity_requests_per_s": side.capacity_requests_per_s,
        "capacity_keeps_limits": side.capacity_keeps_limits,
        "value_per_s": side.value_per_s,
    }
    if side.result is not None:
        plan = plan_document(side.result, rank=None, baseline=None)
        kept = ("layout", "knobs", "engine_options", "pools", "violations", "metrics", "confidence", "breakdown")
        out |= {k: plan[k] for k in kept if k in plan}
    return out


def switch_document(cost: SwitchCost, gain: Gain | None) -> dict[str, Any]:
    """What the change takes."""
    return {
        **{k: v for k, v in asdict(cost).items() if k != "waves"},
        "payback_s": None if gain is None else gain.payback_s,
        "duration_s": cost.duration_s,
        "least_capacity_requests_per_s": cost.least_capacity_requests_per_s,
        "waves": [asdict(w) for w in cost.waves],
    }


def robustness_document(found: Robustness) -> dict[str, Any]:
    """How far the answer holds."""
    return {
        "workload": {
            "scenarios": len(found.scenarios),
            "candidate_wins": sum(s.candidate_wins for s in found.scenarios),
            "wins_frac": found.workload_wins_frac,
            "skipped": found.skipped,
            "lost": [dict(s.changes) for s in found.scenarios if not s.candidate_wins],
        },
        "calibration": {"draws": found.draws, "wins_frac": found.calibration_wins_frac},
        "joint_wins_frac": found.joint_wins_frac,
        "better_at_low_load": found.better_at_low_load,
        "order_flips": [asdict(flip) for flip in found.flips],
        "swept_to_in_flight": found.swept_to_in_flight,
    }


def _metric(row: MetricRow) -> dict[str, Any]:
    change = {"difference": row.candidate - row.current, "difference_frac": _frac(row.current, row.candidate)}
    both = {"name": row.name, "current": row.current, "candidate": row.candidate}
    return {**both, **change, "better": row.better, "p_better": row.p_better}


def _frac(before: float, after: float) -> float | None:
    return after / before - 1.0 if before and isfinite(before) and isfinite(after) else None


def _pair(prices: tuple[float, float] | None) -> dict[str, float] | None:
    return None if prices is None else {"current": prices[0], "candidate": prices[1]}
