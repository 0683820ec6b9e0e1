"""The best plan for a study, also where recorded traffic sets the load; and what plans take of it within the limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from autotune.comparison.robustness import swept
from autotune.comparison.simulated_requests import ServedLog, simulated_requests
from autotune.disaggregated.rescore import rescored, rescored_each
from autotune.metrics import GOODPUT
from autotune.scoring.best_knobs import score
from autotune.scoring.joint_uncertainty import DRAWS, Draws, joint_draws
from autotune.scoring.limits import study_limits
from autotune.scoring.objective import CLOSE_FRAC
from autotune.scoring.plan_order import rank
from autotune.scoring.value_and_gain import served_within_limits
from autotune.simulation.percentile_limits import is_simulated
from autotune.study import IntRange, Objective, Study, cluster_choices, in_place, opens_clusters
from autotune.tuning import PlanResult, tune
from autotune.tuning.knob_choices import worth_simulating
from autotune.tuning.simulate_ranking import simulate_ranking
from costmodel.estimate.error_model import Latencies
from costmodel.plan.columns import Floats, Ints

SHARES = np.linspace(1.0 / 32.0, 1.0, 32)
"""Of the number in flight that a plan is run with: what it is cut back to where it turns out slower than estimated."""


def drawn_capacities(study: Study, plans: Sequence[PlanResult | None]) -> Floats:
    """Draws of the most requests per second that plans take within the limits, shape `(len(plans), draws)`.

    A plan is run with the number in flight that it was scored at. In a draw in which that breaks a latency limit fewer
    are let in, until the limits hold: it serves less, not nothing. One that turns out faster serves them faster.

    Args:
        study: asks for the most requests per second (`best.capacity_study`).
        plans: scored under it; None: one that takes nothing within the limits. The draws are those of the same plans
            in the same order under any other load, so that they may be compared one by one.
    """
    given = [p for p in plans if p is not None]
    out = np.zeros((len(plans), DRAWS))
    if not given:
        return out
    # every row is drawn: the errors of a plan are those of its place
    draws = joint_draws(study, [p or given[0] for p in plans])
    for row, plan in enumerate(plans):
        if plan is not None:
            out[row] = _within_limits(study, plan, draws.ttft_factor[row], draws.tpot_factor[row])
    return out


def _within_limits(study: Study, plan: PlanResult, ttft_factor: Floats, tpot_factor: Floats) -> Floats:
    """Requests per second in each draw, at the share of `SHARES` that serves most of those that keep the limits."""
    loads = swept(study, plan, np.maximum(plan.knobs.concurrency * SHARES, 1.0))
    latencies = Latencies(
        first_s=(loads.ttft_s - loads.kv_wait_s)[:, None],
        wait_s=loads.kv_wait_s[:, None],
        longest_extra_s=(loads.ttft_longest_s - loads.ttft_s)[:, None],
        tpot_s=loads.tpot_s[:, None],
        outputs=max(study.workload.osl.mean - 1.0, 0.0),
    )
    drawn = Draws.of(latencies, ttft_factor, tpot_factor)
    # a limit of the kind "at least" asks for a load, which is what is looked for here
    limits = [limit for limit in study_limits(study) if limit.kind.more_in_flight == "worse"]
    kept = drawn.within(limits, lambda name: getattr(loads, name)[:, None])
    served = loads.requests_per_s[:, None] * drawn.throughput_factor
    return np.asarray(np.where(kept, served, 0.0).max(axis=0))


SHORTLIST = 24
"""Plans that are evaluated at every kind of request, the first of a ranking at mean lengths."""
POOLED_SHORTLIST = 6
"""The same of disaggregated plans: pools meet the mean lengths in both rankings, so that their order hardly changes."""

COUNTED = 3
"""Plans that are held against the requests of a log one by one, where their capacities leave them this close."""

Progress = Callable[[int, int], None]


def best_plan(
    study: Study, *, also: Sequence[str] = (), log: ServedLog | None = None, progress: Progress | None = None
) -> PlanResult | None:
    """The first of the ranking, the nearest plan where none keeps every limit; None: nothing can be launched.

    Under recorded traffic (`Workload.points`) with a metric to maximise, the load is what comes, and the best plan is
    the one that can be expected to serve most of it within the limits, over all that the calibration leaves open: what
    `retune` decides by. Of those that serve as much within a percent it is the first of the study's own ranking where
    that is simulated. Otherwise they are ordered by how much of such traffic they could take, and where the requests of
    a log are at hand it is the first of those with most of them within the limits.
    Disaggregated plans are scored at the traffic's mean lengths (`pool_load`). More GPUs always serve more: where a
    study opens several clusters, it is the first that `tune` ranks over all of them, and so it is of goodput.

    Args:
        study: its baseline is left out of the search.
        also: full plan strings that are looked at whatever the ranking at mean lengths says of them.
        log: the study's own (`served_log`), which keeps what plans serve of it; None: nothing is kept.
        progress: as in `tune`.
    """
    own = replace(study, baseline=None)
    if not study.workload.points or opens_clusters(study) or study.objective.metric == GOODPUT:
        found = tune(own, progress=progress)
        return next(iter(found.ranked or found.infeasible), None)
    by_capacity = study.objective.direction == "maximize"
    asked = capacity_study(in_place(own, pools=True)) if by_capacity else own
    rough = tune(replace(asked, workload=replace(asked.workload, points=())), progress=progress)
    plans = [*rough.ranked, *rough.infeasible]
    whole = _shortlist([p for p in plans if p.pools is None], also, SHORTLIST)
    pooled = _shortlist([p for p in plans if p.pools is not None], also, POOLED_SHORTLIST)
    scored = score(asked, [p.candidate for p in whole]) if whole else []
    ranked, others = rank(asked, [*scored, *rescored_each(asked, pooled)])
    best = next(iter(ranked or others), None)
    served = served_within_limits(study, drawn_capacities(asked, ranked))
    if ranked and served is not None:
        return _most_served(study, log or served_log(study), ranked, served.mean(axis=1))
    return None if best is None else rescored(study, best)


def served_log(study: Study, production: PlanResult | None = None) -> ServedLog | None:
    """The requests of the study's log, ready to be served by plans, `production` among them; None: it has none."""
    requests = study.workload.recorded
    request_s = 0.0 if production is None or not production.has_room else production.metrics["e2e_s"]
    return None if requests is None else ServedLog(requests, request_s=request_s)


def _most_served(study: Study, log: ServedLog | None, plans: Sequence[PlanResult], served_per_s: Floats) -> PlanResult:
    """The plan that is expected to serve most; of those that are close, the first of the study's own ranking where that
    is simulated, or else of those with most of a log's requests within the limits.

    Args:
        study: under the traffic.
        log: its requests; None: it has none.
        plans: that may be it.
        served_per_s: what each is expected to serve by its capacity.
    """
    close = sorted(close_to_most(served_per_s), key=lambda i: -served_per_s[i])
    own = rescored_each(study, [plans[i] for i in close])
    if len(own) > 1 and is_simulated(study):
        able = worth_simulating(study, own)
        kept = simulate_ranking(study, able, wanted=1).ranked if able else ()
        if kept:
            return kept[0]
    first = own[:COUNTED]
    counted = simulated_requests(study, log, first) if log is not None and len(first) > 1 else None
    return first[0 if counted is None else int(close_to_most(counted[1].mean(axis=1))[0])]


def close_to_most(served_per_s: Floats) -> Ints:
    """Places of those of some plans that serve most, or less by so little that they cannot be told apart."""
    return np.flatnonzero(served_per_s >= (1.0 - CLOSE_FRAC) * served_per_s.max())


def _shortlist(plans: Sequence[PlanResult], also: Sequence[str], first: int) -> list[PlanResult]:
    """The first plans, and those of `also`."""
    return [*plans[:first], *(p for p in plans[first:] if p.plan in also)]


def capacity_study(study: Study) -> Study:
    """The study that asks for the most requests per second within the limits, at whatever load that is."""
    most = study.engine_options.max_num_seqs * max(cluster.gpus for cluster in cluster_choices(study))
    return replace(
        study,
        workload=replace(study.workload, concurrency=None, request_rate_per_s=None),
        search=replace(study.search, concurrency=IntRange(min=1, max=most)),
        objective=Objective(metric="requests_per_s", direction="maximize"),
    )


def at_capacity(study: Study, plan: PlanResult) -> PlanResult | None:
    """A launch at the most requests per second within the limits; None where no load keeps them."""
    found = rescored(capacity_study(study), plan)
    return found if found.feasible else None
