"""The window of traffic that a run decides on: read, profiled, put into the study, compared with an earlier one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from autotune.comparison.compare_plans import on_traffic
from autotune.retuning.entry import iso
from autotune.study import Study
from autotune.traffic.drift import traffic_drift
from autotune.traffic.options import AS_THEY_SAY, ReadOptions
from autotune.traffic.profile import WorkloadProfile, profile_from_json
from autotune.traffic.read import read_traffic
from autotune.traffic.replayed import LEAST_REQUESTS, requests_of_log
from autotune.traffic.traffic_log import TrafficLog

TIMEOUT_S = 30.0
"""Of an address, unless told otherwise."""
DATED_FROM_S = 1e9
"""Times of a log below count from its own start: no Unix time of a request (2001)."""
CLOCK_SLACK_S = 3600.0
"""By how much clocks may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Traffic of a window."""

    start_s: float
    """Unix time."""
    end_s: float
    at_s: float
    """When the decision is made, Unix time: at its end, or now where the log's times have no date."""
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


def read_window(  # noqa: PLR0913  # one for each thing that may be asked
    study: Study,
    traffic: str,
    *,
    window_s: float,
    now_s: float | None,
    warm_from_s: float | None = None,
    clock_s: float | None = None,
    timeout_s: float = TIMEOUT_S,
    options: ReadOptions = AS_THEY_SAY,
) -> Window:
    """Read and profile a window.

    Args:
        study: whose workload the traffic replaces.
        traffic: a log or an address (`read_traffic`).
        window_s: length of the window that ends now, seconds.
        now_s: its end, Unix time; None: the last request.
        warm_from_s: requests before are dropped: a plan that was just started served them cold.
        clock_s: the present, Unix time; None: the clock.
        timeout_s: of an address.
        options: what the log does not say of itself.

    Raises:
        InputError: the traffic cannot be read.
    """
    log = read_traffic(
        traffic,
        window_s=window_s,
        now_s=now_s,
        timeout_s=timeout_s,
        options=replace(options, model=options.model or study.arch.name),
    )
    clock_s = time.time() if clock_s is None else clock_s
    dated = log.end_s >= DATED_FROM_S
    refusal, profile = log.refusal, None
    start = log.start_s
    if dated and warm_from_s is not None and not is_ahead(warm_from_s, clock_s, log.end_s):
        start = max(start, warm_from_s)
    if refusal is None and dated and now_s is None and log.end_s > clock_s + CLOCK_SLACK_S:
        refusal = (
            f"the last request is dated {iso(log.end_s)}, ahead of the clock: times in another unit or zone, or a "
            "clock that is wrong; --now TIME says where the window ends"
        )
    if refusal is None and start >= log.end_s:
        refusal = f"the window ends at {iso(log.end_s)}, before the last switch had warmed up: a later one will do"
    if refusal is None:
        try:
            profile = log.profile(since_s=start)
        except ValueError as error:
            refusal = f"nothing is left of the window after the warm-up of the last switch: {error}"
    return Window(
        start_s=log.start_s,
        end_s=log.end_s,
        at_s=log.end_s if dated else clock_s,
        refusal=refusal,
        fingerprint=log.fingerprint,
        document={**log.to_json(), "refusal": refusal, "warm_up_dropped_s": start - log.start_s},
        profile={} if profile is None else profile.to_json(),
        study=study if profile is None else _with_requests(on_traffic(study, profile), traffic, log, start),
    )


def is_ahead(at_s: float, clock_s: float, end_s: float) -> bool:
    """Whether a time lies ahead of the clock and of the window's end as well: it was written under a wrong clock."""
    return at_s > max(clock_s, end_s) + CLOCK_SLACK_S


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
