"""Throughput per GPU of a stage, per pipeline and in all, at the study's load and at saturation; latency and use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.evaluation.plan import Subject
from autotune.scoring.knob_grid import KnobGrid

MOST_DOUBLINGS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """The most a plan can do, latency aside, with KV room for every request."""

    requests_in_flight: int
    max_num_batched_tokens: int
    stage_tokens_per_s_per_gpu: float
    ttft_longest_s: float
    tpot_s: float


def saturation(subject: Subject) -> Saturation:
    """The highest throughput over powers of two in flight per replica and the token budgets that the study tries."""
    own = subject.result.knobs.max_num_batched_tokens
    budgets = sorted({own, *subject.study.search.max_num_batched_tokens})
    rows = KnobGrid.of(subject.study, [subject.rows.variants[0]], budgets)
    replicas = subject.candidate.layout.replicas
    best: Saturation | None = None
    for doubling in range(MOST_DOUBLINGS):
        in_flight = float(replicas * 2**doubling)
        found = rows.evaluate(np.full(len(budgets), in_flight))
        open_rows = (found.kv_wait_s <= 0.0) & (found.kv_fits_longest >= 1.0)
        if doubling and not open_rows.any():
            break
        rate = np.where(open_rows | (doubling == 0), found.stage_tokens_per_s_per_gpu, -1.0)
        row = int(rate.argmax())
        if best is None or rate[row] > best.stage_tokens_per_s_per_gpu:
            best = Saturation(
                requests_in_flight=int(in_flight),
                max_num_batched_tokens=budgets[row],
                stage_tokens_per_s_per_gpu=float(rate[row]),
                ttft_longest_s=float(found.ttft_longest_s[row]),
                tpot_s=float(found.tpot_s[row]),
            )
    if best is None:
        raise ValueError("a plan has a throughput with one request per replica")
    return best


def performance(subject: Subject) -> dict[str, Any]:
    """Figures at the study's load beside those at saturation, and the limits that the study sets."""
    metrics, layout, limits = subject.result.metrics, subject.candidate.layout, subject.study.constraints
    full = saturation(subject)
    target = limits.min_stage_tokens_per_s_per_gpu
    return {
        "tokens_per_ms": {
            "per_gpu_of_a_stage": _tokens(metrics["stage_tokens_per_s_per_gpu"], 1.0),
            "per_pipeline": _tokens(metrics["stage_tokens_per_s_per_gpu"], layout.width),
            "in_all": _tokens(metrics["stage_tokens_per_s_per_gpu"], layout.width * layout.replicas),
        },
        "tokens_per_ms_at_saturation": {
            "per_gpu_of_a_stage": _tokens(full.stage_tokens_per_s_per_gpu, 1.0),
            "per_pipeline": _tokens(full.stage_tokens_per_s_per_gpu, layout.width),
            "in_all": _tokens(full.stage_tokens_per_s_per_gpu, layout.width * layout.replicas),
            "requests_in_flight": full.requests_in_flight,
            "max_num_batched_tokens": full.max_num_batched_tokens,
            "ttft_longest_s": full.ttft_longest_s,
            "tpot_s": full.tpot_s,
        },
        "tokens_per_ms_target": None
        if target is None
        else {
            "per_gpu_of_a_stage": _tokens(target, 1.0),
            "per_pipeline": _tokens(target, layout.width),
            "in_all": _tokens(target, layout.width * layout.replicas),
        },
        "gpus_of_a_stage": layout.width,
        "replicas": layout.replicas,
        "requests_in_flight": subject.result.knobs.concurrency,
        "requests_per_s": metrics["requests_per_s"],
        "output_tokens_per_s_per_gpu": metrics["output_tokens_per_s_per_gpu"],
        "ttft_longest_s": metrics["ttft_longest_s"],
        "ttft_limit_s": limits.ttft_s,
        "ttft_s": metrics["ttft_s"],
        "tpot_s": metrics["tpot_s"],
        "tpot_limit_s": limits.tpot_s,
        "gpu_util_frac": metrics["gpu_util_frac"],
        "compute_util_frac": metrics["compute_util_frac"],
        "bandwidth_util_frac": metrics["bandwidth_util_frac"],
        "memory_util_frac": metrics["memory_util_frac"],
    }


def _tokens(per_s: float, gpus: float) -> float:
    """Tokens per millisecond through so many GPUs of a stage."""
    return per_s * gpus / 1e3
