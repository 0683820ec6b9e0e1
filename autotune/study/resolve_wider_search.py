"""The tables of `axes_schema` with what they leave open filled in and named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autotune.study.wider_search import DRAFT_FRAC_PER_TOKEN, Axes, Speculative
from costmodel.errors import InputError, Problem
from costmodel.hardware import Cluster, load_gpu

if TYPE_CHECKING:
    from autotune.study.schema import StudyTable


def axes_problems(document: Mapping[str, Any]) -> list[Problem]:
    """Rules between fields of these tables, on the raw document; wrong types are left to the schema."""
    given = document.get("speculative")
    problems = []
    if isinstance(given, Mapping):
        drafted, accepted = given.get("draft_tokens"), given.get("accepted_per_step")
        if isinstance(drafted, int) and isinstance(accepted, (int, float)) and not 1 <= accepted <= drafted + 1:
            problems.append(
                Problem(
                    path="$.speculative.accepted_per_step",
                    message=f"must lie between 1 and draft_tokens + 1, got {accepted} and {drafted} draft tokens",
                )
            )
    return problems


def axes(table: StudyTable, cluster: Cluster, said: list[str]) -> Axes:
    """The values of a valid table; `said` gets a sentence for each value that was filled in.

    Raises:
        InputError: a GPU that is not known, or a pool size that no split of the cluster can have.
    """
    problems: list[Problem] = []
    search = table.search
    others = tuple(
        c
        for i, other in enumerate(table.cluster.also)
        if (c := _cluster(other.gpu, other.gpus, other.gpus_per_node, f"$.cluster.also[{i}].gpu", problems))
    )
    types = tuple(
        c
        for i, name in enumerate(search.gpu or ())
        if (c := _cluster(name, cluster.gpus, None, f"$.search.gpu[{i}]", problems)) and c.gpu.name != cluster.gpu.name
    )
    priced, problems_of_prices = _prices(table.prices)
    problems += problems_of_prices
    multiple = table.disaggregation.pool_gpus_multiple_of or 1
    if search.disaggregated != "off" and not others and cluster.gpus < 2 * multiple:
        problems.append(
            Problem(
                path="$.disaggregation.pool_gpus_multiple_of" if multiple > 1 else "$.search.disaggregated",
                message=f"two pools of at least {multiple} GPUs do not fit into cluster.gpus, got {cluster.gpus}",
            )
        )
    priced_types = tuple(priced_cluster(c, priced) for c in types)
    if (table.objective.minimize or "") == "usd_per_million_tokens":
        clusters = (cluster, *priced_types, *(priced_cluster(c, priced) for c in others))
        problems += [
            Problem(path=f"$.prices.{name}", message="must be given where usd_per_million_tokens is minimized")
            for name in sorted({c.gpu.name for c in clusters if c.gpu.price_per_hour is None})
        ]
    if problems:
        raise InputError(problems)
    if search.disaggregated != "off":
        said += _transfer_assumptions(table, cluster, multiple)
    return Axes(
        disaggregated=search.disaggregated,
        link_bytes_per_s=None if (link := table.disaggregation.link_gb_per_s) is None else link * 1e9,
        start_s=(table.disaggregation.start_ms or 0.0) / 1e3,
        overlap_frac=table.disaggregation.overlap_frac or 0.0,
        pool_gpus_multiple_of=multiple,
        other_gpus=tuple(priced_cluster(c, priced) for c in others),
        gpu_counts=tuple(sorted({*search.gpus, cluster.gpus})) if search.gpus else (),
        gpu_types=priced_types,
        speculative=_speculative(table, said),
        balanced_stages=search.stage_layers == "balanced",
    )


def priced_cluster(cluster: Cluster, prices: Mapping[str, float]) -> Cluster:
    """The cluster with the study's price of its GPU, US dollars per hour, where the study gives one."""
    price = prices.get(cluster.gpu.name)
    return cluster if price is None else replace(cluster, gpu=replace(cluster.gpu, price_per_hour=price))


def study_prices(table: StudyTable) -> dict[str, float]:
    """Price by the catalog's GPU name; names that are not known are reported by `axes`."""
    return _prices(table.prices)[0]


def _prices(given: Mapping[str, float]) -> tuple[dict[str, float], list[Problem]]:
    found, problems = {}, []
    for name, price in given.items():
        try:
            found[load_gpu(name).name] = price
        except InputError as error:
            problems += [Problem(path=f"$.prices.{name}", message=p.message) for p in error.problems]
    return found, problems


def _cluster(name: str, gpus: int, per_node: int | None, path: str, problems: list[Problem]) -> Cluster | None:
    try:
        found = load_gpu(name)
    except InputError as error:
        problems += [Problem(path=path, message=p.message) for p in error.problems]
        return None
    return Cluster(gpus=gpus, gpu=found, gpus_per_node=per_node or min(found.gpus_per_node, gpus))


def _transfer_assumptions(table: StudyTable, cluster: Cluster, multiple: int) -> list[str]:
    given, said = table.disaggregation, []
    if given.link_gb_per_s is None:
        said.append(
            f"disaggregation.link_gb_per_s not given: the links of {cluster.gpu.name} as calibrated (scale-out "
            f"{cluster.gpu.scaleout_bytes_per_s / 1e9:g} GB/s a GPU, or scale-up where one domain holds the cluster)"
        )
    if given.start_ms is None:
        said.append("disaggregation.start_ms not given: 0 ms beside the link's latency")
    if given.overlap_frac is None:
        said.append("disaggregation.overlap_frac not given: 0 (the KV transfer begins when the prefill is done)")
    if given.pool_gpus_multiple_of is None and multiple == 1:
        said.append("disaggregation.pool_gpus_multiple_of not given: 1 (any split of the GPUs)")
    said.append(
        "disaggregated plans: both pools run one engine with one KV dtype; the connector can move the cache between "
        "any two layouts; routers send each prompt to an attention-DP rank of the prefill pool at random; no "
        "disaggregated run was measured"
    )
    return said


def _speculative(table: StudyTable, said: list[str]) -> Speculative | None:
    given = table.speculative
    if given is None:
        return None
    share = given.draft_frac
    if share is None:
        share = DRAFT_FRAC_PER_TOKEN * given.draft_tokens
        said.append(f"speculative.draft_frac not given: {share:g} of a step for {given.draft_tokens} draft tokens")
    said.append(
        "speculative: every plan decodes so; tokens are accepted as given whatever the batch; memory of the drafter is "
        "not counted; no speculative run was measured"
    )
    return Speculative(draft_tokens=given.draft_tokens, accepted_per_step=given.accepted_per_step, draft_frac=share)
