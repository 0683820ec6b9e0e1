"""What is predicted of a benchmark's run on a prefill and a decode pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from autotune.disaggregated.rescore import pools_at
from autotune.scoring.plan_result import PlanResult
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.study import IntRange, Study
from autotune.validation.bench import BenchResult
from autotune.validation.percentiles import MOST_REQUESTS, held_against, is_simulated
from costmodel.errors import InputError
from costmodel.estimate.normal import Z90
from costmodel.simulation.forecast import Likely
from costmodel.simulation.simulate import NoRoomError

THROUGHPUTS = ("output_tokens_per_s", "total_tokens_per_s")


def predicted_means(study: Study, plan: PlanResult, result: BenchResult) -> dict[str, Likely]:
    """TTFT, TPOT and throughput of the run with their 80 % intervals, by name of the metric."""
    own = _as_measured(study, plan, result)
    pair = pools_at(own, plan, np.array([max(result.run.concurrency, 1.0)]))
    errors = {"ttft_s": pair.ttft_log_sd, "tpot_s": pair.tpot_log_sd}
    errors |= dict.fromkeys(THROUGHPUTS, pair.throughput_log_sd)
    out = {}
    for name, log_sd in errors.items():
        value, spread = float(getattr(pair, name)[0]), float(np.exp(Z90 * log_sd[0]))
        out[name] = Likely(value=value, low=value / spread, high=value * spread)
    return out


def predicted_pool_latencies(
    study: Study, plan: PlanResult, result: BenchResult, means_s: Mapping[str, float]
) -> list[tuple[str, Likely, float]]:
    """As `held_against`, of a run on pools; empty of a closed loop without percentiles.

    Raises:
        InputError: by the memory model a pool has no room for any of the run's requests.
    """
    if not is_simulated(result):
        return []
    count = int(min(max(result.reported.completed, 1.0), MOST_REQUESTS))
    own = _as_measured(study, plan, result)
    try:
        forecast = simulate_plan(own, plan, study_traffic(own, count=count, exactly=True)).forecast
    except NoRoomError as error:
        raise InputError.single("--plan", f"cannot have run on these GPUs: {error}") from error
    return held_against(forecast, result, means_s)


def _as_measured(study: Study, plan: PlanResult, result: BenchResult) -> Study:
    """The study with the run's lengths and load, and the pools as they were started, whatever their limits."""
    if plan.pools is None:
        raise ValueError(f"plan must be disaggregated, got {plan.plan}")
    run, reported = result.run, result.reported
    prompt, output = (max(round(mean), 1) for mean in (run.mean_isl, run.mean_osl))
    given = study.workload
    scaled = given.longer(prompts=run.mean_isl / given.isl.mean, outputs=run.mean_osl / given.osl.mean)
    # which prompts a decode pool prefills is a matter of their lengths
    as_given = plan.pools.local_frac > 0.0
    workload = replace(
        study.workload,
        isl=scaled.isl if as_given else IntRange(min=prompt, max=prompt),
        osl=IntRange(min=output, max=output),
        longest_prompt=scaled.longest_prompt if as_given else prompt,
        prefix_cache_hit_frac=run.prefix_hit_frac,
        request_rate_per_s=reported.request_rate_per_s if reported.open_loop else None,
        concurrency=None if reported.open_loop else max(round(run.concurrency), 1),
        recorded=None,
        points=scaled.points if as_given else (),
    )
    return replace(
        study,
        workload=workload,
        constraints=replace(study.constraints, ttft_s=None, tpot_s=None, e2e_s=None),
        axes=replace(study.axes, decode_max_num_seqs=plan.pools.decode.max_num_seqs),
    )
