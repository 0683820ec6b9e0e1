"""The plans and loads that are recorded: per engine ten plans of every kind, each under four loads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from autotune.scoring.objective import ranking_value
from autotune.study import load_study
from autotune.tuning import tune
from costmodel.estimate.batch import PlanEntry
from costmodel.estimate.result import TTFT_PARTS
from costmodel.serving.load import Load
from costmodel.step.operators import GROUPS
from tests.costmodel.helpers import entry, estimate, load
from tests.studies import FOLDER

ENGINES = ("vllm", "sglang", "trtllm")
Plan = tuple[str, str, dict[str, int]]

PLANS: tuple[Plan, ...] = (
    ("deepseek-v3", "h200", {"pp": 2, "attn_tp": 16, "moe_ep": 16}),
    ("deepseek-v3.2", "b200", {"attn_tp": 8, "moe_tp": 8}),
    ("kimi-k2", "h200", {"replicas": 2, "attn_dp": 16, "moe_ep": 16}),
    ("qwen3-235b-fp8", "h100", {"replicas": 3, "attn_tp": 4, "moe_ep": 4}),
    ("qwen3.5-397b", "h200", {"attn_tp": 8, "moe_ep": 8}),
    ("gpt-oss-120b", "b200", {"replicas": 5, "attn_tp": 2, "moe_tp": 2}),
    ("mixtral-8x22b", "h20", {"pp": 4, "attn_tp": 2, "moe_tp": 2}),
    ("llama-4-maverick", "mi300x", {"attn_tp": 8, "moe_ep": 8}),
    ("llama-3.1-405b", "h200", {"pp": 2, "attn_tp": 8}),
    ("llama-3.1-8b", "l40s", {"replicas": 7}),
)
"""Model, GPU, degrees: every kind of attention, FFN and exchange, replicas, pipelines, five generations of GPU."""

MIXED_DEGREES = {"sglang": {"attn_tp": 4, "attn_dp": 4, "moe_tp": 2, "moe_ep": 8}, "vllm": {"attn_tp": 4, "attn_dp": 4}}
"""What the first plan is instead where the engine takes attention-DP beside tensor parallelism."""


def plans(engine: str) -> tuple[PlanEntry, ...]:
    """The ten plans of an engine."""
    out = []
    for number, (model, gpu, degrees) in enumerate(PLANS):
        changed = {**degrees, **MIXED_DEGREES[engine]} if number == 0 and engine in MIXED_DEGREES else degrees
        out.append(entry(model, engine, gpu, **changed))
    return tuple(out)


def loads() -> dict[str, Load]:
    """Few requests with long prompts; many of the same lengths with cached prefixes; drafts and a full cache; short
    outputs of a benchmark that begins with all requests at once.
    """
    few = load(7.0, isl=13_001.0, osl=211.0, batched_tokens=2048.0)
    many = replace(
        load(389.0, isl=1009.0, osl=499.0),
        prefix_hit_frac=np.array([0.37]),
        same_lengths=np.ones(1),
        poll_steps=np.array([5.0]),
        hold_steps=np.array([3.0]),
    )
    full = replace(
        load(4_999.0, isl=3001.0, osl=1511.0, batched_tokens=4096.0),
        max_num_seqs=np.array([257.0]),
        step_tokens=np.array([4.0]),
        accepted_tokens=np.array([2.3]),
        draft_frac=np.array([0.11]),
    )
    benchmark = replace(load(97.0, isl=2003.0, osl=31.0), waves=np.array([7.0]))
    return {"few": few, "many": many, "full": full, "benchmark": benchmark}


ANSWERS = (
    ("llama-70b-16xh100", ()),
    (
        "llama-70b-16xh100",
        ("search.disaggregated=only", "cluster.gpus=8", "baseline.plan=tp8", "workload.request_rate_per_s=0.9"),
    ),
    ("reference-128", ()),
    ("qwen3-235b-64xh100", ("cluster.gpus=16", "engine=any", "workload.request_rate_per_s=2", "baseline.plan=tp8")),
)
"""Studies that are answered, with settings: what a search chooses, and in which order it ranks that."""
SHOWN = 4
"""Plans of an answer that are recorded, best first."""


def answers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of every place of every answer, and the plan that has it, with its knobs and what it is ranked by."""
    for study, settings in ANSWERS:
        asked = load_study(FOLDER / f"{study}.toml", settings)
        result = tune(asked)
        for place, plan in enumerate((*result.ranked, *result.infeasible)[:SHOWN], start=1):
            yield (
                " ".join(["answer", study, *settings, f"#{place}"]),
                {
                    "feasible_plans": len(result.ranked),
                    "plan": plan.plan,
                    "knobs": asdict(plan.knobs),
                    "ranking_value": ranking_value(asked, plan),
                    "p_meets": plan.p_meets,
                    "margins": dict(plan.margins),
                },
            )


def records() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of every record and its figures: what plans cost, then what studies are answered. Nothing is rounded."""
    yield from costs()
    yield from answers()


def costs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of every (engine, plan, load, with or without residuals), and its figures: nothing is rounded."""
    for engine in ENGINES:
        entries = plans(engine)
        for name, work in loads().items():
            for formulas in (True, False):
                e = estimate(list(entries), work, formulas=formulas)
                for i, (model, gpu, _) in enumerate(PLANS):
                    kind = "formulas" if formulas else "calibrated"
                    yield f"{engine} {model} {gpu} {name} {kind}", _figures(e, i)


def _figures(e: Any, i: int) -> dict[str, Any]:
    plain = {
        n: float(getattr(e, n)[i])
        for n in (
            "ttft_s",
            "ttft_longest_s",
            "tpot_s",
            "requests_per_s",
            "memory_util_frac",
            "gpu_util_frac",
            "compute_util_frac",
            "bandwidth_util_frac",
            "kv_capacity_sequences",
            "kv_fits_longest",
            "running_per_rank",
            "ttft_log_sd",
            "tpot_log_sd",
            "throughput_log_sd",
        )
    }
    return {
        **plain,
        "bottleneck": GROUPS[int(e.bottleneck[i])],
        "ttft_parts_s": {p: float(e.ttft_parts_s[k, i]) for k, p in enumerate(TTFT_PARTS)},
        "prefill_s": {g: float(e.prefill_s[k, i]) for k, g in enumerate(GROUPS)},
        "decode_s": {g: float(e.decode_s[k, i]) for k, g in enumerate(GROUPS)},
    }
