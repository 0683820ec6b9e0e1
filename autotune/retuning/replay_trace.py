"""Recorded traffic for a replay: logs joined one after the other, and scaled to load a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune.comparison.best import at_capacity, best_plan
from autotune.simulation.draw_requests import recorded_requests
from autotune.study import Study
from autotune.traffic.profile import WorkloadProfile, profile_of_arrays
from autotune.traffic.traffic_log import TrafficLog
from autotune.traffic.workload import with_traffic
from costmodel.errors import InputError
from costmodel.simulation.requests import Requests

MIN_REQUESTS = 20
"""Steps and windows with fewer are no traffic to judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Joined traffic. Arrays of shape `(num_requests,)`, times ascending from 0."""

    names: tuple[str, ...]
    ends_s: tuple[float, ...]
    """Where each part ends."""
    times_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    prompt: np.ndarray[tuple[int], np.dtype[np.float64]]
    output: np.ndarray[tuple[int], np.dtype[np.float64]]
    each: np.ndarray[tuple[int], np.dtype[np.float64]]
    """Requests that each row stands for: the scale of its part."""
    cached: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None
    """Prompt tokens that were cached; -1 where a log does not say. None: none of them does."""

    def requests(self, start_s: float, end_s: float, hit_frac: float) -> Requests | None:
        """Every request of a stretch; `hit_frac` of a prompt is cached where its log does not say.

        None where rows stand for more or fewer requests than one, or there are too few to judge.
        """
        low, high = np.searchsorted(self.times_s, (start_s, end_s))
        part = slice(int(low), int(high))
        times_s = self.times_s[part]
        if times_s.size < MIN_REQUESTS or times_s[-1] <= times_s[0] or np.any(self.each[part] != 1.0):
            return None
        cached = None if self.cached is None else self.cached[part]
        return recorded_requests(
            times_s, self.prompt[part].astype(np.int64), self.output[part].astype(np.int64), cached, hit_frac
        )

    def profile(self, start_s: float, end_s: float) -> WorkloadProfile | None:
        """Of a window; None where it holds too little. A window over two parts is scaled by their mean."""
        low, high = np.searchsorted(self.times_s, (start_s, end_s))
        if high - low < MIN_REQUESTS:
            return None
        part = slice(int(low), int(high))
        return profile_of_arrays(
            self.times_s[part],
            self.prompt[part],
            self.output[part],
            start_s=start_s,
            end_s=end_s,
            requests_each=float(self.each[part].mean()),
        )


def join(study: Study, logs: Sequence[TrafficLog], load_frac: float | None) -> Trace:
    """Logs one after the other.

    Args:
        study: what they are to load.
        logs: in their order.
        load_frac: each is scaled so that its mean rate is this share of what the best plan takes of it; None: as it
            came.

    Raises:
        InputError: a log was refused, or nothing can serve it within the limits.
    """
    times, prompts, outputs, each, cached, ends, at = [], [], [], [], [], [], 0.0
    scales: dict[str, float] = {}
    for log in logs:
        if log.refusal is not None or log.columns is None:
            raise InputError.single(log.source, f"cannot be replayed: {log.refusal or 'it holds no requests'}")
        if load_frac is None:
            scales[log.fingerprint] = 1.0
        elif log.fingerprint not in scales:
            profile = log.profile()
            scales[log.fingerprint] = load_frac * most_per_s(study, log.source, profile) / profile.rate.mean_per_s
        held = log.columns
        times.append(held.times_s - log.start_s + at)
        prompts.append(held.prompt.astype(np.float64))
        outputs.append(held.output.astype(np.float64))
        each.append(np.full(held.times_s.size, scales[log.fingerprint] * held.requests_each))
        cached.append(np.full(held.times_s.size, -1) if held.cached is None else held.cached.astype(np.int64))
        at += log.end_s - log.start_s
        ends.append(at)
    return Trace(
        names=tuple(log.source for log in logs),
        ends_s=tuple(ends),
        times_s=np.concatenate(times),
        prompt=np.concatenate(prompts),
        output=np.concatenate(outputs),
        each=np.concatenate(each),
        cached=np.concatenate(cached),
    )


def most_per_s(study: Study, source: str, profile: WorkloadProfile) -> float:
    """Requests per second of such traffic that the best plan takes within the limits."""
    own = with_traffic(study, profile, load="mean")
    best = best_plan(own)
    most = None if best is None else at_capacity(own, best)
    if most is None:
        raise InputError.single(source, "no plan of the study serves such traffic within the limits at any load")
    return most.metrics["requests_per_s"]
