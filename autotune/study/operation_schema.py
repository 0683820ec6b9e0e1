"""The tables of a study file that say what a change of plan costs and when it is worth it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from autotune.engines import ENGINES
from autotune.study.strict_table import Fraction, NotNegative, Positive, Section


class SwitchTable(Section):
    """What it takes to put another plan into production. No effect on how plans are ranked."""

    weights_from: Literal["storage", "peer"] | None = Field(
        None,
        description="where a starting engine reads its weights: each node's storage, or the network from replicas that "
        "run; default storage",
    )
    storage_gb_per_s: Positive | None = Field(
        None, description="what one node reads from storage, GB/s; default 2.0 (one network SSD volume)"
    )
    peer_gb_per_s: Positive | None = Field(
        None, description="what one GPU receives from its peers, GB/s; default: the GPU's scale-out link"
    )
    startup_s: NotNegative | None = Field(
        None,
        description="from the process's start until it serves, weights not counted, s; default by engine: "
        + ", ".join(f"{name} {engine.startup_s:g}" for name, engine in ENGINES.items()),
    )
    warmup_s: NotNegative | None = Field(
        None, description="after that, until kernels and caches are warm and it counts as capacity, s; default 30"
    )
    max_replicas_down: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="replicas of the current plan that may be down at once, count; default a quarter of them",
    )
    drain_s: NotNegative | None = Field(
        None,
        description="longest wait for a replica's requests to finish before it stops, s; default: until the longest "
        "request is done",
    )


class RetuneTable(Section):
    """When a change of plan is worth it. No effect on how plans are ranked."""

    horizon_h: Positive | None = Field(
        None, description="time over which a switch has to pay for itself, hours; default 24"
    )
    min_p_better: Fraction | None = Field(
        None, description="probability of being better that a candidate needs, 0 to 1; default 0.8"
    )
    min_gain_frac: NotNegative | None = Field(
        None, description="net gain over the horizon that a candidate needs, relative; default 0.02"
    )
    switch_back_factor: float | None = Field(
        None,
        ge=1,
        le=1e6,
        description="hysteresis: how many times the net gain a switch back to a plan that was left less than a "
        "horizon ago needs; default 2",
    )
    cooldown_h: NotNegative | None = Field(
        None, description="time after a switch in which only a broken limit is a reason for another, hours; default 1"
    )
    max_switches_per_day: int | None = Field(
        None, ge=0, le=1000, description="switches within 24 hours, at most, whatever the reason; default 4"
    )
