"""Operating points of pools: every layout of every pool size, with its knobs, at several shares of what it can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from math import nan
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from autotune.engines import ENGINES
from autotune.scoring.exchange_choice import with_backend
from autotune.scoring.knob_grid import speculation, weights
from autotune.space import Candidate, enumerate_space
from autotune.study import IntRange, Search, Study
from costmodel.arch import Arch
from costmodel.disaggregated.closed_loop import ClosedLoop, settle
from costmodel.disaggregated.kv_transfer import TransferLink
from costmodel.disaggregated.pairing import Demand, PairService, pair_service
from costmodel.disaggregated.pools import (
    MOST_UTILISED,
    DecodePool,
    PoolColumns,
    PoolPoint,
    PrefillPool,
    decode_pool,
    prefill_pool,
)
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.estimate.normal import p_below
from costmodel.hardware import Cluster
from costmodel.hardware.gpu import Gpu
from costmodel.plan.columns import Floats, Ints
from costmodel.plan.layout import Layout
from costmodel.serving.load import Load

_Role = TypeVar("_Role", PrefillPool, DecodePool)
SHARES = (1.0, 0.97, 0.94, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
"""Of the most that a pool can take within the limits on latency: what it is tried at."""
LOADS = 14
"""Loads that a decode pool is tried at where the study fixes the requests in flight: from one sequence of a replica on
in equal ratios, as the pair may settle at any of them."""
BISECTIONS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Dtypes:
    """Storage dtypes that both pools share; None is the checkpoint's."""

    weight: str | None
    kv: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRows:
    """Pools of one role, engine, GPU type and dtypes: a row is a layout with a token budget."""

    study: Study
    role: str
    engine: str
    cluster: Cluster
    """Whose GPUs the pool takes; `gpus` is how many there are of them."""
    dtypes: Dtypes
    layouts: tuple[Candidate, ...]
    row_layout: Ints
    """Index into `layouts`, shape `(rows,)`."""
    budget: Floats
    """Token budget of each row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoints:
    """Operating points of `rows`, sorted by pool size, layout and nothing else. Shape `(points,)`."""

    rows: PoolRows
    row: Ints
    at: Floats
    """Utilisation of a prefill pool, requests in flight of a decode pool."""
    columns: PoolColumns
    layout: Ints
    """Index into `rows.layouts`."""

    @property
    def attn_tp(self) -> Ints:
        """Attention TP of each of `rows.layouts`."""
        return np.array([c.layout.attn_tp for c in self.rows.layouts], dtype=np.int64)

    def layout_at(self, index: int) -> Layout:
        """The layout of one point."""
        return self.rows.layouts[int(self.layout[index])].layout

    def pool(self, index: Ints, role: type[_Role]) -> _Role:
        """The pools of some of the points, ready for any other; `role` is what this table holds."""
        found = Evaluator(self.rows, self.row[index]).pool
        if not isinstance(found, role):
            raise TypeError(f"must be a table of {role.__name__}, is one of {type(found).__name__}")
        return found

    def detailed(self, index: Ints) -> PoolPoint:
        """Some of the points with what they are made of, evaluated again."""
        rows, at = self.row[index], self.at[index]
        return Evaluator(self.rows, rows)(at)


def transfer_link(study: Study, first: Gpu, second: Gpu) -> TransferLink:
    """What carries the cache: the scale-up links where one domain holds the whole cluster, else the network."""
    axes = study.axes
    return TransferLink(
        bytes_per_s=axes.link_bytes_per_s,
        start_s=axes.start_s,
        hidden_frac=axes.overlap_frac,
        same_domain=not axes.other_gpus and study.cluster.gpus <= min(first.scaleup_gpus, second.scaleup_gpus),
    )


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
    pair = pair_service(prefill, decode, pool_load(study, np.ones(1)), link, asked or demand(study))
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


def pool_layouts(study: Study, engine: str, sizes: Sequence[int]) -> tuple[Candidate, ...]:
    """Every layout of every pool size, by size, with the rules and degrees of the study."""
    return tuple(
        candidate
        for gpus in sizes
        for candidate in _of_size(study.arch, study.search, engine, gpus, study.engine_version)
    )


@lru_cache(maxsize=4096)
def _of_size(arch: Arch, search: Search, engine: str, gpus: int, version: str | None) -> tuple[Candidate, ...]:
    """Layouts of one pool size, which many splits share."""
    space = enumerate_space(
        arch,
        gpus=gpus,
        engine=engine,
        attn_cp=search.attn_cp,
        dcp=search.dcp,
        redundant_experts=search.redundant_experts,
        two_batch_overlap=search.two_batch_overlap,
        version=version,
    )
    return space.candidates


def pool_rows(
    study: Study,
    role: str,
    cluster: Cluster,
    dtypes: Dtypes,
    layouts: tuple[Candidate, ...],
    engine: str,
    *,
    budgets: tuple[int, ...] | None = None,
) -> PoolRows:
    """Rows of a role: with given token budgets, or the study's.

    Of the study's, prefill pools take each, decode pools the smallest that holds their step.
    """
    if budgets is None:
        budgets = study.search.max_num_batched_tokens
        if role == "decode":
            budgets = (max(min(budgets), pool_seats(study, role)),)
        elif study.axes.prefill_max_num_batched_tokens is not None:
            budgets = (study.axes.prefill_max_num_batched_tokens,)
    return PoolRows(
        study=study,
        role=role,
        engine=engine,
        cluster=cluster,
        dtypes=dtypes,
        layouts=layouts,
        row_layout=np.repeat(np.arange(len(layouts)), len(budgets)),
        budget=np.tile(np.array(budgets, dtype=np.float64), len(layouts)),
    )


def pool_seats(study: Study, role: str) -> int:
    """Sequences that a pool runs at once, at most, per attention-DP rank."""
    axes = study.axes
    own = axes.prefill_max_num_seqs if role == "prefill" else axes.decode_max_num_seqs
    return study.engine_options.max_num_seqs if own is None else own


def pool_load(study: Study, budget: Floats, role: str = "decode") -> Load:
    """The study's workload as a pool sees it; concurrency is not read."""
    work = study.workload
    return Load(
        isl=np.array([work.isl.mean]),
        osl=np.array([work.osl.mean]),
        prefix_hit_frac=np.array([work.prefix_cache_hit_frac]),
        concurrency=np.ones(1),
        batched_tokens=budget,
        max_num_seqs=np.array([float(pool_seats(study, role))]),
        **speculation(study),
    )


def operating_points(rows: PoolRows) -> OperatingPoints:
    """Every row at each share of the most that keeps the limits on its own latency."""
    evaluate = Evaluator(rows, np.arange(rows.budget.size))
    count, most = rows.budget.size, _most(rows, evaluate)
    work = rows.study.workload
    shares = SHARES if work.request_rate_per_s is None else (1.0,)
    if rows.role == "decode" and work.concurrency is not None:
        tried = [most ** (load / (LOADS - 1)) * evaluate.replicas for load in range(LOADS)]
    elif rows.role == "decode":
        tried = [np.maximum(np.floor(most * share), 1.0) * evaluate.replicas for share in shares]
    else:
        tried = [most * share for share in shares]
    columns = [evaluate(at).columns for at in tried]
    # by row, then by share, so that points of a layout lie together
    order = np.arange(count * len(tried)).reshape(len(tried), count).T.ravel()
    together = PoolColumns(
        **{f.name: np.concatenate([getattr(c, f.name) for c in columns])[order] for f in fields(PoolColumns)}
    )
    row = np.tile(np.arange(count), len(tried))[order]
    at = np.concatenate(tried)[order]
    return OperatingPoints(rows=rows, row=row, at=at, columns=together, layout=rows.row_layout[row])


def settled(prefill: OperatingPoints, p_at: Ints, decode: OperatingPoints, d_at: Ints, in_flight: Floats) -> ClosedLoop:
    """Where the layouts of some points settle, entry `i` with entry `i`, with so many requests in flight over both.

    A decode pool admits what keeps its limit on latency, which is its last point; the rest waits in front.
    """
    admitted = np.array([decode.at[decode.row == decode.row[at]].max() for at in d_at])
    return settle(prefill.pool(p_at, PrefillPool), decode.pool(d_at, DecodePool), in_flight, admitted=admitted)


class Evaluator:
    """Rows of a table at any operating point."""

    def __init__(self, rows: PoolRows, index: Ints) -> None:
        study = rows.study
        arch = weights(study.arch, rows.dtypes.weight)
        used, back = np.unique(rows.row_layout[index], return_inverse=True)
        entries = [
            PlanEntry(
                arch=arch,
                cluster=rows.cluster,
                engine=ENGINES[rows.engine].traits,
                layout=rows.layouts[i].layout,
                kv_dtype=rows.dtypes.kv,
                engine_version=study.engine_version,
            )
            for i in used.tolist()
        ]
        batch = PlanBatch.of(entries, expert_skew=study.workload.expert_skew, profile=study.calibration).take(back)
        load, isl = pool_load(study, rows.budget[index], rows.role), study.workload.isl
        longest = np.array([float(study.workload.longest_prompt)])
        fraction = np.array([study.engine_options.gpu_memory_utilization])
        link = transfer_link(study, rows.cluster.gpu, rows.cluster.gpu)
        bounds = {"longest_prompt": longest, "memory_fraction": fraction}
        batch = with_backend(batch, entries, back, load, bounds)
        self.pool: PrefillPool | DecodePool
        if rows.role == "prefill":
            spread = (isl.max - isl.min) ** 2 / 12.0 / isl.mean**2  # of a uniform distribution
            self.pool = prefill_pool(
                batch, load, link, longest_prompt=longest, memory_fraction=fraction, length_cv2=spread
            )
        else:
            self.pool = decode_pool(batch, load, link, longest_prompt=longest, memory_fraction=fraction)
        self.replicas = batch.layout.replicas

    def __call__(self, at: Floats) -> PoolPoint:
        """Every row at its utilisation (prefill pools) or its requests in flight (decode pools)."""
        return self.pool.at(at)


def _most(rows: PoolRows, evaluate: Evaluator) -> Floats:
    """Per row the most that keeps its own limit, or the least that meets an offered rate.

    Utilisation of prefill pools, whole sequences per replica of decode pools.
    """
    study, rate = rows.study, rows.study.workload.request_rate_per_s
    low, high = np.zeros(rows.budget.size), np.full(rows.budget.size, MOST_UTILISED)
    whole = rows.role == "decode"
    if whole:
        low = np.ones(rows.budget.size)
        ranks = np.array([float(c.layout.attn_dp) for c in rows.layouts])[rows.row_layout]
        high = pool_seats(study, "decode") * ranks
    scale = evaluate.replicas if whole else np.ones(1)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        if whole:
            middle = np.floor(middle) if rate is not None else np.ceil(middle)
        columns = evaluate(middle * scale).columns
        if rate is None:
            good = _kept(study, columns, decode=whole)
            low, high = np.where(good, middle, low), np.where(good, high, middle - 1.0 if whole else middle)
        else:
            enough = columns.requests_per_s >= rate
            low, high = np.where(enough, low, middle + 1.0 if whole else middle), np.where(enough, middle, high)
        low, high = np.minimum(low, high) if rate is not None else low, np.maximum(high, low)
        if whole and np.all(high <= low):
            break
    if rate is not None:
        return high
    return low if whole else np.where(low > 0.0, low, MOST_UTILISED)


def _kept(study: Study, columns: PoolColumns, *, decode: bool) -> NDArray[np.bool_]:
    """Whether the pool's own latency keeps its limit, with the probability asked for, and its memory holds all."""
    c, least = study.constraints, study.search.min_p_meets
    limit = c.tpot_s if decode else c.ttft_s
    value = columns.latency_s + columns.longest_extra_s
    good = np.ones(value.shape, dtype=bool)
    if limit is not None:
        good &= (value <= limit) & (p_below(limit, value, columns.log_sd) >= least)
    if decode:
        good &= columns.sequences_per_rank * columns.ranks <= np.maximum(columns.kv_capacity_sequences, columns.ranks)
    return np.asarray(good)
