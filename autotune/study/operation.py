"""The tables of a study file that say what a change of plan costs and when it is worth it. No effect on the ranking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator

from autotune.engines import ENGINES
from autotune.study import field_types as ft

DEFAULT_STORAGE_BYTES_PER_S = 2.0e9
"""15 GB of weights in 7.53 s from one AWS IO2 volume (Run:ai Model Streamer's benchmark, 2024-10-29). Local NVMe arrays
read several times as fast, object stores without a streamer slower."""
DEFAULT_WARMUP_S = 30.0
"""Assumed: kernels that are compiled on first use stall the first bursts for about 20 s (vllm-project/vllm#41834)."""
DEFAULT_DOWN_FRAC = 0.25
"""Of the replicas, rounded down, one at least: `maxUnavailable` of a Kubernetes Deployment unless told otherwise
(StatefulSet and LeaderWorkerSet: one). It is a bound: fewer go down where that turns fewer requests away."""

if TYPE_CHECKING:  # one number in the file
    StartupS: TypeAlias = Mapping[str, float]
else:
    StartupS = Annotated[ft.NotNegative, AfterValidator(lambda seconds: dict.fromkeys(ENGINES, seconds))]


def _startup(seconds: Mapping[str, float]) -> str:
    each = ", ".join(f"{engine} {s:g} s" for engine, s in seconds.items())
    return f"{each} from start to serving, weights not counted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """What it takes to put another plan into production. No effect on how plans are ranked."""

    __pydantic_config__ = ft.TABLE
    weights_from: Literal["storage", "peer"] = ft.entry(
        "where a starting engine reads its weights: each node's storage, or the network from replicas that run; "
        "default storage",
        "storage",
        assumed="{}",
    )
    storage_bytes_per_s: ft.GbPerS = ft.entry(
        "what one node reads from storage, GB/s; default 2.0 (one network SSD volume)",
        DEFAULT_STORAGE_BYTES_PER_S,
        key="storage_gb_per_s",
        assumed=lambda rate: f"{rate / 1e9:g} GB/s a node, one network volume",
    )
    peer_bytes_per_s: ft.GbPerS = ft.entry(
        "what one GPU receives from its peers, GB/s; default: the GPU's scale-out link",
        0.0,
        key="peer_gb_per_s",
        assumed=lambda rate: f"{rate / 1e9:g} GB/s a GPU, its scale-out link",
    )
    startup_s: StartupS = ft.entry(
        "from the process's start until it serves, weights not counted, s; default by engine: "
        + ", ".join(f"{name} {engine.startup_s:g}" for name, engine in ENGINES.items()),
        {},
        assumed=_startup,
    )
    warmup_s: ft.NotNegative = ft.entry(
        "after that, until kernels and caches are warm and it counts as capacity, s; default 30",
        DEFAULT_WARMUP_S,
        assumed="{:g} s until a started replica counts as capacity",
    )
    max_replicas_down: ft.Whole | None = ft.entry(
        "replicas of the current plan that may be down at once, count; default a quarter of them",
        None,
        ge=1,
        le=1_000_000,
        assumed=f"up to {DEFAULT_DOWN_FRAC:.0%} of them at once",
    )
    drain_s: ft.NotNegative | None = ft.entry(
        "longest wait for a replica's requests to finish before it stops, s; default: until the longest request is "
        "done",
        None,
        assumed="a replica stops when its longest request is done",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetunePolicy:
    """When a change of plan is worth it. No effect on how plans are ranked."""

    __pydantic_config__ = ft.TABLE
    horizon_s: ft.PositiveHours = ft.entry(
        "time over which a switch has to pay for itself, hours; default 24",
        24 * 3600.0,
        key="horizon_h",
        assumed=lambda s: f"a switch has to pay for itself within {s / 3600:g} h",
    )
    min_p_better: ft.Fraction = ft.entry(
        "probability of being better that a candidate needs, 0 to 1; default 0.8", 0.8, assumed="{:g}"
    )
    """Odds of four to one. What tells plans of a ranking apart, too: a switch can be taken back, and the
    expected gain, not the odds, has to pay for it. On measured hardware it hardly matters, on hardware that nobody
    measured it does (`docs/replay.md` says what hangs on it)."""
    min_gain_frac: ft.NotNegative = ft.entry(
        "net gain over the horizon that a candidate needs, relative; default 0.02",
        0.02,
        assumed="{:g} net over the horizon",
    )
    switch_back_factor: ft.Real = ft.entry(
        "hysteresis: how many times the net gain a switch back to a plan that was left less than a horizon ago needs; "
        "default 2",
        2.0,
        ge=1,
        le=1e6,
        assumed="a switch back needs {:g} times the gain",
    )
    cooldown_s: ft.NotNegativeHours = ft.entry(
        "time after a switch in which only a broken limit is a reason for another, hours; default 1",
        3600.0,
        key="cooldown_h",
        assumed=lambda s: f"{s / 3600:g} h between switches",
    )
    max_switches_per_day: ft.Whole = ft.entry(
        "switches within 24 hours, at most, whatever the reason; default 4", 4, ge=0, le=1000, assumed="{}"
    )
