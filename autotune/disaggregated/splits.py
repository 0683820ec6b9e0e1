"""Splits of a cluster's GPUs into two pools, the pairs of layouts that rules allow over them, and how many they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from autotune.disaggregated.local_prefill import pool_engines
from autotune.disaggregated.operating_points import OperatingPoints
from autotune.disaggregated.pool_rows import replica_layouts
from autotune.engines import ENGINES
from autotune.engines.pair_rules import Degrees
from autotune.space.pool_plan import ROLES
from autotune.study import Study
from costmodel.arch import Arch
from costmodel.hardware import Cluster
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


def pool_splits(study: Study) -> Iterator[tuple[Cluster, Cluster, list[tuple[int, int]]]]:
    """GPUs of the prefill pool, of the decode pool, and how many of them each takes.

    Of one type: every split that uses all of them. Of two types: all of the one and all of the other.
    """
    clusters, step = (study.cluster, *study.axes.other_gpus), study.axes.pool_gpus_multiple_of
    for first, second in product(clusters, repeat=2):
        if first is not second:
            yield first, second, [(first.gpus, second.gpus)]
            continue
        cuts = range(step, first.gpus, step)
        yield first, second, [(n, first.gpus - n) for n in cuts if (first.gpus - n) % step == 0]


def pool_sizes(study: Study, cluster: Cluster) -> list[int]:
    """Pool sizes that splits ask of a type of GPUs."""
    found = {
        n
        for a, b, splits in pool_splits(study)
        for split in splits
        for c, n in zip((a, b), split, strict=True)
        if c is cluster
    }
    return sorted(found)


def count_plans(study: Study) -> int:
    """Pairs of layouts over all splits and engines that the engine's rules allow; storage dtypes are knobs."""
    total = 0
    for engine in pool_engines(study):
        degrees = {
            (role, cluster.gpu.name): _degrees(study, engine, role, pool_sizes(study, cluster))
            for role in ROLES
            for cluster in (study.cluster, *study.axes.other_gpus)
        }
        for first, second, splits in pool_splits(study):
            both = [degrees[role, c.gpu.name] for role, c in zip(ROLES, (first, second), strict=True)]
            sides = ((both[0][p], both[1][d]) for p, d in splits)
            total += sum(allowed_pairs(study.arch, engine, *pair) for pair in sides)
    return total


def _degrees(study: Study, engine: str, role: str, sizes: Sequence[int]) -> dict[int, Counter[TpAndStages]]:
    """How many layouts of each pool size have which attention TP and stages."""
    single = [(c.layout.gpus, (c.layout.attn_tp, c.layout.pp)) for c in replica_layouts(study, engine, role, sizes)]
    by_gpus: dict[int, Counter[TpAndStages]] = {}
    for gpus, degree in single:
        by_gpus.setdefault(gpus, Counter())[degree] += 1
    out = {}
    for n in sizes:
        out[n] = sum((count for gpus, count in by_gpus.items() if n % gpus == 0), Counter[TpAndStages]())
    return out
