"""Everything of an evaluation that a claim can be about, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.evaluation.report_claims import Quantity
from autotune.evaluation.values import FAILED, PASSED, AxisVerdict, StageBytes
from autotune.metrics import METRICS, PER_GPU, RATE_SD
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
    balance: Mapping[str, Any],
    memory: Sequence[StageBytes],
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
    out |= {
        f"launches_on_{e['engine']}": Quantity(
            value=e["launches"], words="; ".join(e["forbidden_by"]) or "no rule of the engine forbids the plan"
        )
        for e in compatibility["engines"]
    }
    out |= _held(candidate, memory) | _evenness(balance) | _exchanged(candidate, result)
    return out | _estimates(result, performance)


NOT_WEIGHTS = {"kv_cache", "activations", "buffers", "reserve", "free"}
FORBIDDEN = "the engine's rules forbid the plan: there is nothing to estimate"


def _held(candidate: Candidate, memory: Sequence[StageBytes]) -> dict[str, Quantity]:
    """Weights as they lie on the GPUs, copies counted."""
    stages: dict[int, float] = {}
    for row in memory:
        if row.kind not in NOT_WEIGHTS:
            stages[row.stage] = stages.get(row.stage, 0.0) + row.bytes
    layout = candidate.layout
    return {
        "weight_bytes_per_gpu": Quantity(
            value=max(stages.values()) if stages else None,
            words="weights on a GPU of the fullest stage" if stages else FORBIDDEN,
        ),
        "weight_bytes_on_all_gpus": Quantity(
            value=sum(stages.values()) * layout.width * layout.replicas if stages else None,
            words=f"weights on all {layout.gpus} GPUs: every replica holds the model, every attention-DP group the "
            "attention"
            if stages
            else FORBIDDEN,
        ),
    }


def _evenness(balance: Mapping[str, Any]) -> dict[str, Quantity]:
    if not balance:
        return {}
    out = {
        "slowest_over_mean_stage": Quantity(
            value=max(balance["slowest_over_mean_stage"].values()),
            words="time of the slowest stage over the mean one's",
        )
    }
    for own in (t for t in balance.get("token_imbalance", []) if t["is_the_plans"]):
        for phase in ("prefill", "decode"):
            name = f"{phase}_fullest_over_mean_rank"
            out[name] = Quantity(
                value=own[name],
                words=f"tokens of the fullest expert rank over the mean's in {phase}, expert skew "
                f"{balance['expert_skew']:g}",
            )
    return out


def _exchanged(candidate: Candidate, result: PlanResult | None) -> dict[str, Quantity]:
    """What attention-DP groups, which a report may call replicas, do exchange."""
    groups = candidate.layout.attn_dp
    if result is None:
        return {"attention_dp_exchange_s": Quantity(value=None, words=FORBIDDEN)}
    seconds = result.breakdown["decode_s"].get("ep_exchange", 0.0) if groups > 1 else 0.0
    words = f"seconds in which the {groups} attention-DP groups exchange tokens for the experts in each decode step"
    return {"attention_dp_exchange_s": Quantity(value=seconds, words=words if groups > 1 else "one attention-DP group")}


def _estimates(result: PlanResult | None, performance: Mapping[str, Any]) -> dict[str, Quantity]:
    out = {}
    for metric in METRICS.values():
        if metric.meaning:
            out[metric.name] = Quantity(
                value=None if result is None else result.metrics[metric.name],
                words=FORBIDDEN if result is None else metric.meaning,
                log_sd=result.metrics[metric.log_sd] if result is not None and metric.log_sd else 0.0,
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
                words=f"{said}, {words}" if performance else FORBIDDEN,
                log_sd=0.0 if result is None else result.metrics[RATE_SD],
            )
    return out | _of_a_request(result)


def _of_a_request(result: PlanResult | None) -> dict[str, Quantity]:
    if result is None:
        return {n: Quantity(value=None, words=FORBIDDEN) for n in ("requests_in_flight", "tokens_per_ms_per_gpu")}
    metrics = result.metrics
    spread = metrics[RATE_SD]
    return {
        "requests_in_flight": Quantity(value=result.knobs.concurrency, words="requests in flight over all replicas"),
        "tokens_per_ms_per_gpu": Quantity(
            value=metrics[PER_GPU] / 1e3,
            words="tokens/ms of the cluster over all its GPUs, those of every stage",
            log_sd=spread,
        ),
    }
