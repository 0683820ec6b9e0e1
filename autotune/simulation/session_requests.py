"""Requests of sessions of several turns, drawn at a rate."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from autotune.simulation.draw_requests import SEED
from autotune.study import Sessions, Study
from costmodel.simulation.requests import Requests, arrivals, uniform_lengths
from costmodel.simulation.session_prompts import SessionPrompts

REQUESTS, MOST_REQUESTS = 3000, 19_000
"""That are drawn at least and at most, and the rest of the last session."""
DRAWN_S = 60.0
"""For which they come, where that is more of them: several times as long as requests take, so that servers fill up."""
MOST_PERIODS = 20.0
"""Times that these come at most while the longest session lasts: what is simulated of the caches."""
UNBOUNDED = 1e18
"""Tokens of a cache that drops nothing."""


def session_requests(study: Study, sessions: Sessions, rate_per_s: float) -> Requests:
    """Requests of sessions that begin at random, in the order of their arrival, the first at 0 s.

    They are a period of traffic that repeats itself: so many sessions begin in it as make the rate, and what of a
    session lies behind its end comes from one that began as many periods before. So every turn is there as often as
    every other, and the rate is the one asked for, however long sessions last. The periods before it fill the caches.
    Of sessions that outlast `MOST_PERIODS` a share is drawn, with pauses that are shorter by as much, which leaves the
    rate as it is, and each stands for more sessions in what comes between two of its turns.
    """
    work, random = study.workload, np.random.default_rng(SEED)
    turn = work.turn or (work.isl, work.osl)
    begun = ceil(min(max(REQUESTS, rate_per_s * DRAWN_S), MOST_REQUESTS) / sessions.turns)
    shape = begun, sessions.turns
    period_s = begun * sessions.turns / rate_per_s
    since_begin = np.cumsum(random.exponential(sessions.pause_s, shape) * (np.arange(sessions.turns) > 0), axis=1)
    stands_for = max(float(since_begin.max()) / (MOST_PERIODS * period_s), 1.0)
    begins = arrivals(begun + 1, rate_per_s / sessions.turns, work.arrival_cv, random)[:-1]
    times = (begins[:, None] + since_begin / stands_for).ravel()
    asked, answered = (uniform_lengths(lengths.min, lengths.max, times.size, random).reshape(shape) for lengths in turn)
    after = sessions.system_tokens + np.cumsum(asked + answered, axis=1)
    begun_before = np.floor(times / period_s).astype(np.int64)
    in_period = times - begun_before * period_s
    order = np.argsort(in_period, kind="stable")
    prompt, output, after = (lengths.ravel()[order] for lengths in (after - answered, answered, after))
    # the first one of the next period ends this one
    before = max(int(begun_before.max()), 1)
    place = np.arange((before + 1) * order.size + 1)
    period, within = np.divmod(place, order.size)
    own = np.repeat(np.arange(begun), sessions.turns)[order]
    began = period - begun_before[order][within] + before
    warm_up = before * order.size
    counted = within[warm_up:]
    requests = Requests(
        arrival_s=in_period[order][counted] + (period[warm_up:] - before) * period_s - in_period[order[0]],
        prompt=prompt[counted],
        cached=np.zeros(counted.size, dtype=np.int64),
        output=output[counted],
        blocks=SessionPrompts(
            session=began * begun + own[within],
            prompt=prompt[within],
            after=after[within],
            system_tokens=sessions.system_tokens,
            warm_up=warm_up,
            stands_for=stands_for,
        ),
    )
    return replace(requests, cached=requests.with_caches(caches=1, tokens=UNBOUNDED).cached)
