"""The window of traffic that a run decides on: read, profiled, put into the study, compared with an earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from autotune.comparison.compare_plans import on_traffic
from autotune.study import Study
from autotune.traffic import WorkloadProfile, profile_from_json, read_traffic
from autotune.traffic.drift import traffic_drift
from autotune.traffic.read import TrafficLog
from autotune.traffic.replayed import LEAST_REQUESTS, requests_of_log

TIMEOUT_S = 30.0
"""Of an address, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Traffic of a window."""

    start_s: float
    """Unix time."""
    end_s: float
    refusal: str | None
    """Why it cannot be judged; None: it can."""
    fingerprint: str
    """Of the traffic's content: equal content, equal fingerprint."""
    document: Mapping[str, Any]
    """Where it came from and how it was read, as JSON content."""
    profile: Mapping[str, Any]
    """The workload profile as JSON content: what a later window is compared with."""
    study: Study
    """The study with this traffic as its workload; the study itself where the window cannot be judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Whether traffic changed since the current plan was chosen."""

    drifted: bool
    reason: str
    document: Mapping[str, Any]
    """The statistics, as JSON content."""


def read_window(
    study: Study,
    traffic: str,
    *,
    window_s: float,
    now_s: float | None,
    warm_from_s: float | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Window:
    """Read and profile a window.

    Args:
        study: whose workload the traffic replaces.
        traffic: a log or an address (`read_traffic`).
        window_s: length of the window that ends now, seconds.
        now_s: its end, Unix time; None: the last request.
        warm_from_s: requests before are dropped: a plan that was just started served them cold.
        timeout_s: of an address.

    Raises:
        InputError: the traffic cannot be read.
    """
    log = read_traffic(traffic, window_s=window_s, now_s=now_s, timeout_s=timeout_s)
    refusal, profile = log.refusal, None
    start = log.start_s if warm_from_s is None else max(log.start_s, warm_from_s)
    if refusal is None:
        try:
            profile = log.profile(since_s=start)
        except ValueError as error:
            refusal = f"nothing is left of the window after the warm-up of the last switch: {error}"
    return Window(
        start_s=log.start_s,
        end_s=log.end_s,
        refusal=refusal,
        fingerprint=log.fingerprint,
        document={**log.to_json(), "refusal": refusal, "warm_up_dropped_s": start - log.start_s},
        profile={} if profile is None else profile.to_json(),
        study=study if profile is None else _with_requests(on_traffic(study, profile), traffic, log, start),
    )


def _with_requests(study: Study, traffic: str, log: TrafficLog, start_s: float) -> Study:
    """The study with the window's requests, so that they are simulated one by one; as it is where it holds too few."""
    columns = None if log.columns is None else log.columns.between(start_s, log.end_s)
    if columns is None or columns.requests_each > 1.0 or columns.times_s.size < LEAST_REQUESTS:
        return study
    if columns.times_s[-1] <= columns.times_s[0]:
        return study
    held = requests_of_log(traffic, replace(log, columns=columns), study.workload.prefix_cache_hit_frac)
    return replace(study, workload=replace(study.workload, recorded=held, traffic_digest=log.fingerprint))


def compare_profiles(window: Window, reference: Mapping[str, Any] | None) -> Drift:
    """Hold a window against the profile of an earlier one; None: there is none, which counts as drift."""
    if window.refusal is not None:
        return Drift(drifted=False, reason="not compared: the window cannot be judged", document={})
    if not reference:
        return Drift(drifted=True, reason="no earlier window to compare with", document={})
    return drift_of(profile_from_json(window.profile), profile_from_json(reference))


def drift_of(new: WorkloadProfile, old: WorkloadProfile) -> Drift:
    """Whether the new profile differs from the old one by more than chance, and enough to matter."""
    found = traffic_drift(new, old)
    content = {k: v for k, v in found.to_json().items() if k not in ("drifted", "reason")}
    return Drift(drifted=found.drifted, reason=found.reason, document=content)
