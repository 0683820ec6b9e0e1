"""Entries of the ledger: their parts as JSON content, and what they must hold so that they can be gone on from.

Whoever may write the file may write anything. Fields that no shape names may be there or not, and hold what they like.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from autotune.comparison import ComparedPlan, SwitchCost
from autotune.comparison.verdict import worst_broken
from autotune.engines import ENGINES
from autotune.metrics import Use, used
from autotune.scoring.overload import told
from autotune.scoring.value_and_gain import Gain
from autotune.study import Baseline, own_option_values

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


Text = Annotated[str, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Time = Annotated[float, Field(strict=True, ge=0.0, le=2.5e11)]
"""Unix time that a calendar holds."""


@dataclass(kw_only=True)
class _Side:
    plan: Text
    engine: Text | None
    knobs: dict[str, Any] | None


@dataclass(kw_only=True)
class _ComparedSide(_Side):
    breaks: Text | None
    value_per_s: Number
    p_meets: Number | None = None


@dataclass(kw_only=True)
class _Switch:
    restart: Annotated[bool, Field(strict=True)]
    gpus_restarted: Number
    duration_s: Number
    least_capacity_requests_per_s: Number
    load_requests_per_s: Number
    lost_requests: Number


@dataclass(kw_only=True)
class _Times:
    start: Text
    end: Text


@dataclass(kw_only=True)
class _Inputs:
    study: Text
    window: _Times


@dataclass(kw_only=True)
class _Drift:
    drifted: Annotated[bool, Field(strict=True)]
    reason: Text


@dataclass(kw_only=True)
class _Figures:
    net_gain_frac: Number | None
    payback_s: Number | None


@dataclass(kw_only=True)
class _Traffic:
    covered_frac: Number = 1.0


@dataclass(kw_only=True)
class _Decision:
    at: Text
    at_s: Time
    study_name: Text
    decision: Literal["keep", "switch", "refuse"]
    rule: Text
    reason: Text
    inputs: _Inputs
    traffic: _Traffic
    profile: dict[str, Any]
    drift: _Drift
    figures: _Figures
    current: _Side
    candidate: _Side | None
    p_better: Number | None
    switch: _Switch | None
    left_out: tuple[Text, ...] = ()
    launch_difference: tuple[Text, ...] | None = None


@dataclass(kw_only=True)
class _Compared(_Decision):
    current: _ComparedSide
    candidate: _ComparedSide


@dataclass(kw_only=True)
class _Applied:
    at: Text
    at_s: Time
    by: Text


@dataclass(kw_only=True)
class _Summary:
    at: Text | None
    archive: Text
    decisions: dict[Text, Annotated[int, Field(strict=True)]]


def entry_problem(entry: Any) -> str:
    """What a line's JSON lacks to be an entry that can be gone on from; empty: nothing."""
    if not isinstance(entry, dict):
        return "must be an object"
    kind = entry.get("kind")
    decided = _Decision if entry.get("candidate") is None else _Compared
    if problem := _problem({SUMMARY: _Summary, APPLIED: _Applied}.get(str(kind), decided), entry):
        return problem
    sides = () if kind == SUMMARY else ("from", "to") if kind == APPLIED else ("current", "candidate")
    found = ((name, _side_problem(entry.get(name))) for name in sides if name != "candidate" or entry[name] is not None)
    return next((f"{name}.{problem}" for name, problem in found if problem), "")


def _side_problem(side: Any) -> str:
    return _problem(_Side, side) or launch_problem(side)


def launch_problem(side: Mapping[str, Any]) -> str:
    """What is no plan, engine or knob of a side, its name in front; empty: nothing."""
    engine, knobs = side["engine"], side["knobs"]
    if engine is not None and (not isinstance(engine, str) or engine not in ENGINES):
        return f"engine must be one of {', '.join(ENGINES)}, got {str(engine)[:40]!r}"
    if not isinstance(knobs, dict | None):
        return "knobs must be an object or null"
    given = {name: value for name in LAUNCH_KNOBS if (value := (knobs or {}).get(name)) is not None}
    return _problem(Baseline, {"plan": side["plan"], "engine": engine, **given})


def _problem(shape: type, content: Any) -> str:
    """The first thing in which content is not of a shape; empty: none."""
    try:
        _adapter(shape).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where[:100]}: {first['msg'][:200]}"
    return ""


@cache
def _adapter(shape: type) -> TypeAdapter[Any]:
    return TypeAdapter(shape)
