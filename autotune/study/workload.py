"""The tables of a study file about the traffic."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from autotune.study import field_types as ft
from costmodel.serving.requests import RequestKind

if TYPE_CHECKING:
    from costmodel.simulation.requests import Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Conversations of several turns: the prompt of each has all that was said before."""

    __pydantic_config__ = ft.TABLE
    turns: ft.Whole = ft.entry("requests of a session", ge=1, le=1000)
    system_tokens: ft.Whole = ft.entry(
        "tokens at the beginning of every prompt, the same in all sessions; default 0", 0, ge=0, le=1_000_000
    )
    pause_s: ft.Positive = ft.entry(
        "mean time from one request of a session to its next, s; exponentially distributed, default 30", 30.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadTable:
    """What is asked of the service."""

    __pydantic_config__ = ft.TABLE
    isl: ft.Lengths = ft.entry("prompt length, tokens: a number, or {min=, max=} for a uniform range")
    osl: ft.Lengths = ft.entry("output length, tokens: a number, or {min=, max=} for a uniform range")
    concurrency: ft.Requests | None = ft.entry(
        "closed loop: requests in flight over all replicas; omitted: searched. Excludes a rate", None
    )
    request_rate_per_s: ft.Positive | None = ft.entry(
        "open loop: requests arriving per second over all replicas. Excludes concurrency", None
    )
    arrival_cv: ft.ArrivalCv = ft.entry(
        'how requests arrive at a rate: "poisson", "constant", or { cv = 2.0 } for gaps of that coefficient of '
        "variation. The less evenly they come, the longer they take at a rate, in means and where percentiles are "
        "simulated",
        1.0,
        key="arrivals",
        assumed=lambda _: "Poisson arrivals",
    )
    traffic: ft.LogFile | None = ft.entry(
        "request log in any form that `retune` reads, relative to the file: lengths, rate and shared prefixes come "
        "from it, and percentiles are of its requests at their own times. Excludes isl, osl, concurrency and a rate",
        None,
    )
    sessions: Sessions | None = ft.entry(
        "sessions of several turns: isl is a message and osl its answer, `arrivals` are of sessions, and the prefix "
        "cache finds what it has room for. Needs request_rate_per_s",
        None,
    )
    prefix_cache_hit_frac: ft.Share = ft.entry(
        "share of prompt tokens found in the prefix cache, 0 to 1; default 0",
        0.0,
        assumed="0 (every prompt token is computed)",
    )
    expert_skew: ft.Real = ft.entry(
        "exponent of the power law of expert popularity; default 0, balanced routing",
        0.0,
        ge=0,
        le=10,
        assumed="0 (balanced routing)",
    )
    longest_prompt: ft.Tokens = ft.entry(
        "prompt length that the TTFT limit is checked at, tokens; default: the maximum of isl",
        0,
        assumed="{:,} tokens, the longest isl",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload(WorkloadTable):
    """The traffic of a study, with what only a log of requests can say of it."""

    points: tuple[RequestKind, ...] = ()
    """Kinds of requests that are evaluated one by one and put together; weights sum to 1. Empty: all have mean lengths.
    """
    rate_levels_per_s: tuple[float, ...] = ()
    """Recorded traffic: requests per second in equal shares of the time. Empty: `request_rate_per_s` all the time."""
    traffic_digest: str = ""
    """Of the requests of the log that `traffic` names."""
    recorded: Requests | None = field(default=None, compare=False, repr=False)
    """Those requests."""
    turn: tuple[ft.Lengths, ft.Lengths] | None = field(default=None, compare=False, repr=False)
    """Of sessions whose requests were drawn, lengths of a message and of its answer: `isl` and `osl` are the requests'.
    """

    def longer(self, *, prompts: float = 1.0, outputs: float = 1.0) -> Workload:
        """The workload with prompts (the longest too) and outputs so many times as long."""
        return replace(
            self,
            isl=self.isl.times(prompts),
            osl=self.osl.times(outputs),
            longest_prompt=max(round(self.longest_prompt * prompts), 1),
            points=tuple(replace(p, isl=max(p.isl * prompts, 1.0), osl=max(p.osl * outputs, 1.0)) for p in self.points),
            recorded=None if self.recorded is None else self.recorded.longer(prompts=prompts, outputs=outputs),
            turn=None if self.turn is None else (self.turn[0].times(prompts), self.turn[1].times(outputs)),
        )

    def with_hits(self, hit_frac: float) -> Workload:
        """The workload with such a share of each prompt in the prefix cache."""
        recorded = None if self.recorded is None else self.recorded.with_hits(hit_frac)
        return replace(self, prefix_cache_hit_frac=hit_frac, recorded=recorded, turn=None)
