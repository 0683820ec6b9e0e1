"""Statements about disaggregated plans alone, where those about one kind of replica ask otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf

import numpy as np

from autotune.disaggregated.operating_points import operating_points, served_together
from autotune.disaggregated.pairs import Pair, best_pair
from autotune.disaggregated.plan_results import pair_results
from autotune.disaggregated.pool_rows import Evaluator, transfer_link
from autotune.disaggregated.refine_loads import at_best_loads
from autotune.disaggregated.rescore import launched_rows, pools_at
from autotune.disaggregated.search import search_pools
from autotune.scoring.limits import check_limits, study_limits
from autotune.scoring.objective import Standing
from autotune.scoring.plan_result import PlanResult
from autotune.space.pool_plan import PoolPlan
from autotune.study import Study
from costmodel.disaggregated.pool_point import PoolColumns
from costmodel.plan.columns import Floats
from tests.properties.given import REL, Found, Given

FINE = 100
"""Loads of either pool that brute force tries, in equal ratios and, beside them, in equal steps."""


def pooled_batches(given: Given) -> Found:
    """Plans come out as they are whatever is refined beside them: permuted, doubled or split."""
    study = given.study
    pairs = search_pools(study, keep=6).others

    def plans(some: Sequence[Pair]) -> list[PlanResult]:
        return pair_results(study, at_best_loads(study, some), home=study.cluster.gpu.name)

    half, wanted = len(pairs) // 2, plans(pairs)
    variants = {
        "permuted": plans(pairs[::-1])[::-1],
        "doubled": plans([*pairs, *pairs])[: len(pairs)],
        "split": [*plans(pairs[:half]), *plans(pairs[half:])],
    }
    for name, found in variants.items():
        for a, b in zip(wanted, found, strict=True):
            if a.knobs != b.knobs or any(abs(a.metrics[m] - b.metrics[m]) > REL * abs(a.metrics[m]) for m in a.metrics):
                yield f"{name}: {a.plan} {a.knobs} is {b.knobs}"


def pooled_scaled(given: Given) -> Found:
    """Twice the workers of both pools under twice the load serve twice as much at the same latency.

    This holds where the transfer takes the same links for both, and where each decode worker has a sequence: of fewer
    sequences than workers each is a whole one, which does not scale.
    """
    cluster, gpu = replace(given.study.cluster, gpus=given.study.cluster.gpus * 2), given.study.cluster.gpu
    larger, outputs = replace(given.study, cluster=cluster), max(given.study.workload.osl.mean - 1.0, 1.0)
    if transfer_link(larger, gpu, gpu) != transfer_link(given.study, gpu, gpu):
        return
    for plan in given.plans:
        assert plan.pools is not None
        load = np.array([float(plan.knobs.concurrency)])
        pools = replace(plan.pools, prefill=_doubled(plan.pools.prefill), decode=_doubled(plan.pools.decode))
        two = replace(plan, layout=pools.decode.layout, pools=pools)
        one, both = pools_at(given.study, plan, load), pools_at(larger, two, 2.0 * load)
        if one.requests_per_s[0] * one.tpot_s[0] * outputs < plan.layout.replicas:
            continue
        for name, factor in (("requests_per_s", 2.0), ("ttft_s", 1.0), ("tpot_s", 1.0)):
            wanted, found = float(getattr(one, name)[0]) * factor, float(getattr(both, name)[0])
            if abs(found - wanted) > REL * abs(wanted):
                yield f"{plan.plan} with {load[0]:g}: {name} is {found} for two, {wanted} by one"


def _doubled(pool: PoolPlan) -> PoolPlan:
    layout = replace(pool.layout, replicas=pool.layout.replicas * 2)
    return replace(pool, layout=layout, gpus=pool.gpus * 2)


def pooled_load(given: Given) -> Found:
    """No other loads of both pools are better than those that are found, by the rule that ranks: brute force."""
    work = given.study.workload
    if work.concurrency is not None or work.request_rate_per_s is not None:
        return
    for plan in given.plans[:1]:
        rows = launched_rows(given.study, plan)
        prefill, decode = (operating_points(own) for own in rows)
        (pair,) = at_best_loads(given.study, [best_pair(given.study, prefill, decode)])
        chosen = pair.prefill.columns.take(np.array([pair.prefill_at])), pair.decode.columns.take(
            np.array([pair.decode_at])
        )  # fmt: skip
        here, replicas = _standing(given.study, pair, *chosen), float(plan.pools.decode.layout.replicas)  # type: ignore[union-attr]
        used, held = _tried(prefill.at.max(), prefill.at.min()), _tried(decode.at.max() / replicas, 1.0)
        held = np.unique(held.round()) * replicas
        i, j = (index.ravel() for index in np.indices((used.size, held.size)))
        sides = [
            Evaluator(points.rows, np.zeros(loads.size, dtype=np.int64))(loads).columns.take(index)
            for points, loads, index in ((prefill, used, i), (decode, held, j))
        ]
        found = _standing(given.study, pair, sides[0], sides[1])
        gain = np.where(found.worst <= 0.0, found.gain, -inf)
        best = int(gain.argmax())
        if gain[best] == -inf:
            continue
        loss = (gain[best] - here.gain[0]) / max(abs(gain[best]), 1e-300) if here.worst[0] <= 0.0 else inf
        if loss > REL:
            yield f"{plan.plan}: {loss:.3g}, best with {used[i[best]]:.4g} and {held[j[best]]:g}"


def _tried(most: float, least: float) -> Floats:
    return np.unique(np.r_[np.geomspace(min(least, most), most, FINE), np.linspace(min(least, most), most, FINE)])


def _standing(study: Study, pair: Pair, prefill: PoolColumns, decode: PoolColumns) -> Standing:
    clusters = [points.rows.cluster for points in (pair.prefill, pair.decode)]
    service, price = served_together(study, clusters[0], prefill, clusters[1], decode)
    limits = study_limits(study)
    return Standing.of(study, limits, check_limits(limits, service), service, price)


POOL_STATEMENTS: dict[str, Callable[[Given], Found]] = {
    f.__name__.removeprefix("pooled_"): f for f in (pooled_batches, pooled_scaled, pooled_load)
}
