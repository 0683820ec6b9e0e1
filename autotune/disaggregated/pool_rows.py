"""The pools that a study may have, as rows: a layout with a token budget, under the study's rules and traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from autotune.engines import ENGINES
from autotune.scoring.exchange_choice import with_backend
from autotune.scoring.knob_grid import engine_traits, speculation
from autotune.space import Candidate, enumerate_replicas
from autotune.study import IntRange, Search, Study
from costmodel.arch import Arch, stored_in
from costmodel.disaggregated.decode_pool import DecodePool, decode_pool
from costmodel.disaggregated.decode_steps import LocalPrompts
from costmodel.disaggregated.kv_transfer import TransferLink
from costmodel.disaggregated.pool_point import PoolPoint
from costmodel.disaggregated.prefill_pool import PrefillPool, prefill_pool
from costmodel.disaggregated.slot_wait import Arrivals, slot_wait_s
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.hardware import Cluster
from costmodel.hardware.gpu import Gpu
from costmodel.plan.columns import Floats, Ints
from costmodel.plan.layout import Layout
from costmodel.serving.load import Load


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
    slots: Ints | None = None
    """Sequences that a decode pool is started for, per attention-DP rank, shape `(rows,)`; None: not said yet."""


def replica_layouts(study: Study, engine: str, role: str, sizes: Sequence[int]) -> tuple[Candidate, ...]:
    """Every layout of a role's replica, by the study's rules and degrees, that fills a pool of one of the sizes.

    Workers that would share nodes unevenly are left out: no launch files can be written for them.
    """
    if not sizes:
        return ()
    drafts = study.axes.speculative is not None
    found = _replicas(study.arch, study.search, engine, role, max(sizes), study.engine_version, drafts=drafts)
    gpus = [c.layout.gpus for c in found]
    filling = {g for g in set(gpus) if study.cluster.takes_whole(g) and any(n % g == 0 for n in sizes)}
    return tuple(c for c, g in zip(found, gpus, strict=True) if g in filling)


def pool_layouts(study: Study, engine: str, role: str, sizes: Sequence[int]) -> tuple[Candidate, ...]:
    """Every layout of every pool size, by size, with the rules and degrees of the study."""
    single = [(c, c.layout.gpus) for c in replica_layouts(study, engine, role, sizes)]
    return tuple(replace(c, layout=times(c.layout, n // gpus)) for n in sizes for c, gpus in single if n % gpus == 0)


def times(layout: Layout, copies: int) -> Layout:
    """The layout with so many times the replicas."""
    return layout if copies == 1 else replace(layout, replicas=layout.replicas * copies)


@lru_cache(maxsize=64)
def _replicas(  # noqa: PLR0913  # what `enumerate_replicas` takes
    arch: Arch, search: Search, engine: str, role: str, most_gpus: int, version: str | None, *, drafts: bool
) -> tuple[Candidate, ...]:
    return enumerate_replicas(
        arch, most_gpus=most_gpus, engine=engine, role=role, search=search, version=version, drafts=drafts
    )


def pool_rows(  # noqa: PLR0913  # what a pool is made of
    study: Study,
    role: str,
    cluster: Cluster,
    dtypes: Dtypes,
    layouts: tuple[Candidate, ...],
    engine: str,
    *,
    budgets: tuple[int, ...] | None = None,
    slots: int | None = None,
) -> PoolRows:
    """Rows of a role: with given token budgets, or the study's; started for `slots` sequences, as `PoolRows.slots`.

    Of the study's, prefill pools take each, decode pools the smallest that holds their step, with a prompt where they
    prefill any.
    """
    if budgets is None:
        budgets = study.search.max_num_batched_tokens
        if role == "decode":
            local = study.axes.local_prefill
            most = 0 if local is None else min(local.max_tokens, study.workload.longest_prompt)
            budgets = (max(min(budgets), pool_seats(study, role) + most),)
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
        slots=None if slots is None else np.full(len(layouts) * len(budgets), slots, dtype=np.int64),
    )


def pool_seats(study: Study, role: str) -> int:
    """Sequences that a pool runs at once, at most, per attention-DP rank."""
    axes = study.axes
    own = axes.prefill_max_num_seqs if role == "prefill" else axes.decode_max_num_seqs
    return study.engine_options.max_num_seqs if own is None else own


def pool_load(study: Study, budget: Floats, role: str | None) -> Load:
    """The study's workload as a pool sees it, or both together (None); concurrency is not read.

    Of several kinds of requests a prefill pool meets the mean prompt of those that come to it. A decode pool holds each
    as long as its output lasts: its mean prompt is weighted by the outputs.
    """
    work, local = study.workload, study.axes.local_prefill
    prompt, hit = work.isl.mean, work.prefix_cache_hit_frac
    if work.points and role == "decode":
        prompt = sum(p.weight * p.osl * p.isl for p in work.points) / sum(p.weight * p.osl for p in work.points)
    elif local is not None and role == "prefill":
        prompt, hit = local.others_isl, local.others_hit_frac
    return Load(
        isl=np.array([prompt]),
        osl=np.array([work.osl.mean]),
        prefix_hit_frac=np.array([hit]),
        concurrency=np.ones(1),
        batched_tokens=budget,
        max_num_seqs=np.array([float(pool_seats(study, role or "decode"))]),
        shared_grows=np.array([float(work.sessions is not None)]),
        **speculation(study),
    )


def transfer_link(study: Study, first: Gpu, second: Gpu) -> TransferLink:
    """What carries the cache: the scale-up links where one domain holds the whole cluster, else the network."""
    axes, local = study.axes, study.axes.local_prefill
    return TransferLink(
        bytes_per_s=axes.link_bytes_per_s,
        start_s=axes.start_s,
        hidden_frac=axes.overlap_frac,
        handed_frac=1.0 if local is None else 1.0 - local.frac,
        handed_isl=study.workload.isl.mean if local is None else local.others_isl,
        longest_handed=local is None or not local.longest_new,
        same_domain=axes.one_domain
        and not axes.other_gpus
        and all(study.cluster.gpus <= replace(study.cluster, gpu=gpu).domain_gpus for gpu in (first, second)),
    )


def _prompt_cv2(study: Study) -> float:
    """Squared coefficient of variation of the prompts' lengths in a prefill pool."""
    work, local = study.workload, study.axes.local_prefill
    return _cv2(work.isl, [(p.weight, p.isl) for p in work.points]) if local is None else local.others_cv2


def _cv2(lengths: IntRange, kinds: Sequence[tuple[float, float]]) -> float:
    """Variance of lengths over their mean squared: of kinds of requests (share, length), or else of a uniform range."""
    mean = lengths.mean
    if kinds:
        return sum(weight * (length - mean) ** 2 for weight, length in kinds) / mean**2
    return (lengths.max - lengths.min) ** 2 / 12.0 / mean**2


class Evaluator:
    """Rows of a table at any operating point."""

    def __init__(self, rows: PoolRows, index: Ints, copies: Ints | None = None) -> None:
        """`copies` of each row: times that its layout's replicas are there; None: once."""
        self.study = study = rows.study
        arch = stored_in(study.arch, rows.dtypes.weight)
        cache = ENGINES[rows.engine].cache_rule(arch, study.engine_version)
        repeated = np.ones_like(index) if copies is None else copies
        pools, back = np.unique(np.stack([rows.row_layout[index], repeated]), axis=1, return_inverse=True)
        entries = [
            PlanEntry(
                arch=arch,
                cluster=rows.cluster,
                engine=engine_traits(study, rows.engine),
                layout=times(rows.layouts[layout].layout, count),
                kv_dtype=rows.dtypes.kv,
                engine_version=study.engine_version,
                cache=cache,
            )
            for layout, count in pools.T.tolist()
        ]
        back = back.ravel()
        batch = PlanBatch.of(entries, expert_skew=study.workload.expert_skew, profile=study.calibration).take(back)
        load = pool_load(study, rows.budget[index], rows.role)
        if rows.slots is not None:
            load = replace(load, max_num_seqs=np.minimum(load.max_num_seqs, rows.slots[index]))
        link = transfer_link(study, rows.cluster.gpu, rows.cluster.gpu)
        longest = np.array([float(study.workload.longest_prompt)])
        fraction = np.array([study.engine_options.gpu_memory_utilization])
        bounds = {"longest_prompt": longest, "memory_fraction": fraction}
        batch = with_backend(batch, entries, back, load, bounds)
        self.pool: PrefillPool | DecodePool
        if rows.role == "prefill":
            self.pool = prefill_pool(
                batch, load, link, longest_prompt=longest, memory_fraction=fraction, length_cv2=_prompt_cv2(study)
            )
        else:
            own = study.axes.local_prefill
            local = None
            if own is not None:
                local = LocalPrompts(
                    share=own.frac,
                    new=own.new,
                    cached=own.cached,
                    longest_new=own.longest_new,
                    longest_cached=own.longest_cached,
                )
            self.pool = decode_pool(batch, load, link, longest_prompt=longest, memory_fraction=fraction, local=local)
        self.replicas, self.ranks = batch.layout.replicas, batch.layout.attn_dp

    def __call__(self, at: Floats) -> PoolPoint:
        """Every row at its utilisation (prefill pools) or its requests in flight (decode pools)."""
        return self.pool.at(at)

    def with_wait(self, at: Floats, per_s: Floats, most: Floats) -> PoolPoint:
        """As `__call__`, of decode pools to which so many requests per second come, shape `(rows,)`: with their wait
        for slots, and what they can do at their `most` requests in flight.
        """
        point, work = self(at), self.study.workload
        if not isinstance(self.pool, DecodePool):
            return point
        outputs = _cv2(work.osl, [(p.weight, p.osl) for p in work.points])
        arrivals = Arrivals(gaps_cv2=work.arrival_cv**2, outputs_cv2=outputs)
        wait = slot_wait_s(self.pool, point, per_s, arrivals)
        # fewer than the most may do more, where steps outgrow captured graphs
        able = np.maximum(self(most).columns.requests_per_s, point.columns.requests_per_s)
        return replace(point, columns=replace(point.columns, slot_wait_s=wait, able_per_s=able))
