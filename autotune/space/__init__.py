"""The plan space: layouts an engine accepts, and the rules that forbid the others."""

from autotune.space.enumerate import (
    Candidate,
    Space,
    conditions,
    enumerate_replicas,
    enumerate_space,
    rejected_by_value,
    violations,
)
from autotune.space.planstring import PlanSpec, Resolution, format_plan, parse_plan, resolve, short_plan

__all__ = [
    "Candidate",
    "PlanSpec",
    "Resolution",
    "Space",
    "conditions",
    "enumerate_replicas",
    "enumerate_space",
    "format_plan",
    "parse_plan",
    "rejected_by_value",
    "resolve",
    "short_plan",
    "violations",
]
