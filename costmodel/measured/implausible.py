"""Measured runs that contradict physics, by rules: they are neither fitted nor scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from costmodel.arch import active_params, total_params, weight_bytes
from costmodel.dtypes import compute_dtype
from costmodel.measured.load_runs import Lengths, LoadRun
from costmodel.measured.runs import Run

WAITS_PER_RUN = 2.0
"""TTFT over the time that a request then runs, above which it mostly waits (Little's law: two thirds of all would)."""
WAITS_PER_PROMPTS = 5.0
"""TTFT over the time of all prompts in flight at the GPUs' peak, above which it is not prefill that it waits for."""
WAITING_IN_FLIGHT = 64.0
"""Up to so many requests in flight a server is not taken to be overloaded."""

COUNTED_SHORT = 1.1
"""Time per output token of the mean request over that of the median one, above which the count of outputs is wrong."""
FIRST_SHARE = 0.2
"""Share of TTFT in the time of a request up to which that comparison holds: the rest is decoding."""
UNDER_WAY = 2.0
"""Requests under way over a server's seats, from which on it is overloaded: as many wait for a seat as have one."""


def contradiction(run: Run) -> str | None:
    """Why a run cannot be what it says; None where nothing speaks against it.

    - Its TPOT is below the time of reading the active weights once at the peak of HBM: it decodes speculatively.
    - Its TTFT is below the time of its prompt's products with the weights at the dense peak, without a prefix cache.
    - With few requests in flight its TTFT is a multiple of the time that a request then runs, and of what all prompts
      in flight take: something stood still.
    """
    arch, gpu = run.entry.arch, run.entry.cluster.gpu
    gpus = run.entry.layout.gpus / run.entry.layout.replicas
    active = active_params(arch)
    # the mean of all weights, which are mostly experts, and those are not stored wider than the rest
    read_s = active * (weight_bytes(arch) / total_params(arch)) / (gpus * gpu.hbm_bytes_per_s)
    if run.tpot_s < read_s:
        return "TPOT is below the weights' read time"
    dtype = arch.dtypes.experts if arch.is_moe else arch.dtypes.dense_ffn
    peak = gpus * gpu.peak_flops_per_s[compute_dtype(dtype, gpu.peak_flops_per_s)]
    prompt_s = 2.0 * active * run.mean_isl * (1.0 - run.prefix_hit_frac) / peak
    if np.isfinite(run.ttft_s) and run.ttft_s < prompt_s:
        return "TTFT is below the prompt's time at the GPUs' peak"
    prompts_s = prompt_s * run.concurrency / run.entry.layout.replicas
    running_s = (run.mean_osl - 1.0) * run.tpot_s
    waits = run.ttft_s > max(WAITS_PER_RUN * running_s, WAITS_PER_PROMPTS * prompts_s)
    if waits and run.concurrency <= WAITING_IN_FLIGHT:
        return "TTFT is a multiple of the time that requests run and of their prompts"
    return None


def plausible(runs: Sequence[Run]) -> tuple[tuple[Run, ...], dict[str, tuple[str, ...]]]:
    """The runs that nothing speaks against, and the ids of the others by what does."""
    kept, left_out = [], dict[str, list[str]]()
    for run in runs:
        reason = contradiction(run)
        if reason is None:
            kept.append(run)
        else:
            left_out.setdefault(reason, []).append(run.id)
    return tuple(kept), {reason: tuple(ids) for reason, ids in left_out.items()}


def counted_short(output: Lengths, measured: Mapping[tuple[str, str], float]) -> bool:
    """Whether requests took the time of more output tokens than were counted; `measured` as that of `LoadRun`.

    All sequences of a step get a token, so that outputs of half the length take half the time. Where the mean length
    lies below the median and the mean time does not, the short ones were not short: a client that tokenises the text
    again does not see what decodes to nothing.
    """
    known = [measured.get((name, statistic), np.nan) for name in ("e2e", "ttft") for statistic in ("mean", "p50")]
    (mean_s, median_s), (first_mean_s, first_median_s) = known[:2], known[2:]
    median = output.quantiles.get(0.5, 0.0)
    if not np.isfinite(known).all() or min(median, output.mean) <= 1.0 or first_mean_s > FIRST_SHARE * mean_s:
        return False
    of_mean, of_median = (mean_s - first_mean_s) / (output.mean - 1.0), (median_s - first_median_s) / (median - 1.0)
    return of_mean > COUNTED_SHORT * of_median


def overloaded(run: LoadRun) -> bool:
    """Whether far more requests were under way on average than the server has seats for (Little's law).

    Its queue grew for as long as requests came, and the times are those of the queue and of the client's patience.
    """
    if run.rate_per_s is None:
        return False
    layout = run.entry.layout
    seats = run.max_num_seqs * layout.replicas * layout.attn_dp
    return run.rate_per_s * run.measured.get(("e2e", "mean"), 0.0) > UNDER_WAY * seats
