"""A plan as the replicas that start and stop one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.disaggregated.rescore import pool_weight_bytes
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.estimate.result import WEIGHT_KINDS


def weight_bytes_per_gpu(plan: PlanResult) -> float:
    """Weights on the GPU that fills first."""
    memory = plan.breakdown["memory_bytes"]
    return float(sum(memory.get(kind, 0.0) for kind in WEIGHT_KINDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """What starts and stops as one."""

    gpus: int
    gpu: str
    """GPU type."""
    weight_bytes: float
    """On the GPU that fills first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A plan's replicas in the order in which they start; they stop in the reverse order."""

    replicas: tuple[Replica, ...]
    serving_frac: tuple[float, ...]
    """Share of the plan's capacity that the first 0, 1, … replicas serve."""

    def gpus(self, first: int | None = None) -> Counter[str]:
        """GPUs by type of the first so many replicas, or of all."""
        return gpus_of(self.replicas[:first])


def gpus_of(replicas: Sequence[Replica]) -> Counter[str]:
    """GPUs by type."""
    found: Counter[str] = Counter()
    for replica in replicas:
        found[replica.gpu] += replica.gpus
    return found


def fleet_of(study: Study, plan: PlanResult) -> Fleet:
    """The replicas of a plan.

    Those of a disaggregated plan start in turns, so that both pools grow alike; what serves is what the smaller one
    can do.
    """
    if plan.pools is None:
        count = plan.layout.replicas
        one = Replica(
            gpus=plan.layout.pp * plan.layout.width,
            gpu=plan.gpu or study.cluster.gpu.name,
            weight_bytes=weight_bytes_per_gpu(plan),
        )
        return Fleet(replicas=(one,) * count, serving_frac=tuple(k / count for k in range(count + 1)))
    pools = (plan.pools.prefill, plan.pools.decode)
    kinds = [
        Replica(gpus=pool.layout.pp * pool.layout.width, gpu=pool.gpu, weight_bytes=held)
        for pool, held in zip(pools, pool_weight_bytes(study, plan), strict=True)
    ]
    counts = [pool.layout.replicas for pool in pools]
    order = sorted(((i + 1) / counts[side], side) for side in (0, 1) for i in range(counts[side]))
    able, started = min(pool.requests_per_s for pool in pools), [0, 0]
    serving = [0.0]
    for _, side in order:
        started[side] += 1
        each = [n / count * pool.requests_per_s for n, count, pool in zip(started, counts, pools, strict=True)]
        serving.append(min(each) / able if able > 0.0 else 0.0)
    return Fleet(replicas=tuple(kinds[side] for _, side in order), serving_frac=tuple(serving))
