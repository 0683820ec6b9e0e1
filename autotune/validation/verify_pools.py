"""What is predicted of a benchmark of a disaggregated plan: means by the closed loop, percentiles by simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autotune.disaggregated.rescore import pools_at
from autotune.scoring.plan_result import PlanResult
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.study import IntRange, Study
from autotune.validation.bench import BenchResult
from autotune.validation.percentiles import COMPARED, MOST_REQUESTS
from costmodel.estimate.normal import Z90
from costmodel.simulation.forecast import Likely


def predicted_means(study: Study, plan: PlanResult, result: BenchResult) -> dict[str, Likely]:
    """TTFT, TPOT and throughput of the run with their 80 % intervals, by name of the metric."""
    own = _as_measured(study, plan, result)
    pair = pools_at(own, plan, np.array([max(result.run.concurrency, 1.0)]))
    errors = {
        "ttft_s": pair.ttft_log_sd,
        "tpot_s": pair.tpot_log_sd,
        "output_tokens_per_s": pair.throughput_log_sd,
        "total_tokens_per_s": pair.throughput_log_sd,
    }
    out = {}
    for name, log_sd in errors.items():
        value, spread = float(getattr(pair, name)[0]), float(np.exp(Z90 * log_sd[0]))
        out[name] = Likely(value=value, low=value / spread, high=value * spread)
    return out


def predicted_pool_percentiles(study: Study, plan: PlanResult, result: BenchResult) -> list[tuple[str, Likely, float]]:
    """Name, prediction and measurement of each percentile that the result has, as `predicted_percentiles`."""
    reported = result.reported
    measured = {key: value for key in COMPARED if (value := reported.latencies.get(key, 0.0)) > 0.0}
    if not measured:
        return []
    count = int(min(max(reported.completed, 1.0), MOST_REQUESTS))
    own = _as_measured(study, plan, result)
    forecast = simulate_plan(own, plan, study_traffic(own, count=count)).forecast
    return [(f"{name}_{p}_s", forecast.latency(name, p), value) for (name, p), value in measured.items()]


def _as_measured(study: Study, plan: PlanResult, result: BenchResult) -> Study:
    """The study with the run's lengths and load, and the pools as they were started, whatever their limits."""
    if plan.pools is None:
        raise ValueError(f"plan must be disaggregated, got {plan.plan}")
    run, reported = result.run, result.reported
    prompt, output = (max(round(mean), 1) for mean in (run.mean_isl, run.mean_osl))
    workload = replace(
        study.workload,
        isl=IntRange(min=prompt, max=prompt),
        osl=IntRange(min=output, max=output),
        longest_prompt=prompt,
        prefix_cache_hit_frac=run.prefix_hit_frac,
        request_rate_per_s=reported.request_rate_per_s if reported.open_loop else None,
        concurrency=None if reported.open_loop else max(round(run.concurrency), 1),
        recorded=None,
        points=(),
    )
    return replace(
        study,
        workload=workload,
        constraints=replace(study.constraints, ttft_s=None, tpot_s=None, e2e_s=None),
        axes=replace(study.axes, decode_max_num_seqs=plan.pools.decode.max_num_seqs),
    )
