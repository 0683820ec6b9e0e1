"""Answering a study the slow way: every tuple of degrees, every token budget, every number of requests in flight."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from autotune.engines import ENGINES as EVERY
from autotune.engines import split_layers, traits_by_name
from autotune.scoring.exchange_choice import with_backend
from autotune.scoring.limits import p_meets, study_limits
from autotune.space import format_plan, violations
from autotune.study import Study, study_from_document
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.estimate.result import Estimate
from costmodel.plan.columns import Floats
from costmodel.plan.layout import Layout
from costmodel.serving.load import Load

ENGINES = ("vllm", "sglang", "trtllm")
TOLERANCE = 1e-9


def question(model: str = "mixtral-8x7b", gpus: int = 8, **tables: Any) -> Study:
    """A study written down as a document; `tables` replace or add top-level entries."""
    document = {
        "name": "brute",
        "engine": "vllm",
        "model": model,
        "cluster": {"gpus": gpus, "gpu": "h100_sxm", "gpus_per_node": 4},
        "workload": {"isl": 1009, "osl": 211},
        "search": {"max_num_batched_tokens": [1024, 4096], "min_p_meets": 0.0},
    }
    document.update(tables)
    document["search"] = {"disaggregated": "off", **document["search"]}
    return study_from_document(document, Path("brute.toml"))


def all_layouts(study: Study) -> Iterator[tuple[str, Layout]]:
    """Every tuple of degrees whose product is the cluster, that no rule of an engine forbids."""
    gpus = study.cluster.gpus
    for engine in ENGINES if study.engine == "any" else (study.engine,):
        for replicas, pp, tp, dp, moe_tp, moe_ep in product(range(1, gpus + 1), repeat=6):
            if replicas * pp * tp * dp != gpus:
                continue
            if moe_tp * moe_ep != (tp * dp if study.arch.is_moe else 1):
                continue
            layout = Layout(
                replicas=replicas,
                pp=pp,
                attn_tp=tp,
                attn_dp=dp,
                moe_tp=moe_tp,
                moe_ep=moe_ep,
                stage_layers=split_layers(engine, study.arch.num_hidden_layers, pp),
            )
            if not violations(study.arch, engine, layout):
                yield engine, layout


_EVALUATED: dict[Hashable, Estimate] = {}
"""Estimates that do not hang on a study's limits and objective: many tests ask for the same."""


def evaluate(study: Study, engine: str, layout: Layout, in_flight: Floats, budgets: Sequence[int]) -> Estimate:
    """One plan with every budget (slow axis) and every number in flight (fast axis)."""
    said = repr((study.arch.name, study.cluster, study.workload, study.engine_options, study.engine_version))
    asked = (said, engine, layout, tuple(in_flight.tolist()), tuple(budgets))
    if asked not in _EVALUATED:
        _EVALUATED[asked] = _evaluate(study, engine, layout, in_flight, budgets)
    return _EVALUATED[asked]


def _evaluate(study: Study, engine: str, layout: Layout, in_flight: Floats, budgets: Sequence[int]) -> Estimate:
    entry = PlanEntry(
        arch=study.arch,
        cluster=study.cluster,
        engine=traits_by_name()[engine],
        layout=layout,
        engine_version=study.engine_version,
        cache=EVERY[engine].cache_rule(study.arch, study.engine_version),
    )
    rows = in_flight.size * len(budgets)
    work = study.workload
    load = Load(
        isl=np.array([work.isl.mean]),
        osl=np.array([work.osl.mean]),
        prefix_hit_frac=np.array([work.prefix_cache_hit_frac]),
        concurrency=np.tile(in_flight, len(budgets)),
        batched_tokens=np.repeat(np.array(budgets, dtype=np.float64), in_flight.size),
        max_num_seqs=np.array([float(study.engine_options.max_num_seqs)]),
    )
    index = np.zeros(rows, dtype=np.int64)
    bounds = {
        "longest_prompt": np.array([float(work.longest_prompt)]),
        "memory_fraction": np.array([study.engine_options.gpu_memory_utilization]),
    }
    batch = PlanBatch.of([entry], expert_skew=work.expert_skew).take(index)
    arrivals = work.request_rate_per_s is not None
    return with_backend(batch, [entry], index, load, bounds).evaluate(load, **bounds, arrivals=arrivals)


def keeps(study: Study, e: Estimate) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each row keeps every limit, written out from the study's words."""
    c, wide = study.constraints, 1.0 + TOLERANCE
    good = e.kv_fits_longest >= 1.0 / wide
    usual = max(study.engine_options.gpu_memory_utilization, 0.999)
    good &= e.memory_util_frac <= (usual if c.memory_util_frac is None else c.memory_util_frac) * wide
    for most, value in ((c.ttft_s, e.ttft_longest_s), (c.tpot_s, e.tpot_s)):
        good &= np.ones_like(good) if most is None else value <= most * wide
    for least, value in (
        (c.min_total_tokens_per_s_per_gpu, e.total_tokens_per_s / e.gpus),
        (c.min_output_tokens_per_s_per_gpu, e.output_tokens_per_s / e.gpus),
        (c.min_stage_tokens_per_s_per_gpu, e.stage_tokens_per_s_per_gpu),
        (c.min_gpu_util_frac, e.gpu_util_frac),
        (study.search.min_p_meets, p_meets(study_limits(study), e)),
    ):
        good &= np.ones_like(good) if least is None else value >= least / wide
    return good


def objective(study: Study, e: Estimate) -> Floats:
    """What plans are ranked by, larger is better."""
    value: Floats = getattr(e, study.objective.metric)
    return -value if study.objective.direction == "minimize" else value * p_meets(study_limits(study), e)


def best_by_plan(study: Study, in_flight_per_replica: Sequence[int], *, waits: bool = False) -> dict[str, float]:
    """Best objective of each plan that has a feasible setting; `waits` lets requests queue for KV room."""
    found: dict[str, float] = {}
    for engine, layout in all_layouts(study):
        in_flight = np.array(in_flight_per_replica, dtype=np.float64) * layout.replicas
        e = evaluate(study, engine, layout, in_flight, study.search.max_num_batched_tokens)
        good = keeps(study, e) & (waits | (e.kv_wait_s <= 0.0))
        if good.any():
            found[format_plan(layout, engine)] = float(objective(study, e)[good].max())
    return found
