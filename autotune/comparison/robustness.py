"""How far the answer holds: other traffic, errors of the calibration, other loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from autotune.comparison.probability_better import p_better, wins
from autotune.comparison.values import Flip, Robustness, Scenario
from autotune.disaggregated.rescore import pools_at, rescored_each
from autotune.scoring.joint_uncertainty import DRAWS
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.scoring.limits import JOINT_PROBABILITY, LOAD_SERVED, check_limits, study_limits
from autotune.study import Study, Workload
from autotune.tuning import PlanResult
from costmodel.estimate.result import Service
from costmodel.plan.columns import Floats

FACTORS = (0.5, 1.0, 2.0)
"""Prompts, outputs and, where the study gives one, the load, each times these."""
SKEWS = (0.0, 1.0)
PREFIX_HITS = (0.0, 0.5)
SWEEP_POINTS = 240
SWEEP_REACH = 4.0
"""The sweep of loads goes this many times beyond the larger number in flight of the two plans."""
TIE_FRAC = 0.005
"""Plans closer than this at some load are in no order there."""


def robustness(study: Study, current: PlanResult, candidate: PlanResult, p_candidate: float) -> Robustness:
    """Both plans as they are launched, under other traffic, other errors and other loads.

    `p_candidate` is the probability that the candidate is better on the study's own traffic, over the errors drawn.
    """
    scenarios: list[Scenario] = []
    skipped = 0
    limit = study.arch.max_position_embeddings
    for changes, workload in workload_scenarios(study):
        if limit and workload.longest_prompt + workload.osl.max > limit:
            skipped += 1
            continue
        own = replace(study, workload=workload)
        first, second = rescored_each(own, [current, candidate])
        scenarios.append(
            Scenario(changes=changes, candidate_wins=wins(own, first, second), p_better=p_better(own, first, second))
        )
    low, flips, reach = load_order(study, current, candidate)
    return Robustness(
        scenarios=tuple(scenarios),
        skipped=skipped,
        calibration_wins_frac=p_candidate,
        draws=DRAWS,
        flips=flips,
        better_at_low_load=low,
        swept_to_in_flight=reach,
    )


def workload_scenarios(study: Study) -> Iterator[tuple[Mapping[str, float], Workload]]:
    """Traffic near the study's, with what differs: lengths and load in all combinations, then one change at a time."""
    work = study.workload
    open_load = work.concurrency is None and work.request_rate_per_s is None
    for prompts, outputs, load in product(FACTORS, FACTORS, (1.0,) if open_load else FACTORS):
        changes = {"prompts": prompts, "outputs": outputs, "load": load}
        changed = replace(
            work.longer(prompts=prompts, outputs=outputs),
            concurrency=None if work.concurrency is None else max(round(work.concurrency * load), 1),
            request_rate_per_s=None if work.request_rate_per_s is None else work.request_rate_per_s * load,
            rate_levels_per_s=tuple(rate * load for rate in work.rate_levels_per_s),
        )
        yield {k: v for k, v in changes.items() if v != 1.0}, changed
    if study.arch.is_moe:
        for skew in SKEWS:
            if skew != work.expert_skew:
                yield {"expert_skew": skew}, replace(work, expert_skew=skew)
    for hit in PREFIX_HITS:
        if hit != work.prefix_cache_hit_frac:
            yield {"prefix_cache_hit_frac": hit}, work.with_hits(hit)


def load_order(study: Study, current: PlanResult, candidate: PlanResult) -> tuple[str | None, tuple[Flip, ...], int]:
    """Who is better at one request in flight, the loads at which that changes, and how far the sweep went.

    At each number in flight a plan that keeps the limits goes before one that does not, then the ranked metric decides.
    """
    reach = SWEEP_REACH * max(current.knobs.concurrency, candidate.knobs.concurrency, 16)
    loads = np.unique(np.round(np.geomspace(1.0, reach, SWEEP_POINTS)))
    first, second = swept(study, current, loads), swept(study, candidate, loads)
    kept = _keeps(study, first), _keeps(study, second)
    metric = study.objective.metric
    before, after = np.asarray(getattr(first, metric)), np.asarray(getattr(second, metric))
    sign = -1.0 if study.objective.direction == "minimize" else 1.0
    gap = sign * (after - before) / np.maximum(np.abs(before), 1e-300)
    by_metric = np.where(np.abs(gap) < TIE_FRAC, 0, np.sign(gap)).astype(np.int64)
    order = np.where(kept[0] == kept[1], by_metric, np.where(kept[1], 1, -1))
    flips: list[Flip] = []
    low: str | None = None
    last = 0
    for i, now in enumerate(order):
        if now == 0 or now == last:
            continue
        name, estimate = ("candidate", second) if now > 0 else ("current", first)
        if last == 0:
            low = name
        else:
            flips.append(
                Flip(
                    in_flight=int(loads[i]),
                    requests_per_s=float(estimate.requests_per_s[i]),
                    better_above=name,
                    because="limits" if kept[0][i] != kept[1][i] else metric,
                )
            )
        last = int(now)
    return low, tuple(flips), int(loads[-1])


def swept(study: Study, plan: PlanResult, loads: Floats) -> Service:
    """The plan at every number in flight over all replicas, shape `(len(loads),)`."""
    if plan.pools is not None:
        return pools_at(study, plan, loads)
    grid = KnobGrid.of(study, [Variant.of(plan)], (plan.knobs.max_num_batched_tokens,))
    return grid.take(np.zeros(loads.size, dtype=np.int64)).evaluate(loads)


def _keeps(study: Study, service: Service) -> NDArray[np.bool_]:
    """Whether the limits hold, those left out that the load itself sets."""
    limits = [x for x in study_limits(study) if x.code not in (JOINT_PROBABILITY, LOAD_SERVED)]
    return check_limits(limits, service).kept()
