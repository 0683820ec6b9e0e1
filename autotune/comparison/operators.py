"""Where the difference comes from: GPU-seconds of a request by phase and operator (`autotune.scoring.gpu_time`)."""

from __future__ import annotations

from autotune.comparison.values import TimeRow
from autotune.scoring.gpu_time import gpu_s_per_request, operator_words
from autotune.tuning import PlanResult

SHOWN_FRAC = 0.01
"""Changes below this share of a request's GPU-seconds are not worth a word."""


def time_rows(current: PlanResult, candidate: PlanResult) -> tuple[TimeRow, ...]:
    """Every operator of either plan, the largest gain first."""
    before, after = gpu_s_per_request(current), gpu_s_per_request(candidate)
    whole = sum(before.values())
    rows = [
        TimeRow(
            phase=phase,
            operator=group,
            current_gpu_s=before.get((phase, group), 0.0),
            candidate_gpu_s=after.get((phase, group), 0.0),
            gain_frac=(before.get((phase, group), 0.0) - after.get((phase, group), 0.0)) / whole,
        )
        for phase, group in dict.fromkeys([*before, *after])
    ]
    return tuple(sorted(rows, key=lambda r: -r.gain_frac))


def where_from(rows: tuple[TimeRow, ...], top: int = 4) -> tuple[str, ...]:
    """The largest changes in words, such as `-41 % all-reduce in decode (12 % of a request's GPU time)`."""
    shown = [r for r in rows if abs(r.gain_frac) >= SHOWN_FRAC]
    shown.sort(key=lambda r: -abs(r.gain_frac))
    return tuple(_words(r) for r in shown[:top])


def _words(row: TimeRow) -> str:
    name = operator_words(row.operator, row.phase)
    effect = f"{'saves' if row.gain_frac > 0 else 'costs'} {abs(row.gain_frac):.0%} of a request's GPU time"
    if row.phase == "rest":
        return f"{'less waiting or more' if row.gain_frac > 0 else 'more waiting or less'} overlap of steps ({effect})"
    if row.current_gpu_s <= 0.0:
        return f"{name} is new ({effect})"
    if row.candidate_gpu_s == 0.0:
        return f"no {name} any more ({effect})"
    change = row.candidate_gpu_s / row.current_gpu_s - 1.0
    by = f"{change:+.0%}" if change < 1.0 else f"x{change + 1.0:.1f}"
    return f"{by.replace('-', '−')} {name} ({effect})"
