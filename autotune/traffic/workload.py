"""A profile put into a study: the recorded traffic in place of the workload that the file describes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from autotune.scoring.limits import LIMITS
from autotune.study import IntRange, Study
from autotune.traffic.judgement import question
from autotune.traffic.profile import QUANTILES, WorkloadProfile

Load = Literal["peak", "mean"]
LONGEST_QUANTILE = QUANTILES.index(0.99)


def with_traffic(study: Study, profile: WorkloadProfile, *, load: Load = "peak") -> Study:
    """The study with a profile's traffic: kinds of requests, shared prefixes, and requests per second as they came.

    Limits of the kind "at least" (throughput, utilisation) ask what the service does at the study's own load; where
    traffic sets the load they say nothing of a plan, and are left out. What is filled in is among the assumptions.

    `load`: whether requests come at the rate of the fullest bin of the window, or at its mean.
    """
    rate = profile.rate.peak_per_s if load == "peak" else profile.rate.mean_per_s
    longest = max(int(profile.prompt_quantiles[LONGEST_QUANTILE]), 1)
    outputs = max(int(profile.output_quantiles[LONGEST_QUANTILE]), 1)
    hit = profile.shared_prefix_frac
    bin_words = f"fullest {profile.rate.bin_s:g} s" if load == "peak" else "mean of the window"
    served = f"{profile.num_requests:,} requests, {rate:,.4g} requests/s ({bin_words})"
    asked = question(study, profile)
    assumptions = [
        *([] if asked is None else [asked]),
        *(text for text in study.assumptions if not text.startswith("workload.")),
        *profile.assumptions,
        f"traffic: {served}, by {len(profile.points)} kinds",
        f"traffic: the TTFT limit is checked at {longest:,} prompt tokens, the 99 % quantile",
    ]
    if hit is None:
        kept = study.workload.prefix_cache_hit_frac
        assumptions.append(f"traffic: no shared prefixes in the log: {kept:g} of prompt tokens, the study's")
    limits = study.constraints
    floors = (kind.field for kind in LIMITS if kind.field and kind.more_in_flight == "better")
    dropped = [field for field in floors if getattr(limits, field) is not None]
    if dropped:
        assumptions.append(f"traffic: left out {', '.join(dropped)}: the load is what comes, not what a plan can do")
    return replace(
        study,
        workload=replace(
            study.workload,
            isl=_range(profile.points[0].isl, longest, profile.prompt_mean),
            osl=_range(1.0, outputs, profile.output_mean),
            concurrency=None,
            request_rate_per_s=rate,
            prefix_cache_hit_frac=study.workload.prefix_cache_hit_frac if hit is None else hit,
            sessions=study.workload.sessions if hit is None else None,
            longest_prompt=longest,
            points=profile.points,
            rate_levels_per_s=profile.rate.levels_per_s if load == "peak" else (),
            traffic=None,
            traffic_digest="",
            recorded=None,
            turn=None,
        ),
        search=replace(study.search, concurrency=None),
        constraints=replace(limits, **dict.fromkeys(dropped)),
        assumptions=tuple(assumptions),
    )


def _range(least: float, most: int, mean: float) -> IntRange:
    return IntRange(min=max(min(int(least), most), 1), max=most, average=mean)
