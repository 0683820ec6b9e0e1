"""How many sequences the servers of a pool are started for, which is part of what a plan is launched with."""

from __future__ import annotations

import numpy as np

from autotune.disaggregated.pool_rows import PoolRows, pool_seats
from autotune.scoring.peaks import KV_MARGIN_FRAC, peak_variance, with_peaks
from costmodel.disaggregated.pool_point import PoolColumns
from costmodel.plan.columns import Bools, Floats, Ints


def prefilling(rows: PoolRows, row: Ints, columns: PoolColumns) -> Ints:
    """Sequences at once, per attention-DP rank, of prefill pools of some rows, which do as `columns` say.

    A full pass, and a prompt whose cache is still on its way: a tight limit lets prompts wait for nothing.
    """
    study = rows.study
    if study.axes.prefill_max_num_seqs is not None:
        return np.full(row.shape, study.axes.prefill_max_num_seqs, dtype=np.int64)
    full = 1.0 + np.ceil(rows.budget[row] / study.workload.isl.min)
    expected = np.ceil(np.maximum(columns.sequences_per_rank, 1.0))
    return np.maximum(np.minimum(full, rows.budget[row]), expected).astype(np.int64)


def kv_slots(columns: PoolColumns) -> Floats:
    """Sequences of a rank that a decode pool is started for at most: short of its KV room, and at least one."""
    room = columns.kv_capacity_sequences / columns.ranks / (1.0 + KV_MARGIN_FRAC)
    return np.maximum(np.floor(room), 1.0)


def decoding(rows: PoolRows, held: Floats, columns: PoolColumns, *, peaks: Bools) -> Ints:
    """Slots, per attention-DP rank, of decode pools that keep the limits on latency with so many `held` by a rank.

    As many, and their peaks where `peaks` says so, as far as the study and the KV cache admit them. They follow from
    limits and lengths, not from how many requests come: a server that is started for a quiet hour also serves a busy
    one.
    """
    variance = peak_variance(rows.study.workload)
    wanted = np.where(peaks, [with_peaks(seqs, variance) for seqs in held.tolist()], np.ceil(held))
    return np.minimum(np.minimum(wanted, pool_seats(rows.study, rows.role)), kv_slots(columns)).astype(np.int64)
