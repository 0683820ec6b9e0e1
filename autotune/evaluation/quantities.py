"""Everything of an evaluation that a claim can be about, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

from autotune.evaluation.report_claims import Quantity
from autotune.evaluation.values import FAILED, PASSED, Sections, StageBytes
from autotune.metrics import METRICS, PER_GPU, RATE_SD, Metric
from autotune.scoring.overload import told
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.arch import weight_bytes
from costmodel.estimate.normal import Z90
from costmodel.plan.layout import Layout

NOT_WEIGHTS = {"kv_cache", "activations", "buffers", "reserve", "free"}
FORBIDDEN = "the engine's rules forbid the plan: there is nothing to estimate"
SCOPES = {
    "per_gpu_of_a_stage": "tokens/ms through one GPU of a stage",
    "per_pipeline": "tokens/ms of one pipeline",
    "in_all": "tokens/ms of all replicas",
}


def _q(value: float | str | bool | None, words: str, log_sd: float = 0.0) -> Quantity:
    return Quantity(value=value, words=words, log_sd=log_sd)


def quantities(
    study: Study, result: PlanResult | None, sections: Sections, failed: Sequence[str]
) -> dict[str, Quantity]:
    """Name -> figure. Where the engine's rules forbid the plan, what would have to be estimated is None."""
    layout, gpu, places = sections.candidate.layout, study.cluster.gpu, sections.compatibility
    hbm = None if gpu.hbm_efficiency is None else gpu.hbm_bytes_per_s * gpu.hbm_efficiency
    alone = "replicas share no group and no send"
    among = f"{alone}; groups of attention-DP inside one do exchange tokens"
    degrees = f"EP{layout.moe_ep} x PP{layout.pp} x TP{layout.attn_tp} x DP{layout.replicas}"
    return {
        "verdict": _q(FAILED if failed else PASSED, f"breaks {', '.join(failed)}" if failed else "keeps every limit"),
        "gpus": _q(layout.gpus, f"{layout.replicas} replicas x {layout.pp} stages x {layout.width} GPUs of a stage"),
        "product_of_degrees": _q(
            layout.moe_ep * layout.pp * layout.attn_tp * layout.replicas,
            f"{degrees}, as if no axis shared GPUs with another (experts lie on the GPUs of TP and attention-DP)",
        ),
        "layers_per_stage": _q(max(layout.stage_layers), "layers of the longest stage"),
        "heads_per_gpu": _q(places["heads_per_rank"], "attention heads per rank"),
        "kv_heads_per_gpu": _q(places["kv_heads_per_rank"], "KV heads per rank"),
        "weight_bytes": _q(weight_bytes(study.arch), "bytes of all weights in the checkpoint's dtypes, once"),
        "bytes_between_replicas": _q(0, among if layout.attn_dp > 1 else alone),
        "hbm_effective_bytes_per_s": _q(
            hbm, "no efficiency of the memory is given" if hbm is None else "peak bandwidth x efficiency"
        ),
        **_experts(layout.gpus, places.get("expert_modules")),
        **{f"verdict_{v.axis}": _q(v.verdict, v.reason) for v in sections.strategy},
        **{
            f"launches_on_{e['engine']}": _q(
                e["launches"], "; ".join(e["forbidden_by"]) or "no rule of the engine forbids the plan"
            )
            for e in places["engines"]
        },
        **_held(layout, sections.memory),
        **_evenness(sections.balance),
        **_exchanged(layout, result),
        **_estimates(result, sections.performance),
    }


def _experts(gpus: int, modules: Mapping[str, Any] | None) -> dict[str, Quantity]:
    if modules is None:
        return {}
    copies = f"{modules['instances']:,} instances over {gpus} GPUs, every replica has all of them"
    return {
        "expert_modules": _q(modules["distinct"], "experts of a layer x layers"),
        "expert_instances": _q(modules["instances"], "modules x replicas"),
        "expert_modules_per_gpu": _q(
            modules["distinct_per_gpu"], "distinct modules over all GPUs, replicas not counted"
        ),
        "expert_instances_per_gpu": _q(modules["instances_per_gpu"], copies),
        "experts_per_gpu_per_layer": _q(
            modules["per_gpu_per_layer"], "experts of one layer over the expert-parallel ranks"
        ),
    }


def _held(layout: Layout, memory: Sequence[StageBytes]) -> dict[str, Quantity]:
    """Weights as they lie on the GPUs, copies counted."""
    stages: dict[int, float] = {}
    for row in memory:
        if row.kind not in NOT_WEIGHTS:
            stages[row.stage] = stages.get(row.stage, 0.0) + row.bytes
    names = ("weight_bytes_per_gpu", "weight_bytes_on_all_gpus")
    if not stages:
        return {name: _q(None, FORBIDDEN) for name in names}
    whole = sum(stages.values()) * layout.width * layout.replicas
    copies = "every replica holds the model, every attention-DP group the attention"
    return {
        names[0]: _q(max(stages.values()), "weights on a GPU of the fullest stage"),
        names[1]: _q(whole, f"weights on all {layout.gpus} GPUs: {copies}"),
    }


def _evenness(balance: Mapping[str, Any]) -> dict[str, Quantity]:
    if not balance:
        return {}
    slowest = max(balance["slowest_over_mean_stage"].values())
    out = {"slowest_over_mean_stage": _q(slowest, "time of the slowest stage over the mean one's")}
    for own in (t for t in balance.get("token_imbalance", []) if t["is_the_plans"]):
        for phase in ("prefill", "decode"):
            name, skew = f"{phase}_fullest_over_mean_rank", balance["expert_skew"]
            words = f"tokens of the fullest expert rank over the mean's in {phase}, expert skew {skew:g}"
            out[name] = _q(own[name], words)
    return out


def _exchanged(layout: Layout, result: PlanResult | None) -> dict[str, Quantity]:
    """What attention-DP groups, which a report may call replicas, do exchange."""
    groups = layout.attn_dp
    if result is None:
        return {"attention_dp_exchange_s": _q(None, FORBIDDEN)}
    seconds = result.breakdown["decode_s"].get("ep_exchange", 0.0) if groups > 1 else 0.0
    words = f"seconds in which the {groups} attention-DP groups exchange tokens for the experts in each decode step"
    return {"attention_dp_exchange_s": _q(seconds, words if groups > 1 else "one attention-DP group")}


def _log_sd(metric: Metric, result: PlanResult) -> float:
    """Standard deviation of the log of a figure: that of which its likely range is 80 %; 0 where it is known."""
    low, high = metric.likely_fracs(result)
    return log(high / low) / (2.0 * Z90)


def _estimates(result: PlanResult | None, performance: Mapping[str, Any]) -> dict[str, Quantity]:
    whens = {"": "at the study's load", "_at_saturation": "at saturation, latency aside"}
    rates = {
        f"tokens_per_ms_{scope}{when}": (f"tokens_per_ms{when}", scope, f"{words}, {load}")
        for when, load in whens.items()
        for scope, words in SCOPES.items()
    }
    named = [m for m in METRICS.values() if m.meaning]
    if result is None:
        names = (*(m.name for m in named), *rates, "requests_in_flight", "tokens_per_ms_per_gpu")
        return {name: _q(None, FORBIDDEN) for name in names}
    metrics, full_sd = result.metrics, result.metrics[RATE_SD]
    rate_sd = _log_sd(METRICS[PER_GPU], result)
    return {
        **{m.name: _q(told(result, m.name), m.meaning, _log_sd(m, result)) for m in named},
        **{
            name: _q(performance[table][scope], words, rate_sd if table == "tokens_per_ms" else full_sd)
            for name, (table, scope, words) in rates.items()
        },
        "requests_in_flight": _q(result.knobs.concurrency, "requests in flight over all replicas"),
        "tokens_per_ms_per_gpu": _q(
            metrics[PER_GPU] / 1e3, "tokens/ms of the cluster over all its GPUs, those of every stage", rate_sd
        ),
    }
