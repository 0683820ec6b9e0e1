"""What plans take of a kind of traffic within the limits, with the errors of the calibration drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autotune.comparison.robustness import swept
from autotune.scoring.joint_uncertainty import DRAWS, Draws, joint_draws
from autotune.scoring.limits import study_limits
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.estimate.error_model import Latencies
from costmodel.plan.columns import Floats

SHARES = np.linspace(1.0 / 32.0, 1.0, 32)
"""Of the number in flight that a plan is run with: what it is cut back to where it turns out slower than estimated."""


def drawn_capacities(study: Study, plans: Sequence[PlanResult | None]) -> Floats:
    """Draws of the most requests per second that plans take within the limits, shape `(len(plans), draws)`.

    A plan is run with the number in flight that it was scored at. In a draw in which that breaks a latency limit fewer
    are let in, until the limits hold: it serves less, not nothing. One that turns out faster serves them faster.

    Args:
        study: asks for the most requests per second (`best.capacity_study`).
        plans: scored under it; None: one that takes nothing within the limits. The draws are those of the same plans
            in the same order under any other load, so that they may be compared one by one.
    """
    given = [p for p in plans if p is not None]
    out = np.zeros((len(plans), DRAWS))
    if not given:
        return out
    # every row is drawn: the errors of a plan are those of its place
    draws = joint_draws(study, [p or given[0] for p in plans])
    for row, plan in enumerate(plans):
        if plan is not None:
            out[row] = _within_limits(study, plan, draws.ttft_factor[row], draws.tpot_factor[row])
    return out


def _within_limits(study: Study, plan: PlanResult, ttft_factor: Floats, tpot_factor: Floats) -> Floats:
    """Requests per second in each draw, at the share of `SHARES` that serves most of those that keep the limits."""
    loads = swept(study, plan, np.maximum(plan.knobs.concurrency * SHARES, 1.0))
    latencies = Latencies(
        first_s=(loads.ttft_s - loads.kv_wait_s)[:, None],
        wait_s=loads.kv_wait_s[:, None],
        longest_extra_s=(loads.ttft_longest_s - loads.ttft_s)[:, None],
        tpot_s=loads.tpot_s[:, None],
        outputs=max(study.workload.osl.mean - 1.0, 0.0),
    )
    drawn = Draws.of(latencies, ttft_factor, tpot_factor)
    # a limit of the kind "at least" asks for a load, which is what is looked for here
    limits = [limit for limit in study_limits(study) if limit.kind.more_in_flight == "worse"]
    kept = drawn.within(limits, lambda name: getattr(loads, name)[:, None])
    served = loads.requests_per_s[:, None] * drawn.throughput_factor
    return np.asarray(np.where(kept, served, 0.0).max(axis=0))
