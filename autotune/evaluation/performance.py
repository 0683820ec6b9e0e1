"""Throughput per GPU of a stage, per pipeline and in all, at the study's load and at saturation; latency and use."""

from __future__ import annotations

from typing import Any

import numpy as np

from autotune.evaluation.plan import EvaluatedPlan
from autotune.scoring.knob_grid import KnobGrid
from autotune.scoring.overload import told_figures


def saturation(plan: EvaluatedPlan) -> dict[str, float]:
    """The most a plan can do, latency aside, with KV room for every request, and its latencies there.

    The highest throughput over powers of two in flight per replica, the most that the cache and the seats hold, and the
    token budgets that the study tries.
    """
    own = plan.result.knobs.max_num_batched_tokens
    budgets = sorted({own, *plan.study.search.max_num_batched_tokens})
    grid = KnobGrid.of(plan.study, [plan.grid.variants[0]], budgets)
    replicas = plan.candidate.layout.replicas
    best: dict[str, float] = {}
    held = grid.admitted(np.full(len(budgets), float(replicas)))
    most = max(int(held.max()), 1)
    for per_replica in sorted({*(2**n for n in range(most.bit_length())), most}):
        in_flight = replicas * per_replica
        found = grid.evaluate(np.full(len(budgets), float(in_flight)))
        open_rows = (per_replica <= held) & (found.kv_fits_longest >= 1.0)
        if per_replica > 1 and not open_rows.any():
            break
        rate = np.where(open_rows | (per_replica == 1), found.stage_tokens_per_s_per_gpu, -1.0)
        row = int(rate.argmax())
        if not best or rate[row] > best["stage_tokens_per_s_per_gpu"]:
            best = {
                "requests_in_flight": in_flight,
                "max_num_batched_tokens": budgets[row],
                "ttft_longest_s": float(found.ttft_longest_s[row]),
                "tpot_s": float(found.tpot_s[row]),
                "stage_tokens_per_s_per_gpu": float(rate[row]),
            }
    return best


def performance(plan: EvaluatedPlan) -> dict[str, Any]:
    """Figures at the study's load beside those at saturation, and the limits that the study sets."""
    metrics, layout, limits = told_figures(plan.result), plan.candidate.layout, plan.study.constraints
    at_load = {
        "requests_in_flight": plan.result.knobs.concurrency,
        "max_num_batched_tokens": plan.result.knobs.max_num_batched_tokens,
        **{name: plan.result.metrics[name] for name in ("ttft_longest_s", "tpot_s", "stage_tokens_per_s_per_gpu")},
    }
    # some cache stays free where a whole number of requests has room for all: with one that waits a little more is done
    full = max(saturation(plan), at_load, key=lambda most: most["stage_tokens_per_s_per_gpu"])
    target = limits.min_stage_tokens_per_s_per_gpu

    def tokens_per_ms(stage_rate: float) -> dict[str, float]:
        gpus = {"per_gpu_of_a_stage": 1.0, "per_pipeline": layout.width, "in_all": layout.width * layout.replicas}
        return {scope: stage_rate * count / 1e3 for scope, count in gpus.items()}

    shown = ("gpu_util_frac", "compute_util_frac", "bandwidth_util_frac", "memory_util_frac")
    return {
        "tokens_per_ms": tokens_per_ms(metrics["stage_tokens_per_s_per_gpu"]),
        "tokens_per_ms_at_saturation": tokens_per_ms(full.pop("stage_tokens_per_s_per_gpu")) | full,
        "tokens_per_ms_target": None if target is None else tokens_per_ms(target),
        "gpus_of_a_stage": layout.width,
        "replicas": layout.replicas,
        "requests_in_flight": plan.result.knobs.concurrency,
        "requests_per_s": metrics["requests_per_s"],
        "output_tokens_per_s_per_gpu": metrics["output_tokens_per_s_per_gpu"],
        "ttft_longest_s": metrics["ttft_longest_s"],
        "ttft_limit_s": limits.ttft_s,
        "ttft_s": metrics["ttft_s"],
        "tpot_s": metrics["tpot_s"],
        "tpot_limit_s": limits.tpot_s,
        **{name: metrics[name] for name in shown},
    }
