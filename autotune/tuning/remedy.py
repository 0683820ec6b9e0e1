"""What would have to give where no plan keeps every limit: settings that were tried, or the GPUs that a model needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from autotune.scoring.best_knobs import score
from autotune.scoring.limits import JOINT_PROBABILITY, LOAD_SERVED, hard_limit, study_limits
from autotune.scoring.plan_result import PlanResult
from autotune.simulation import percentile_limits, study_traffic
from autotune.study import Objective, Study
from autotune.study.clusters import on_cluster
from autotune.study.sections import Constraints
from autotune.tuning.simulate_ranking import with_percentiles
from autotune.tuning.study_space import study_space
from costmodel.arch import weight_bytes
from costmodel.errors import InputError

if TYPE_CHECKING:
    from autotune.tuning.answer_study import TuneResult

SLACK = (1.0, 1.02, 1.05, 1.1, 1.2, 1.35, 1.6, 2.0, 3.0)
"""By how much more than its figure a limit is loosened: keeping one at its very edge is a coin toss."""
MOST_PLANS = 6
"""Nearest plans for which a remedy is looked for."""
MOST_TIMES = 4
"""The fewest GPUs are looked for up to so many times those that the weights alone fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What makes a study feasible."""

    plan: PlanResult | None = None
    """The plan that the settings make feasible."""
    settings: tuple[str, ...] = ()
    """Values of `--set` that do."""
    too_large: str | None = None
    """Why the model does not fit, where it does not."""
    fewest_gpus: int | None = None
    """GPUs of the study's type that hold the model and its longest request; None: not looked for, or not found."""


def find_remedy(result: TuneResult) -> Remedy:
    """The smallest change of limits, each scored again with it, that makes one of the nearest plans feasible."""
    study = result.study
    fitting = [p for p in result.infeasible if all(_may_give(study, v.code) for v in p.violations)]
    for plan in fitting[:MOST_PLANS]:
        for settings, changed in _loosened(study, plan):
            if settings and _feasible(changed, plan):
                return Remedy(plan=plan, settings=settings)
    if fitting or any(p.pools is not None for p in result.infeasible):
        return Remedy()
    return Remedy(too_large=_too_large(study), fewest_gpus=fewest_gpus(study))


def _may_give(study: Study, code: str) -> bool:
    """Whether a limit is the study's own, so that it can be loosened: memory that is not there cannot."""
    if code == "memory_util_frac":
        return False
    return code in (JOINT_PROBABILITY, LOAD_SERVED) or not hard_limit_or_none(code) or code.startswith("min_")


def hard_limit_or_none(code: str) -> bool:
    """`hard_limit`; a limit on percentiles is none."""
    try:
        return hard_limit(code)
    except StopIteration:
        return False


def _loosened(study: Study, plan: PlanResult) -> Iterator[tuple[tuple[str, ...], Study]]:
    """Settings by growing slack, each with the study that they make."""
    for slack in SLACK:
        settings, limits, rate = [], {}, None
        for limit in study_limits(study):
            kind = limit.kind
            if not kind.field or kind.code == "memory_util_frac":
                continue
            value = limit.value(plan.metrics, plan.p_meets)
            wanted = _rounded(value / slack if kind.least else value * slack, up=not kind.least)
            if (wanted < limit.limit) == kind.least and wanted > 0.0 and wanted != limit.limit:
                settings.append(f"constraints.{kind.code}={wanted:.12g}")
                limits[kind.field] = wanted / kind.factor
        for found in percentile_limits(study):
            value = plan.breakdown.get("simulated", {}).get(found.code, {}).get("value")
            if value is None:
                continue
            wanted = _rounded(value * slack if found.latency else value / slack, up=bool(found.latency))
            if found.latency and wanted > found.bound * found.factor:
                settings.append(f"constraints.{found.code}={wanted:.12g}")
                limits[found.code.removesuffix("_ms") + "_s"] = wanted / found.factor
            elif not found.latency and 0.0 < wanted < found.bound:
                settings.append(f"constraints.{found.code}={wanted:.12g}")
                limits[found.code] = wanted
        asked = study.workload.request_rate_per_s
        if asked is not None and any(v.code == LOAD_SERVED for v in plan.violations):
            rate = _rounded(plan.metrics["requests_per_s"] / slack, up=False)
            if 0.0 < rate < asked:
                settings.append(f"workload.request_rate_per_s={rate:.12g}")
            else:
                rate = None
        constraints: Constraints = replace(study.constraints, **limits)
        work = study.workload if rate is None else replace(study.workload, request_rate_per_s=rate)
        yield tuple(settings), replace(study, constraints=constraints, workload=work)


def _rounded(value: float, *, up: bool) -> float:
    """To three digits that count, away from what is asked now."""
    if value <= 0.0:
        return 0.0
    digit = 10.0 ** (floor(log10(value)) - 2)
    turn: Callable[[float], int] = ceil if up else floor
    return turn(value / digit * (1.0 - 1e-12 if up else 1.0 + 1e-12)) * digit


def _feasible(study: Study, plan: PlanResult) -> bool:
    """Whether the plan, its knobs chosen anew, keeps every limit of a study."""
    found = _scored(study, plan)
    if found is None:
        return False
    limits = percentile_limits(study)
    if limits and found.feasible:
        found = with_percentiles(study, found, limits, study_traffic(study))
    return found.feasible


def _scored(study: Study, plan: PlanResult) -> PlanResult | None:
    if plan.pools is None:
        return score(study, [plan.candidate])[0]
    from autotune.disaggregated.plan_results import disaggregated_plan

    try:
        return disaggregated_plan(study, plan.plan, engine=plan.engine)[1]
    except InputError:
        return None


def _too_large(study: Study) -> str:
    """`the weights take 627 GiB, and 4 x h200_sxm have 564 GiB in all, of which the engine may fill 90%`."""
    cluster, share = study.cluster, study.engine_options.gpu_memory_utilization
    weights, room = weight_bytes(study.arch), cluster.gpus * cluster.gpu.hbm_bytes
    have = f"{cluster.gpus:,} x {cluster.gpu.name} have {room / 2**30:,.0f} GiB in all, {share:.0%} of it for the engine"
    if weights > room * share:
        return f"the weights take {weights / 2**30:,.0f} GiB, and {have}."
    longest = study.workload.longest_prompt + study.workload.osl.max
    return (
        f"beside weights of {weights / 2**30:,.0f} GiB no plan has KV room for one request of {longest:,} tokens; {have}."
    )


def fewest_gpus(study: Study) -> int | None:
    """The fewest GPUs of the study's type on which a plan holds the model and one longest request; None: not found."""
    cluster, share = study.cluster, study.engine_options.gpu_memory_utilization
    least = max(ceil(weight_bytes(study.arch) / (cluster.gpu.hbm_bytes * share)), 1)
    free = replace(
        study,
        constraints=Constraints(),
        workload=replace(study.workload, concurrency=1, request_rate_per_s=None),
        search=replace(study.search, min_p_meets=0.0),
        objective=Objective(metric="total_tokens_per_s_per_gpu", direction="maximize"),
        axes=replace(study.axes, disaggregated="off"),
        baseline=None,
    )
    for gpus in range(least, MOST_TIMES * least + 1):
        node = min(max(cluster.gpus_per_node, cluster.gpu.gpus_per_node), gpus)
        own = on_cluster(free, replace(cluster, gpus=gpus, gpus_per_node=node))
        if _any_fits(own):
            return gpus
    return None


def _any_fits(study: Study) -> bool:
    found: Sequence[PlanResult] = score(study, study_space(study).candidates)
    return any(p.feasible for p in found)
