"""A long log by windows of it at every level of load, weighted by what they stand for.

Before each window come the requests that fill the servers, and behind it those that keep them full until its own are
through: without these the last requests of a window would decode in a server that empties.

Windows of one length are ordered by the work that comes in them and before them, and cut into strata; of each stratum
a few are simulated. A request stands for as many as its stratum has for each that was simulated. The error of that is
estimated from how the windows of a stratum differ (ratio estimator of a stratified sample of clusters; for percentiles
Woodruff's interval, J. Am. Stat. Assoc. 47 (1952) 635: the share's error, read off the distribution).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from costmodel.estimate.normal import student90
from costmodel.plan.columns import Floats, Ints
from costmodel.simulation.requests import Requests
from costmodel.simulation.served import percentile

STRATA = (0.0, 0.25, 0.5, 0.75, 0.9, 0.97, 1.0)
"""Shares of the log's time, by load: the fullest, where percentiles are decided, are looked at most."""
WINDOWS_OF_EACH = 4
WINDOW_REQUESTS = 40
"""Requests of a window, on average, at least; and it lasts at least as long as its warm-up."""
OUTPUT_WORK = 8.0
"""Work of an output token over a prompt token's, about: it orders the windows, and decides nothing else."""
IDLE_S = 1e4
"""Between two windows as they are simulated: whatever waits is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledWindows:
    """Windows of a log, one behind the other, with long pauses between them.

    On either side of a window as much of the log is simulated as requests take, and not counted.
    """

    requests: Requests
    """Of all windows with what goes before and behind them."""
    place: Ints
    """Of each of them in the log. Shape `(num_requests,)`."""
    window: Ints
    """Of each request; -1: it is not counted. Shape `(num_requests,)`."""
    begin_s: Floats
    end_s: Floats
    """Of each window alone, as it is simulated. Shape `(num_windows,)`."""
    stratum: Ints
    weight: Floats
    """Requests of the log that each of a window's stands for."""
    left_frac: Floats
    """Share of the windows of its stratum that were not simulated."""
    of_requests: int
    """Requests of the log."""
    warm_up_s: float

    @property
    def simulated_s(self) -> float:
        """Time that is simulated, without the pauses."""
        return float((self.end_s - self.begin_s).sum()) + 2.0 * self.warm_up_s * self.begin_s.size

    def words(self) -> str:
        """What was simulated of what, for an answer."""
        return (
            f"{len(self.requests):,} of the log's {self.of_requests:,} requests, in {self.begin_s.size} windows at all "
            "levels of load"
        )

    def window_at(self, times_s: Floats) -> Ints:
        """The window that a time lies in; -1: none."""
        found = np.searchsorted(self.begin_s, times_s, side="right") - 1
        inside = (found >= 0) & (times_s <= self.end_s[np.maximum(found, 0)])
        return np.where(inside, found, -1)

    def slowed(self, factor: float) -> SampledWindows:
        """Its windows with every time so many times as long."""
        return replace(self, begin_s=self.begin_s * factor, end_s=self.end_s * factor)

    def thinned(self) -> SampledWindows:
        """Every second window of each stratum in place of all of them; the others have no weight."""
        sizes = np.bincount(self.window[self.window >= 0], minlength=self.stratum.size)
        kept = np.zeros(self.stratum.size, dtype=bool)
        for stratum in np.unique(self.stratum):
            # not always the first of them, which is the earliest
            own = np.flatnonzero(self.stratum == stratum)
            kept[own[stratum % 2 if own.size > 1 else 0 :: 2]] = True
        stood_for, taken = (np.bincount(self.stratum, part) for part in (sizes * self.weight, sizes * kept))
        weight = (stood_for / np.maximum(taken, 1))[self.stratum]
        return replace(
            self,
            window=np.where((self.window >= 0) & kept[self.window], self.window, -1),
            weight=np.where(kept, weight, 0.0),
        )

    def half_width(self, window: Ints, weights: Floats, values: Floats) -> float:
        """Half the 80 % interval of the weighted mean of values; arrays of one shape, `window` of each value.

        Few windows say how much they differ with an error of their own: Student's quantile, with as many degrees of
        freedom as Satterthwaite (Biometrics Bull. 2 (1946) 110) gives a sum of variances.
        """
        whole = float(weights.sum())
        mean = float((weights * values).sum()) / whole
        residual = np.bincount(window, weights * (values - mean), minlength=self.stratum.size)
        variance = spread = 0.0
        for stratum in np.unique(self.stratum):
            own = self.stratum == stratum
            if (count := int(own.sum())) > 1:
                part = float(self.left_frac[own][0] * count * residual[own].var(ddof=1))
                variance, spread = variance + part, spread + part * part / (count - 1)
        if variance == 0.0:
            return 0.0
        return student90(variance * variance / spread) * float(np.sqrt(variance)) / whole

    def error(self, window: Ints, weights: Floats, values: Floats, statistic: str) -> float:
        """Half the 80 % interval of a mean or a percentile that sampling leaves open, in the unit of the values."""
        if values.size == 0:
            return float("nan")
        if statistic == "mean":
            return self.half_width(window, weights, values)
        share = float(statistic[1:])
        found = percentile(values, share, weights)
        off = 100.0 * self.half_width(window, weights, (values <= found).astype(np.float64))
        ends = (percentile(values, min(max(x, 0.0), 100.0), weights) for x in (share - off, share + off))
        low, high = ends
        return 0.5 * (high - low)


def sample_windows(requests: Requests, warm_up_s: float, shorter_warm_up_s: float = np.inf) -> SampledWindows | None:
    """Windows of a log that stand for all of it; None where they would be a third of it or more.

    Servers fill up in the warm-up, and stay full for as long behind a window: it should be longer than a request takes.
    A plan that is quicker than most may have a shorter one; its windows are the same.
    """
    times = requests.arrival_s
    begin_s, lasted_s = float(times[0]), float(times[-1] - times[0])
    window_s = max(WINDOW_REQUESTS * lasted_s / len(requests), warm_up_s)
    count = int(lasted_s / window_s)
    wanted = WINDOWS_OF_EACH * (len(STRATA) - 1)
    if count * window_s < 3.0 * wanted * (window_s + 2.0 * warm_up_s):
        return None
    edges = np.linspace(begin_s, begin_s + lasted_s, count + 1)
    window_s = lasted_s / count
    place = np.minimum(((times - begin_s) / window_s).astype(np.int64), count - 1)
    work = np.bincount(place, requests.prompt - requests.cached + OUTPUT_WORK * requests.output, minlength=count)
    before = max(int(np.ceil(warm_up_s / window_s)), 1)
    reached = np.convolve(work, np.ones(before + 1), mode="full")[:count]
    strata, chosen = _chosen(reached)
    return _laid_out(
        requests, edges, np.bincount(place, minlength=count), (strata, chosen), min(warm_up_s, shorter_warm_up_s)
    )


def _chosen(load: Floats) -> tuple[Ints, Ints]:
    """The stratum of every window, and the windows that are simulated, ascending: at equal distances by load."""
    order = np.argsort(load, kind="stable")
    bounds = np.round(np.array(STRATA) * load.size).astype(np.int64)
    strata = np.empty(load.size, dtype=np.int64)
    chosen = []
    for number, (low, high) in enumerate(pairwise(bounds.tolist())):
        strata[order[low:high]] = number
        places = low + ((np.arange(WINDOWS_OF_EACH) + 0.5) * (high - low) / WINDOWS_OF_EACH).astype(np.int64)
        chosen.append(order[np.unique(places)])
    return strata, np.sort(np.concatenate(chosen))


def _laid_out(
    requests: Requests, edges: Floats, sizes: Ints, picked: tuple[Ints, Ints], warm_up_s: float
) -> SampledWindows:
    """The chosen windows with what goes before and behind them, moved together."""
    strata, chosen = picked
    times = requests.arrival_s
    parts, windows, arrivals = [], [], []
    begin_s, end_s = np.empty(chosen.size), np.empty(chosen.size)
    for number, window in enumerate(chosen.tolist()):
        start, last = float(edges[window]), float(edges[window + 1])
        low, first, behind, high = np.searchsorted(times, (start - warm_up_s, start, last, last + warm_up_s))
        moved = number * IDLE_S - (start - warm_up_s)
        index = np.arange(low, high)
        parts.append(index)
        windows.append(np.where((index >= first) & (index < behind), number, -1))
        arrivals.append(times[index] + moved)
        begin_s[number], end_s[number] = start + moved, last + moved
    place = np.concatenate(parts)
    found = requests.take(place)
    stratum = strata[chosen]
    whole = np.bincount(strata, sizes)
    sampled = np.bincount(stratum, sizes[chosen], minlength=whole.size)
    in_stratum, taken = np.bincount(strata), np.bincount(stratum, minlength=whole.size)
    return SampledWindows(
        requests=Requests(
            arrival_s=np.concatenate(arrivals), prompt=found.prompt, cached=found.cached, output=found.output
        ),
        place=place,
        window=np.concatenate(windows),
        begin_s=begin_s,
        end_s=end_s,
        stratum=stratum,
        weight=(whole / np.maximum(sampled, 1))[stratum],
        left_frac=(1.0 - taken / np.maximum(in_stratum, 1))[stratum],
        of_requests=len(requests),
        warm_up_s=warm_up_s,
    )


def busiest_window(requests: Requests, count: int) -> SampledWindows:
    """The `count` requests of a log, one behind the other, that bring the most work in the time in which they come.

    They are alone, with nothing before and behind them.
    """
    times = requests.arrival_s
    work = np.concatenate(([0.0], np.cumsum(requests.prompt - requests.cached + OUTPUT_WORK * requests.output)))
    first = np.arange(len(requests) - count + 1)
    took_s = times[first + count - 1] - times[first]
    begin = int(((work[first + count] - work[first]) / np.maximum(took_s, 1e-9)).argmax())
    place = np.arange(begin, begin + count)
    one = np.ones(1)
    return SampledWindows(
        requests=requests.take(place),
        place=place,
        window=np.zeros(count, dtype=np.int64),
        begin_s=times[place[:1]],
        end_s=times[place[-1:]],
        stratum=np.zeros(1, dtype=np.int64),
        weight=one,
        left_frac=one - count / len(requests),
        of_requests=len(requests),
        warm_up_s=0.0,
    )
