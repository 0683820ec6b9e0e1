"""A request log as days of steps: how much comes at the same time of each day."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autotune.traffic.profile import WorkloadProfile, profile_of_arrays
from autotune.traffic.requests import Columns
from autotune.traffic.traffic_log import TrafficLog
from costmodel.errors import InputError
from costmodel.plan.columns import Floats, Ints

DAY_S = 86_400
BIN_S = 60.0
"""A step's load is that of its fullest minute: limits are to hold in it."""
COVERED_FRAC = 0.5
"""Share of a step that a log has to cover, at least, for the step to count."""
MIN_REQUESTS = 20
"""Of a step over all days; fewer are no traffic to judge lengths by."""
MOST_MIXES = 8
"""Kinds of traffic in a day: steps shorter than three hours share lengths."""


EPOCH_WEEKDAY, SATURDAY = 3, 5
"""Days of the week from Monday on: 1 January 1970 was a Thursday."""
FIRST_DATE_S = 86_400 * 365.0
"""A clock that has less is a log's own and not the date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayLoads:
    """Days of a log, cut into the same steps. Tables have shape `(days, steps)`; NaN: the log covers too little."""

    step_s: int
    starts_s: Ints
    """Of the steps, seconds from midnight UTC (or from the log's own zero)."""
    peak_per_s: Floats
    """Requests per second in the fullest minute of each step."""
    mean_per_s: Floats
    midnight_s: float
    """Of the first day, on the log's clock."""
    requests: Columns

    @property
    def days(self) -> int:
        """How many days the log touches."""
        return int(self.peak_per_s.shape[0])

    @property
    def whole_day(self) -> bool:
        """Whether the steps fill a day, so that its end is the beginning of the next."""
        return len(self.starts_s) * self.step_s == DAY_S

    def weekend(self) -> NDArray[np.bool_]:
        """Whether the days of the log, and the one that follows, are Saturdays or Sundays in UTC.

        No day is one where times are counted from the log's own zero.
        """
        of_week = (self.midnight_s // DAY_S + np.arange(self.days + 1) + EPOCH_WEEKDAY) % 7
        return np.asarray((of_week >= SATURDAY) & (self.midnight_s >= FIRST_DATE_S))

    def first_days(self, count: int) -> DayLoads:
        """The same without later days."""
        return replace(self, peak_per_s=self.peak_per_s[:count], mean_per_s=self.mean_per_s[:count])

    def requests_of_day(self, day: int) -> Columns:
        """The requests of one day, times in seconds from its midnight."""
        start = self.midnight_s + day * DAY_S
        held = self.requests.between(start, np.nextafter(start + DAY_S, start))
        return replace(held, times_s=held.times_s - start)

    def mixes(self) -> tuple[tuple[WorkloadProfile, ...], Ints]:
        """Kinds of traffic by the time of day, over all days, and which of them each step has.

        A time with too few requests has the traffic of the whole log.
        """
        slot_s = max(self.step_s, DAY_S // MOST_MIXES)
        slots = self.starts_s // slot_s
        of_day = (self.requests.times_s - self.midnight_s) % DAY_S // slot_s
        whole = _profile(self.requests, np.ones(of_day.size, dtype=bool))
        profiles: list[WorkloadProfile] = []
        index = np.empty(slots.size, dtype=np.int64)
        for slot in np.unique(slots):
            inside = of_day == slot
            index[slots == slot] = len(profiles)
            profiles.append(whole if inside.sum() < MIN_REQUESTS else _profile(self.requests, inside))
        return tuple(profiles), index


def day_loads(source: str, log: TrafficLog, *, step_s: float) -> DayLoads:
    """Cut a log into steps of days.

    `step_s` divides a day.

    Raises:
        InputError: the log holds no requests with times or covers no step, or the step does not divide a day.
    """
    step = round(step_s)
    if step != step_s or DAY_S % max(step, 1) or step < BIN_S:
        raise InputError.single("--step", f"must be at least 1m and divide a day evenly, got {step_s:g} s")
    if log.refusal is not None:
        raise InputError.single(source, log.refusal)
    held = log.columns
    if held is None:
        raise InputError.single(source, "must be a log of requests: of metrics the times of day are not known")
    if held.times_s.size < MIN_REQUESTS:
        raise InputError.single(source, f"must hold {MIN_REQUESTS} requests or more, got {held.times_s.size}")
    midnight = float(log.start_s // DAY_S * DAY_S)
    days = int((log.end_s - midnight) // DAY_S) + 1
    per_day, per_step = DAY_S // step, int(step // BIN_S)
    covered = _covered_s(log.start_s - midnight, log.end_s - midnight, step, days * per_day)
    counts = minute_counts(held.times_s - midnight, days * DAY_S) * held.requests_each
    by_step = counts[: days * per_day * per_step].reshape(days * per_day, per_step)
    counted = covered >= COVERED_FRAC * step
    peaks = np.where(counted, by_step.max(axis=1) / BIN_S, np.nan).reshape(days, per_day)
    means = np.where(counted, by_step.sum(axis=1) / np.maximum(covered, 1.0), np.nan).reshape(days, per_day)
    seen = np.flatnonzero(~np.isnan(peaks).all(axis=0))
    if seen.size == 0:
        raise InputError.single("--step", f"must fit the log, which lasts {log.end_s - log.start_s:,.0f} s")
    filled = ~np.isnan(peaks).all(axis=1)
    last = int(np.flatnonzero(filled)[-1]) + 1
    return DayLoads(
        step_s=step,
        starts_s=seen * step,
        peak_per_s=peaks[:last, seen],
        mean_per_s=means[:last, seen],
        midnight_s=midnight,
        requests=held,
    )


def minute_counts(times_s: Floats, until_s: float) -> Floats:
    """Requests in each minute from 0 s."""
    bins = int(np.ceil(until_s / BIN_S))
    index = np.clip((times_s // BIN_S).astype(np.int64), 0, bins - 1)
    return np.bincount(index, minlength=bins).astype(np.float64)


def _covered_s(start_s: float, end_s: float, step_s: int, steps: int) -> Floats:
    """Seconds of each step that lie within a log."""
    edges = np.arange(steps + 1, dtype=np.float64) * step_s
    return np.maximum(np.minimum(edges[1:], end_s) - np.maximum(edges[:-1], start_s), 0.0)


def _profile(requests: Columns, inside: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> WorkloadProfile:
    times = requests.times_s[inside]
    return profile_of_arrays(
        times,
        requests.prompt[inside].astype(np.float64),
        requests.output[inside].astype(np.float64),
        end_s=max(float(times[-1]), float(times[0]) + BIN_S),
        requests_each=requests.requests_each,
    )
