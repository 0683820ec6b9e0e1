"""A plan as the replicas that start and stop one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autotune.disaggregated.rescore import pool_weight_bytes
from autotune.space.pool_plan import ROLES
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

    role: str
    """The pool that it is of; empty: it prefills and decodes."""
    gpus: int
    gpu: str
    """GPU type."""
    weight_bytes: float
    """On the GPU that fills first."""
    requests_per_s: float
    """What it can do, where it is of a pool with as much of the other pool beside it."""
    start: tuple[object, ...]
    """What starts it: replicas that agree in it are alike."""


def gpus_of(replicas: Sequence[Replica]) -> Counter[str]:
    """GPUs by type."""
    found: Counter[str] = Counter()
    for replica in replicas:
        found[replica.gpu] += replica.gpus
    return found


def served_per_s(replicas: Sequence[Replica]) -> float:
    """Requests per second that replicas serve together: pools as much as the smaller one can do."""
    whole, *pools = (sum(r.requests_per_s for r in replicas if r.role == role) for role in ("", *ROLES))
    return whole + min(pools)


def fleet_of(study: Study, plan: PlanResult, requests_per_s: float = 1.0) -> tuple[Replica, ...]:
    """The replicas of a plan in the order in which they start; they stop in the reverse order.

    Those of a disaggregated plan start in turns, so that both pools grow alike. Together they serve `requests_per_s`.
    """
    knobs = plan.knobs
    dtypes = (plan.engine, knobs.weight_dtype, knobs.kv_dtype)
    if plan.pools is None:
        count = plan.layout.replicas
        one = Replica(
            role="",
            gpus=plan.layout.pp * plan.layout.width,
            gpu=plan.gpu or study.cluster.gpu.name,
            weight_bytes=weight_bytes_per_gpu(plan),
            requests_per_s=requests_per_s / count,
            start=("", replace(plan.layout, replicas=1), knobs.max_num_batched_tokens, *dtypes),
        )
        return (one,) * count
    pools = [getattr(plan.pools, role) for role in ROLES]
    able = min(pool.requests_per_s for pool in pools)
    # a decode server whose front sends it prompts says what it has cached
    says_cached = plan.pools.local_frac > 0.0
    decode = plan.pools.decode
    limits = (
        (plan.pools.prefill.max_num_batched_tokens,),
        (decode.max_num_batched_tokens, decode.max_num_seqs, says_cached),
    )
    kinds = [
        Replica(
            role=role,
            gpus=pool.layout.pp * pool.layout.width,
            gpu=pool.gpu,
            weight_bytes=held,
            requests_per_s=requests_per_s * pool.requests_per_s / able / pool.layout.replicas if able > 0.0 else 0.0,
            start=(role, pool.gpu, replace(pool.layout, replicas=1), *started, *dtypes),
        )
        for role, pool, held, started in zip(ROLES, pools, pool_weight_bytes(study, plan), limits, strict=True)
    ]
    counts = [pool.layout.replicas for pool in pools]
    order = sorted(((i + 1) / counts[side], side) for side in (0, 1) for i in range(counts[side]))
    return tuple(kinds[side] for _, side in order)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleets:
    """The replicas of a change: those that go on, those that stop, and those that start."""

    kept: tuple[Replica, ...]
    """Of pools of both plans, alike in both: the ratio of the pools changes, and these serve through it."""
    old: tuple[Replica, ...]
    new: tuple[Replica, ...]

    @classmethod
    def of(cls, old: tuple[Replica, ...], new: tuple[Replica, ...]) -> Fleets:
        """From the replicas of both plans, in the order in which they start."""
        both = Counter(r.start for r in old if r.role) & Counter(r.start for r in new if r.role)
        first, second = _without(old, both), _without(new, both)
        return cls(kept=_without(old, Counter(r.start for r in first)), old=first, new=second)

    def requests_per_s(self, runs: int, started: int) -> float:
        """What is served while the first `runs` of `old` and the first `started` of `new` are there.

        Replicas that go on work with those of either plan; where none do, each plan serves by itself.
        """
        first, second = self.old[:runs], self.new[:started]
        if self.kept:
            return served_per_s((*self.kept, *first, *second))
        return served_per_s(first) + served_per_s(second)


def _without(replicas: tuple[Replica, ...], taken: Counter[tuple[object, ...]]) -> tuple[Replica, ...]:
    """The replicas but for the first so many of each kind."""
    left = Counter(taken)
    out = []
    for replica in replicas:
        if left[replica.start] > 0:
            left[replica.start] -= 1
        else:
            out.append(replica)
    return tuple(out)
