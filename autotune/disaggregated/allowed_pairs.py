"""Pairs of pools that the engine's rules allow, as masks, counts and coordinates of a search."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from autotune.disaggregated.operating_points import OperatingPoints
from autotune.engines import ENGINES
from autotune.engines.pair_rules import ANY_DEGREE
from costmodel.arch import Arch
from costmodel.plan.columns import Floats, Ints


def barred(prefill: OperatingPoints, p_index: Ints, decode: OperatingPoints, d_index: Ints) -> NDArray[np.bool_]:
    """Pairs of points that a rule of the engine forbids, shape `(len(p_index), len(d_index))`."""
    arch, out = prefill.rows.study.arch, np.zeros((p_index.size, d_index.size), dtype=bool)
    first, second = (t.attn_tp[t.layout[index]] for t, index in ((prefill, p_index), (decode, d_index)))
    for rule in ENGINES[prefill.rows.engine].pair_rules:
        out |= rule.broken(arch, first[:, None], second[None, :])
    return out


def allowed_pairs(arch: Arch, engine: str, prefill: Mapping[int, int], decode: Mapping[int, int]) -> int:
    """Pairs of layouts that no rule forbids, of so many layouts by attention TP on either side."""
    first, second = (np.array([*side], dtype=np.int64) for side in (prefill, decode))
    allowed = np.ones((first.size, second.size), dtype=bool)
    for rule in ENGINES[engine].pair_rules:
        allowed &= ~rule.broken(arch, first[:, None], second[None, :])
    counts = np.outer(np.array([*prefill.values()], dtype=np.int64), np.array([*decode.values()], dtype=np.int64))
    return int(counts[allowed].sum())


def pair_coordinates(points: OperatingPoints) -> list[Floats]:
    """Columns of shape `(points,)`, larger is better: a point no worse in them can be joined with no fewer others."""
    arch, tp, out = points.rows.study.arch, points.attn_tp, []
    for rule in ENGINES[points.rows.engine].pair_rules:
        if points.rows.role == "prefill":
            found = [-rule.least(arch, tp), rule.most(arch, tp)]
        else:
            bounded_below = rule.least(arch, np.array([ANY_DEGREE]))[0] > 1
            bounded_above = rule.most(arch, np.ones(1, dtype=np.int64))[0] < ANY_DEGREE
            found = [tp] * bool(bounded_below) + [-tp] * bool(bounded_above)
        out += [column[points.layout].astype(np.float64) for column in found if np.ptp(column) > 0.0]
    return out
