"""Requests as a study describes them, drawn one by one, or as a log recorded them."""

from __future__ import annotations

import numpy as np

from autotune.study import IntRange, Study, Workload
from costmodel.plan.columns import Floats, Ints
from costmodel.simulation.prefix_cache import PromptBlocks
from costmodel.simulation.requests import Requests, arrivals, found_in_blocks, uniform_lengths

SEED = 23
"""Of lengths and arrivals: plans are compared on the same requests."""


def study_requests(study: Study, *, count: int, rate_per_s: float, alike: float = 1.0) -> Requests:
    """`count` requests with the study's lengths, arriving at a rate as `workload.arrivals` says.

    In each prompt the share `workload.prefix_cache_hit_frac` is found in the cache, whole blocks of it. Of `alike`
    parts of a plan, to which requests go in turn, they are those that come to one: gaps that are sums of so many gaps,
    which vary the less (a sum of gamma distributed gaps is gamma distributed too).
    """
    work, random = study.workload, np.random.default_rng(SEED)
    prompt, output = _lengths(work, count, random)
    return Requests(
        arrival_s=arrivals(
            count, rate_per_s / alike, work.arrival_cv / float(np.sqrt(alike)), np.random.default_rng(SEED + 1)
        ),
        prompt=prompt,
        cached=found_in_blocks(prompt, work.prefix_cache_hit_frac),
        output=output,
    )


def recorded_requests(
    arrival_s: Floats,
    prompt: Ints,
    output: Ints,
    cached: Ints | None,
    hit_frac: float,
    blocks: PromptBlocks | None = None,
) -> Requests:
    """Requests of a log, the first at 0 s; where a line does not say what was cached, a share of its prompt is.

    Arrays have shape `(num_requests,)` and are ordered by time; `cached` may hold -1 for what is not known. `blocks`
    are those of the prompts, where the log has their hashes.
    """
    prompt = np.maximum(prompt.astype(np.int64), 1)
    share = found_in_blocks(prompt, hit_frac)
    known = share if cached is None else np.where(cached >= 0, cached.astype(np.int64), share)
    return Requests(
        arrival_s=arrival_s - (arrival_s[0] if arrival_s.size else 0.0),
        prompt=prompt,
        cached=np.minimum(known, prompt - 1),
        output=np.maximum(output.astype(np.int64), 1),
        blocks=blocks,
    )


def _lengths(work: Workload, count: int, random: np.random.Generator) -> tuple[Ints, Ints]:
    if work.points:
        kind = random.choice(len(work.points), count, p=[p.weight for p in work.points])
        prompt = np.array([max(round(p.isl), 1) for p in work.points])[kind]
        return prompt, np.array([max(round(p.osl), 1) for p in work.points])[kind]
    return _drawn(work.isl, count, random), _drawn(work.osl, count, random)


def _drawn(lengths: IntRange, count: int, random: np.random.Generator) -> Ints:
    return uniform_lengths(lengths.min, lengths.max, count, random)
