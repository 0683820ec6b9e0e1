"""Random studies of every kind: engines, models, GPUs, lengths, loads, limits, objectives, what may be varied."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from autotune.study import Study, study_from_document
from costmodel.arch.catalog import model_names
from costmodel.hardware import gpu_names

FIELDS = ("hbm_bytes", "hbm_bytes_per_s", "peak_flops_per_s", "scaleup_bytes_per_s", "scaleout_bytes_per_s")
"""Figures of a GPU of which more is better."""
LARGE = ("405b", "671b", "Kimi-K2", "DeepSeek", "235B", "GLM-4.5", "MiniMax", "Maverick", "480B", "397B")
"""Parts of the names of models that need more GPUs."""


def random_document(rng: random.Random) -> dict[str, Any]:
    """A study as a document."""
    model = rng.choice(model_names())
    gpus = rng.choice((8, 16, 24, 32) if any(part in model for part in LARGE) else (1, 2, 4, 6, 8, 12, 16))
    isl: Any = int(10 ** rng.uniform(1.5, 4.2))
    if rng.random() < 0.3:
        isl = {"min": max(isl // rng.randint(2, 50), 1), "max": isl}
    workload: dict[str, Any] = {"isl": isl, "osl": 1 if rng.random() < 0.1 else int(10 ** rng.uniform(0.5, 3.3))}
    load = rng.random()
    if load < 0.25:
        workload["concurrency"] = rng.choice((1, 3, 16, 100, 1000))
    elif load < 0.5:
        workload["request_rate_per_s"] = 10 ** rng.uniform(-1.5, 1.5)
    if rng.random() < 0.2:
        workload["prefix_cache_hit_frac"] = rng.random() * 0.95
    if rng.random() < 0.2:
        workload["expert_skew"] = rng.random()
    cluster: dict[str, Any] = {"gpus": gpus, "gpu": rng.choice(gpu_names())}
    priced = rng.random() < 0.4
    if priced:
        cluster["price_per_gpu_hour"] = rng.uniform(0.5, 5.0)
    limits: dict[str, float] = {}
    for name, low, high in (("ttft_ms", 2.0, 4.5), ("tpot_ms", 0.7, 2.3), ("e2e_ms", 3.0, 5.0)):
        if rng.random() < 0.4:
            limits[name] = 10 ** rng.uniform(low, high)
    if rng.random() < 0.15:
        limits["memory_util_frac"] = rng.uniform(0.4, 0.95)
    if rng.random() < 0.15:
        limits["min_gpu_util_frac"] = rng.uniform(0.1, 0.9)
    if rng.random() < 0.15:
        limits["min_output_tokens_per_s_per_gpu"] = 10 ** rng.uniform(0.0, 2.0)
    objectives = [
        {"maximize": m} for m in ("total_tokens_per_s_per_gpu", "output_tokens_per_s_per_gpu", "requests_per_s")
    ]
    objectives += [{"minimize": m} for m in ("ttft_s", "tpot_s", *(("usd_per_million_tokens",) if priced else ()))]
    if workload["osl"] == 1:  # has no token after the first
        limits.pop("tpot_ms", None)
        objectives.remove({"minimize": "tpot_s"})
    search: dict[str, Any] = {"max_num_batched_tokens": rng.sample((512, 2048, 8192, 16384), rng.choice((1, 2)))}
    if rng.random() < 0.2:
        search["kv_dtype"] = ["bf16", "fp8"]
    if rng.random() < 0.25:
        search["stage_layers"] = "balanced"
    if rng.random() < 0.3:
        search["min_p_meets"] = rng.choice((0.0, 0.8))
    document: dict[str, Any] = {
        "name": "random",
        "engine": rng.choice(("vllm", "sglang", "trtllm", "any")),
        "model": model,
        "cluster": cluster,
        "workload": workload,
        "constraints": limits,
        "objective": rng.choice(objectives),
        "search": search,
    }
    if rng.random() < 0.1:
        document["speculative"] = {"draft_tokens": 3, "accepted_per_step": rng.uniform(1.1, 3.8)}
    return document


def study_of(document: dict[str, Any]) -> Study:
    """The study of a document; paths of models are relative to this repository."""
    return study_from_document(document, Path("random.toml"))
