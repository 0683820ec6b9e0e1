"""Everything of an evaluation that a claim can be about, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.evaluation.claims import Quantity
from autotune.evaluation.values import FAILED, PASSED, AxisVerdict
from autotune.space import Candidate
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.arch import weight_bytes


def quantities(
    study: Study,
    candidate: Candidate,
    result: PlanResult | None,
    compatibility: Mapping[str, Any],
    performance: Mapping[str, Any],
    strategy: Sequence[AxisVerdict],
    failed: Sequence[str],
) -> dict[str, Quantity]:
    """Name -> figure. Where the engine's rules forbid the plan, what would have to be estimated is None."""
    layout, gpu = candidate.layout, study.cluster.gpu
    effective = None if gpu.hbm_efficiency is None else gpu.hbm_bytes_per_s * gpu.hbm_efficiency
    out = {
        "verdict": Quantity(
            value=FAILED if failed else PASSED,
            words=f"breaks {', '.join(failed)}" if failed else "keeps every limit",
        ),
        "gpus": Quantity(
            value=layout.gpus,
            words=f"{layout.replicas} replicas x {layout.pp} stages x {layout.width} GPUs of a stage",
        ),
        "product_of_degrees": Quantity(
            value=layout.moe_ep * layout.pp * layout.attn_tp * layout.replicas,
            words=f"EP{layout.moe_ep} x PP{layout.pp} x TP{layout.attn_tp} x DP{layout.replicas}, as if no axis shared "
            "GPUs with another (experts lie on the GPUs of TP and attention-DP)",
        ),
        "layers_per_stage": Quantity(value=max(layout.stage_layers), words="layers of the longest stage"),
        "heads_per_gpu": Quantity(value=compatibility["heads_per_rank"], words="attention heads per rank"),
        "kv_heads_per_gpu": Quantity(value=compatibility["kv_heads_per_rank"], words="KV heads per rank"),
        "weight_bytes": Quantity(
            value=weight_bytes(study.arch), words="bytes of all weights in the checkpoint's dtypes, once"
        ),
        "bytes_between_replicas": Quantity(
            value=0,
            words="replicas share no group and no send; groups of attention-DP inside one do exchange tokens"
            if layout.attn_dp > 1
            else "replicas share no group and no send",
        ),
        "hbm_effective_bytes_per_s": Quantity(
            value=effective,
            words="no efficiency of the memory is given" if effective is None else "peak bandwidth x efficiency",
        ),
    }
    experts = compatibility.get("expert_modules")
    if experts is not None:
        out |= {
            "expert_modules": Quantity(value=experts["distinct"], words="experts of a layer x layers"),
            "expert_instances": Quantity(value=experts["instances"], words="modules x replicas"),
            "expert_modules_per_gpu": Quantity(
                value=experts["distinct_per_gpu"], words="distinct modules over all GPUs, replicas not counted"
            ),
            "expert_instances_per_gpu": Quantity(
                value=experts["instances_per_gpu"],
                words=f"{experts['instances']:,} instances over {layout.gpus} GPUs, every replica has all of them",
            ),
            "experts_per_gpu_per_layer": Quantity(
                value=experts["per_gpu_per_layer"], words="experts of one layer over the expert-parallel ranks"
            ),
        }
    out |= {f"verdict_{v.axis}": Quantity(value=v.verdict, words=v.reason) for v in strategy}
    return out | _estimates(result, performance)


ESTIMATES = {
    "ttft_longest_s": ("ttft_log_sd", "TTFT of the longest prompt, s"),
    "ttft_s": ("ttft_log_sd", "mean TTFT, s"),
    "tpot_s": ("tpot_log_sd", "mean TPOT, s"),
    "requests_per_s": ("throughput_log_sd", "requests/s"),
    "gpu_util_frac": ("", "share of time in which the busiest stage's GPUs run kernels"),
    "compute_util_frac": ("", "achieved over peak FLOP/s"),
    "bandwidth_util_frac": ("", "achieved over peak memory bandwidth"),
    "memory_util_frac": ("", "memory in use on the fullest GPU"),
}
"""Metric -> its uncertainty, and what it is."""


def _estimates(result: PlanResult | None, performance: Mapping[str, Any]) -> dict[str, Quantity]:
    forbidden = "the engine's rules forbid the plan: there is nothing to estimate"
    out = {}
    for name, (spread, words) in ESTIMATES.items():
        value = None if result is None else result.metrics[name]
        out[name] = Quantity(
            value=value,
            words=forbidden if value is None else words,
            log_sd=result.metrics[spread] if result is not None and spread else 0.0,
        )
    for when, place, words in (
        ("", "tokens_per_ms", "at the study's load"),
        ("_at_saturation", "tokens_per_ms_at_saturation", "at saturation, latency aside"),
    ):
        for scope, said in (
            ("per_gpu_of_a_stage", "tokens/ms through one GPU of a stage"),
            ("per_pipeline", "tokens/ms of one pipeline"),
            ("in_all", "tokens/ms of all replicas"),
        ):
            out[f"tokens_per_ms_{scope}{when}"] = Quantity(
                value=performance[place][scope] if performance else None,
                words=f"{said}, {words}" if performance else forbidden,
                log_sd=0.0 if result is None else result.metrics["throughput_log_sd"],
            )
    return out
