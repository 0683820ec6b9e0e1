"""A scored plan's way into a trial and out of it, and what the study of such trials says about itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import inf
from sys import float_info
from typing import Any

from autotune.engines import engines_of
from autotune.engines.service import Knobs
from autotune.scoring.objective import ranking_name, ranking_value
from autotune.scoring.plan_result import PERCENTILES, PlanResult, Violation
from autotune.space import Candidate
from autotune.space.pool_plan import pools_from
from autotune.storage import StudyHeader, TrialRecord
from autotune.study import Study, cluster_choices, study_fingerprint
from autotune.study.fingerprint import model_stamp, question_digest
from costmodel.plan.layout import LAYOUT_AXES, Layout

Goals = Sequence[tuple[str, str]]
"""Metric and direction of every objective; none: the study's own objective."""
POOL_AXES = ("replicas", "pp", "attn_tp", "attn_dp", "moe_tp", "moe_ep")
"""Layout axes of a prefill pool that are parameters of a trial."""


def study_header(study: Study, goals: Goals = ()) -> StudyHeader:
    """What a storage says about a study, or about its Pareto front over these goals."""
    return StudyHeader(
        name=f"{study.name}-pareto" if goals else study.name,
        fingerprint=study_fingerprint(study),
        question=question_digest(study),
        model=model_stamp(study),
        directions=tuple(direction for _, direction in goals) or (study.objective.direction,),
        metrics=tuple(name for name, _ in goals) or (ranking_name(study),),
        overrides=study.overrides,
        most_gpus=max(c.gpus for c in (*cluster_choices(study), *study.axes.other_gpus)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """How the plans of one study become trials."""

    study: Study
    params: frozenset[str]
    """What the study leaves open: trials have parameters for that alone: constants tell samplers and plots nothing."""
    goals: Goals = ()

    @classmethod
    def of(cls, study: Study, candidates: Iterable[Candidate], goals: Goals = ()) -> Recorder:
        """The recorder of a study with these candidates, whichever of them a run then scores."""
        search, axes = study.search, study.axes
        values: dict[str, set[object]] = {name: set() for name in LAYOUT_AXES}
        for candidate in candidates:
            for name, seen in values.items():
                seen.add(getattr(candidate.layout, name))
        pooled = axes.disaggregated != "off"
        choices: dict[str, int] = {
            "engine": len(engines_of(study.engine)),
            "concurrency": 1 if study.workload.concurrency is not None else 2,
            "max_num_batched_tokens": len(search.max_num_batched_tokens),
            "weight_dtype": len(search.weight_dtype),
            "kv_dtype": len(search.kv_dtype),
            "gpus": len(axes.gpu_counts) + len(axes.other_gpus),
            "gpu": 1 + len(axes.gpu_types) + len(axes.other_gpus),
            **{name: 2 if pooled else len(seen) for name, seen in values.items()},
            "max_local_prefill_tokens": len(axes.max_local_prefill_tokens) if pooled else 1,
            **dict.fromkeys(("prefill_gpus", *(f"prefill_{n}" for n in POOL_AXES)), 2 if pooled else 1),
        }
        return cls(study=study, params=frozenset(n for n, count in choices.items() if count > 1), goals=goals)

    def record(self, plan: PlanResult, **attrs: Any) -> TrialRecord:
        """The plan as a trial, with further attributes."""
        metrics = [name for name, _ in self.goals]
        return TrialRecord(
            key=plan.key,
            params={name: value for name, value in _decisions(plan).items() if name in self.params},
            # what ranks plans is the value, so that Optuna's best trial is the plan that `tune` names first
            values=tuple(plan.metrics[m] for m in metrics) if metrics else (ranking_value(self.study, plan),),
            constraints=plan.margins,
            attrs={
                "plan": plan.plan,
                "engine": plan.engine,
                "feasible": plan.feasible,
                "p_meets": plan.p_meets,
                "metrics": dict(plan.metrics),
                "layout": _fields(plan.layout),
                "knobs": _fields(plan.knobs),
                "violations": [_fields(v) for v in plan.violations],
                "breakdown": dict(plan.breakdown),
                **plan.breakdown.get(PERCENTILES, {}),
                **({} if plan.gpu is None else {"gpu": plan.gpu}),
                **({} if not plan.variant else {"variant": plan.variant}),
                **({} if plan.pools is None else {"pools": asdict(plan.pools)}),
                **attrs,
            },
        )


def _fields(value: Layout | Knobs | Violation) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _decisions(plan: PlanResult) -> dict[str, int | float | str]:
    knobs = plan.knobs
    found: dict[str, int | float | str] = {
        "engine": plan.engine,
        **{name: getattr(plan.layout, name) for name in LAYOUT_AXES},
        "concurrency": knobs.concurrency,
        "max_num_batched_tokens": knobs.max_num_batched_tokens,
        "weight_dtype": knobs.weight_dtype or "checkpoint",
        "kv_dtype": knobs.kv_dtype or "checkpoint",
        "gpus": round(plan.metrics["gpus"]),
        "gpu": plan.gpu or "cluster",
    }
    if plan.pools is not None:
        first, local = plan.pools.prefill, plan.pools.max_local_prefill_tokens
        found |= {
            "max_local_prefill_tokens": local,
            "prefill_gpus": first.gpus,
            **{f"prefill_{n}": getattr(first.layout, n) for n in POOL_AXES},
        }
    return found


def plan_of(record: TrialRecord) -> PlanResult:
    """The plan that a stored trial holds."""
    attrs = record.attrs
    return PlanResult(
        plan=attrs["plan"],
        engine=attrs["engine"],
        layout=Layout(**{**attrs["layout"], "stage_layers": tuple(attrs["layout"]["stage_layers"])}),
        knobs=Knobs(**attrs["knobs"]),
        feasible=attrs["feasible"],
        violations=tuple(_violation(v) for v in attrs["violations"]),
        # what was infinite is stored as the largest float
        margins={code: inf if over == float_info.max else over for code, over in record.constraints.items()},
        metrics={k: float("nan") if v is None else v for k, v in attrs["metrics"].items()},
        p_meets=attrs["p_meets"],
        breakdown=attrs["breakdown"],
        gpu=attrs.get("gpu"),
        variant=attrs.get("variant", ""),
        pools=pools_from(attrs["pools"]) if "pools" in attrs else None,
    )


def _violation(stored: Mapping[str, Any]) -> Violation:
    # JSON has no infinity: None stands for it
    values: dict[str, Any] = {name: inf if x is None else x for name, x in stored.items()}
    return Violation(**values)
