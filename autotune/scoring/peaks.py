"""Sequences that a rank is started for: beyond those expected, for its peaks, and short of its KV room."""

from __future__ import annotations

from math import ceil

from autotune.study import Workload

KV_MARGIN_FRAC = 0.05
"""KV room kept free beyond sequences of mean length: the memory model is good to a few per cent."""
PEAK_SD = 3.0
"""Standard deviations that a rank's sequences may lie above their mean."""
UNSURE_FRAC = 0.2
"""What a rank is started for beyond the mean at least: requests take as long as steps do, whose 80 % likely range ends
16 to 22 % above the estimate. With fewer, servers that evenly spaced requests fill would let them wait without end."""


def peak_variance(work: Workload) -> float:
    """Variance of the sequences of a rank over their mean: 1 for Poisson arrivals, 0 for even ones of equal requests.

    `1 + (cv2 - 1) E[min(S, S')] / E[S]`, the limit of many requests in flight that do not wait for each other (Whitt,
    On the heavy-traffic limit theorem for GI/G/infinity queues, Adv. Appl. Prob. 14, 1982). `cv2` is the squared
    coefficient of variation of the gaps between arrivals, `S` and `S'` are the times of two requests, which last as
    their outputs are long: `E[min(S, S')]` is the integral of `(1 - F)^2`, all of `E[S]` where they are equal and half
    of it where they are exponential.

    Over 45 simulated loads of constant, Poisson and bursty (cv 3) arrivals each, 40 to 85 % of what plans of 8B models
    on 1 to 8 GPUs serve, it is 0.85, 0.75 and 0.62 times theirs at the median, where 1 is 12, 0.75 and 0.07 times.
    Gaps are those of all requests, though routers deal them out to replicas in turn: what that takes from the variance,
    requests that slow each other down add. Chosen on 45 others, as is `UNSURE_FRAC`.
    """
    if work.request_rate_per_s is None:  # closed loops end at random
        return 1.0
    if work.points:
        kinds = [(kind.weight, kind.osl) for kind in work.points]
        mean = sum(weight * osl for weight, osl in kinds)
        shorter = sum(one * other * min(a, b) for one, a in kinds for other, b in kinds)
    else:
        mean, shorter = work.osl.mean, work.osl.min + (work.osl.max - work.osl.min) / 3.0
    return 1.0 + (work.arrival_cv**2 - 1.0) * shorter / mean


def with_peaks(seqs: float, variance: float) -> int:
    """Sequences of a rank at its peaks: a limit at the mean would make requests wait while other ranks have room.

    `variance` is over the mean, `seqs` (`peak_variance`).
    """
    return ceil(seqs + max(_peaks(seqs, variance), UNSURE_FRAC * seqs))


def peaks_words(seqs: float, variance: float) -> str:
    """What `with_peaks` adds, in words."""
    if _peaks(seqs, variance) < UNSURE_FRAC * seqs:
        return f"{UNSURE_FRAC:.0%} more, as requests may take longer than estimated"
    of = "Poisson arrivals" if variance == 1.0 else f"the study's arrivals (variance {variance:.3g} times the mean)"
    return f"{PEAK_SD:g} standard deviations of {of}"


def _peaks(seqs: float, variance: float) -> float:
    return PEAK_SD * float(variance * seqs) ** 0.5
