"""Pairs of pools that the engine's rules allow, as masks, counts and coordinates of a search."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from autotune.disaggregated.operating_points import OperatingPoints
from autotune.engines import ENGINES
from autotune.engines.pair_rules import Degrees
from costmodel.arch import Arch
from costmodel.plan.columns import Floats, Ints

TpAndStages = tuple[int, int]
"""Attention TP and stages of a layout, which is what rules for pairs look at."""


def barred(prefill: OperatingPoints, p_index: Ints, decode: OperatingPoints, d_index: Ints) -> NDArray[np.bool_]:
    """Pairs of points that a rule of the engine forbids, shape `(len(p_index), len(d_index))`."""
    first = prefill.degrees.at(prefill.layout[p_index]).at(np.s_[:, None])
    second = decode.degrees.at(decode.layout[d_index]).at(np.s_[None, :])
    return _forbidden(prefill.rows.study.arch, prefill.rows.engine, first, second)


def allowed_pairs(
    arch: Arch, engine: str, prefill: Mapping[TpAndStages, int], decode: Mapping[TpAndStages, int]
) -> int:
    """Pairs of layouts that no rule forbids, of so many layouts by attention TP and stages on either side."""
    if not prefill or not decode:
        return 0
    first, second = (Degrees(attn_tp=t, pp=p) for t, p in (np.array([*side]).T for side in (prefill, decode)))
    allowed = ~_forbidden(arch, engine, first.at(np.s_[:, None]), second.at(np.s_[None, :]))
    counts = np.outer(np.array([*prefill.values()], dtype=np.int64), np.array([*decode.values()], dtype=np.int64))
    return int(counts[allowed].sum())


def pair_coordinates(points: OperatingPoints) -> list[Floats]:
    """Columns of shape `(points,)`, larger is better: a point no worse in them can be joined with no fewer others."""
    rows, out = points.rows, list[Floats]()
    for rule in ENGINES[rows.engine].pair_rules:
        found = rule.reach(rows.study.arch, points.degrees, prefill=rows.role == "prefill")
        out += [column[points.layout].astype(np.float64) for column in found if np.ptp(column) > 0.0]
    return out


def _forbidden(arch: Arch, engine: str, prefill: Degrees, decode: Degrees) -> NDArray[np.bool_]:
    """Pairs that a rule forbids, one side along each axis."""
    out = np.zeros(np.broadcast(prefill.pp, decode.pp).shape, dtype=bool)
    for rule in ENGINES[engine].pair_rules:
        out |= rule.broken(arch, prefill, decode)
    return out
