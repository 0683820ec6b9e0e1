"""What would have to give where no plan keeps every limit: settings that were tried, or the GPUs that a model needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from autotune.scoring.best_knobs import score
from autotune.scoring.limits import LOAD_SERVED, SERVED_WITHIN, study_limits
from autotune.scoring.plan_result import PERCENTILES, PlanResult
from autotune.simulation.percentile_limits import bound_fields, percentile_limits
from autotune.study import Objective, Study
from autotune.study.clusters import on_cluster
from autotune.study.sections import Constraints
from autotune.tuning.study_space import study_space
from costmodel.arch import least_weight_bytes
from costmodel.errors import InputError

if TYPE_CHECKING:
    from autotune.tuning.answer import TuneResult
    from autotune.tuning.simulated_limits import Simulating

SLACK = (1.0, 1.02, 1.05, 1.1, 1.2, 1.35, 1.6, 2.0, 3.0)
"""By how much more than its figure a limit is loosened: keeping one at its very edge is a coin toss."""
MOST_PLANS = 6
"""Plans for which a remedy is looked for, and pairs of pools that are asked how much they carry."""
MOST_RAISED = 1.2
"""By how much a rate that is taken is raised at once: with the rate open most plans already serve nearly their most."""
RATE_STEP = 1.001
"""Rates that are no further apart are the same to the three digits that are named."""
MOST_BELOW = 1.0 / SLACK[-1]
"""Share of the rate that is taken by means down to which one is looked for that keeps the limits on percentiles too."""
CLOSE = 1.02
"""Rates that are simulated are found as close as that."""
USEFUL = 0.5
"""Share of requests within the limits from which on a setting mends that none is: one of thousands would be no use."""
MOST_TIMES = 4
"""The fewest GPUs are looked for up to so many times those that the weights alone fill."""

MOST_SERVED = Objective(metric="total_tokens_per_s_per_gpu", direction="maximize")


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
    """The smallest change of limits, each scored again with it, that makes one of the nearest plans feasible.

    Where the nearest does not take the request rate, it is the highest rate that any plan takes within the limits.
    """
    from autotune.tuning.simulated_limits import simulated_once  # most studies are not simulated

    study, simulated = result.study, simulated_once()
    fitting = [p for p in result.infeasible if all(_may_give(v.code) for v in p.violations)]
    if fitting and _overloaded(study, fitting[0]) and (found := _most_carried(study, fitting, simulated)) is not None:
        return found
    for plan in _figures_known(study, fitting[:MOST_PLANS], simulated):
        for settings, changed in _loosened(study, plan):
            if settings and _feasible(changed, plan, simulated):
                return Remedy(plan=plan, settings=settings)
    pooled = [p.pools is not None for p in result.infeasible]
    if fitting or (pooled and all(pooled)):  # of separate pools alone it is not known what holds the model
        return Remedy()
    return Remedy(too_large=_too_large(study), fewest_gpus=fewest_gpus(study))


def _figures_known(study: Study, plans: Sequence[PlanResult], simulated: Simulating) -> list[PlanResult]:
    """Plans with what they do of each limit: a plan that breaks one on means was not held against those on requests."""
    if not percentile_limits(study):
        return list(plans)
    from autotune.tuning.knob_choices import simulated_plans

    return simulated_plans(study, plans, simulated=simulated)


def _may_give(code: str) -> bool:
    """Whether breaking a limit can be mended by loosening it: memory that is not there cannot be had."""
    return code not in ("kv_capacity", "memory_util_frac")


def _loosened(study: Study, plan: PlanResult) -> Iterator[tuple[tuple[str, ...], Study]]:
    """Settings by growing slack, each with the study that they make."""
    for slack in SLACK:
        wanted = {**_means(study, plan, slack), **_percentiles(study, plan, slack)}
        settings = [f"constraints.{code}={value:.12g}" for code, (_, value, _) in wanted.items()]
        limits = {field: value / factor for field, value, factor in wanted.values()}
        rate = _rate(study, plan, slack)
        own = study if rate is None else _at_rate(study, rate)
        settings += [] if rate is None else [_rate_setting(rate)]
        yield tuple(settings), replace(own, constraints=replace(study.constraints, **limits))


Wanted = dict[str, tuple[str, float, float]]
"""Limit -> its field of `Constraints`, a looser bound in the limit's unit, and the factor from SI to that."""


def _means(study: Study, plan: PlanResult, slack: float) -> Wanted:
    out: Wanted = {}
    # what is served shrinks with the rate, where that has to give as well
    floor = slack if _rate(study, plan, slack) is None else slack * slack
    for limit in study_limits(study):
        kind = limit.kind
        if kind.field and _may_give(kind.code) and kind.code in plan.margins:
            value = limit.value(plan.metrics, plan.p_meets)
            bound = _rounded(value / floor, up=False) if kind.least else _rounded(value * slack, up=True)
            if 0.0 < bound < limit.limit if kind.least else bound > limit.limit:
                out[kind.code] = (kind.field, bound, kind.factor)
    return out


def _percentiles(study: Study, plan: PlanResult, slack: float) -> Wanted:
    out: Wanted = {}
    for limit in percentile_limits(study):
        value, asked = plan.breakdown.get("simulated", {}).get(limit.code, {}).get("value"), limit.limit
        if value is None:
            continue
        if limit.code == SERVED_WITHIN:
            out = {**(_of_half(study, plan, slack) if value < asked else {}), **out}
        elif limit.latency and (bound := _rounded(value * slack, up=True)) > asked:
            out[limit.key] = (limit.key.removesuffix("_ms") + "_s", bound, limit.factor)
        elif not limit.latency and 0.0 < (bound := _rounded(value / slack, up=False)) < asked:
            out[limit.code] = (limit.code, bound, limit.factor)
    return out


def _of_half(study: Study, plan: PlanResult, slack: float) -> Wanted:
    """Bounds of single requests that half of those of a plan keep, where it serves none within them."""
    out: Wanted = {}
    for latency, field in bound_fields(study).items():
        bound = _rounded(plan.breakdown[PERCENTILES][f"{latency}_p50_ms"] * slack, up=True)
        if bound > 1e3 * getattr(study.constraints, field):
            out[f"{field.removesuffix('_s')}_ms"] = (field, bound, 1e3)
    return out


def _rate(study: Study, plan: PlanResult, slack: float) -> float | None:
    """A rate that the plan takes, where it does not take the study's."""
    asked = study.workload.request_rate_per_s
    if asked is None or not _overloaded(study, plan):
        return None
    rate = _rounded(plan.metrics["requests_per_s"] / slack, up=False)
    return rate if 0.0 < rate < asked else None


def _overloaded(study: Study, plan: PlanResult) -> bool:
    """Whether the plan does not take a rate that can be changed: that of a log is as it was recorded."""
    return study.workload.recorded is None and any(v.code == LOAD_SERVED for v in plan.violations)


def _most_carried(study: Study, plans: Sequence[PlanResult], simulated: Simulating) -> Remedy | None:
    """The highest request rate that one of some plans takes within every limit; None: none takes any.

    What a plan was found to serve at a rate that it cannot take says little: with all its memory full it breaks limits
    that it keeps at a lower rate. So the rate is left open first, and then raised until no plan is left that takes it.
    """
    pooled = [p for p in plans if p.pools is not None][:MOST_PLANS]
    able = _within_means(_at_rate(study, None), [*(p for p in plans if p.pools is None), *pooled])
    able.sort(key=lambda p: (-p.metrics["requests_per_s"], p.plan))
    if not able:
        return None
    taken, most = able, study.workload.request_rate_per_s or 0.0
    low = able[0].metrics["requests_per_s"] / RATE_STEP
    while most > low * RATE_STEP:
        rate = min((low * most) ** 0.5, low * MOST_RAISED)
        if left := _within_means(_at_rate(study, rate), taken):
            low, taken = rate, left
        else:
            most = rate
    first = {p.plan: p for p in [*taken, *able]}
    return _highest_taken(study, list(first.values())[:MOST_PLANS], low, simulated)


def _highest_taken(study: Study, plans: Sequence[PlanResult], most: float, simulated: Simulating) -> Remedy | None:
    """The highest rate up to `most` at which one of some plans keeps every limit, those included that are simulated.

    None: none does down to `MOST_BELOW` of it. Each plan is only asked for more than those before it keep.
    """

    def takes(plan: PlanResult, rate_per_s: float) -> bool:
        return _feasible(_at_rate(study, _rounded(rate_per_s, up=False)), plan, simulated)

    best, rate = None, 0.0
    for plan in plans:
        inside, outside = max(most * MOST_BELOW, rate * CLOSE), most
        if inside >= most or not takes(plan, inside):
            continue
        if takes(plan, most):
            best, rate = plan, most
            break
        while outside > inside * CLOSE:
            middle = (inside * outside) ** 0.5
            inside, outside = (middle, outside) if takes(plan, middle) else (inside, middle)
        best, rate = plan, inside
    return None if best is None else Remedy(plan=best, settings=(_rate_setting(_rounded(rate, up=False)),))


def _at_rate(study: Study, rate_per_s: float | None) -> Study:
    """The study at another request rate; None: as much as a plan serves, whatever the objective is."""
    own = replace(study, workload=replace(study.workload, request_rate_per_s=rate_per_s))
    return own if rate_per_s is not None else replace(own, objective=MOST_SERVED)


def _within_means(study: Study, plans: Sequence[PlanResult]) -> list[PlanResult]:
    """Those of some plans, scored anew, that keep every limit but those that have to be simulated."""
    found = score(study, [p.candidate for p in plans if p.pools is None])
    found += [own for p in plans if p.pools is not None and (own := _scored(study, p)) is not None]
    return [p for p in found if p.feasible]


def _rate_setting(rate_per_s: float) -> str:
    return f"workload.request_rate_per_s={rate_per_s:.12g}"


def _rounded(value: float, *, up: bool) -> float:
    """To three digits that count, away from what is asked now."""
    if value <= 0.0:
        return 0.0
    digit = 10.0 ** (floor(log10(value)) - 2)
    turn: Callable[[float], int] = ceil if up else floor
    return turn(value / digit * (1.0 - 1e-12 if up else 1.0 + 1e-12)) * digit


def _feasible(study: Study, plan: PlanResult, simulated: Simulating) -> bool:
    """Whether the plan, its knobs chosen anew, keeps every limit of a study."""
    found = _scored(study, plan)
    if found is None:
        return False
    if percentile_limits(study):
        from autotune.tuning.knob_choices import best_once_simulated
        from autotune.tuning.simulated_limits import may_keep

        if may_keep(study, found):
            found = best_once_simulated(study, found, simulated=simulated)
    within = found.breakdown.get("simulated", {}).get(SERVED_WITHIN)
    return found.feasible and (within is None or within["value"] >= USEFUL)


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
    least, room = least_weight_bytes(study.arch, study.search.weight_dtype), cluster.gpus * cluster.gpu.hbm_bytes
    have = (
        f"{cluster.gpus:,} x {cluster.gpu.name} have {room / 2**30:,.0f} GiB in all, {share:.0%} of it for the engine"
    )
    size = f"{least / 2**30:,.0f} GiB"
    if least > room * share:
        return f"the weights take {size}, and {have}."
    longest = study.workload.longest_prompt + study.workload.osl.max
    return f"beside weights of {size} no plan has KV room for one request of {longest:,} tokens; {have}."


def fewest_gpus(study: Study) -> int | None:
    """The fewest GPUs of the study's type on which a plan holds the model and one longest request; None: not found."""
    cluster, share = study.cluster, study.engine_options.gpu_memory_utilization
    least = max(ceil(least_weight_bytes(study.arch, study.search.weight_dtype) / (cluster.gpu.hbm_bytes * share)), 1)
    free = replace(
        study,
        constraints=Constraints(),
        workload=replace(study.workload, concurrency=1, request_rate_per_s=None),
        search=replace(study.search, min_p_meets=0.0),
        objective=MOST_SERVED,
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
