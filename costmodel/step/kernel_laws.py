"""The law of a kernel: launch time plus a smoothed roofline of its FLOPs and HBM bytes.

    t = t0 + max(t_math, t_hbm) + overlap_loss * min(t_math, t_hbm)

`overlap_loss` is the share of the shorter of the two that is not hidden behind the longer: 0 is the ideal
roofline, 1 is no overlap at all, so that max <= t - t0 <= sum, and more work is never faster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        return _law_s(self.t0_s, flops / self.flops_per_s, hbm_bytes / self.bytes_per_s, self.overlap_loss)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLaw:
    """The law of a kernel over rows, what a row costs already divided by the rates. Shape `(num_plans,)` or `(1,)`."""

    t0_s: Floats
    math_s_per_row: Floats
    hbm_s: Floats
    """Of the weights, whatever the rows."""
    hbm_s_per_row: Floats
    overlap_loss: Floats

    def seconds(self, rows: Floats) -> Floats:
        """Seconds of one call."""
        return _law_s(self.t0_s, rows * self.math_s_per_row, self.hbm_s + rows * self.hbm_s_per_row, self.overlap_loss)


def _law_s(t0_s: Floats, math_s: Floats, hbm_s: Floats, overlap_loss: Floats) -> Floats:
    # in place: most of a search's time goes into moving such columns through the caches
    total, shorter = np.maximum(math_s, hbm_s), np.minimum(math_s, hbm_s)
    shorter *= overlap_loss
    total += shorter
    total += t0_s
    return total
