"""Pairs of pools as plans of a result: estimate, limits, plan string; and the pair that a string means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from autotune.disaggregated.local_prefill import by_local_prefill, can_be_sent, refused_setting
from autotune.disaggregated.operating_points import (
    InTime,
    OperatingPoints,
    operating_points,
    pair_price,
    served_together,
    settled,
)
from autotune.disaggregated.pairs import Pair, best_pair, choices, near, of_each_table
from autotune.disaggregated.pool_rows import Dtypes, pool_rows
from autotune.disaggregated.refine_loads import at_best_loads
from autotune.disaggregated.started_sequences import decoding, prefilling
from autotune.engines import ENGINES, Violation, engines_of
from autotune.engines.pair_rules import pair_violations
from autotune.engines.service import Knobs
from autotune.scoring.plan_order import rank
from autotune.scoring.plan_result import PlanResult, ScoredRows
from autotune.space import Resolution, resolve, violations
from autotune.space.pool_plan import PoolPlan, Pools, slower_pool
from autotune.space.pooled_planstring import PooledSpec, PoolSpec, format_pooled, parse_pooled
from autotune.study import Study, dtype_choices, refused_dtypes
from costmodel.disaggregated.pairing import CARRIED, PairService, pair_estimate
from costmodel.disaggregated.pool_point import PoolPoint
from costmodel.errors import InputError
from costmodel.hardware import Cluster
from costmodel.plan.columns import Floats, Ints


def pair_results(study: Study, pairs: Sequence[Pair], *, home: str) -> list[PlanResult]:
    """The plans of pairs, in their order; their strings leave out the GPU type `home`."""
    return of_each_table(pairs, lambda group: _results(study, group, home))


def best_knobs(study: Study, plans: Sequence[PlanResult]) -> dict[str, PlanResult]:
    """Of the same plan with several knobs the best, by key, in the order in which plans first come."""
    out: dict[str, PlanResult] = {}
    for plan in plans:
        out[plan.key] = next(chain(*rank(study, [*([out[plan.key]] if plan.key in out else []), plan])))
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One pool of each of several pairs, at work together with the other one."""

    points: OperatingPoints
    index: Ints
    copies: Ints
    point: PoolPoint
    in_time_per_s: Floats
    """Requests per second that it can do within the limits on its own latency."""
    started: Ints
    """Sequences that its servers are started for, per attention-DP rank."""

    def pool(self, row: int, rate: float) -> PoolPlan:
        """The pool of one pair, of which `rate` requests per second are asked."""
        rows, own, at = self.points.rows, self.point.columns, int(self.index[row])
        layout = self.points.layout_at(at, int(self.copies[row]))
        able = float(own.requests_per_s[row])
        share = rate / able if able > 0.0 else 0.0
        return PoolPlan(
            gpu=rows.cluster.gpu.name,
            gpus=layout.gpus,
            layout=layout,
            max_num_batched_tokens=round(float(rows.budget[self.points.row[at]])),
            max_num_seqs=int(self.started[row]),
            in_flight=float(own.residence_s[row]) * rate,
            requests_per_s=able,
            in_time_per_s=float(self.in_time_per_s[row]),
            gpu_util_frac=min(float(own.busy_s[row] / own.gpus[row]) * able * share, 1.0),
            memory_util_frac=float(own.memory_util_frac[row]),
        )


def _results(study: Study, pairs: Sequence[Pair], home: str) -> list[PlanResult]:
    """Plans of pairs that share both tables of points."""
    (prefill, decode), pair = _served(study, pairs)
    first, second = prefill.points.rows, decode.points.rows
    columns = prefill.point.columns, decode.point.columns
    price = pair_price(first.cluster, columns[0].gpus, second.cluster, columns[1].gpus)
    scored = ScoredRows.of(study, pair_estimate(prefill.point, decode.point, pair), price)
    engine, dtypes = first.engine, first.dtypes
    out = []
    for row in range(len(pairs)):
        pools = _pools(study, prefill, decode, pair, row)
        types = [None if p.gpu == home else p.gpu for p in (pools.prefill, pools.decode)]
        knobs = Knobs(
            concurrency=max(round(float(pair.in_flight[row])), 1),
            max_num_batched_tokens=pools.prefill.max_num_batched_tokens,
            max_num_seqs=pools.decode.max_num_seqs,
            weight_dtype=dtypes.weight,
            kv_dtype=dtypes.kv,
        )
        out.append(
            scored.result(
                row,
                plan=format_pooled(engine, (types[0], pools.prefill.layout), (types[1], pools.decode.layout)),
                engine=engine,
                layout=pools.decode.layout,
                knobs=knobs,
                pools=pools,
            )
        )
    return out


def _served(study: Study, pairs: Sequence[Pair]) -> tuple[tuple[_Side, _Side], PairService]:
    """Both pools of each pair and what they do together: at its points, or where the requests in flight settle it."""
    first, second = pairs[0].prefill, pairs[0].decode
    p_at, d_at = np.array([p.prefill_at for p in pairs]), np.array([p.decode_at for p in pairs])
    copies = np.array([p.prefill_copies for p in pairs]), np.array([p.decode_copies for p in pairs])
    rate = study.workload.request_rate_per_s
    if study.workload.concurrency is None:
        prefill = first.detailed(p_at, copies[0])
        if rate is None:
            decode = second.detailed(d_at, copies[1])
        else:
            # what the prefill pool lets through is all that comes
            passed = prefill.columns.requests_per_s
            decode = second.carrying(d_at, np.where(passed < rate * CARRIED, passed, rate))
        clusters = first.rows.cluster, second.rows.cluster
        pair = served_together(study, clusters[0], prefill.columns, clusters[1], decode.columns)[0]
    else:
        in_flight = np.full(len(pairs), float(study.workload.concurrency))
        loop = settled(first, second, (p_at, d_at), copies, in_flight)
        prefill, decode, pair = loop.prefill, loop.decode, loop.pair
    p_side, d_side = (
        _Side(
            points=points,
            index=at,
            copies=times,
            point=point,
            in_time_per_s=(most := InTime.of(points, at)).requests_per_s * times,
            started=_started(points, at, point, most),
        )
        for points, at, times, point in ((first, p_at, copies[0], prefill), (second, d_at, copies[1], decode))
    )
    return (p_side, d_side), pair


def _started(points: OperatingPoints, index: Ints, point: PoolPoint, most: InTime) -> Ints:
    """Sequences at once, per attention-DP rank, that the servers of pools at some points are started for.

    Where the study fixes the requests in flight, a decode pool may admit fewer than keep the limits: whoever does so
    does it for a purpose that peaks would defeat.
    """
    rows, row = points.rows, points.row[index]
    if rows.role == "prefill":
        return prefilling(rows, row, point.columns)
    if rows.slots is not None:
        return rows.slots[row]
    if rows.study.workload.concurrency is None:
        held, fewer = most.sequences_per_rank, np.zeros(row.shape, dtype=bool)
    else:
        held, fewer = points.columns.sequences_per_rank[index], points.at[index] < points.most[index]
    return decoding(rows, held, point.columns, peaks=~fewer)


def _pools(study: Study, prefill: _Side, decode: _Side, together: PairService, row: int) -> Pools:
    rate = float(together.requests_per_s[row])
    first, second = prefill.pool(row, rate), decode.pool(row, rate)
    local = study.axes.local_prefill
    return Pools(
        prefill=first,
        decode=second,
        slower=slower_pool(first.in_time_per_s, second.in_time_per_s),
        kv_bytes_per_request=float(np.broadcast_to(decode.point.prompt_bytes, together.ttft_s.shape)[row]),
        transfer_s=float(together.transfer_s[row]),
        overlap_frac=study.axes.overlap_frac,
        max_local_prefill_tokens=study.axes.max_local_prefill_tokens[0],
        local_frac=0.0 if local is None else local.frac,
    )


def disaggregated_plan(
    study: Study, text: str, *, engine: str | None = None, slots: int | None = None
) -> tuple[Resolution, PlanResult | None]:
    """The plan that a disaggregated plan string means, with its best knobs; None where an engine's rule forbids it.

    The resolution's candidate is the decode pool's, whose servers were started for `slots` sequences per rank.

    Raises:
        InputError: a side has no reading on the GPUs that are left for it.
    """
    spec = parse_pooled(text)
    first, second = _sides(study, spec, engine)
    resolution = _together(first, second)
    if not resolution.violations:
        rules, layouts = ENGINES[first.candidate.engine].pair_rules, (first.candidate.layout, second.candidate.layout)
        broken = pair_violations(rules, study.arch, *layouts)
        resolution = replace(resolution, violations=broken)
    if resolution.violations:
        return resolution, None
    name = first.candidate.engine
    if not can_be_sent(study, name):
        return replace(resolution, violations=(refused_setting(name),)), None
    gpus = [pool_cluster(study, side.gpu).gpu for side in (spec.prefill, spec.decode)]
    if (refusal := refused_dtypes(study, name, *gpus)) is not None:
        return replace(resolution, violations=(refusal,)), None
    found: list[PlanResult] = []
    for own in by_local_prefill(replace(study, engine=name)):
        pairs = []
        for weight, kv in dtype_choices(study, name, *gpus):
            dtypes = Dtypes(weight=weight, kv=kv)
            prefill, decode = (
                operating_points(
                    pool_rows(
                        own,
                        role,
                        pool_cluster(own, side.gpu),
                        dtypes,
                        (side_found.candidate,),
                        side_found.candidate.engine,
                        slots=started,
                    )
                )
                for role, side, side_found, started in (
                    ("prefill", spec.prefill, first, None),
                    ("decode", spec.decode, second, slots),
                )
            )
            pairs.append(best_pair(own, prefill, decode))
        # as the search does it: knobs that break a limit at the loads that are tried are no choice where others do not
        kept = [pair for pair in pairs if pair.feasible] or pairs
        least = near(max(pair.key for pair in kept))
        near_best = [other for pair in kept for other in choices(own, pair, least)]
        found += pair_results(own, at_best_loads(own, near_best), home=own.cluster.gpu.name)
    return resolution, next(iter(best_knobs(study, found).values()))


def full_pooled(study: Study, text: str, *, engine: str | None = None) -> tuple[str, str]:
    """The full string that a disaggregated plan string means, and its engine, whatever rules it breaks.

    Raises:
        InputError: as `disaggregated_plan`.
    """
    spec = parse_pooled(text)
    first, second = (side.candidate for side in _sides(study, spec, engine))
    home = study.cluster.gpu.name
    types = [None if side.gpu == home else side.gpu for side in (spec.prefill, spec.decode)]
    return format_pooled(first.engine, (types[0], first.layout), (types[1], second.layout)), first.engine


def _sides(study: Study, spec: PooledSpec, engine: str | None) -> tuple[Resolution, Resolution]:
    """Both pools by the first engine that accepts both, else by the first: one engine runs both."""
    p_gpus, d_gpus = _gpus(study, spec)
    read = [
        (_side(study, "prefill", spec.prefill, p_gpus, name), _side(study, "decode", spec.decode, d_gpus, name))
        for name in engines_of(spec.engine or engine or study.engine)
    ]
    return next((r for r in read if not (r[0].violations or r[1].violations)), read[0])


def pool_cluster(study: Study, gpu: str | None) -> Cluster:
    """The GPUs that a pool names: the cluster's unless it says otherwise.

    Raises:
        InputError: the cluster has none of them.
    """
    known = {c.gpu.name: c for c in (study.cluster, *study.axes.other_gpus)}
    name = study.cluster.gpu.name if gpu is None else gpu
    if name not in known:
        raise InputError.single("plan", f"names GPUs that the cluster has none of: {name!r}; it has {', '.join(known)}")
    return known[name]


def _gpus(study: Study, spec: PooledSpec) -> tuple[int, int]:
    """GPUs of both pools: as said, as the other pool leaves, or as the strings' own numbers multiply to.

    Raises:
        InputError: they do not use the GPUs exactly.
    """
    first, second = (pool_cluster(study, side.gpu) for side in (spec.prefill, spec.decode))
    p, d = spec.prefill.gpus, spec.decode.gpus
    if first is not second:
        return p or first.gpus, d or second.gpus
    if p is None and d is None:
        p, d = spec.prefill.named_gpus, spec.decode.named_gpus
        if p + d != first.gpus:
            raise InputError.single(
                "plan",
                f"{spec.text!r} names {p} + {d} GPUs and the cluster has {first.gpus}: give the pools' GPUs, as in "
                f"P{max(first.gpus // 4, 1)}:…+D{first.gpus - max(first.gpus // 4, 1)}:…",
            )
    p, d = p or first.gpus - (d or 0), d or first.gpus - (p or 0)
    if p < 1 or d < 1 or p + d != first.gpus:
        raise InputError.single("plan", f"pools must use the {first.gpus} GPUs of the cluster exactly, got {p} + {d}")
    return p, d


def _side(study: Study, role: str, side: PoolSpec, gpus: int, engine: str) -> Resolution:
    found = resolve(side.plan, arch=study.arch, gpus=gpus, engine=engine, version=study.engine_version)
    own, drafts = found.candidate, study.axes.speculative is not None
    broken = violations(study.arch, own.engine, own.layout, study.engine_version, role, drafts=drafts)
    return replace(found, violations=broken)


def _together(first: Resolution, second: Resolution) -> Resolution:
    """What both sides took for granted and break, each under its pool's name."""
    sides = (("prefill", first), ("decode", second))
    return Resolution(
        candidate=second.candidate,
        assumed=tuple(f"{role} pool: {text}" for role, side in sides for text in side.assumed),
        alternatives=(),
        violations=tuple(
            Violation(rule=v.rule, message=f"{role} pool: {v.message}") for role, side in sides for v in side.violations
        ),
    )
