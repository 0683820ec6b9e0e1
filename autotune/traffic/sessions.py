"""A study whose workload is sessions of several turns: `[workload] sessions`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autotune.simulation.draw_requests import SEED
from autotune.study import Sessions, Study
from autotune.traffic.profile import profile_of_arrays
from autotune.traffic.workload import with_traffic
from costmodel.plan.columns import Ints
from costmodel.simulation.prefix_cache import PromptBlocks
from costmodel.simulation.requests import Requests, arrivals, uniform_lengths

REQUESTS = 3000
"""That are drawn."""
WARM_UP_SESSIONS = 2.0
"""Lengths of a session for which requests come before those that count: they fill the caches."""
MOST_WARM_UP = 20_000
"""Requests of that time, at most."""
LEAST_BLOCK, MOST_BLOCKS = 16, 32
"""Tokens of a block, which are doubled until a mean prompt has no more blocks than that."""
UNBOUNDED = 1e18
"""Tokens of a cache that drops nothing."""


def with_sessions(study: Study) -> Study:
    """The study with requests drawn as its sessions say, in the way of a log; without sessions as it is."""
    work = study.workload
    if work.sessions is None or work.request_rate_per_s is None:
        return study
    requests = session_requests(study, work.sessions, work.request_rate_per_s)
    hit_frac = float(requests.cached.sum() / requests.prompt.sum())
    profile = profile_of_arrays(
        requests.arrival_s,
        requests.prompt.astype(np.float64),
        requests.output.astype(np.float64),
        start_s=0.0,
        end_s=float(requests.arrival_s[-1]),
        shared_prefix_frac=hit_frac,
    )
    drawn = with_traffic(study, profile, load="mean")
    said = (
        f"sessions of {work.sessions.turns} turns: prompts of {requests.prompt.mean():,.0f} tokens on average, "
        f"of which a cache that drops nothing finds {hit_frac:.0%}; each plan finds what its own replicas have room for"
    )
    return replace(
        drawn,
        assumptions=(*drawn.assumptions, said),
        workload=replace(drawn.workload, request_rate_per_s=work.request_rate_per_s, recorded=requests),
    )


def session_requests(study: Study, sessions: Sessions, rate_per_s: float) -> Requests:
    """Requests of sessions that begin at random, in the order of their arrival, the first at 0 s about."""
    work, random = study.workload, np.random.default_rng(SEED)
    lasted_s = REQUESTS / rate_per_s
    warm_up_s = min(WARM_UP_SESSIONS * sessions.turns * sessions.pause_s, MOST_WARM_UP / rate_per_s)
    count = int(np.ceil((lasted_s + warm_up_s) * rate_per_s / sessions.turns))
    shape = count, sessions.turns
    pauses = random.exponential(sessions.pause_s, shape) * (np.arange(sessions.turns) > 0)
    begins = arrivals(count, rate_per_s / sessions.turns, work.arrival_cv, random) - warm_up_s
    times = begins[:, None] + np.cumsum(pauses, axis=1)
    asked, answered = (
        uniform_lengths(lengths.min, lengths.max, times.size, random).reshape(shape) for lengths in (work.isl, work.osl)
    )
    after = sessions.system_tokens + np.cumsum(asked + answered, axis=1)
    prompt = after - answered
    order = np.argsort(times, axis=None, kind="stable")
    order = order[times.ravel()[order] < lasted_s]
    warm_up = int(np.count_nonzero(times.ravel()[order] < 0.0))
    counted = order[warm_up:]
    requests = Requests(
        arrival_s=times.ravel()[counted] - times.ravel()[counted[0]],
        prompt=prompt.ravel()[counted],
        cached=np.zeros(counted.size, dtype=np.int64),
        output=answered.ravel()[counted],
        blocks=_blocks(order, prompt, after, sessions.system_tokens, warm_up),
    )
    return replace(requests, cached=requests.with_caches(caches=1, tokens=UNBOUNDED).cached)


def _blocks(order: Ints, prompt: Ints, after: Ints, system_tokens: int, warm_up: int) -> PromptBlocks:
    """The blocks of requests, by session and turn, in the order of their arrival, and those of their answers.

    These are not asked for by the request itself, but by the next one of the session.
    """
    each = LEAST_BLOCK
    while prompt.mean() > MOST_BLOCKS * each:
        each *= 2
    shared, held = system_tokens // each, after // each
    # numbers of the system prompt's blocks, then those of each session's own
    own = held[:, -1] - shared
    begins = np.repeat(shared + np.cumsum(own) - own, after.shape[1])
    counts = held.ravel()[order]
    start = np.concatenate([[0], np.cumsum(counts)])
    place = np.arange(start[-1]) - np.repeat(start[:-1], counts)
    number = np.where(place < shared, place, np.repeat(begins[order], counts) + place - shared)
    return PromptBlocks(ids=number, start=start, prompt=prompt.ravel()[order], tokens_each=each, warm_up=warm_up)
