"""What is said of a plan's latencies under more load than it serves: they grow for as long as the load goes on.

A plan's figures are then those of the requests that it has room for. They order plans and say what each could do;
people are told that there is no latency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from autotune.text.numbers import number

WAITING = frozenset({"ttft_s", "ttft_longest_s", "e2e_s"})
"""Figures that hold the wait for a seat, which is what grows."""
PART = "overload"
"""Part of a plan's breakdown that says what comes and what is served; it is there under overload alone."""
ENDLESS = "grows without bound"


class Scored(Protocol):
    """What keeps figures by metric and a breakdown, as a `PlanResult` does."""

    @property
    def metrics(self) -> Mapping[str, float]: ...  # noqa: D102

    @property
    def breakdown(self) -> Mapping[str, Any]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """More requests come than are served, for as long as one looks."""

    offered_per_s: float
    served_per_s: float

    @property
    def words(self) -> str:
        """What a latency does, and why."""
        return f"{ENDLESS}: {number(self.offered_per_s)} requests/s come, {number(self.served_per_s, 4)} are served"


def overload_of(breakdown: Mapping[str, Any]) -> Overload | None:
    """What a plan's breakdown says, that of a document included; None: it serves what comes, or nothing goes on."""
    found = breakdown.get(PART)
    return None if found is None else Overload(**found)


def told(plan: Scored, name: str) -> float:
    """A plan's figure as people are told it, SI: without end where it waits for a seat under overload."""
    return inf if name in WAITING and overload_of(plan.breakdown) is not None else plan.metrics[name]


def told_figures(plan: Scored) -> dict[str, float]:
    """Every figure of a plan as people are told it."""
    return {name: told(plan, name) for name in plan.metrics}
