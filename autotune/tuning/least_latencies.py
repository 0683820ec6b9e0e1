"""What plans do at best once they are simulated, by the closed form.

Most of the requests that are drawn seldom take less than they do on average. Under a log whose requests are simulated
for their means they take what they do as if they came at one rate all day. The closed form of a log is that of its
fullest bin, and the rest of the log may be quiet: so it is no bound. Latencies grow the faster the more comes, so that
over a log they are on average no less than at its mean rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from autotune.metrics import METRICS
from autotune.scoring.best_knobs import score_launches
from autotune.scoring.limits import ATTAINMENT, LOAD_SERVED
from autotune.scoring.plan_result import PlanResult, Violation
from autotune.simulation.percentile_limits import mean_limits, percentile_limits
from autotune.simulation.simulate_plan import study_traffic
from autotune.study import Study, on_cluster
from autotune.study.sections import REQUEST_LATENCIES
from autotune.tuning.simulated_limits import broken_by
from costmodel.estimate.normal import p_below
from costmodel.simulation.forecast import Likely

SURELY = {"ttft_s": 0.85, "ttft_longest_s": 0.85, "tpot_s": 0.95, "e2e_s": 0.95}
"""Shares of the closed form's latencies at the mean rate that those over a log are taken to be no less than.

Over five logs, from quiet to overfull in parts, the simulated ones of thirteen plans were 0.875 times the closed form's
TTFT, 0.999 times its TPOT and 0.976 times its time of a request, at least.
"""
MOST_FRAC, BY_MOST = 0.9, frozenset({"p90", "p95", "p99"})
"""Share of requests that seldom take less than `LEAST` of the closed form's mean; percentiles of that many."""
LEAST = {"ttft_s": 0.6, "tpot_s": 0.9, "e2e_s": 0.9}
"""Shares of the closed form's means that p90 of drawn requests is taken to be no less than, without pipeline stages.

Of ten such plans it was 0.96, 1.03 and 1.03 at least. With stages it was 0.72 of TPOT in one of twenty; a mean may be
0.46 of the closed form's: nothing bounds those.
"""
SERVED = 0.95
"""Share of a log's mean rate that a plan serves in the closed form, at least, to be worth simulating."""


def p_at_best(study: Study, plan: PlanResult) -> float:
    """Probability that a plan keeps every limit under drawn requests, at most: what most of them keep `LEAST` of their
    mean does too. Nothing is known so of a plan with pipeline stages."""
    if plan.layout.pp > 1:
        return plan.p_meets
    metrics = plan.metrics

    def p_kept(metric: str, bound_s: float) -> float:
        mean_s, log_sd = LEAST[metric] * metrics[metric], metrics[METRICS[metric].log_sd]
        return float(p_below(bound_s, np.array([mean_s]), np.array([log_sd]))[0])

    return min([plan.p_meets, *(p_kept(f"{name}_s", bound_s) for name, bound_s in _bounds_of_most(study))])


def _bounds_of_most(study: Study) -> list[tuple[str, float]]:
    """The latencies that at least `MOST_FRAC` of requests are to keep, and their bounds in seconds."""
    found: list[tuple[str, float | None]] = []
    for limit in percentile_limits(study):
        if limit.latency in REQUEST_LATENCIES and limit.statistic in BY_MOST:
            found.append((limit.latency, limit.bound))
        elif limit.code == ATTAINMENT and limit.bound >= MOST_FRAC:
            found += zip(REQUEST_LATENCIES, limit.bounds_s, strict=True)
    return [(name, bound_s) for name, bound_s in found if bound_s is not None]


def least_latencies(study: Study, plans: Sequence[PlanResult]) -> dict[str, Mapping[str, float]]:
    """Latencies that no simulation of a log is below on average, seconds by metric, of each plan by its key.

    Of pools only what the decode pool takes is counted, and nothing of those on other types of GPU.
    """
    rate_per_s = study_traffic(study).rate_per_s
    level = replace(study, workload=replace(study.workload, request_rate_per_s=rate_per_s))
    alone = replace(study, workload=replace(study.workload, concurrency=1, request_rate_per_s=None))
    one_kind = [plan for plan in plans if plan.pools is None]
    scored = zip(one_kind, score_launches(level, one_kind), strict=True)
    return {
        **{plan.key: dict.fromkeys(SURELY, 0.0) for plan in plans},
        **{plan.key: _share(own.metrics) for plan, own in scored},
        **_of_decode_pools(alone, [plan for plan in plans if plan.pools is not None and plan.gpu is None]),
    }


def _share(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: share * metrics.get(name, 0.0) for name, share in SURELY.items()}


def _of_decode_pools(alone: Study, plans: Sequence[PlanResult]) -> dict[str, Mapping[str, float]]:
    """What requests take to their end in decode pools, each as if it were a plan by itself and had one request."""
    found: dict[str, Mapping[str, float]] = {}
    for gpus in {plan.layout.gpus for plan in plans}:
        own = [plan for plan in plans if plan.layout.gpus == gpus]
        home = on_cluster(
            alone, replace(alone.cluster, gpus=gpus, gpus_per_node=min(gpus, alone.cluster.gpus_per_node))
        )
        for plan, lone in zip(own, score_launches(home, own), strict=True):
            after_s = lone.metrics["e2e_s"] - lone.metrics["ttft_s"]
            found[plan.key] = _share({"tpot_s": lone.metrics["tpot_s"], "e2e_s": after_s})
    return found


def out_of_reach(study: Study, plans: Sequence[PlanResult]) -> dict[str, PlanResult]:
    """Plans that need not be simulated, by their keys, with what they break of a log's limits on means at best.

    They serve far too few requests, or break such a limit at the log's mean rate.
    """
    broken = [plan for plan in plans if not plan.feasible]
    if not study.means_of_requests or not broken:
        return {}
    least, rate_per_s = least_latencies(study, broken), study_traffic(study).rate_per_s or 0.0
    found = {}
    for plan in broken:
        means = [(x, Likely.of(least[plan.key][f"{x.latency}_s"])) for x in mean_limits(study)]
        breaks = [violation for limit, figure in means if (violation := limit.violation(figure)) is not None]
        served = plan.metrics["requests_per_s"]
        if served < SERVED * rate_per_s:
            breaks.append(
                Violation(
                    code=LOAD_SERVED, value=served, limit=rate_per_s, excess=rate_per_s - served, unit="requests/s"
                )
            )
        if breaks:
            found[plan.key] = broken_by(study, plan, breaks)
    return found
