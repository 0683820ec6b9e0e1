"""What changing the plan in production takes, and when it is worth it: values and what they default to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotune.engines import ENGINES
from autotune.study.operation_schema import RetuneTable, SwitchTable
from costmodel.hardware import Cluster

DEFAULT_STORAGE_BYTES_PER_S = 2.0e9
"""15 GB of weights in 7.53 s from one AWS IO2 volume (Run:ai Model Streamer's benchmark, 2024-10-29). Local NVMe arrays
read several times as fast, object stores without a streamer slower."""
DEFAULT_WARMUP_S = 30.0
"""Assumed: kernels that are compiled on first use stall the first bursts for about 20 s (vllm-project/vllm#41834)."""
DEFAULT_DOWN_FRAC = 0.25
"""Of the replicas, rounded down, one at least: `maxUnavailable` of a Kubernetes Deployment unless told otherwise
(StatefulSet and LeaderWorkerSet: one). It is a bound: fewer go down where that turns fewer requests away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """What a change of plan takes. SI units."""

    weights_from: str
    """`storage` or `peer`."""
    storage_bytes_per_s: float
    """Per node."""
    peer_bytes_per_s: float
    """Per GPU."""
    startup_s: Mapping[str, float]
    """By engine: process start, compilation and graph capture, weights not counted."""
    warmup_s: float
    max_replicas_down: int | None
    """At once, at most; None: `DEFAULT_DOWN_FRAC` of them."""
    drain_s: float | None
    """Longest wait for running requests; None: until the longest request is done."""
    assumptions: tuple[str, ...]
    """What the study left open and how it was filled in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetunePolicy:
    """When a change of plan is worth it."""

    horizon_s: float = 24 * 3600.0
    """Time over which a switch has to pay for itself."""
    min_p_better: float = 0.8
    """Odds of four to one. Less than the 0.9 that tells plans of a ranking apart: a switch can be taken back, and the
    expected gain, not the odds, has to pay for it. On measured hardware it hardly matters, on hardware that nobody
    measured it does (`docs/replay.md` says what hangs on it)."""
    min_gain_frac: float = 0.02
    """Net gain over the horizon, relative to what the current plan does in it."""
    switch_back_factor: float = 2.0
    """Times `min_gain_frac` that a switch back needs to a plan that was left less than a horizon ago."""
    cooldown_s: float = 3600.0
    """After a switch; a limit that the current plan breaks overrides it."""
    max_switches_per_day: int = 4
    assumptions: tuple[str, ...] = ()
    """What the study left open and how it was filled in."""


def switch_values(table: SwitchTable, cluster: Cluster) -> Switch:
    """The `[switch]` table in SI units, what it leaves open filled in and named."""
    said: list[str] = []
    source, storage, peer = table.weights_from, table.storage_gb_per_s, table.peer_gb_per_s
    if source is None:
        source = "storage"
        said.append("switch.weights_from not given: storage")
    if storage is None and source == "storage":
        said.append(
            f"switch.storage_gb_per_s not given: {DEFAULT_STORAGE_BYTES_PER_S / 1e9:g} GB/s a node, one network volume"
        )
    if peer is None and source == "peer":
        said.append(
            f"switch.peer_gb_per_s not given: {cluster.gpu.scaleout_bytes_per_s / 1e9:g} GB/s a GPU, its scale-out link"
        )
    startup = {name: engine.startup_s for name, engine in ENGINES.items()}
    if table.startup_s is not None:
        startup = dict.fromkeys(ENGINES, table.startup_s)
    else:
        each = ", ".join(f"{engine} {seconds:g} s" for engine, seconds in startup.items())
        said.append(f"switch.startup_s not given: {each} from start to serving, weights not counted")
    if table.warmup_s is None:
        said.append(f"switch.warmup_s not given: {DEFAULT_WARMUP_S:g} s until a started replica counts as capacity")
    if table.max_replicas_down is None:
        said.append(f"switch.max_replicas_down not given: up to {DEFAULT_DOWN_FRAC:.0%} of them at once")
    if table.drain_s is None:
        said.append("switch.drain_s not given: a replica stops when its longest request is done")
    return Switch(
        weights_from=source,
        storage_bytes_per_s=DEFAULT_STORAGE_BYTES_PER_S if storage is None else storage * 1e9,
        peer_bytes_per_s=cluster.gpu.scaleout_bytes_per_s if peer is None else peer * 1e9,
        startup_s=startup,
        warmup_s=DEFAULT_WARMUP_S if table.warmup_s is None else table.warmup_s,
        max_replicas_down=table.max_replicas_down,
        drain_s=table.drain_s,
        assumptions=tuple(said),
    )


def retune_policy(table: RetuneTable) -> RetunePolicy:
    """The `[retune]` table in SI units, what it leaves open filled in and named."""
    default = RetunePolicy()
    given = {
        "horizon_s": None if table.horizon_h is None else table.horizon_h * 3600.0,
        "min_p_better": table.min_p_better,
        "min_gain_frac": table.min_gain_frac,
        "switch_back_factor": table.switch_back_factor,
        "cooldown_s": None if table.cooldown_h is None else table.cooldown_h * 3600.0,
        "max_switches_per_day": table.max_switches_per_day,
    }
    words = {
        "horizon_s": ("horizon_h", f"a switch has to pay for itself within {default.horizon_s / 3600:g} h"),
        "min_p_better": ("min_p_better", f"{default.min_p_better:g}"),
        "min_gain_frac": ("min_gain_frac", f"{default.min_gain_frac:g} net over the horizon"),
        "switch_back_factor": (
            "switch_back_factor",
            f"a switch back needs {default.switch_back_factor:g} times the gain",
        ),
        "cooldown_s": ("cooldown_h", f"{default.cooldown_s / 3600:g} h between switches"),
        "max_switches_per_day": ("max_switches_per_day", f"{default.max_switches_per_day}"),
    }
    said = tuple(
        f"retune.{words[name][0]} not given: {words[name][1]}" for name, value in given.items() if value is None
    )
    values = {name: getattr(default, name) if value is None else value for name, value in given.items()}
    return RetunePolicy(
        horizon_s=values["horizon_s"],
        min_p_better=values["min_p_better"],
        min_gain_frac=values["min_gain_frac"],
        switch_back_factor=values["switch_back_factor"],
        cooldown_s=values["cooldown_s"],
        max_switches_per_day=int(values["max_switches_per_day"]),
        assumptions=said,
    )
