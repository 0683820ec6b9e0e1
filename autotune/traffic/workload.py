"""A profile put into a study: the recorded traffic in place of the workload that the file describes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from autotune.scoring.best_knobs import score_variant
from autotune.scoring.knob_grid import Rows, Variant, make_rows
from autotune.space import Candidate
from autotune.study import IntRange, Study
from autotune.traffic.profile import QUANTILES, WorkloadProfile
from autotune.tuning import PlanResult
from costmodel.estimate.result import Estimate

Load = Literal["peak", "mean"]
LONGEST_QUANTILE = QUANTILES.index(0.99)
FLOORS = ("min_total_tokens_per_s_per_gpu", "min_output_tokens_per_s_per_gpu", "min_stage_tokens_per_s_per_gpu")


def with_traffic(study: Study, profile: WorkloadProfile, *, load: Load = "peak") -> Study:
    """The study with a profile's traffic: kinds of requests, shared prefixes, and requests per second as they came.

    Limits of the kind "at least" (throughput, utilisation) ask what the service does at the study's own load; where
    traffic sets the load they say nothing of a plan, and are left out. What is filled in is among the assumptions.

    Args:
        study: from `load_study`.
        profile: of a window of traffic.
        load: whether requests come at the rate of the fullest bin of the window, or at its mean.
    """
    rate = profile.rate.peak_per_s if load == "peak" else profile.rate.mean_per_s
    longest = max(int(profile.prompt_quantiles[LONGEST_QUANTILE]), 1)
    outputs = max(int(profile.output_quantiles[LONGEST_QUANTILE]), 1)
    hit = profile.shared_prefix_frac
    bin_words = f"fullest {profile.rate.bin_s:g} s" if load == "peak" else "mean of the window"
    served = f"{profile.num_requests:,} requests, {rate:,.4g} requests/s ({bin_words})"
    said = [
        *(text for text in study.assumptions if not text.startswith("workload.")),
        *profile.assumptions,
        f"traffic: {served}, by {len(profile.points)} kinds",
        f"traffic: the TTFT limit is checked at {longest:,} prompt tokens, the 99 % quantile",
    ]
    if hit is None:
        kept = study.workload.prefix_cache_hit_frac
        said.append(f"traffic: no shared prefixes in the log: {kept:g} of prompt tokens, the study's")
    limits = study.constraints
    dropped = [name for name in (*FLOORS, "min_gpu_util_frac") if getattr(limits, name) is not None]
    if dropped:
        said.append(f"traffic: left out {', '.join(dropped)}: the load is what comes, not what a plan can do")
    return replace(
        study,
        workload=replace(
            study.workload,
            isl=_range(profile.points[0].isl, longest, profile.prompt_mean),
            osl=_range(1.0, outputs, profile.output_mean),
            concurrency=None,
            request_rate_per_s=rate,
            prefix_cache_hit_frac=study.workload.prefix_cache_hit_frac if hit is None else hit,
            longest_prompt=longest,
            points=profile.points,
            rate_levels_per_s=profile.rate.levels_per_s if load == "peak" else (),
        ),
        search=replace(study.search, concurrency=None),
        constraints=replace(limits, **dict.fromkeys(dropped)),
        assumptions=tuple(said),
    )


def evaluate_on(study: Study, plans: Sequence[PlanResult], profile: WorkloadProfile) -> tuple[PlanResult, ...]:
    """The plans as they are launched, on a profile's traffic: what `compare`, `retune` and the replay go by."""
    own = with_traffic(study, profile)
    return tuple(score_variant(own, _variant(plan), (plan.knobs.max_num_batched_tokens,)) for plan in plans)


def estimate_at(study: Study, plans: Sequence[PlanResult], concurrency: float) -> Estimate:
    """The plans at a number in flight over all replicas, on the study's traffic, in their order."""
    own = make_rows(study, [_variant(plan) for plan in plans], (0,))
    rows = Rows(
        study=study,
        variants=own.variants,
        variant=own.variant,
        batched_tokens=np.array([float(plan.knobs.max_num_batched_tokens) for plan in plans]),
        batch=own.batch,
        price_per_hour=own.price_per_hour,
    )
    return rows.evaluate(np.full(len(plans), concurrency))


def _variant(plan: PlanResult) -> Variant:
    return Variant(
        candidate=Candidate(engine=plan.engine, layout=plan.layout, gpu=plan.gpu),
        weight_dtype=plan.knobs.weight_dtype,
        kv_dtype=plan.knobs.kv_dtype,
    )


def _range(least: float, most: int, mean: float) -> IntRange:
    return IntRange(min=max(min(int(least), most), 1), max=most, average=mean)
