"""Filling in what a valid study file leaves open, and naming each value that was filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from math import ceil
from pathlib import Path
from typing import Any, Literal, TypeVar

from autotune.engines import ANY, ENGINES, engines_of, listed
from autotune.metrics import GOODPUT, GPUS, OBJECTIVES
from autotune.study.engine_hardware import engines_that_run, multiplied_in, version_assumptions
from autotune.study.field_types import IntRange, assumptions
from autotune.study.operation import Switch
from autotune.study.own_calibration import cells_covered
from autotune.study.question import Study
from autotune.study.resilience import DEFAULT_NODES_PER_RACK, Resilience
from autotune.study.sections import (
    DEFAULT_MAX_NUM_SEQS,
    PERCENTILE_FIELDS,
    EngineOptions,
    Objective,
    Search,
)
from autotune.study.study_table import StudyTable
from autotune.study.wider_search import DRAFT_FRAC_PER_TOKEN, Speculative, WiderSearch
from autotune.study.workload import Workload, WorkloadTable
from costmodel.arch import Arch, least_weight_bytes
from costmodel.calibration.measured_cells import expected_error, not_measured
from costmodel.calibration.profile import Profile
from costmodel.errors import InputError, Problem
from costmodel.hardware import Cluster, load_gpu

T = TypeVar("T")
SHORT_OUTPUT_TOKENS = 50.0
"""Mean output below which requests of a closed loop bunch: they end together, and share their prefill."""
SHORT_OUTPUTS = (
    "workload.osl is under 50 tokens: in a closed loop the ranking's mean TTFT is off by 10 % at the median from a "
    "simulation of the same steps, and by 28 % in one of ten plans; `autotune simulate` serves a plan by requests"
)

LOCAL_PREFILL = (
    "disaggregation.max_local_prefill_tokens: a decode pool finds the same share of a prompt cached as a prefill pool; "
    "the front takes as long for its prompts as for others; no run with such a front was measured"
)


def _as(kind: type[T], table: Any, **more: Any) -> T:
    """A value of the fields that it shares with a table, and `more`."""
    shared = {f.name: getattr(table, f.name) for f in fields(kind) if hasattr(table, f.name)}  # type: ignore[arg-type]  # a dataclass
    return kind(**{**shared, **more})


def study(  # noqa: PLR0913  # one for each part that is read apart
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

    What is not in `document`, the file as it stands, was left out; `prices`: US dollars per GPU and hour.

    Raises:
        InputError: a GPU that is not known or has no price, or a pool size that no split of the cluster can have.
    """
    said: list[str] = list(table.assumptions)
    workload = _workload(table, _given(document, "workload"), arch, said)
    search = _search(table, _given(document, "search"), cluster, said)
    objective = _objective(table, said)
    if "engine" not in document:
        said.append(f"engine not given: any of {listed([engine.title for engine in ENGINES.values()])}")
    elif table.engine != ANY:
        said += version_assumptions(table.engine, table.engine_version)
    if table.cluster.gpus_per_node is None:
        size, servers = cluster.gpu.gpus_per_node, f"{cluster.gpu.name} servers"
        whose = f"as in {servers}" if cluster.gpus_per_node == size else f"all on one node, as {servers} have {size}"
        said.append(f"cluster.gpus_per_node not given: {cluster.gpus_per_node}, {whose}")
    if cluster.domain_gpus < min(cluster.gpus_per_node, cluster.gpus):
        said.append(
            f"cluster.gpu.scaleup_gpus {cluster.domain_gpus} of a host's {cluster.gpus_per_node}: its other GPUs are "
            f"reached at scaleout_gb_per_s, {cluster.gpu.scaleout_bytes_per_s / 1e9:g} GB/s per GPU and direction"
        )
    asked = replace(table, search=replace(table.search, disaggregated=_pools_looked_at(table, arch, cluster)))
    opened = _wider_search(asked, _given(document, "disaggregation"), cluster, arch, prices, said)
    clusters = (cluster, *opened.gpu_types, *opened.other_gpus)
    engine = engines_that_run(table.engine, table.engine_version, arch, clusters, search, said)
    said += multiplied_in(arch, clusters, search)
    gpu = cluster.gpu
    unknown = [text for name in engines_of(engine) for text in not_measured(arch, gpu, ENGINES[name].traits)]
    said += dict.fromkeys(f"calibration: {text}" for text in unknown)
    for name in engines_of(engine):
        expected = expected_error(arch, gpu, ENGINES[name].traits, table.engine_version)
        said.append(f"accuracy with {ENGINES[name].title}: {expected.sentence}")
    if calibration is not None:
        types = [c.gpu for c in clusters]
        said += cells_covered(calibration, engines_of(engine), types, arch, search.weight_dtype)
    options = _engine_options(table, _given(document, "engine_options"), said)
    switch, operation = _switch(table, _given(document, "switch"), cluster)
    resilience, broken = _resilience(table, _given(document, "resilience"), cluster)
    return Study(
        name=table.name or path.stem,
        path=path,
        engine=engine,
        engine_version=table.engine_version,
        arch=arch,
        cluster=cluster,
        workload=workload,
        constraints=table.constraints,
        objective=objective,
        search=search,
        baseline=table.baseline,
        engine_options=options,
        axes=opened,
        switch=switch,
        retune=table.retune,
        resilience=resilience,
        calibration=calibration,
        assumptions=(*said, *arch.assumptions, *gpu.assumptions),
        operation_assumptions=(*operation, *assumptions("retune", table.retune, _given(document, "retune"))),
        resilience_assumptions=tuple(broken),
    )


def _given(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A table as it stands in the file: empty where there is none."""
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}


def longest_prompt(workload: WorkloadTable) -> int:
    """Prompt length that the TTFT limit is checked at, tokens."""
    return workload.longest_prompt or workload.isl.max


def _workload(table: StudyTable, given: Mapping[str, Any], arch: Arch, said: list[str]) -> Workload:
    workload = _as(Workload, table.workload, longest_prompt=longest_prompt(table.workload))
    counts = _is_simulated(table) and workload.request_rate_per_s is not None
    skipped = (*(() if arch.is_moe else ("expert_skew",)), *(() if counts else ("arrival_cv",)))
    said += assumptions("workload", workload, given, skipped)
    if workload.osl.mean < SHORT_OUTPUT_TOKENS and workload.request_rate_per_s is None:
        said.append(SHORT_OUTPUTS)
    if workload.expert_skew and not arch.is_moe:
        said.append(f"workload.expert_skew {workload.expert_skew:g} has no effect: the model has no routed experts")
    return workload


def _is_simulated(table: StudyTable) -> bool:
    """Whether the study is about single requests: percentiles, shares of them, goodput."""
    limits = table.constraints
    percentiles = (getattr(limits, f"{name}_{share}_s") for name, share in PERCENTILE_FIELDS)
    one_by_one = (limits.attainment_frac, *percentiles)
    return table.objective.maximize == GOODPUT or any(bound is not None for bound in one_by_one)


def _search(table: StudyTable, given: Mapping[str, Any], cluster: Cluster, said: list[str]) -> Search:
    search = _as(Search, table.search)
    fixed = table.workload.concurrency is not None or table.workload.request_rate_per_s is not None
    if not fixed and search.concurrency is None:
        most = DEFAULT_MAX_NUM_SEQS * max(cluster.gpus, *table.search.gpus, 1)
        said.append(f"workload.concurrency not given: searched from 1 to {most:,} in flight over all replicas")
        search = replace(search, concurrency=IntRange(min=1, max=most))
    said += assumptions("search", search, given)
    return search


def _objective(table: StudyTable, said: list[str]) -> Objective:
    metric = table.objective.maximize or table.objective.minimize
    if metric is None and table.cluster.also and table.workload.request_rate_per_s is None:
        metric = "total_tokens_per_s"
        said.append(f"objective not given: maximize {metric}, as a plan need not use the GPUs of every type")
    elif metric is None:
        metric = next(iter(OBJECTIVES))
        said.append(f"objective not given: maximize {metric}")
    if metric == GOODPUT:
        said.append(f"objective {metric}: ttft_ms, tpot_ms and e2e_ms are limits on single requests, not on means")
    elif table.workload.request_rate_per_s is not None and OBJECTIVES[metric] == "maximize":
        said.append(
            f"objective {metric} at a given request rate: every plan that takes the load serves alike; ranked by "
            "the probability to keep the limits, then by the time a request takes"
        )
    return Objective(metric=metric, direction=OBJECTIVES[metric])


def _engine_options(table: StudyTable, given: Mapping[str, Any], said: list[str]) -> EngineOptions:
    options = table.engine_options
    if "gpu_memory_utilization" not in given:
        most = table.constraints.memory_util_frac or 1.0
        options = replace(options, gpu_memory_utilization=min(options.gpu_memory_utilization, most))
    said += assumptions("engine_options", options, given)
    if not options.cuda_graphs:
        said.append(
            "engine_options.cuda_graphs is false: launching the kernels of a step one by one takes a least time, as of "
            "steps with prompts; no server without CUDA graphs was measured"
        )
    return options


def _switch(table: StudyTable, given: Mapping[str, Any], cluster: Cluster) -> tuple[Switch, list[str]]:
    switch = table.switch
    if "peer_gb_per_s" not in given:
        switch = replace(switch, peer_bytes_per_s=cluster.gpu.scaleout_bytes_per_s)
    if "startup_s" not in given:
        switch = replace(switch, startup_s={name: engine.startup_s for name, engine in ENGINES.items()})
    unused = "peer_bytes_per_s" if switch.weights_from == "storage" else "storage_bytes_per_s"
    return switch, assumptions("switch", switch, given, (unused,))


def _resilience(table: StudyTable, given: Mapping[str, Any], cluster: Cluster) -> tuple[Resilience, list[str]]:
    found = table.resilience
    if "nodes_per_rack" not in given:
        together = cluster.domain_gpus // cluster.gpus_per_node
        found = replace(found, nodes_per_rack=together if together > 1 else DEFAULT_NODES_PER_RACK)
    return found, assumptions("resilience", found, given)


def _pools_looked_at(table: StudyTable, arch: Arch, cluster: Cluster) -> Literal["off", "auto", "only"]:
    """Whether disaggregated plans are looked at: as the study says, or where they pay and their like was measured.

    They keep prompts from making tokens wait, which matters where TTFT and TPOT are both limited; and every measured
    deployment serves a model with experts.
    """
    if table.search.disaggregated is not None:
        return table.search.disaggregated
    limits = table.constraints.on_means()
    both = limits.ttft_s is not None and limits.tpot_s is not None
    fits = bool(table.cluster.also) or cluster.gpus >= 2 * table.disaggregation.pool_gpus_multiple_of
    return "auto" if arch.is_moe and both and fits else "off"


def _wider_search(
    table: StudyTable,
    given: Mapping[str, Any],
    cluster: Cluster,
    arch: Arch,
    prices: Mapping[str, float],
    said: list[str],
) -> WiderSearch:
    problems: list[Problem] = []

    def cluster_of(name: str, gpus: int, per_node: int | None, path: str) -> Iterator[Cluster]:
        try:
            gpu = load_gpu(name)
        except InputError as error:
            problems.extend(Problem(path=path, message=p.message) for p in error.problems)
            return
        gpu = replace(gpu, price_per_hour=prices.get(gpu.name, gpu.price_per_hour))
        yield Cluster(gpus=gpus, gpu=gpu, gpus_per_node=per_node or min(gpu.gpus_per_node, gpus))

    search, multiple = table.search, table.disaggregation.pool_gpus_multiple_of
    also = enumerate(table.cluster.also)
    others = tuple(c for i, o in also for c in cluster_of(o.gpu, o.gpus, o.gpus_per_node, f"$.cluster.also[{i}].gpu"))
    named = [c for i, n in enumerate(search.gpu) for c in cluster_of(n, cluster.gpus, None, f"$.search.gpu[{i}]")]
    types = tuple(c for c in named if c.gpu.name != cluster.gpu.name)
    if search.disaggregated != "off" and not table.cluster.also and cluster.gpus < 2 * multiple:
        path = "$.disaggregation.pool_gpus_multiple_of" if multiple > 1 else "$.search.disaggregated"
        message = f"two pools of at least {multiple} GPUs do not fit into cluster.gpus, got {cluster.gpus}"
        problems.append(Problem(path=path, message=message))
    if table.objective.minimize == "usd_per_million_tokens":
        unpriced = sorted({c.gpu.name for c in (cluster, *types, *others) if c.gpu.price_per_hour is None})
        why = "must be given where usd_per_million_tokens is minimized"
        problems += [Problem(path=f"$.prices.{name}", message=why) for name in unpriced]
    if problems:
        raise InputError(problems)
    if search.disaggregated != "off":
        said += _pool_assumptions(table, given, cluster)
    return _as(
        WiderSearch,
        table.disaggregation,
        disaggregated=search.disaggregated,
        other_gpus=others,
        gpu_counts=_gpu_counts(table, cluster, arch, said),
        gpu_types=types,
        speculative=_speculative(table, said),
        balanced_stages=search.stage_layers == "balanced",
    )


MOST_COUNTS = 64
"""GPU counts that are looked at where the fewest are asked for and none is named."""


def _gpu_counts(table: StudyTable, cluster: Cluster, arch: Arch, said: list[str]) -> tuple[int, ...]:
    """GPU counts beside the cluster's own, ascending; empty: its own alone.

    The fewest are looked for in steps of the smallest power of two that holds the weights, where that is within a node
    and makes no more than `MOST_COUNTS`; else in steps of nodes, and within the first as before.
    """
    given = table.search.gpus
    if not given and table.objective.minimize == GPUS:
        node = min(cluster.gpu.gpus_per_node, cluster.gpus)
        weights = least_weight_bytes(arch, table.search.weight_dtype)
        least = min(1 << (ceil(weights / cluster.gpu.hbm_bytes) - 1).bit_length(), node)
        many = cluster.gpus > least * MOST_COUNTS
        step = node * -(-cluster.gpus // (node * MOST_COUNTS)) if many else least
        given = (*range(least, min(step, node), least), *range(step, cluster.gpus + 1, step))
        said.append(f"search.gpus not given: {', '.join(f'{n:,}' for n in given)}")
    return tuple(sorted({*given, cluster.gpus})) if given else ()


def _pool_assumptions(table: StudyTable, given: Mapping[str, Any], cluster: Cluster) -> list[str]:
    found = assumptions("disaggregation", table.disaggregation, given)
    if table.disaggregation.link_bytes_per_s is None:
        link = (
            f"disaggregation.link_gb_per_s not given: the links of {cluster.gpu.name} as calibrated (scale-out "
            f"{cluster.gpu.scaleout_bytes_per_s / 1e9:g} GB/s a GPU, or scale-up where one domain holds the cluster)"
        )
        found = [link, *found]
    what = (
        "disaggregated plans: both pools run one engine with one KV dtype; the connector moves caches between layouts "
        "that the engine's rules for pools allow; routers send each prompt to an attention-DP rank of the prefill pool "
        "at random; "
        "intervals are as wide as measured deployments of DeepSeek-R1 and gpt-oss-120b on five GPUs say"
    )
    if any(table.disaggregation.max_local_prefill_tokens):
        found.append(LOCAL_PREFILL)
    return [*found, what]


def _speculative(table: StudyTable, said: list[str]) -> Speculative | None:
    given = table.speculative
    if given is None:
        return None
    if given.draft_frac is None:
        share = DRAFT_FRAC_PER_TOKEN * given.draft_tokens
        said.append(f"speculative.draft_frac not given: {share:g} of a step for {given.draft_tokens} draft tokens")
        given = replace(given, draft_frac=share)
    said.append(
        "speculative: every plan decodes so; tokens are accepted as given whatever the batch; memory of the drafter is "
        "not counted; no speculative run was measured"
    )
    return given
