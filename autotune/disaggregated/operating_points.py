"""Operating points of pools: every row with its knobs, at several shares of what it can do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from autotune.disaggregated.pool_rows import Evaluator, PoolRows, pool_load, pool_seats, times, transfer_link
from autotune.disaggregated.started_sequences import decoding, kv_slots
from autotune.engines.pair_rules import Degrees
from autotune.study import IntRange, Study
from costmodel.disaggregated.closed_loop import ClosedLoop, settle
from costmodel.disaggregated.decode_pool import LEAST_DECODING, DecodePool
from costmodel.disaggregated.pairing import Demand, PairService, pair_service
from costmodel.disaggregated.pool_point import PoolColumns, PoolPoint
from costmodel.disaggregated.prefill_pool import MOST_UTILISED, PrefillPool
from costmodel.estimate.normal import p_below
from costmodel.hardware import Cluster
from costmodel.plan.columns import Floats, Ints
from costmodel.plan.layout import Layout

_Role = TypeVar("_Role", PrefillPool, DecodePool)
SHARES = (1.0, 0.97, 0.94, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.0)
"""Of the most that a pool can take within the limits on latency: what it is tried at; 0 stands for the least load."""
LEAST_UTILISED = 0.01
"""The least load of a prefill pool, whatever its most is; that of a decode pool is one sequence of each replica."""
LOADS = 14
"""Loads that a decode pool is tried at where the study fixes the requests in flight: from one sequence of a replica on
in equal ratios, as the pair may settle at any of them."""
WITH_PROMPTS = tuple(float(round(2.0 ** (step / 4.0))) for step in range(8, 49))
"""Loads per replica that a decode pool which prefills prompts is tried at too, whatever its limits are: where its steps
outgrow captured graphs it does less with a little more, so that there may be a best load on either side.
"""
BISECTIONS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoints:
    """Operating points of `rows`, sorted by layout and nothing else. Shape `(points,)`.

    Replicas do not touch each other: a pool of more of them does so many times what its layout is said to do.
    """

    rows: PoolRows
    row: Ints
    at: Floats
    """Utilisation of a prefill pool, sequences that decode of a decode pool."""
    columns: PoolColumns
    layout: Ints
    """Index into `rows.layouts`."""
    degrees: Degrees
    """Of each of `rows.layouts`."""

    @property
    def gpus(self) -> Ints:
        """GPUs of the layout of each point."""
        return self.columns.gpus.astype(np.int64)

    @property
    def most(self) -> Floats:
        """The most that the row of each point does within the limits on its own latency, as `at`."""
        most = np.zeros(self.rows.budget.size)
        np.maximum.at(most, self.row, self.at)
        return most[self.row]

    def layout_at(self, index: int, copies: int) -> Layout:
        """The layout of one point, with so many times its replicas."""
        return times(self.rows.layouts[int(self.layout[index])].layout, copies)

    def followed_by(self, others: OperatingPoints) -> OperatingPoints:
        """These points, and behind them others of the same rows."""
        return replace(
            self,
            row=np.concatenate([self.row, others.row]),
            at=np.concatenate([self.at, others.at]),
            columns=PoolColumns.joined([self.columns, others.columns]),
            layout=np.concatenate([self.layout, others.layout]),
        )

    def pool(self, index: Ints, copies: Ints, role: type[_Role]) -> _Role:
        """The pools of some of the points, ready for any other; `role` is what this table holds."""
        found = Evaluator(self.rows, self.row[index], copies).pool
        if not isinstance(found, role):
            raise TypeError(f"must be a table of {role.__name__}, is one of {type(found).__name__}")
        return found

    def detailed(self, index: Ints, copies: Ints) -> PoolPoint:
        """Some of the points with what they are made of, evaluated again."""
        whole = copies if self.rows.role == "decode" else 1
        return Evaluator(self.rows, self.row[index], copies)(self.at[index] * whole)

    def carrying(self, index: Ints, per_s: Floats) -> PoolPoint:
        """Decode pools of some of the points at the loads that just carry rates, shape `(len(index),)`, or at most."""
        evaluate = Evaluator(self.rows, self.row[index])
        return _at_rate(evaluate, per_s, self.rows)[1]


def pair_price(first: Cluster, first_gpus: Floats, second: Cluster, second_gpus: Floats) -> Floats:
    """US dollars per hour of two pools of so many GPUs; NaN where a type has no price."""
    prices = [nan if c.gpu.price_per_hour is None else c.gpu.price_per_hour for c in (first, second)]
    return np.asarray(prices[0] * first_gpus + prices[1] * second_gpus)


def served_together(
    study: Study,
    first: Cluster,
    prefill: PoolColumns,
    second: Cluster,
    decode: PoolColumns,
    asked: Demand | None = None,
) -> tuple[PairService, Floats]:
    """What pools do together, entry `i` with entry `i`, and the price of their GPUs as `pair_price`.

    `first` and `second` are the GPUs of the prefill pool and of the decode pool; `asked` is the study's demand if None.
    """
    link = transfer_link(study, first.gpu, second.gpu)
    pair = pair_service(prefill, decode, pool_load(study, np.ones(1), None), link, asked or demand(study))
    return pair, pair_price(first, prefill.gpus, second, decode.gpus)


def demand(study: Study) -> Demand:
    """What the study asks of both pools together."""
    asked, work = study.search.concurrency, study.workload
    most = None if asked is None else float(asked.max if isinstance(asked, IntRange) else max(asked))
    return Demand(
        offered_per_s=work.request_rate_per_s,
        most_in_flight=most,
        in_flight=None if work.concurrency is None else float(work.concurrency),
    )


def at_shares(rows: PoolRows, shares: Floats) -> OperatingPoints:
    """The one row of a table at shares, of shape `(points,)`, of the most that keeps the limits on its latency."""
    row = np.zeros(shares.size, dtype=np.int64)
    evaluate = Evaluator(rows, row)
    most = _most(rows, Evaluator(rows, row[:1]))
    at = most * shares * (evaluate.replicas if rows.role == "decode" else 1.0)
    degrees = Degrees.of([c.layout for c in rows.layouts])
    return OperatingPoints(rows=rows, row=row, at=at, columns=evaluate(at).columns, layout=row, degrees=degrees)


def operating_points(rows: PoolRows) -> OperatingPoints:
    """Every row at each share of the most that keeps the limits on its own latency."""
    work = rows.study.workload
    if rows.role == "decode" and work.request_rate_per_s is not None and rows.slots is None:
        rows = _started(rows)
    evaluate = Evaluator(rows, np.arange(rows.budget.size))
    count, rate = rows.budget.size, work.request_rate_per_s
    if rows.role == "decode" and rate is not None:
        load, point = _at_rate(evaluate, np.full(count, rate), rows)
        tried, columns = [load], [point.columns]
    else:
        tried = _tried(rows, evaluate)
        columns = [evaluate(at).columns for at in tried]
    # by row, then by share, so that points of a layout lie together
    order = np.arange(count * len(tried)).reshape(len(tried), count).T.ravel()
    together = PoolColumns.joined(columns).take(order)
    row = np.tile(np.arange(count), len(tried))[order]
    at = np.concatenate(tried)[order]
    return OperatingPoints(
        rows=rows,
        row=row,
        at=at,
        columns=together,
        layout=rows.row_layout[row],
        degrees=Degrees.of([c.layout for c in rows.layouts]),
    )


def _tried(rows: PoolRows, evaluate: Evaluator) -> list[Floats]:
    """The loads that pools are tried at, each of shape `(rows,)`; of decode pools where no rate is given."""
    most, work = _most(rows, evaluate), rows.study.workload
    if rows.role == "prefill":
        shares = SHARES if work.request_rate_per_s is None else (1.0,)
        return [np.maximum(most * share, np.minimum(most, LEAST_UTILISED)) for share in shares]
    if work.concurrency is not None:
        return [np.ceil(most ** (load / (LOADS - 1)) - 1e-9) * evaluate.replicas for load in range(LOADS)]
    tried = [np.maximum(np.floor(most * share), 1.0) * evaluate.replicas for share in SHARES]
    if rows.study.axes.local_prefill is not None:
        tried += [np.minimum(most, load) * evaluate.replicas for load in WITH_PROMPTS]
    return tried


def settled(
    prefill: OperatingPoints, decode: OperatingPoints, index: tuple[Ints, Ints], copies: tuple[Ints, Ints], load: Floats
) -> ClosedLoop:
    """Where the layouts of some points settle, entry `i` with entry `i`, with so many requests in flight over both.

    No more sequences decode than do at the decode pool's point; the rest waits in front.
    `index` and `copies` are of the prefill pools and of the decode pools: points, and times their replicas.
    """
    admitted = decode.at[index[1]] * copies[1].astype(np.float64)
    first = prefill.pool(index[0], copies[0], PrefillPool)
    return settle(first, decode.pool(index[1], copies[1], DecodePool), load, admitted=admitted)


@dataclass(frozen=True, slots=True, kw_only=True)
class InTime:
    """The most that pools do within the limits on their own latency, whatever comes. Arrays have shape `(pools,)`."""

    requests_per_s: Floats
    """Of one time the layout's replicas."""
    sequences_per_rank: Floats
    """That hold cache then, per attention-DP rank."""

    @classmethod
    def of(cls, points: OperatingPoints, index: Ints) -> InTime:
        """Of the pools at some points."""
        study, row = points.rows.study, points.row[index]
        if study.workload.request_rate_per_s is not None:
            # the points are those at which the rate is met
            table = points.rows
            rows = replace(
                table,
                study=study.without_load(),
                row_layout=table.row_layout[row],
                budget=table.budget[row],
                slots=None if table.slots is None else table.slots[row],
            )
            points, row = operating_points(rows), np.arange(row.size)
        columns, size = points.columns, points.rows.budget.size
        rate, held = np.zeros(size), np.zeros(size)
        np.maximum.at(rate, points.row, columns.requests_per_s)
        np.maximum.at(held, points.row, columns.sequences_per_rank)
        return cls(requests_per_s=rate[row], sequences_per_rank=held[row])


def _most(rows: PoolRows, evaluate: Evaluator) -> Floats:
    """Per row the most that keeps its own limit: whole sequences per replica of decode pools; of prefill pools their
    utilisation, or that which meets an offered rate.
    """
    if isinstance(evaluate.pool, PrefillPool):
        return _most_utilised(rows.study, evaluate.pool)
    return _most_decoding(rows, evaluate, in_time=True)


def _started(rows: PoolRows) -> PoolRows:
    """Decode pools as they are started where a rate is given: for what keeps the limits, or for all that they hold."""
    evaluate, study = Evaluator(rows, np.arange(rows.budget.size)), rows.study
    columns = evaluate(_most_decoding(rows, evaluate, in_time=True) * evaluate.replicas).columns
    # where not even one sequence keeps the limits they do not say how many there may be
    held = np.where(_decodes_in_time(study, columns), columns.sequences_per_rank, float(pool_seats(study, rows.role)))
    return replace(rows, slots=decoding(rows, held, columns, peaks=np.ones(held.shape, dtype=bool)))


def _most_decoding(rows: PoolRows, evaluate: Evaluator, *, in_time: bool) -> Floats:
    """Most sequences per replica for which decode pools have slots, and with `in_time` that keep their own limits."""
    seats = evaluate.pool.load.max_num_seqs
    low, high = np.ones(evaluate.replicas.size), seats * evaluate.ranks
    while np.any(high > low):
        middle = np.ceil((low + high) / 2.0)
        columns = evaluate(middle * evaluate.replicas).columns
        good = _has_room(rows, columns, seats) & (_decodes_in_time(rows.study, columns) if in_time else True)
        low, high = np.where(good, middle, low), np.where(good, high, middle - 1.0)
        high = np.maximum(high, low)
    return low


def _at_rate(evaluate: Evaluator, rate: Floats, rows: PoolRows) -> tuple[Floats, PoolPoint]:
    """Decode pools with the sequences with which they just carry rates, shape `(rows,)`, or the most that they decode:
    these, and what the pools do.
    """
    most = high = _most_decoding(rows, evaluate, in_time=False)
    low = np.full_like(high, LEAST_DECODING)
    for _ in range(BISECTIONS):
        middle = np.sqrt(low * high)
        enough = evaluate(middle * evaluate.replicas).columns.requests_per_s >= rate
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    # the load that just carries a rate is a whole number of requests in each pool's replica
    columns = evaluate(high * evaluate.replicas).columns
    held = columns.requests_per_s * columns.residence_s / evaluate.replicas
    load = high * np.ceil(held) / held * evaluate.replicas
    return load, evaluate.with_wait(load, rate, most * evaluate.replicas)


def _most_utilised(study: Study, pool: PrefillPool) -> Floats:
    """The utilisation that meets an offered rate, or the highest that keeps the limit on TTFT, if any does."""
    size = (pool.batch.size,)
    most, rate, limit = np.full(size, MOST_UTILISED), study.workload.request_rate_per_s, study.constraints.ttft_s
    if rate is not None:
        return np.broadcast_to(np.minimum(rate / pool.most_per_s, MOST_UTILISED), size).copy()
    if limit is None:
        return most
    low, high = np.zeros(size), most
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        value = pool.latency_s(middle) + pool.longest_extra_s
        good = _probably_kept(study, limit, value, pool.factors.ttft_log_sd)
        low, high = np.where(good, middle, low), np.where(good, high, middle)
    return np.where(low > 0.0, low, MOST_UTILISED)


def _probably_kept(study: Study, limit: float, value: Floats, log_sd: Floats) -> NDArray[np.bool_]:
    return np.asarray((value <= limit) & (p_below(limit, value, log_sd) >= study.search.min_p_meets))


def _has_room(rows: PoolRows, columns: PoolColumns, seats: Floats) -> NDArray[np.bool_]:
    """Whether a decode pool has a slot, of so many per attention-DP rank, and KV room for every sequence."""
    room = kv_slots(columns) if rows.slots is None else columns.kv_capacity_sequences / columns.ranks
    return np.asarray(columns.sequences_per_rank <= np.maximum(np.minimum(room, seats), 1.0))


def _decodes_in_time(study: Study, columns: PoolColumns) -> NDArray[np.bool_]:
    """Whether the pool keeps the limit on TPOT, with the probability asked for.

    Where its part of TTFT alone is beyond that limit, no prefill pool is quick enough for it.
    """
    kept = np.ones(columns.gpus.shape, dtype=bool)
    first, each = study.constraints.ttft_s, study.constraints.tpot_s
    if first is not None:
        kept = kept & (columns.entry_s + columns.longest_extra_s <= first)
    return kept if each is None else kept & _probably_kept(study, each, columns.latency_s, columns.log_sd)
