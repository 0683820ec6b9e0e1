"""The steady state with the calibration's residuals in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.calibration.residual import REACH_SD, Residual, TargetResidual, features
from costmodel.plan.columns import Floats, LayoutColumns
from costmodel.serving.load import Load
from costmodel.serving.steady_state import SteadyState


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """The steady state with the calibration's residuals in it."""

    ttft_factor: Floats
    """Of all parts of TTFT but the wait for KV room."""
    kv_wait_s: Floats
    """Follows from throughput: the requests that wait are served at the pace of those that run."""
    tpot_s: Floats
    requests_per_s: Floats
    ttft_log_sd: Floats
    tpot_log_sd: Floats
    throughput_log_sd: Floats


TARGET_CORRELATION = 0.4
"""Of the TPOT and TTFT residuals of a run: rank correlation of the out-of-sample errors of the measured runs."""


def corrected_state(residuals: Residual | None, layout: LayoutColumns, load: Load, state: SteadyState) -> Corrected:
    """Move TTFT and TPOT by the residuals' mean (None: leave them); in a closed loop throughput follows (Little)."""
    if residuals is None:
        still, zero = np.ones(1), np.zeros(1)
        return Corrected(
            ttft_factor=still,
            kv_wait_s=state.ttft_parts_s["kv_wait"],
            tpot_s=state.tpot_s,
            requests_per_s=state.requests_per_s,
            ttft_log_sd=zero,
            tpot_log_sd=zero,
            throughput_log_sd=zero,
        )
    phi, beyond = features(
        load.concurrency / layout.replicas,
        layout.width * layout.pp,
        load.isl,
        load.osl,
        (layout.moe_ep > 1.0).astype(np.float64),
        layout.attn_dp,
    )
    ttft_factor, ttft_sd = residual_factor(residuals.ttft, phi, beyond, REACH_SD["ttft"])
    tpot_factor, tpot_sd = residual_factor(residuals.tpot, phi, beyond, REACH_SD["tpot"])
    outputs = np.maximum(load.osl - 1.0, 0.0)
    # a request that runs takes `total`; one that waits for KV room changes nothing for it, so that a residual
    # of TTFT must not scale the wait, or throughput would leave what the hardware can do
    kv_wait_s = state.ttft_parts_s["kv_wait"]
    before = state.ttft_s - kv_wait_s + outputs * state.tpot_s
    ttft_s, tpot_s = (state.ttft_s - kv_wait_s) * ttft_factor, state.tpot_s * tpot_factor
    total = ttft_s + outputs * tpot_s
    share = ttft_s / total
    first, rest = share * ttft_sd, (1.0 - share) * tpot_sd
    return Corrected(
        ttft_factor=ttft_factor,
        kv_wait_s=kv_wait_s * (total / before),
        tpot_s=tpot_s,
        requests_per_s=state.requests_per_s * (before / total),
        ttft_log_sd=ttft_sd,
        tpot_log_sd=tpot_sd,
        throughput_log_sd=np.sqrt(first * first + rest * rest + 2.0 * TARGET_CORRELATION * first * rest),
    )


def residual_factor(target: TargetResidual, phi: Floats, beyond: Floats, reach_sd: float) -> tuple[Floats, Floats]:
    """Expected measured / formula of one target, and the standard deviation of its log; shape `(num_plans,)`."""
    variance = target.shared_variance(phi) + target.own_variance(phi) + (reach_sd * beyond) ** 2
    return np.exp(target.mean_log(phi)), np.sqrt(variance)
