"""What simulated requests met, one by one, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costmodel.plan.columns import Floats, Ints
from costmodel.simulation.requests import Requests

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Requests that were simulated. Every array has shape `(num_requests,)`; seconds.

    A request that was not through when the simulation ended has an infinite `finish_s`, and maybe `first_token_s`.
    """

    requests: Requests
    first_token_s: Floats
    finish_s: Floats

    @property
    def ttft_s(self) -> Floats:
        """Arrival to first token at the client."""
        return self.first_token_s - self.requests.arrival_s

    @property
    def e2e_s(self) -> Floats:
        """Arrival to last token at the client."""
        return self.finish_s - self.requests.arrival_s

    @property
    def tpot_s(self) -> Floats:
        """(End to end - TTFT) / (output tokens - 1) of each request; 0 where it has one token."""
        outputs = self.requests.output - 1
        return np.where(outputs > 0, (self.finish_s - self.first_token_s) / np.maximum(outputs, 1), 0.0)

    def keeps(self, *, ttft_s: float | None, tpot_s: float | None, e2e_s: float | None) -> NDArray[np.bool_]:
        """Which requests keep all of these limits at once; None is no limit."""
        kept = np.isfinite(self.finish_s)
        for values, limit in ((self.ttft_s, ttft_s), (self.tpot_s, tpot_s), (self.e2e_s, e2e_s)):
            if limit is not None:
                kept &= values <= limit
        return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Values of which a mean or a percentile is asked."""

    values: Floats
    weights: Floats | None = None
    """How many there are of each, same shape; None: one."""
    window: Ints | None = None
    """Of each, where windows of a log were sampled."""

    def where(self, chosen: NDArray[np.bool_]) -> Figures:
        """Some of them."""
        return Figures(
            values=self.values[chosen],
            weights=None if self.weights is None else self.weights[chosen],
            window=None if self.window is None else self.window[chosen],
        )

    def statistic(self, name: str) -> float:
        """`mean`, or a percentile such as `p95`; NaN where there are no values."""
        return self.statistics((name,))[name]

    def statistics(self, names: Sequence[str]) -> dict[str, float]:
        """Several of them."""
        if self.values.size == 0:
            return dict.fromkeys(names, float("nan"))
        shares = [name for name in names if name != "mean"]
        found = dict(
            zip(shares, percentiles(self.values, [float(name[1:]) for name in shares], self.weights), strict=True)
        )
        if "mean" in names:
            found["mean"] = float(np.average(self.values, weights=self.weights))
        return {name: found[name] for name in names}


def percentile(values: Floats, share: float, weights: Floats | None = None) -> float:
    """The value that `share` per cent of the values do not exceed (nearest rank, no interpolation)."""
    return percentiles(values, (share,), weights)[0]


def percentiles(values: Floats, shares: Sequence[float], weights: Floats | None = None) -> list[float]:
    """The same for several shares, of values that are ordered once."""
    last = values.size - 1
    if last < 0:
        return [float("nan")] * len(shares)
    if not shares:
        return []
    if weights is None:
        places = [min(max(int(np.ceil(share / 100.0 * values.size)) - 1, 0), last) for share in shares]
        found = np.partition(values, places)
        return [float(found[place]) for place in places]
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    places = [int(np.searchsorted(reached, share / 100.0 * reached[-1] * (1.0 - 1e-12))) for share in shares]
    return [float(values[order[min(place, last)]]) for place in places]
