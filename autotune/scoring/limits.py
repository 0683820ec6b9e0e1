"""The constraints of a study as columns: by how much each plan breaks each one.

The sign is Optuna's: an excess of at most 0 keeps the constraint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autotune.study import Study
from costmodel.estimate.normal import p_below
from costmodel.plan.columns import Floats

TOLERANCE = 1e-9


class Figures(Protocol):
    """What the limits look at: an `Estimate`, or two pools together (`costmodel.disaggregated.pairing.Joined`)."""

    @property
    def ttft_s(self) -> Floats: ...  # noqa: D102
    @property
    def kv_wait_s(self) -> Floats: ...  # noqa: D102
    @property
    def ttft_longest_s(self) -> Floats: ...  # noqa: D102
    @property
    def tpot_s(self) -> Floats: ...  # noqa: D102
    @property
    def requests_per_s(self) -> Floats: ...  # noqa: D102
    @property
    def total_tokens_per_s_per_gpu(self) -> Floats: ...  # noqa: D102
    @property
    def output_tokens_per_s_per_gpu(self) -> Floats: ...  # noqa: D102
    @property
    def stage_tokens_per_s_per_gpu(self) -> Floats: ...  # noqa: D102
    @property
    def memory_util_frac(self) -> Floats: ...  # noqa: D102
    @property
    def gpu_util_frac(self) -> Floats: ...  # noqa: D102
    @property
    def kv_fits_longest(self) -> Floats: ...  # noqa: D102
    @property
    def ttft_log_sd(self) -> Floats: ...  # noqa: D102
    @property
    def tpot_log_sd(self) -> Floats: ...  # noqa: D102
    @property
    def throughput_log_sd(self) -> Floats: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One constraint."""

    code: str
    limit: float
    unit: str
    least: bool
    """Whether the value must be at least the limit, instead of at most."""
    value: Callable[[Figures], Floats]
    solved: bool = False
    """Whether more requests in flight only ever make it worse, so that concurrency is solved against it."""

    def excess(self, estimate: Figures) -> Floats:
        """Amount over the limit in its unit, shape `(num_plans,)`; at most 0 where it is kept."""
        value = self.value(estimate)
        over = self.limit - value if self.least else value - self.limit
        return np.where(over <= TOLERANCE * abs(self.limit), np.minimum(over, 0.0), over)


def study_limits(study: Study) -> tuple[Limit, ...]:
    """The study's constraints, and those of the hardware and the engine that always hold."""
    c, fraction = study.constraints, study.engine_options.gpu_memory_utilization
    out = [
        Limit(
            code="kv_capacity",
            limit=1.0,
            unit="longest requests",
            least=True,
            value=lambda e: e.kv_fits_longest,
            solved=True,
        )
    ]
    if c.ttft_s is not None:
        out.append(
            Limit(
                code="ttft_ms",
                limit=c.ttft_s * 1e3,
                unit="ms",
                least=False,
                solved=True,
                value=lambda e: e.ttft_longest_s * 1e3,
            )
        )
    if c.tpot_s is not None:
        out.append(
            Limit(
                code="tpot_ms",
                limit=c.tpot_s * 1e3,
                unit="ms",
                least=False,
                solved=True,
                value=lambda e: e.tpot_s * 1e3,
            )
        )
    limit = c.memory_util_frac if c.memory_util_frac is not None else max(fraction, 0.999)
    out.append(
        Limit(
            code="memory_util_frac",
            limit=limit,
            unit="of GPU memory",
            least=False,
            solved=True,
            value=lambda e: e.memory_util_frac,
        )
    )
    if c.min_total_tokens_per_s_per_gpu is not None:
        out.append(
            Limit(
                code="min_total_tokens_per_s_per_gpu",
                limit=c.min_total_tokens_per_s_per_gpu,
                unit="tokens/s per GPU",
                least=True,
                value=lambda e: e.total_tokens_per_s_per_gpu,
            )
        )
    if c.min_output_tokens_per_s_per_gpu is not None:
        out.append(
            Limit(
                code="min_output_tokens_per_s_per_gpu",
                limit=c.min_output_tokens_per_s_per_gpu,
                unit="tokens/s per GPU",
                least=True,
                value=lambda e: e.output_tokens_per_s_per_gpu,
            )
        )
    if c.min_stage_tokens_per_s_per_gpu is not None:
        out.append(
            Limit(
                code="min_stage_tokens_per_s_per_gpu",
                limit=c.min_stage_tokens_per_s_per_gpu,
                unit="tokens/s per GPU of a stage",
                least=True,
                value=lambda e: e.stage_tokens_per_s_per_gpu,
            )
        )
    if c.min_gpu_util_frac is not None:
        out.append(
            Limit(
                code="min_gpu_util_frac",
                limit=c.min_gpu_util_frac,
                unit="of time",
                least=True,
                value=lambda e: e.gpu_util_frac,
            )
        )
    if study.search.min_p_meets > 0.0:
        out.append(
            Limit(
                code="min_p_meets",
                limit=study.search.min_p_meets,
                unit="probability",
                least=True,
                value=lambda e: p_meets(study, e),
            )
        )
    rate = study.workload.request_rate_per_s
    if rate is not None:
        out.append(
            Limit(
                code="request_rate_per_s",
                limit=rate,
                unit="requests/s",
                least=True,
                value=lambda e: e.requests_per_s * (1.0 + 1e-6),
            )
        )
    return tuple(out)


def p_meets(study: Study, estimate: Figures) -> Floats:
    """Probability that a plan keeps every limit on latency and throughput, shape `(num_plans,)`.

    The limits are taken as independent. Errors of TTFT and TPOT go together, so this errs on the safe side.
    """
    c = study.constraints
    out = p_meets_latency(study, estimate)
    # throughput at least a limit: its inverse at most the limit's
    for least, value in (
        (c.min_total_tokens_per_s_per_gpu, estimate.total_tokens_per_s_per_gpu),
        (c.min_output_tokens_per_s_per_gpu, estimate.output_tokens_per_s_per_gpu),
        (c.min_stage_tokens_per_s_per_gpu, estimate.stage_tokens_per_s_per_gpu),
    ):
        if least is not None:
            out = out * p_below(1.0 / least, 1.0 / np.maximum(value, 1e-300), estimate.throughput_log_sd)
    return out


def p_meets_latency(study: Study, estimate: Figures) -> Floats:
    """Probability of keeping the limits on latency alone, shape `(num_plans,)`: more requests only lower it."""
    c = study.constraints
    out = np.ones_like(estimate.tpot_s)
    if c.ttft_s is not None:
        out = out * p_below(c.ttft_s, estimate.ttft_longest_s, estimate.ttft_log_sd)
    if c.tpot_s is not None:
        out = out * p_below(c.tpot_s, estimate.tpot_s, estimate.tpot_log_sd)
    return out


def excess_table(limits: tuple[Limit, ...], estimate: Figures) -> Floats:
    """Excesses, shape `(len(limits), num_plans)`; NaN counts as broken."""
    table = np.stack([limit.excess(estimate) for limit in limits])
    return np.where(np.isnan(table), np.inf, table)
