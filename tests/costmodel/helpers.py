"""Small machines whose figures are primes, so that no term can hide behind another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autotune.engines import traits_by_name
from autotune.space import enumerate_space
from costmodel.arch import Arch, load_model
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.estimate.result import Estimate
from costmodel.hardware import Cluster, load_gpu
from costmodel.plan.columns import Floats
from costmodel.plan.layout import Layout
from costmodel.serving.load import Load

TRAITS = traits_by_name()
MODELS = ("deepseek-v3", "qwen3-235b", "gpt-oss-120b", "llama-3.1-70b", "qwen3-next-80b-a3b", "mixtral-8x22b")
"""Models with every kind of attention and FFN, dense ones and mixtures of experts."""

MLA = {
    "kv_lora_rank": 17,
    "q_lora_rank": 19,
    "qk_nope_head_dim": 23,
    "qk_rope_head_dim": 29,
    "v_head_dim": 31,
}
"""Fields of a config that make its attention multi-head latent attention."""
BASE = {
    "model_type": "llama",
    "hidden_size": 37,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 7,
    "intermediate_size": 12,
    "vocab_size": 44,
    "torch_dtype": "bfloat16",
}
"""A dense model whose figures are small and of few common factors."""
EXPERTS = {"num_local_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 10}
"""Fields of a config that make its layers mixtures of experts."""


def cluster(gpu: str = "h200", gpus: int = 128, **changes: object) -> Cluster:
    """A cluster of a catalog GPU with some figures changed."""
    return Cluster(gpus=gpus, gpu=replace(load_gpu(gpu), **changes), gpus_per_node=8)  # type: ignore[arg-type]


def layout(arch: Arch, **degrees: int) -> Layout:
    """A layout with degrees of 1 but for those given, on one stage or on even ones."""
    values = {"replicas": 1, "pp": 1, "attn_tp": 1, "attn_dp": 1, "moe_tp": 1, "moe_ep": 1, **degrees}
    pp, layers = values["pp"], arch.num_hidden_layers
    stages = tuple(layers // pp + (1 if i < layers % pp else 0) for i in range(pp))
    return Layout(stage_layers=stages, **values)


def load(
    concurrency: float | Floats = 64.0, isl: float = 2000.0, osl: float = 500.0, batched_tokens: float = 8192.0
) -> Load:
    """A load of one column each."""
    return Load(
        isl=np.array([isl]),
        osl=np.array([osl]),
        prefix_hit_frac=np.zeros(1),
        concurrency=np.atleast_1d(np.asarray(concurrency, dtype=np.float64)),
        batched_tokens=np.array([batched_tokens]),
        max_num_seqs=np.array([4096.0]),
    )


def estimate(
    entries: list[PlanEntry], work: Load, *, formulas: bool = False, capture_tokens: float | None = None
) -> Estimate:
    """Estimate plans under one load at the usual memory fraction.

    `formulas` leaves the residuals out; `capture_tokens` is the largest step that is launched as a graph, for all.
    """
    batch = PlanBatch.of(entries)
    batch = replace(batch, residual=None) if formulas else batch
    if capture_tokens is not None:
        engine = replace(batch.columns.engine, capture_tokens=np.array([capture_tokens]))
        batch = replace(batch, columns=replace(batch.columns, engine=engine))
    return batch.evaluate(work, longest_prompt=work.isl, memory_fraction=np.array([0.9]))


def entry(name: str = "deepseek-v3", engine: str = "vllm", gpu: str = "h200", **degrees: int) -> PlanEntry:
    """One plan of a catalog model."""
    arch = load_model(name)
    return PlanEntry(arch=arch, cluster=cluster(gpu), engine=TRAITS[engine], layout=layout(arch, **degrees))


def plans(name: str, engine: str, gpus: int = 32) -> list[PlanEntry]:
    """Every valid plan of a model on so many GPUs."""
    arch = load_model(name)
    machines = cluster("h200", gpus)
    space = enumerate_space(arch, gpus=gpus, engine=engine)
    return [PlanEntry(arch=arch, cluster=machines, engine=TRAITS[c.engine], layout=c.layout) for c in space.candidates]
