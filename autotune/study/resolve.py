"""Filling in what a valid study file leaves open, and naming each value that was filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from autotune.engines.names import engines_of
from autotune.study.engine_hardware import engines_that_run, multiplied_in
from autotune.study.field_types import IntRange, assumptions
from autotune.study.operation import Switch
from autotune.study.question import Study
from autotune.study.sections import (
    DEFAULT_MAX_NUM_SEQS,
    OBJECTIVES,
    EngineOptions,
    Objective,
    Search,
    Workload,
    WorkloadTable,
)
from autotune.study.study_table import StudyTable
from autotune.study.wider_search import DRAFT_FRAC_PER_TOKEN, Speculative, WiderSearch
from costmodel.arch import Arch
from costmodel.calibration.profile import Profile
from costmodel.calibration.residual import not_measured
from costmodel.errors import InputError, Problem
from costmodel.hardware import Cluster, load_gpu

T = TypeVar("T")
Given = Mapping[str, Mapping[str, Any]]
"""The tables as they stand in the file, by name: empty where there is none."""


def _as(kind: type[T], table: Any, **more: Any) -> T:
    """A value of the fields that it shares with a table, and `more`."""
    shared = {f.name: getattr(table, f.name) for f in fields(kind) if hasattr(table, f.name)}  # type: ignore[arg-type]  # a dataclass
    return kind(**{**shared, **more})


def study(
    table: StudyTable,
    document: Mapping[str, Any],
    *,
    path: Path,
    arch: Arch,
    cluster: Cluster,
    prices: Mapping[str, float],
    calibration: Profile | None,
) -> Study:
    """The study of a valid table whose references have been read.

    Args:
        table: the file, read.
        document: the file as it stands: what is not in it was left out.
        path: of the file.
        arch: of its model.
        cluster: of its GPUs, priced.
        prices: US dollars per GPU and hour, by the catalog's name.
        calibration: the user's own.

    Raises:
        InputError: a GPU that is not known or has no price, or a pool size that no split of the cluster can have.
    """
    given: Given = {name: value if isinstance(value, Mapping) else {} for name, value in document.items()}
    given = {f.name: given.get(f.name, {}) for f in fields(table)}
    workload = _as(Workload, table.workload, longest_prompt=longest_prompt(table.workload))
    search, searched = _search(table, cluster)
    opened = _wider_search(table, cluster, prices)
    clusters = (cluster, *opened.gpu_types, *opened.other_gpus)
    said: list[str] = []
    engine = engines_that_run(table.engine, arch, clusters, search, said)
    options = _engine_options(table, given["engine_options"])
    switch = table.switch
    if "peer_gb_per_s" not in given["switch"]:
        switch = replace(switch, peer_bytes_per_s=cluster.gpu.scaleout_bytes_per_s)
    return Study(
        name=table.name or path.stem,
        path=path,
        engine=engine,
        engine_version=table.engine_version,
        arch=arch,
        cluster=cluster,
        workload=workload,
        constraints=table.constraints,
        objective=_objective(table),
        search=search,
        baseline=table.baseline,
        engine_options=options,
        axes=opened,
        switch=switch,
        retune=table.retune,
        calibration=calibration,
        assumptions=(
            *table.assumptions,
            *_workload_assumptions(workload, given["workload"], arch),
            *searched,
            *assumptions("search", search, given["search"]),
            *_objective_assumptions(table),
            *_engine_assumptions(table, document),
            *_cluster_assumptions(table, cluster),
            *_disaggregation_assumptions(opened, given["disaggregation"], cluster),
            *_speculative(table)[1],
            *said,
            *multiplied_in(arch, clusters, search),
            *_calibration_assumptions(engine, arch, cluster),
            *_option_assumptions(options, given["engine_options"]),
            *arch.assumptions,
            *cluster.gpu.assumptions,
        ),
        operation_assumptions=(
            *_switch_assumptions(switch, given["switch"]),
            *assumptions("retune", table.retune, given["retune"]),
        ),
    )


def longest_prompt(workload: WorkloadTable) -> int:
    """Prompt length that the TTFT limit is checked at, tokens."""
    return workload.longest_prompt or workload.isl.max


def _workload_assumptions(workload: Workload, given: Mapping[str, Any], arch: Arch) -> list[str]:
    found = assumptions("workload", workload, given, () if arch.is_moe else ("expert_skew",))
    if workload.expert_skew and not arch.is_moe:
        text = f"workload.expert_skew {workload.expert_skew:g} has no effect: the model has no routed experts"
        found.insert(int("prefix_cache_hit_frac" not in given), text)
    return found


def _search(table: StudyTable, cluster: Cluster) -> tuple[Search, list[str]]:
    """The search, with requests in flight to choose from where the load is open; what is said of them."""
    search = _as(Search, table.search)
    fixed = table.workload.concurrency is not None or table.workload.request_rate_per_s is not None
    if fixed or search.concurrency is not None:
        return search, []
    most = DEFAULT_MAX_NUM_SEQS * max(cluster.gpus, *table.search.gpus, 1)
    said = f"workload.concurrency not given: searched from 1 to {most:,} in flight over all replicas"
    return replace(search, concurrency=IntRange(min=1, max=most)), [said]


def _objective(table: StudyTable) -> Objective:
    metric = table.objective.maximize or table.objective.minimize or next(iter(OBJECTIVES))
    return Objective(metric=metric, direction=OBJECTIVES[metric])


def _objective_assumptions(table: StudyTable) -> list[str]:
    metric, found = _objective(table).metric, []
    if table.objective.maximize is None and table.objective.minimize is None:
        found.append(f"objective not given: maximize {metric}")
    if table.workload.request_rate_per_s is not None and OBJECTIVES[metric] == "maximize":
        found.append(
            f"objective {metric} at a given request rate: every plan that takes the load serves alike; ranked by "
            "P(meets), then by the time a request takes"
        )
    return found


def _engine_assumptions(table: StudyTable, document: Mapping[str, Any]) -> list[str]:
    if "engine" not in document:
        return ["engine not given: any of vLLM, SGLang and TensorRT-LLM"]
    if table.engine != "any" and table.engine_version is None:
        return ["engine_version not given: the version whose rules are modelled"]
    return []


def _cluster_assumptions(table: StudyTable, cluster: Cluster) -> list[str]:
    if table.cluster.gpus_per_node is not None:
        return []
    return [f"cluster.gpus_per_node not given: {cluster.gpus_per_node}, as in {cluster.gpu.name} servers"]


def _calibration_assumptions(engine: str, arch: Arch, cluster: Cluster) -> list[str]:
    """What of the question no measured run covers."""
    gpu = cluster.gpu
    found = [
        f"calibration: {text}" for e in engines_of(engine) for text in not_measured(arch, gpu.name, gpu.generation, e)
    ]
    return list(dict.fromkeys(found))


def _engine_options(table: StudyTable, given: Mapping[str, Any]) -> EngineOptions:
    options, limit = table.engine_options, table.constraints.memory_util_frac or 1.0
    if "gpu_memory_utilization" in given:
        return options
    return replace(options, gpu_memory_utilization=min(options.gpu_memory_utilization, limit))


def _option_assumptions(options: EngineOptions, given: Mapping[str, Any]) -> list[str]:
    found = assumptions("engine_options", options, given)
    if not options.cuda_graphs:
        found.append(
            "engine_options.cuda_graphs is false: launch files say so, but decode steps are estimated as CUDA graphs; "
            "eager ones are slower by what launching their kernels takes"
        )
    return found


def _switch_assumptions(switch: Switch, given: Mapping[str, Any]) -> list[str]:
    unused = "peer_bytes_per_s" if switch.weights_from == "storage" else "storage_bytes_per_s"
    return assumptions("switch", switch, given, (unused,))


def _wider_search(table: StudyTable, cluster: Cluster, prices: Mapping[str, float]) -> WiderSearch:
    problems: list[Problem] = []
    search, multiple = table.search, table.disaggregation.pool_gpus_multiple_of
    others = [
        _cluster(other.gpu, other.gpus, other.gpus_per_node, prices, f"$.cluster.also[{i}].gpu", problems)
        for i, other in enumerate(table.cluster.also)
    ]
    types = [
        _cluster(name, cluster.gpus, None, prices, f"$.search.gpu[{i}]", problems) for i, name in enumerate(search.gpu)
    ]
    known_others = tuple(c for c in others if c is not None)
    known_types = tuple(c for c in types if c is not None and c.gpu.name != cluster.gpu.name)
    if search.disaggregated != "off" and not others and cluster.gpus < 2 * multiple:
        path = "$.disaggregation.pool_gpus_multiple_of" if multiple > 1 else "$.search.disaggregated"
        message = f"two pools of at least {multiple} GPUs do not fit into cluster.gpus, got {cluster.gpus}"
        problems.append(Problem(path=path, message=message))
    if table.objective.minimize == "usd_per_million_tokens":
        problems += [
            Problem(path=f"$.prices.{name}", message="must be given where usd_per_million_tokens is minimized")
            for name in sorted(
                {c.gpu.name for c in (cluster, *known_types, *known_others) if c.gpu.price_per_hour is None}
            )
        ]
    if problems:
        raise InputError(problems)
    return _as(
        WiderSearch,
        table.disaggregation,
        disaggregated=search.disaggregated,
        other_gpus=known_others,
        gpu_counts=tuple(sorted({*search.gpus, cluster.gpus})) if search.gpus else (),
        gpu_types=known_types,
        speculative=_speculative(table)[0],
        balanced_stages=search.stage_layers == "balanced",
    )


def _cluster(
    name: str, gpus: int, per_node: int | None, prices: Mapping[str, float], path: str, problems: list[Problem]
) -> Cluster | None:
    try:
        gpu = load_gpu(name)
    except InputError as error:
        problems += [Problem(path=path, message=p.message) for p in error.problems]
        return None
    if gpu.name in prices:
        gpu = replace(gpu, price_per_hour=prices[gpu.name])
    return Cluster(gpus=gpus, gpu=gpu, gpus_per_node=per_node or min(gpu.gpus_per_node, gpus))


def _disaggregation_assumptions(opened: WiderSearch, given: Mapping[str, Any], cluster: Cluster) -> list[str]:
    if opened.disaggregated == "off":
        return []
    found = assumptions("disaggregation", opened, given)
    if opened.link_bytes_per_s is None:
        found.insert(
            0,
            f"disaggregation.link_gb_per_s not given: the links of {cluster.gpu.name} as calibrated (scale-out "
            f"{cluster.gpu.scaleout_bytes_per_s / 1e9:g} GB/s a GPU, or scale-up where one domain holds the cluster)",
        )
    found.append(
        "disaggregated plans: both pools run one engine with one KV dtype; the connector can move the cache between "
        "any two layouts; routers send each prompt to an attention-DP rank of the prefill pool at random; no "
        "disaggregated run was measured"
    )
    return found


def _speculative(table: StudyTable) -> tuple[Speculative | None, list[str]]:
    given, found = table.speculative, []
    if given is None:
        return None, []
    if given.draft_frac is None:
        share = DRAFT_FRAC_PER_TOKEN * given.draft_tokens
        found.append(f"speculative.draft_frac not given: {share:g} of a step for {given.draft_tokens} draft tokens")
        given = replace(given, draft_frac=share)
    found.append(
        "speculative: every plan decodes so; tokens are accepted as given whatever the batch; memory of the drafter is "
        "not counted; no speculative run was measured"
    )
    return given, found
