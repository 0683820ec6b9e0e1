"""Measured runs that contradict physics, by rules: they are neither fitted, scored nor learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.arch import active_params, total_params, weight_bytes
from costmodel.dtypes import compute_dtype
from costmodel.errors import Problem
from costmodel.estimate.batch import PlanEntry
from costmodel.measured.load_runs import Lengths, LoadRun
from costmodel.measured.pool_runs import PoolRun
from costmodel.measured.runs import Run

WAITS_PER_RUN = 2.0
"""TTFT over the time that a request then runs, above which it mostly waits (Little's law: two thirds of all would)."""
WAITS_PER_PROMPTS = 5.0
"""TTFT over the time of all prompts in flight at the GPUs' peak, above which it is not prefill that it waits for."""
WAITING_IN_FLIGHT = 64.0
"""Up to so many requests in flight a server is not taken to be overloaded."""

OTHER_UNIT = 0.1
"""Share of the least below which a figure is in another unit: seconds for what is up to 100 times the least."""

FAR = 300.0
"""Measured over predicted from which on a figure is in another unit: microseconds are a thousand milliseconds. Of 1,494
measured runs the furthest TTFT is 120 times what is predicted, of a server whose KV cache ran full; TPOT 1.7 times."""

COUNTED_SHORT = 1.1
"""Time per output token of the mean request over that of the median one, above which the count of outputs is wrong."""
FIRST_SHARE = 0.2
"""Share of TTFT in the time of a request up to which that comparison holds: the rest is decoding."""
UNDER_WAY = 2.0
"""Requests under way over a server's seats, from which on it is overloaded: as many wait for a seat as have one."""


def milliseconds(seconds: float) -> str:
    """A time in ms: three digits, and no fewer than it has before the point."""
    ms = seconds * 1e3
    return f"{ms:,.0f}" if ms >= 1e3 else f"{ms:.3g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """Why a run cannot be what it says, with the figure that it has and the bound that it breaks."""

    run: str
    """Its id."""
    rule: str
    """What it breaks, in the same words for every run that does."""
    column: str
    """Of the figure: `ttft_ms`, `tpot_ms`, `e2e_p50_ms`."""
    measured_s: float
    bound_s: float
    """The least that is possible, or the most where the figure is longer."""
    because: str
    """What the bound is."""
    or_else: str = ""
    """What such a figure may mean as well, if it is no other unit."""

    @property
    def impossible(self) -> bool:
        """Whether the figure is below the least that is possible; else it is beyond what a server at work takes."""
        return self.measured_s < self.bound_s

    @property
    def other_unit(self) -> bool:
        """Whether the figure is so far below that nothing but another unit explains it: seconds for milliseconds."""
        return self.measured_s < OTHER_UNIT * self.bound_s

    @property
    def problem(self) -> Problem:
        """The same of an input: run, column, value, bound, and what is asked back."""
        value, bound = (milliseconds(seconds) for seconds in (self.measured_s, self.bound_s))
        if not self.impossible:
            asked = f"{self.or_else}?" if self.or_else else "something stood still"
            message = f"{self.column} must be at most {bound} ms ({self.because}), got {value}: {asked}"
            return Problem(path=self.run, message=message)
        asked = "is it in seconds?" if self.other_unit else f"{self.or_else}, or is it in another unit?"
        message = f"{self.column} must be at least {bound} ms ({self.because}), got {value}: {asked}"
        return Problem(path=self.run, message=message)


def contradiction(run: Run) -> Contradiction | None:
    """Why a run cannot be what it says; None where nothing speaks against it.

    - Its TPOT is below the time of reading the active weights once at the peak of HBM: it decodes speculatively.
    - Its TTFT is below the time of its prompt's products with the weights at the dense peak, without a prefix cache.
    - With few requests in flight its TTFT is a multiple of the time that a request then runs, and of what all prompts
      in flight take: something stood still.
    """
    too_short = _below_reads(run.id, "tpot_ms", run.tpot_s, run.entry) or _below_products(
        run.id, "ttft_ms", run.ttft_s, run.entry, run.mean_isl * (1.0 - run.prefix_hit_frac)
    )
    if too_short is not None:
        return too_short
    prompt_s = _prompt_least_s(run.entry, run.mean_isl * (1.0 - run.prefix_hit_frac))
    prompts_s = prompt_s * run.concurrency / run.entry.layout.replicas
    running_s = (run.mean_osl - 1.0) * run.tpot_s
    longest_s = max(WAITS_PER_RUN * running_s, WAITS_PER_PROMPTS * prompts_s)
    if run.ttft_s > longest_s and run.concurrency <= WAITING_IN_FLIGHT:
        return Contradiction(
            run=run.id,
            column="ttft_ms",
            measured_s=run.ttft_s,
            rule="TTFT is a multiple of the time that requests run and of their prompts",
            bound_s=longest_s,
            because=f"{WAITS_PER_RUN:g} times what a request then runs, or {WAITS_PER_PROMPTS:g} times all prompts",
        )
    return None


def far_from_predicted(run: Run, predicted_s: tuple[float, float]) -> Contradiction | None:
    """Why a run cannot be what it says: its TTFT or TPOT is `FAR` times the one that is predicted, however many are in
    flight; None: neither is.
    """
    for column, measured_s, expected_s in zip(
        ("ttft_ms", "tpot_ms"), (run.ttft_s, run.tpot_s), predicted_s, strict=True
    ):
        if measured_s > FAR * expected_s > 0.0:
            return Contradiction(
                run=run.id,
                rule=f"{column.partition('_')[0].upper()} is {FAR:g} times what is predicted",
                column=column,
                measured_s=measured_s,
                bound_s=FAR * expected_s,
                because=f"{FAR:g} times what is predicted",
                or_else="is it in microseconds",
            )
    return None


def contradiction_of_pools(run: PoolRun) -> Contradiction | None:
    """What speaks against a disaggregated run: what its decode pool reads, what its prefill pool computes."""
    return _below_reads(run.id, "tpot_ms", run.tpot_s, run.decode) or _below_products(
        run.id, "ttft_ms", run.ttft_s, run.prefill, run.mean_isl
    )


def contradiction_of_load(run: LoadRun) -> Contradiction | None:
    """What speaks against a run with percentiles, statistic by statistic: the least of a length is of its quantiles.

    Of prompts what all begin with is taken as found in the cache, and nothing is said of prompts that repeat. The time
    of a request is held against the reads of its output.
    """
    for (latency, statistic), measured_s in run.measured.items():
        column, lengths = f"{latency}_{statistic}_ms", run.output if latency == "e2e" else run.prompt
        tokens = _at_least(lengths, statistic)
        if latency == "ttft":
            computed = 0.0 if run.distinct_prompts else tokens - run.shared_prefix_tokens
            found = _below_products(run.id, column, measured_s, run.entry, computed)
        else:
            found = _below_reads(run.id, column, measured_s, run.entry, tokens - 1.0 if latency == "e2e" else 1.0)
        if found is not None:
            return found
    return None


def _at_least(lengths: Lengths, statistic: str) -> float:
    """What a statistic of requests' lengths is at least, tokens; where every one has the mean, that."""
    if statistic == "mean" or len(lengths.quantiles) < 2:
        return lengths.mean
    share = int(statistic.removeprefix("p")) / 100.0
    return max((length for known, length in lengths.quantiles.items() if known <= share), default=1.0)


def _prompt_least_s(entry: PlanEntry, tokens: float) -> float:
    """Seconds of a prompt's products with the weights on one replica, at the GPUs' dense peak."""
    arch, gpu = entry.arch, entry.cluster.gpu
    dtype = arch.dtypes.experts if arch.is_moe else arch.dtypes.dense_ffn
    peak = entry.layout.gpus / entry.layout.replicas * gpu.peak_flops_per_s[compute_dtype(dtype, gpu.peak_flops_per_s)]
    return 2.0 * active_params(arch) * tokens / peak


def _below_reads(
    run: str, column: str, measured_s: float, entry: PlanEntry, steps: float = 1.0
) -> Contradiction | None:
    """What speaks against the time of so many decode steps: reading the weights that are active in each."""
    arch, gpus = entry.arch, entry.layout.gpus / entry.layout.replicas
    # the mean of all weights, which are mostly experts, and those are not stored wider than the rest
    read_s = (
        active_params(arch) * (weight_bytes(arch) / total_params(arch)) / (gpus * entry.cluster.gpu.hbm_bytes_per_s)
    )
    if not measured_s < steps * read_s:
        return None
    return Contradiction(
        run=run,
        rule="TPOT is below the weights' read time",
        column=column,
        measured_s=measured_s,
        bound_s=steps * read_s,
        because="a step reads the weights once, at the peak of HBM",
        or_else="are weights stored in fewer bits, are tokens drafted",
    )


def _below_products(run: str, column: str, measured_s: float, entry: PlanEntry, tokens: float) -> Contradiction | None:
    """What speaks against a time to the first token: its prompt's products with the weights."""
    prompt_s = _prompt_least_s(entry, tokens)
    if not measured_s < prompt_s:
        return None
    return Contradiction(
        run=run,
        rule="TTFT is below the prompt's time at the GPUs' peak",
        column=column,
        measured_s=measured_s,
        bound_s=prompt_s,
        because="a prompt's products with the weights, at the GPUs' peak",
        or_else="were prompts in a prefix cache",
    )


def without_contradictions(runs: Sequence[Run]) -> tuple[tuple[Run, ...], tuple[Contradiction, ...]]:
    """The runs that nothing speaks against, and what speaks against each of the others."""
    found = [(run, contradiction(run)) for run in runs]
    return tuple(run for run, why in found if why is None), tuple(why for _, why in found if why is not None)


def plausible(runs: Sequence[Run]) -> tuple[tuple[Run, ...], dict[str, tuple[str, ...]]]:
    """The runs that nothing speaks against, and the ids of the others by what does."""
    kept, against = without_contradictions(runs)
    left_out = dict[str, list[str]]()
    for found in against:
        left_out.setdefault(found.rule, []).append(found.run)
    return kept, {rule: tuple(ids) for rule, ids in left_out.items()}


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
