"""What runs when: the schedule of a day, and what it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np

from autotune.planning.day_program import DayRules, ReplicaKind, Schedule, needed_replicas
from autotune.planning.loads import BIN_S
from costmodel.plan.columns import Floats, Ints

REACTIVE_TARGET = 0.7
"""Of what its replicas take: where a threshold scaler holds the load, the middle of the 60 to 80 % that autoscalers'
manuals advise."""
DOWN_AFTER_S = 300.0
"""Kubernetes' default `stabilizationWindowSeconds` for scaling down: the most that was wanted in this time counts."""
PLANNED, FIXED, REACTIVE, ORACLE = "planned", "fixed", "reactive", "oracle"
STRATEGIES = {
    PLANNED: "the schedule for the forecast",
    FIXED: "the replicas that the highest forecast needs, all day",
    REACTIVE: f"replicas follow the last minute's load, to {REACTIVE_TARGET:.0%} of what they take; down after "
    f"{DOWN_AFTER_S / 60.0:g} min; they count once they have started",
    ORACLE: "the schedule for the load as it came",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A time in which the same replicas take requests."""

    start_s: float
    end_s: float
    kind: int
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What serves over a day, and the GPU-seconds that it holds."""

    strategy: str
    stretches: tuple[Stretch, ...]
    gpu_s: float


def scheduled(strategy: str, schedule: Schedule, starts_s: Ints, step_s: float) -> Fleet:
    """A schedule as what serves."""
    stretches = tuple(
        Stretch(start_s=float(start), end_s=float(start + step_s), kind=int(kind), replicas=int(replicas))
        for start, kind, replicas in zip(starts_s, schedule.kind, schedule.replicas, strict=True)
    )
    return Fleet(strategy=strategy, stretches=stretches, gpu_s=schedule.gpu_s)


def fixed_at_peak(kinds: Sequence[ReplicaKind], load_per_s: Floats, rules: DayRules) -> tuple[int, int]:
    """The plan and the replicas that hold the fewest GPUs, of those with room for the load of every step."""
    needed, short = needed_replicas(kinds, load_per_s, rules)
    order = [(float(short[i].max()), int(needed[i].max()) * kind.gpus, i) for i, kind in enumerate(kinds)]
    best = min(entry for entry in order if kinds[entry[2]].gpus <= rules.gpus)[2]
    return best, int(needed[best].max())


def reactive(kind_index: int, kind: ReplicaKind, counts: Floats, starts_s: Ints, rules: DayRules, first: int) -> Fleet:
    """A threshold scaler on one plan.

    Args:
        kind_index: of the plan.
        kind: the plan.
        counts: requests in each minute of the day, shape `(minutes,)`.
        starts_s: of the steps.
        rules: of the day.
        first: replicas at the beginning of the first step.
    """
    most = rules.gpus // kind.gpus
    stretches: list[Stretch] = []
    gpu_s = 0.0
    for block in _blocks(starts_s, rules.step_s):
        begin, end = float(starts_s[block[0]]), float(starts_s[block[-1]] + rules.step_s)
        minutes = np.arange(begin, end, BIN_S)
        step = np.searchsorted(starts_s, minutes, side="right") - 1
        serving = first
        coming: list[tuple[float, int]] = []
        wanted: list[int] = []
        for i, (at, k) in enumerate(zip(minutes, step, strict=True)):
            ready = [count for when, count in coming if when <= at]
            coming = [(when, count) for when, count in coming if when > at]
            serving += sum(ready)
            if i:
                load = counts[min(int(minutes[i - 1] // BIN_S), counts.size - 1)] / BIN_S
                room = max(kind.capacity_per_s[k], 1e-9) * REACTIVE_TARGET
                wanted.append(min(max(ceil(load / room), rules.min_replicas), most))
                starting = sum(count for _, count in coming)
                if wanted[-1] > serving + starting:
                    coming.append((at + kind.start_s, wanted[-1] - serving - starting))
                else:
                    kept = max(wanted[-max(int(DOWN_AFTER_S // BIN_S), 1) :])
                    if kept < serving:
                        gpu_s += (serving - kept) * kind.gpus * kind.drain_s
                        serving = kept
            gpu_s += (serving + sum(count for _, count in coming)) * kind.gpus * BIN_S
            stretches.append(Stretch(start_s=float(at), end_s=float(at) + BIN_S, kind=kind_index, replicas=serving))
    return Fleet(strategy=REACTIVE, stretches=tuple(_joined(stretches)), gpu_s=gpu_s)


def _blocks(starts_s: Ints, step_s: float) -> list[list[int]]:
    """Steps that follow each other without a hole."""
    blocks = [[0]]
    for i, (before, after) in enumerate(pairwise(starts_s), start=1):
        if after - before > step_s:
            blocks.append([])
        blocks[-1].append(i)
    return blocks


def _joined(stretches: Sequence[Stretch]) -> list[Stretch]:
    out: list[Stretch] = []
    for one in stretches:
        last = out[-1] if out else None
        if last is not None and (last.kind, last.replicas, last.end_s) == (one.kind, one.replicas, one.start_s):
            out[-1] = Stretch(start_s=last.start_s, end_s=one.end_s, kind=one.kind, replicas=one.replicas)
        else:
            out.append(one)
    return out
