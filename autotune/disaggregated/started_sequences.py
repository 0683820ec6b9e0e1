"""How many sequences the servers of a pool are started for, which is part of what a plan is launched with."""

from __future__ import annotations

import numpy as np

from autotune.disaggregated.operating_points import InTime, OperatingPoints
from autotune.disaggregated.pool_rows import pool_seats
from autotune.scoring.peaks import KV_MARGIN_FRAC, with_peaks
from costmodel.disaggregated.pool_point import PoolColumns
from costmodel.plan.columns import Floats, Ints


def started_sequences(
    points: OperatingPoints, index: Ints, columns: PoolColumns, requests_per_s: Floats, most: InTime
) -> Ints:
    """Sequences at once, per attention-DP rank, of pools at some points, shape `(len(index),)`.

    Args:
        points: of the pools.
        index: the point of each pool.
        columns: what each pool does there, all its replicas.
        requests_per_s: what it is asked for.
        most: that the pools do within their limits.
    """
    expected = np.ceil(np.maximum(columns.sequences_per_rank, 1.0))
    if points.rows.role == "prefill":
        return _prefilling(points, index, expected)
    expected = np.maximum(expected, np.ceil(_held(columns, requests_per_s)))
    return _slots(points, index, columns, expected, most)


def _prefilling(points: OperatingPoints, index: Ints, expected: Floats) -> Ints:
    """A full pass, and a prompt whose cache is still on its way: a tight limit lets prompts wait for nothing."""
    study = points.rows.study
    if study.axes.prefill_max_num_seqs is not None:
        return np.full(index.shape, study.axes.prefill_max_num_seqs, dtype=np.int64)
    budget = points.rows.budget[points.row[index]]
    full = 1.0 + np.ceil(budget / study.workload.isl.min)
    return np.maximum(np.minimum(full, budget), expected).astype(np.int64)


def _slots(points: OperatingPoints, index: Ints, columns: PoolColumns, expected: Floats, most: InTime) -> Ints:
    """As many as keep the limits on latency, and their peaks, as far as the study and the KV cache admit them.

    They follow from limits and lengths, not from how many requests come: a server that is started for a quiet hour
    also serves a busy one. Where the study fixes the requests in flight, fewer may be admitted.
    """
    rows = points.rows
    if rows.slots is not None:
        return np.full(index.shape, rows.slots, dtype=np.int64)
    fixed = rows.study.workload.concurrency is not None
    held = points.columns.sequences_per_rank[index] if fixed else most.sequences_per_rank
    in_time = np.maximum(held, expected)
    # whoever admits fewer than keep the limits does so for a purpose that peaks would defeat
    fewer = fixed & (points.at[index] < points.most[index])
    peaks = np.where(fewer, np.ceil(in_time), [with_peaks(seqs) for seqs in in_time])
    wanted = np.minimum(peaks, pool_seats(rows.study, rows.role))
    room = np.floor(columns.kv_capacity_sequences / columns.ranks / (1.0 + KV_MARGIN_FRAC))
    return np.minimum(wanted, np.maximum(room, expected)).astype(np.int64)


def _held(columns: PoolColumns, requests_per_s: Floats) -> Floats:
    """Sequences of a rank by Little's law: beside those that decode, those whose cache is on its way."""
    able = columns.requests_per_s
    return columns.sequences_per_rank * np.divide(requests_per_s, able, out=np.zeros_like(able), where=able > 0.0)
