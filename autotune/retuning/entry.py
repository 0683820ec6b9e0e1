"""Parts of a ledger entry: plans, the switch, times and fingerprints as JSON content."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from autotune.comparison import ComparedPlan, SwitchCost
from autotune.comparison.verdict import worst_broken
from autotune.metrics import Use, used
from autotune.scoring.overload import told
from autotune.scoring.value_and_gain import Gain
from autotune.study import own_option_values

SCHEMA = 1
"""Of every entry; entries of a later schema are refused, not guessed at."""
DECISION, APPLIED, SUMMARY = "decision", "applied", "summary"
KINDS = (DECISION, APPLIED, SUMMARY)
HEAD = ("schema", "kind", "id", "decision", "rule")
"""What every line begins with, in this order; null where an entry has none."""
LAUNCH_KNOBS = (
    "max_num_batched_tokens",
    "weight_dtype",
    "kv_dtype",
    "decode_max_num_seqs",
    "max_local_prefill_tokens",
    "engine_options",
)
"""Knobs by which two launches of one plan differ."""
LINE_HEAD = re.compile(
    rb'\{"schema":(?P<schema>\d+),"kind":"(?P<kind>[a-z]+)","id":"(?P<id>[!#-\[\]-~]+)",'
    rb'"decision":(?:"(?P<decision>[a-z]+)"|null),"rule":(?:"(?P<rule>[a-z_]+)"|null)[,}]'
)


def iso(seconds: float) -> str:
    """Unix time as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def digest(value: Any) -> str:
    """SHA-256, hex, of JSON content."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def side_entry(side: ComparedPlan) -> dict[str, Any]:
    """One of the two plans, on the window's traffic."""
    out: dict[str, Any] = {
        "plan": side.plan,
        "engine": side.engine,
        "knobs": None,
        "feasible": side.keeps,
        "breaks": worst_broken(side) or None,
        "value_per_s": side.value_per_s,
        "capacity_requests_per_s": side.capacity_requests_per_s,
        "p_meets": None,
        "metrics": {},
    }
    if side.result is not None:
        out["knobs"] = asdict(side.result.knobs)
        if side.result.pools is not None:
            out["knobs"]["decode_max_num_seqs"] = side.result.launch.decode_max_num_seqs
            out["knobs"]["max_local_prefill_tokens"] = side.result.launch.max_local_prefill_tokens
        if side.result.own_options is not None:
            out["knobs"]["engine_options"] = own_option_values(side.result.own_options)
        out["p_meets"] = side.result.p_meets
        out["metrics"] = {m.name: _finite(told(side.result, m.name)) for m in used(Use.LEDGER)}
    return out


def switch_entry(cost: SwitchCost, gain: Gain | None) -> dict[str, Any]:
    """What the change takes."""
    kept = {k: v for k, v in asdict(cost).items() if k != "waves"}
    return {
        **kept,
        "payback_s": None if gain is None else gain.payback_s,
        "duration_s": cost.duration_s,
        "least_capacity_requests_per_s": cost.least_capacity_requests_per_s,
        "steps": len(cost.waves),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
