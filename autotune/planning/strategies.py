"""What runs when: the schedule of a day, and what it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np

from autotune.planning.day_program import DayRules, Kinds, ReplicaKind, Schedule, fullest
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
    plan: int
    replicas: tuple[int, int]
    """Of each kind of the plan; where it has one kind, the second is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What serves over a day, and the GPU-seconds that it holds."""

    strategy: str
    stretches: tuple[Stretch, ...]
    gpu_s: float


def scheduled(strategy: str, schedule: Schedule, starts_s: Ints, step_s: float) -> Fleet:
    """A schedule as what serves."""
    stretches = [
        Stretch(start_s=start, end_s=start + step_s, plan=plan, replicas=(first, second))
        for start, plan, (first, second) in zip(
            starts_s.astype(float).tolist(), schedule.plan.tolist(), schedule.replicas.tolist(), strict=True
        )
    ]
    return Fleet(strategy=strategy, stretches=tuple(_joined(stretches)), gpu_s=schedule.gpu_s)


def reactive(plan: int, kinds: Kinds, counts: Floats, starts_s: Ints, rules: DayRules, load_per_s: float) -> Fleet:
    """A threshold scaler on one plan; of a disaggregated plan, one on each pool.

    `counts`: requests in each minute, shape `(minutes,)`; `load_per_s`: what the first replicas are enough for.
    """
    ways, room = fullest(kinds, rules)
    most = ways[int(room.mean(axis=1).argmax())].tolist()
    gpu_s = 0.0
    serving: list[list[int]] = []
    for kind, at_most in zip(kinds, most, strict=False):
        first = ceil(load_per_s / max(float(kind.capacity_per_s[0]), 1e-9))
        scaled, held_s = _scaler(kind, counts, starts_s, rules, min(max(first, rules.min_replicas), at_most), at_most)
        serving.append(scaled)
        gpu_s += held_s
    minutes = np.concatenate([_minutes(starts_s, block, rules) for block in _blocks(starts_s, rules.step_s)])
    by_minute = zip(*(*serving, [0] * minutes.size)[:2], strict=True)
    stretches = [
        Stretch(start_s=at, end_s=at + BIN_S, plan=plan, replicas=replicas)
        for at, replicas in zip(minutes.tolist(), by_minute, strict=True)
    ]
    return Fleet(strategy=REACTIVE, stretches=tuple(_joined(stretches)), gpu_s=gpu_s)


def _minutes(starts_s: Ints, block: Sequence[int], rules: DayRules) -> Floats:
    return np.arange(float(starts_s[block[0]]), float(starts_s[block[-1]]) + rules.step_s, BIN_S)


def _scaler(
    kind: ReplicaKind, counts: Floats, starts_s: Ints, rules: DayRules, first: int, most: int
) -> tuple[list[int], float]:
    """Replicas that serve in each minute of the steps, and the GPU-seconds that are held."""
    gpu_s, served = 0.0, []
    for block in _blocks(starts_s, rules.step_s):
        minutes = _minutes(starts_s, block, rules)
        step = np.searchsorted(starts_s, minutes, side="right") - 1
        serving = first
        coming: list[tuple[float, int]] = []
        wanted: list[int] = []
        for i, (at, k) in enumerate(zip(minutes, step, strict=True)):
            serving += sum(count for when, count in coming if when <= at)
            coming = [(when, count) for when, count in coming if when > at]
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
            served.append(serving)
    return served, gpu_s


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
        if last is not None and (last.plan, last.replicas, last.end_s) == (one.plan, one.replicas, one.start_s):
            out[-1] = Stretch(start_s=last.start_s, end_s=one.end_s, plan=one.plan, replicas=one.replicas)
        else:
            out.append(one)
    return out
