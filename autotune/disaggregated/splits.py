"""Splits of a cluster's GPUs into two pools, and how many plans they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product

from autotune.disaggregated.allowed_pairs import TpAndStages, allowed_pairs
from autotune.disaggregated.pool_rows import replica_layouts
from autotune.engines import engines_of
from autotune.space.pool_plan import ROLES
from autotune.study import Study
from costmodel.hardware import Cluster


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
    for engine in engines_of(study.engine):
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
