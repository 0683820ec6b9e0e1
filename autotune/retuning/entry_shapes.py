"""What entries of the ledger must hold so that they can be gone on from: whoever may write the file may write anything.

Fields that are not named here may be there or not, and hold what they like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from autotune.engines import ENGINES
from autotune.retuning.entry import APPLIED, LAUNCH_KNOBS, SUMMARY
from autotune.study import Baseline

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
