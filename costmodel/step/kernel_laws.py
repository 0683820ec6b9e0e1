"""The law of a kernel: launch time plus a smoothed roofline of its FLOPs and HBM bytes.

    t = t0 + max(t_math, t_hbm) + overlap_loss * min(t_math, t_hbm)

`overlap_loss` is the share of the shorter of the two that is not hidden behind the longer: 0 is the ideal
roofline, 1 is no overlap at all, so that max <= t - t0 <= sum, and more work is never faster.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from costmodel.plan.columns import Columns, Floats

MOST_MATH_EFF = 0.92
MOST_HBM_EFF = 0.95
"""Shares of the peaks that no fitted law may exceed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate(Columns):
    """A kernel's law with the hardware's peaks already in it. Shape `(num_plans,)` or `(1,)`."""

    t0_s: Floats
    flops_per_s: Floats
    """Peak of the compute dtype times the fitted efficiency."""
    bytes_per_s: Floats
    """HBM peak times the fitted efficiency."""
    overlap_loss: Floats
    pad_rows: Floats
    """Grouped GEMMs: rows of padding that each expert hit costs (tiles that its rows do not fill); else 0."""
    row_passes: Floats
    """Grouped GEMMs: times that a row of the model's width goes through HBM (gathered, quantised, read, written,
    scattered, summed); else 0. Tensor parallelism spares no rank any of it."""
    peak_flops_per_s: Floats
    """The dense peak itself, for utilisation."""
    peak_bytes_per_s: Floats
    """The HBM peak itself."""

    def slowed(self, factor: Floats, math: Floats, hbm: Floats) -> Rate:
        """The law `factor` times as long, its FLOPs `math` and its bytes `hbm` times longer still, within physics."""
        return replace(
            self,
            t0_s=self.t0_s * factor,
            flops_per_s=np.minimum(self.flops_per_s / (factor * math), MOST_MATH_EFF * self.peak_flops_per_s),
            bytes_per_s=np.minimum(self.bytes_per_s / (factor * hbm), MOST_HBM_EFF * self.peak_bytes_per_s),
        )

    def seconds(self, flops: Floats, hbm_bytes: Floats) -> Floats:
        """Seconds of one call."""
        math_s, hbm_s = flops / self.flops_per_s, hbm_bytes / self.bytes_per_s
        total, shorter = np.maximum(math_s, hbm_s), np.minimum(math_s, hbm_s)
        # in place: most of a search's time goes into moving such columns through the caches
        shorter *= self.overlap_loss
        total += shorter
        total += self.t0_s
        return total

    def moving_s(self, hbm_bytes: Floats) -> Floats:
        """Seconds of one call that moves bytes alone."""
        return self.t0_s + hbm_bytes / self.bytes_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLaw:
    """The law of a kernel whose FLOPs and bytes grow with its rows. Shape `(num_plans,)` or `(1,)`.

    As `overlap_loss` is at most 1, the law is the larger of two lines: the FLOPs' with a share of the bytes, and the
    bytes' with a share of the FLOPs.
    """

    math_start_s: Floats
    math_s_per_row: Floats
    hbm_start_s: Floats
    hbm_s_per_row: Floats

    @classmethod
    def of(cls, rate: Rate, flops_per_row: Floats, hbm_bytes: Floats, hbm_bytes_per_row: Floats) -> RowLaw:
        """Of a kernel that moves `hbm_bytes` whatever its rows."""
        math_s, hbm_s = flops_per_row / rate.flops_per_s, hbm_bytes_per_row / rate.bytes_per_s
        weights_s = hbm_bytes / rate.bytes_per_s
        return cls(
            math_start_s=rate.t0_s + rate.overlap_loss * weights_s,
            math_s_per_row=math_s + rate.overlap_loss * hbm_s,
            hbm_start_s=rate.t0_s + weights_s,
            hbm_s_per_row=hbm_s + rate.overlap_loss * math_s,
        )

    def at(self, present: Floats | float) -> RowLaw:
        """The law where `present` is 1, and no time where it is 0."""
        return RowLaw(**{f.name: getattr(self, f.name) * present for f in fields(self)})

    def seconds(self, rows: Floats) -> Floats:
        """Seconds of one call."""
        math_s, hbm_s = rows * self.math_s_per_row, rows * self.hbm_s_per_row
        math_s = math_s + self.math_start_s
        hbm_s = hbm_s + self.hbm_start_s
        return np.maximum(math_s, hbm_s)
