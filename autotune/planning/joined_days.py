"""Days made of a short log: its requests, drawn again and again, at a rate that goes up and down by the hour.

Public traces of single requests last an hour. What a day's planning needs beside them is how load moves, and that is
said here in the open: a sine over the waking hours, quiet weekends, and errors of days and hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from autotune.planning.loads import DAY_S
from autotune.traffic.traffic_log import TrafficLog
from costmodel.errors import InputError

HOURS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class DayShape:
    """How the rate of requests moves."""

    peak_per_s: float
    """Mean rate of the fullest hour of a working day."""
    quiet_frac: float = 0.15
    """Of it, at night."""
    weekend_frac: float = 0.7
    day_log_sd: float = 0.08
    hour_log_sd: float = 0.06
    seed: int = 3

    def hour_per_s(self, hour: int) -> float:
        """Rate in an hour of a working day: a sine from 6 to 18 o'clock above the quiet of the night."""
        risen = max(float(np.sin((hour + 0.5 - 6.0) / HOURS * 2.0 * np.pi)), 0.0)
        return self.peak_per_s * (self.quiet_frac + (1.0 - self.quiet_frac) * risen)


def joined_days(
    log: TrafficLog, shape: DayShape, *, days: int, start: datetime = datetime(2023, 11, 13, tzinfo=UTC)
) -> str:
    """A log in CSV, with the header of Azure's traces, of days that begin at midnight.

    Args:
        log: whose pairs of lengths are drawn, each as likely.
        shape: how the rate moves.
        days: how many.
        start: midnight of the first; a Monday as it stands.

    Raises:
        InputError: the log holds no requests.
    """
    held = log.columns
    if held is None or held.times_s.size == 0:
        raise InputError.single(log.source, "must hold requests")
    random = np.random.default_rng(shape.seed)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for day in range(days):
        of_day = np.exp(random.normal(0.0, shape.day_log_sd)) * (shape.weekend_frac if day % 7 >= 5 else 1.0)
        for hour in range(HOURS):
            rate = shape.hour_per_s(hour) * of_day * np.exp(random.normal(0.0, shape.hour_log_sd))
            count = int(random.poisson(rate * 3600.0))
            times = start.timestamp() + day * DAY_S + hour * 3600.0 + np.sort(random.uniform(0.0, 3600.0, count))
            index = random.integers(0, held.times_s.size, count)
            for at, row in zip(times.tolist(), index.tolist(), strict=True):
                stamp = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
                lines.append(f"{stamp},{held.prompt[row]},{held.output[row]}")
    return "\n".join(lines) + "\n"
