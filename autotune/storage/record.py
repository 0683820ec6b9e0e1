"""A scored plan as a study keeps it: numbers that JSON can hold, under a checksum."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY_ATTR = "plan_key"
CHECKSUM_ATTR = "checksum"
_OWN = (KEY_ATTR, "params", "values", "margins")
"""Attributes that hold the other fields of a record than `attrs`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One scored plan, as the study keeps it; for numbers that are not finite see `__post_init__`."""

    key: str
    """Identity of the candidate (plan and knobs) within its study; stored once, whoever writes it."""
    params: Mapping[str, int | float | str]
    """What was decided and might have been decided otherwise, by the names of `autotune.storage.trials.PARAMS`."""
    values: tuple[float, ...]
    """Objective values, one per direction. If any is not finite, the trial is PRUNED and has none."""
    constraints: Mapping[str, float] = field(default_factory=dict)
    """Violation code -> excess in the constraint's unit; feasible iff every one is <= 0."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """Plan string, layout, metrics, breakdown and the like: JSON content."""

    def __post_init__(self) -> None:
        """Bring numbers to what JSON, and so every storage and dashboard, can hold.

        An infinite excess becomes the largest float; NaN and infinity in `attrs` become None; values that are
        not all finite become none at all.

        Raises:
            ValueError: a NaN excess, which would say neither feasible nor infeasible, or an attribute whose name is
                taken.
        """
        if any(math.isnan(excess) for excess in self.constraints.values()):
            raise ValueError(f"a constraint's excess must be a number, got {dict(self.constraints)!r} of {self.key!r}")
        if taken := {*_OWN, CHECKSUM_ATTR} & set(self.attrs):
            raise ValueError(f"an attribute must not be called {', '.join(sorted(taken))}")
        most = sys.float_info.max
        bounded = {code: float(min(max(excess, -most), most)) for code, excess in self.constraints.items()}
        values = tuple(float(value) for value in self.values)
        object.__setattr__(self, "constraints", bounded)
        object.__setattr__(self, "values", values if all(map(math.isfinite, values)) else ())
        object.__setattr__(self, "attrs", finite(dict(self.attrs)))
        object.__setattr__(self, "params", dict(self.params))

    @property
    def feasible(self) -> bool:
        """Whether every constraint holds."""
        return all(excess <= 0.0 for excess in self.constraints.values())

    def attributes(self) -> dict[str, Any]:
        """The whole record as the attributes of a trial, with a checksum over them."""
        held = {
            KEY_ATTR: self.key,
            **self.attrs,
            "params": self.params,
            "values": list(self.values),
            "margins": self.constraints,
        }
        return {**held, CHECKSUM_ATTR: _checksum(held)}


def is_record(attributes: Mapping[str, Any]) -> bool:
    """Whether a trial with these attributes is one of ours, damaged or not."""
    return KEY_ATTR in attributes or CHECKSUM_ATTR in attributes


def record_of(attributes: Mapping[str, Any]) -> TrialRecord | None:
    """The record that a trial's attributes hold; None where their checksum is not that of their content."""
    held = dict(attributes)
    if held.pop(CHECKSUM_ATTR, None) != _checksum(held):
        return None
    key, params, values, margins = (held.pop(name) for name in _OWN)
    return TrialRecord(key=key, params=params, values=tuple(values), constraints=margins, attrs=held)


def _checksum(held: Mapping[str, Any]) -> str:
    """SHA-256 of the content in one fixed spelling, its first 16 hex digits."""
    text = json.dumps(held, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finite(value: Any) -> Any:
    """JSON content with None where a number is not finite; tuples become lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    return value
