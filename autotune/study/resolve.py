"""Filling in what a valid study file leaves open, and naming each value that was filled in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from autotune.engines.names import engines_of
from autotune.study.engine_hardware import engines_that_run, multiplied_in
from autotune.study.operation import retune_policy, switch_values
from autotune.study.resolve_wider_search import axes
from autotune.study.schema import ConcurrencyRange, StudyTable, TokenRange, WorkloadTable
from autotune.study.values import (
    OBJECTIVES,
    Baseline,
    Constraints,
    EngineOptions,
    IntRange,
    Objective,
    Search,
    Study,
    Workload,
)
from costmodel.arch import Arch
from costmodel.calibration.profile import Profile
from costmodel.calibration.residual import not_measured
from costmodel.hardware import Cluster

DEFAULT_BATCHED_TOKENS = (2048, 4096, 8192, 16384)
"""8,192 is what the three engines start with on large GPUs; its neighbours trade TTFT for TPOT."""
DEFAULT_MEMORY_UTILIZATION = 0.9
"""vLLM's default `gpu_memory_utilization`; SGLang's `mem_fraction_static` lies near it."""
DEFAULT_MAX_NUM_SEQS = 1024
"""What vLLM's server starts with on GPUs of 70 GiB and more."""

T = TypeVar("T")


def span(lengths: int | TokenRange | ConcurrencyRange) -> IntRange:
    """A number as the range that holds only it."""
    if isinstance(lengths, int):
        return IntRange(min=lengths, max=lengths)
    return IntRange(min=lengths.min, max=lengths.max)


def longest_prompt(workload: WorkloadTable) -> int:
    """Prompt length that the TTFT limit is checked at, tokens."""
    return workload.longest_prompt or span(workload.isl).max


def study(table: StudyTable, *, path: Path, arch: Arch, cluster: Cluster, calibration: Profile | None) -> Study:
    """The study of a valid table whose references have been read."""
    said: list[str] = []
    workload = _workload(table.workload, arch, said)
    search = _search(table, cluster, said)
    objective = _objective(table, said)
    baseline = None if table.baseline is None else Baseline(**table.baseline.model_dump())
    if "engine" not in table.model_fields_set:
        said.append("engine not given: any of vLLM, SGLang and TensorRT-LLM")
    elif table.engine != "any" and table.engine_version is None:
        said.append("engine_version not given: the version whose rules are modelled")
    said += _cluster_assumptions(table, cluster)
    opened = axes(table, cluster, said)
    clusters = (cluster, *opened.gpu_types, *opened.other_gpus)
    engine = engines_that_run(table.engine, arch, clusters, search, said)
    said += multiplied_in(arch, clusters, search)
    said += _calibration_assumptions(engine, arch, cluster)
    engine_options = _engine_options(table, said)
    return Study(
        name=table.name or path.stem,
        path=path,
        engine=engine,
        engine_version=table.engine_version,
        arch=arch,
        cluster=cluster,
        workload=workload,
        constraints=_constraints(table),
        objective=objective,
        search=search,
        baseline=baseline,
        engine_options=engine_options,
        axes=opened,
        switch=switch_values(table.switch, cluster),
        retune=retune_policy(table.retune),
        calibration=calibration,
        assumptions=(*table.assumptions, *said, *arch.assumptions, *cluster.gpu.assumptions),
    )


def _workload(table: WorkloadTable, arch: Arch, said: list[str]) -> Workload:
    isl = span(table.isl)
    if table.prefix_cache_hit_frac is None:
        said.append("workload.prefix_cache_hit_frac not given: 0 (every prompt token is computed)")
    if table.expert_skew is None and arch.is_moe:
        said.append("workload.expert_skew not given: 0 (balanced routing)")
    if table.expert_skew and not arch.is_moe:
        said.append(f"workload.expert_skew {table.expert_skew:g} has no effect: the model has no routed experts")
    if table.longest_prompt is None:
        said.append(f"workload.longest_prompt not given: {isl.max:,} tokens, the longest isl")
    return Workload(
        isl=isl,
        osl=span(table.osl),
        concurrency=table.concurrency,
        request_rate_per_s=table.request_rate_per_s,
        prefix_cache_hit_frac=table.prefix_cache_hit_frac or 0.0,
        expert_skew=table.expert_skew or 0.0,
        longest_prompt=longest_prompt(table),
    )


def _search(table: StudyTable, cluster: Cluster, said: list[str]) -> Search:
    search = table.search
    return Search(
        concurrency=_concurrency(table, cluster, said),
        max_num_batched_tokens=_chosen(
            search.max_num_batched_tokens, DEFAULT_BATCHED_TOKENS, "max_num_batched_tokens", said
        ),
        attn_cp=_chosen(search.attn_cp, (1,), "attn_cp", said),
        dcp=_chosen(search.dcp, (1,), "dcp", said),
        redundant_experts=_chosen(search.redundant_experts, (0,), "redundant_experts", said),
        weight_dtype=_dtypes(search.weight_dtype, "weight_dtype", said),
        kv_dtype=_dtypes(search.kv_dtype, "kv_dtype", said),
        **{name: getattr(search, name) for name in _SAME_IN_VALUE},
    )


_SAME_IN_VALUE = ("trials", "timeout_s", "seed", "min_p_meets", "sampler", "exhaustive_limit")


def _concurrency(table: StudyTable, cluster: Cluster, said: list[str]) -> tuple[int, ...] | IntRange | None:
    asked, workload = table.search.concurrency, table.workload
    if workload.concurrency is not None or workload.request_rate_per_s is not None:
        return None
    if asked is None:
        most = DEFAULT_MAX_NUM_SEQS * max(cluster.gpus, *(table.search.gpus or (1,)))
        said.append(f"workload.concurrency not given: searched from 1 to {most:,} in flight over all replicas")
        return IntRange(min=1, max=most)
    return span(asked) if isinstance(asked, ConcurrencyRange) else _distinct(asked)


def _distinct(values: Sequence[T]) -> tuple[T, ...]:
    """Without repetitions, in a fixed order: the order in which a study lists its choices means nothing."""
    return tuple(sorted(set(values)))  # type: ignore[type-var]  # numbers or strings, never mixed


def _chosen(asked: list[int] | None, default: tuple[int, ...], name: str, said: list[str]) -> tuple[int, ...]:
    if asked is not None:
        return _distinct(asked)
    said.append(f"search.{name} not given: {', '.join(f'{v:,}' for v in default)}")
    return default


def _dtypes(asked: Sequence[str] | None, name: str, said: list[str]) -> tuple[str | None, ...]:
    if asked is not None:
        return _distinct(asked)
    said.append(f"search.{name} not given: the checkpoint's")
    return (None,)


def _objective(table: StudyTable, said: list[str]) -> Objective:
    metric = table.objective.maximize or table.objective.minimize
    if metric is None:
        metric = next(iter(OBJECTIVES))
        said.append(f"objective not given: maximize {metric}")
    if table.workload.request_rate_per_s is not None and OBJECTIVES[metric] == "maximize":
        said.append(
            f"objective {metric} at a given request rate: every plan that takes the load serves alike; ranked by "
            "P(meets), then by the time a request takes"
        )
    return Objective(metric=metric, direction=OBJECTIVES[metric])


def _constraints(table: StudyTable) -> Constraints:
    given = table.constraints
    return Constraints(
        ttft_s=None if given.ttft_ms is None else given.ttft_ms / 1e3,
        tpot_s=None if given.tpot_ms is None else given.tpot_ms / 1e3,
        memory_util_frac=given.memory_util_frac,
        min_total_tokens_per_s_per_gpu=given.min_total_tokens_per_s_per_gpu,
        min_output_tokens_per_s_per_gpu=given.min_output_tokens_per_s_per_gpu,
        min_stage_tokens_per_s_per_gpu=given.min_stage_tokens_per_s_per_gpu,
        min_gpu_util_frac=given.min_gpu_util_frac,
    )


def _cluster_assumptions(table: StudyTable, cluster: Cluster) -> list[str]:
    if table.cluster.gpus_per_node is None:
        return [f"cluster.gpus_per_node not given: {cluster.gpus_per_node}, as in {cluster.gpu.name} servers"]
    return []


def _calibration_assumptions(engine: str, arch: Arch, cluster: Cluster) -> list[str]:
    """What of the question no measured run covers."""
    gpu = cluster.gpu
    found = [
        f"calibration: {text}" for e in engines_of(engine) for text in not_measured(arch, gpu.name, gpu.generation, e)
    ]
    return list(dict.fromkeys(found))


def _engine_options(table: StudyTable, said: list[str]) -> EngineOptions:
    given = table.engine_options
    memory, seqs = given.gpu_memory_utilization, given.max_num_seqs
    if memory is None:
        memory = min(DEFAULT_MEMORY_UTILIZATION, table.constraints.memory_util_frac or 1.0)
        said.append(f"engine_options.gpu_memory_utilization not given: {memory:g} of total memory")
    if seqs is None:
        seqs = DEFAULT_MAX_NUM_SEQS
        said.append(f"engine_options.max_num_seqs not given: {seqs:,} per attention-DP rank")
    if "cuda_graphs" not in given.model_fields_set:
        said.append("engine_options.cuda_graphs not given: decode steps run as CUDA graphs")
    elif not given.cuda_graphs:
        said.append(
            "engine_options.cuda_graphs is false: launch files say so, but decode steps are estimated as CUDA graphs; "
            "eager ones are slower by what launching their kernels takes"
        )
    return EngineOptions(gpu_memory_utilization=memory, cuda_graphs=given.cuda_graphs, max_num_seqs=seqs)
