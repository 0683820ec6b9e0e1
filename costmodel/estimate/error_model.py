"""What the calibration knows of plans' errors: how it moves an estimate, how sure it leaves it, and joint draws.

The residuals (`costmodel.calibration.residual`) are of the logs of TTFT and TPOT. They move TTFT but for the wait for
others to end, and TPOT; in a closed loop throughput follows (Little's law), and the wait with it, as the requests that
wait are served at the pace of those that run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from costmodel.calibration.residual import (
    FEATURES,
    REACH_SD,
    TARGETS,
    Residual,
    TargetResidual,
    features,
    full_covariance,
)
from costmodel.plan.columns import Floats, Ints, LayoutColumns

TARGET_CORRELATION = 0.4
"""Of the TPOT and TTFT residuals of a run: rank correlation of the out-of-sample errors of the measured runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Where plans lie in what the calibration was fitted on."""

    phi: Floats
    """Features, shape `(len(FEATURES), num_plans)`."""
    beyond: Floats
    """Doublings beyond the measured range, shape `(num_plans,)`."""

    @classmethod
    def of(cls, layout: LayoutColumns, in_flight_per_replica: Floats, isl: Floats, osl: Floats) -> Situation:
        """Of plans under a load; columns have shape `(num_plans,)` or `(1,)`."""
        gpus, experts = layout.width * layout.pp, (layout.moe_ep > 1.0).astype(np.float64)
        phi, beyond = features(in_flight_per_replica, gpus, isl, osl, experts, (layout.attn_dp, layout.pp))
        return cls(phi=phi, beyond=beyond)

    def reach_variance(self, target: str) -> Floats:
        """Variance of the log error for what lies beyond the measured range; `target` is `tpot` or `ttft`."""
        return np.asarray((REACH_SD[target] * self.beyond) ** 2)

    def factor(self, residual: Residual, target: str) -> tuple[Floats, Floats]:
        """Expected measured / formula, and the standard deviation of its log."""
        found: TargetResidual = getattr(residual, target)
        variance = found.shared_variance(self.phi) + found.own_variance(self.phi) + self.reach_variance(target)
        return np.exp(found.mean_log(self.phi)), np.sqrt(variance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """What a request takes in a closed loop. Arrays of one shape, or of shapes that broadcast."""

    first_s: Floats
    """Mean TTFT but for that wait."""
    wait_s: Floats
    """For others to end: for KV room, or in front of a replica that serves no more."""
    longest_extra_s: Floats
    """What the longest prompt takes beyond that."""
    tpot_s: Floats
    outputs: Floats | float
    """Output tokens after the first, mean."""

    @property
    def ttft_s(self) -> Floats:
        """Mean TTFT, the wait included."""
        return self.first_s + self.wait_s

    @property
    def ttft_longest_s(self) -> Floats:
        """TTFT of the longest prompt."""
        return self.ttft_s + self.longest_extra_s

    @property
    def e2e_s(self) -> Floats:
        """From arrival to the last token."""
        return self.ttft_s + self.outputs * self.tpot_s

    @property
    def running_s(self) -> Floats:
        """Time of a request once it need not wait."""
        return self.first_s + self.outputs * self.tpot_s

    @property
    def first_share(self) -> Floats:
        """The first token's share of that time."""
        return self.first_s / self.running_s

    def moved(self, ttft_factor: Floats, tpot_factor: Floats) -> tuple[Latencies, Floats]:
        """With errors in it, and what those make of every throughput, as a factor."""
        moved = replace(
            self,
            first_s=self.first_s * ttft_factor,
            longest_extra_s=self.longest_extra_s * ttft_factor,
            tpot_s=self.tpot_s * tpot_factor,
        )
        wait = self.wait_s * (moved.running_s / self.running_s)
        return replace(moved, wait_s=wait), self.running_s / moved.running_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """What the residuals make of an estimate. Arrays have shape `(num_plans,)` or `(1,)`."""

    ttft_factor: Floats
    """Of TTFT but for the wait for others to end."""
    tpot_factor: Floats
    ttft_log_sd: Floats
    tpot_log_sd: Floats

    @classmethod
    def of(cls, residual: Residual | None, situation: Situation) -> Correction:
        """The residuals' mean and spread; None leaves everything as it is, and sure."""
        if residual is None:
            return cls(ttft_factor=np.ones(1), tpot_factor=np.ones(1), ttft_log_sd=np.zeros(1), tpot_log_sd=np.zeros(1))
        (ttft, ttft_sd), (tpot, tpot_sd) = (situation.factor(residual, target) for target in ("ttft", "tpot"))
        return cls(ttft_factor=ttft, tpot_factor=tpot, ttft_log_sd=ttft_sd, tpot_log_sd=tpot_sd)

    @property
    def of_arrivals(self) -> Correction:
        """The same where requests arrive whatever the server does.

        What first tokens were off by beyond the pace of steps was learnt in closed loops, and is mostly how requests
        bunch there. Arrivals that do not wait for others do not bunch so: it is no expectation, but adds to what is not
        known.
        """
        beyond_log = np.log(self.ttft_factor / self.tpot_factor)
        return replace(self, ttft_factor=self.tpot_factor, ttft_log_sd=np.hypot(self.ttft_log_sd, beyond_log))

    def throughput_log_sd(self, ttft_share: Floats) -> Floats:
        """Standard deviation of the log of every throughput, where TTFT is such a share of a request's time."""
        first, rest = ttft_share * self.ttft_log_sd, (1.0 - ttft_share) * self.tpot_log_sd
        return np.sqrt(first * first + rest * rest + 2.0 * TARGET_CORRELATION * first * rest)


def draw_factors(
    cells: Sequence[tuple[Residual, Sequence[int]]],
    situation: Situation,
    *,
    draws: int,
    seed: int,
    own_seeds: Sequence[Sequence[int]] | None = None,
) -> tuple[Floats, Floats]:
    """Joint draws of measured / estimate of TTFT and of TPOT, each of shape `(num_plans, draws)`.

    Plans of one cell share the error of the cell's function; each has one more of its own.

    Args:
        cells: the residual of each cell, and the plans that lie in it.
        situation: of all plans.
        draws: how many.
        seed: of what plans share.
        own_seeds: of what each plan has of its own, which is the same whatever others it stands among; None: its place.
    """
    count = situation.beyond.size
    each = [(i,) for i in range(count)] if own_seeds is None else own_seeds
    random = np.random.default_rng(seed)
    shared = {target: random.standard_normal((len(FEATURES), draws)) for target in TARGETS}
    # (seed, 0) would be the generator of what they share: numpy pads a short seed with zeros
    drawn_alone = np.array(
        [np.random.default_rng((seed, 1, *one)).standard_normal((len(TARGETS), draws)) for one in each]
    )
    own = {target: drawn_alone[:, i] for i, target in enumerate(TARGETS)}
    for drawn in (shared, own):
        drawn["ttft"] = TARGET_CORRELATION * drawn["tpot"] + np.sqrt(1.0 - TARGET_CORRELATION**2) * drawn["ttft"]
    error = {target: np.empty((count, draws)) for target in TARGETS}
    for residual, plans in cells:
        here = Situation(phi=situation.phi[:, plans], beyond=situation.beyond[plans])
        for target in TARGETS:
            found: TargetResidual = getattr(residual, target)
            root = _root(found.covariance[0])
            spread = np.sqrt(found.own_variance(here.phi) + here.reach_variance(target))
            error[target][plans] = here.phi.T @ (root @ shared[target]) + spread[:, None] * own[target][plans]
    return np.exp(error["ttft"]), np.exp(error["tpot"])


def gap_log_sd(residual: Residual, situation: Situation, ttft_share: Floats, first: Ints, second: Ints) -> Floats:
    """Standard deviation of log(throughput of one plan / that of another), of pairs of plans of one cell.

    What both share moves them by as much as their features agree; what each has of its own adds up. Errors of TTFT and
    of TPOT count as independent here.

    Args:
        residual: of all plans; pairs lie within a cell.
        situation: of all plans.
        ttft_share: of a request's time, shape `(num_plans,)`.
        first: one plan of each pair, shape `(num_pairs,)`.
        second: the other.
    """
    variance = np.zeros(first.size)
    for target, weight in (("tpot", 1.0 - ttft_share), ("ttft", ttft_share)):
        found: TargetResidual = getattr(residual, target)
        loading = (situation.phi * weight).T
        covariance = full_covariance(np.broadcast_to(found.covariance, (len(loading), found.covariance.shape[1])))
        apart = loading[first] - loading[second]
        own = np.broadcast_to(found.own_variance(situation.phi), (len(loading),)) * weight**2
        common = np.maximum(np.einsum("pi,pij,pj->p", apart, covariance[first], apart), 0.0)
        variance = variance + common + own[first] + own[second]
    return np.sqrt(variance)


def _root(triangle: Floats) -> Floats:
    """Square root of a covariance given as its lower triangle; rounding may leave it barely indefinite."""
    values, vectors = np.linalg.eigh(full_covariance(triangle))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
