"""What requests meet that come at random, from what those meet of which a fixed number is in flight.

A replica that serves X(n) requests per second of n in flight, to which requests come at random at a rate, has n of them
with a probability p(n) that is in balance: p(n) X(n) = rate p(n - 1). Whoever comes finds n - 1 others with p(n - 1),
and meets what n in flight meet: a server with the throughput of the closed loop stands for all that is in it (Chandy,
Herzog and Woo, IBM J. Res. Dev. 19, 1975; exact where requests share a server evenly). What is better at every number
in flight is better at a rate.

Routers deal requests out to replicas in turn, so that each gets its own more evenly than all come: what random arrivals
add to the load that just carries the rate is taken in proportion to the variance of the gaps over the replicas, and
where they come in bursts to its root, as the bursts wait for prefill before they decode together.

What prompts make each other wait is `among_prompts`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from costmodel.estimate.result import TTFT_PARTS, Estimate, spare_sd
from costmodel.plan.columns import Floats, Ints

KNOTS = np.unique(np.floor(2.0 ** np.arange(0.0, 21.0, 0.5) + 0.5))
"""Requests in flight per replica at which the closed loop is asked; linear between."""
BELOW, ABOVE = 6, 6
"""Knots that are asked below and above the number that carries the rate: an eighth and eight times of it."""
PIECES = 8
"""States between two knots that stand for all of them."""
MOST_UTILISED = 0.999
"""Share of the throughput at the last knot that the rate is taken to be at most."""
LEAST_LEFT_FRAC = 0.2
"""Share of the time that prompts leave to decoding, at least. With any from 0.05 to 0.4 the median error of TPOT is the
same over 320 simulated plans."""
BURSTS_LOG_SD = 0.25
"""Of the log of TTFT, where requests come in bursts. Nine of ten of 60 simulated plans lie within 35 % (`--cv 4`),
which is 0.18; more is taken, as servers that are three quarters full were told two to three times too short."""
OWN_PREFILL, RUNNING_STEP, QUEUE = (TTFT_PARTS.index(part) for part in ("own_prefill", "running_step", "queue"))


def knots_around(in_flight: Floats) -> Floats:
    """Numbers in flight at which to ask for the closed loop, ascending, shape `(num_plans, knots)`.

    `in_flight`, shape `(num_plans,)`, carries the rate, per replica.
    """
    count = BELOW + 1 + ABOVE
    first = np.clip(np.searchsorted(KNOTS, in_flight, side="right") - 1 - BELOW, 0, KNOTS.size - count)
    return np.asarray(KNOTS[first[:, None] + np.arange(count)])


def arriving_shares(knots: Floats, served_per_s: Floats, offered_per_s: Floats) -> tuple[Floats, Floats]:
    """Shares of the requests that meet what those at a knot do, shape `(num_plans, knots)`, and seconds that they wait
    beyond the last knot on average, shape `(num_plans,)`.

    Args:
        knots: from `knots_around`.
        served_per_s: requests per second of a replica at each of them, same shape.
        offered_per_s: requests per second that come to a replica, shape `(num_plans,)`.
    """
    served = np.maximum.accumulate(served_per_s, axis=1)
    falls = np.log(offered_per_s[:, None] / served)  # of p from a number in flight to the next
    falls[:, -1] = np.minimum(falls[:, -1], np.log(MOST_UTILISED))
    width = np.diff(knots, axis=1)
    step = np.maximum(width / PIECES, 1.0)[:, :, None]
    at = np.arange(PIECES) * step / width[:, :, None]  # states between knots, as shares of the way
    slope = (falls[:, 1:] - falls[:, :-1])[:, :, None]
    # the sum of a linear function over the whole numbers from a knot to just before a state
    log_p = at * width[:, :, None] * (falls[:, :-1, None] + 0.5 * slope * at) - 0.5 * slope * at
    ends = width * 0.5 * (falls[:, 1:] + falls[:, :-1]) - 0.5 * slope[:, :, 0]
    begins = np.concatenate([np.zeros((len(knots), 1)), np.cumsum(ends, axis=1)], axis=1)
    top = begins.max(axis=1, keepdims=True)
    mass = np.where(at < 1.0 - 1e-9, step * np.exp(log_p + (begins[:, :-1] - top)[:, :, None]), 0.0)
    ratio = np.exp(falls[:, -1])
    beyond = np.exp(begins[:, -1] - top[:, 0]) / (1.0 - ratio)
    shares = np.zeros_like(knots)
    shares[:, :-1] += (mass * (1.0 - at)).sum(axis=2)
    shares[:, 1:] += (mass * at).sum(axis=2)
    shares[:, -1] += beyond
    whole = shares.sum(axis=1)
    return shares / whole[:, None], beyond / whole * ratio / (1.0 - ratio) / served[:, -1]


def with_spare(estimate: Estimate, rows: Ints, found: Estimate, knots: Floats, offered_per_s: Floats) -> Estimate:
    """The estimate with what some of its plans serve at most of what comes: at the best of the knots.

    It goes at the pace of the steps, as TPOT does. Arguments as `at_random`'s.
    """
    most = found.requests_per_s.reshape(knots.shape).max(axis=1)
    spare = estimate.spare_sd.copy()
    spare[rows] = spare_sd(most, offered_per_s, estimate.tpot_log_sd[rows])
    return replace(estimate, spare_sd=spare)


def at_random(  # noqa: PLR0913  # one for each thing that nothing else follows from
    estimate: Estimate,
    rows: Ints,
    found: Estimate,
    knots: Floats,
    *,
    offered_per_s: Floats,
    replicas: Floats,
    stages: Floats,
    cv2: float,
) -> Estimate:
    """The estimate with the latencies that requests meet which come at random, of some of its plans.

    What prompts take that share passes is that of the numbers in flight which requests meet, as they meet them.

    Args:
        estimate: of plans where the requests in flight carry what is offered.
        rows: the plans.
        found: of these at each of `knots`, plan by plan.
        knots: from `knots_around`, of these.
        offered_per_s: requests per second that come to each of these.
        replicas: of each of these.
        stages: of the pipeline of each of these.
        cv2: squared coefficient of variation of the gaps between arrivals.
    """
    served = found.requests_per_s.reshape(knots.shape) / replicas[:, None]
    shares, waits_s = arriving_shares(knots, served, offered_per_s / replicas)

    def added(name: str) -> Floats:
        values, before = getattr(found, name), getattr(estimate, name)[..., rows]
        return (values.reshape(*values.shape[:-1], *knots.shape) * shares).sum(axis=-1) - before

    first, token, whole, parts = (added(name) for name in ("ttft_s", "tpot_s", "e2e_s", "ttft_parts_s"))
    parts[QUEUE] += waits_s
    # who comes at random meets no less than the load that just carries the rate, which is a whole number
    later, slower = first + waits_s > 0.0, token > 0.0
    more = {
        "ttft_s": later * (first + waits_s),
        "ttft_longest_s": later * (added("ttft_longest_s") + waits_s),
        "kv_wait_s": later * added("kv_wait_s"),
        "ttft_parts_s": later * parts,
        "tpot_s": slower * token,
        "e2e_s": later * (first + waits_s) + slower * (whole - first),
    }
    out = {name: getattr(estimate, name).copy() for name in more}
    uneven = cv2 / replicas
    for name, seconds in more.items():
        out[name][..., rows] += np.minimum(uneven, np.sqrt(uneven)) * seconds
    passes = found.prefill_passes_per_request.reshape(knots.shape)
    taken_s = found.prefill_s.sum(axis=0).reshape(knots.shape) * passes
    return among_prompts(
        replace(estimate, **out),
        rows,
        prompt_s=(taken_s * shares).sum(axis=1) / stages,
        passes=(passes * shares).sum(axis=1),
        per_s=offered_per_s / replicas,
        uneven=uneven,
        slowest_s=found.tpot_s.reshape(knots.shape).max(axis=1),
    )


def evenly(estimate: Estimate, rows: Ints, *, offered_per_s: Floats, replicas: Floats, stages: Floats) -> Estimate:
    """The same where requests come at equal distances, so that they meet no others than the load has."""
    passes = estimate.prefill_passes_per_request[rows]
    prompt_s = estimate.prefill_s[:, rows].sum(axis=0) * passes / stages
    per_s = offered_per_s / replicas
    even = np.zeros_like(per_s)
    return among_prompts(
        estimate,
        rows,
        prompt_s=prompt_s,
        passes=passes,
        per_s=per_s,
        uneven=even,
        slowest_s=np.full_like(per_s, np.inf),
    )


def came_since(mean: Floats, cv2: Floats) -> Floats:
    """Requests that come after one, in a time in which `mean` come on average: none at first if gaps are even.

    The renewal function of gaps with a squared coefficient of variation: `mean` less `(1 - cv2) / 2` after long (Cox,
    Renewal Theory, 1962, section 4.2), twice the mean at first where they come in bursts, none where they are even.
    """
    short = 0.5 * (1.0 - cv2)
    return np.asarray(mean + short * np.expm1(-mean / np.maximum(np.abs(short), 1e-9)))


def among_prompts(  # noqa: PLR0913  # one for each thing that nothing else follows from
    estimate: Estimate,
    rows: Ints,
    *,
    prompt_s: Floats,
    passes: Floats,
    per_s: Floats,
    uneven: Floats,
    slowest_s: Floats,
) -> Estimate:
    """The estimate with what prompts that come at random make each other wait, of some of its plans.

    Behind a first token: prompts that came before a request had its own run while it decodes, before any that come
    then. With `P` seconds for a prompt, `b` of them and `rate` more per second, decoding takes `P b / (1 - rate P)`
    longer. The closed loop knows those that come in the mean step alone. A pass that takes several prompts takes those
    with it that waited beside the request, and leaves what comes meanwhile.

    In front of prefill: where gaps vary more than those of Poisson arrivals, prompts of a burst wait for each other
    `(cv2 - 1) / 2` times `P / (1 - rate P)` longer, times `rate P` where bursts run into each other (Kingman, Proc.
    Cambridge Phil. Soc. 57, 1961) and times 1 where each comes as one (batches of a geometric number of requests;
    Gross and Harris, Queueing Theory, section 3.1). The geometric mean of both is taken; it is off by more than what
    is not known without bursts, which adds `BURSTS_LOG_SD`.

    Args:
        estimate: of plans, with what they meet at the rate.
        rows: the plans.
        prompt_s: seconds for which a prompt keeps a stage of each of these busy.
        passes: prefill passes per prompt of each of these: below 1 where several share one.
        per_s: requests per second that come to a replica of each of these.
        uneven: squared coefficient of variation of the gaps between them.
        slowest_s: TPOT of each where it has all in flight that it has room for, which no more prompts can add to.
    """
    free_frac = np.maximum(1.0 - per_s * prompt_s, LEAST_LEFT_FRAC)
    parts = estimate.ttft_parts_s[:, rows]
    before_s = parts[OWN_PREFILL] + np.minimum(passes, 1.0) * (parts[RUNNING_STEP] + parts[QUEUE])
    decoding_s = estimate.e2e_s[rows] - estimate.ttft_s[rows]
    behind_s = np.where(decoding_s > 0.0, prompt_s * came_since(per_s * before_s, uneven) / free_frac, 0.0)
    most = np.maximum(slowest_s / np.maximum(estimate.tpot_s[rows], 1e-300) - 1.0, 0.0)
    behind_s = np.minimum(behind_s, most * decoding_s)
    burst_s = 0.5 * np.maximum(uneven - 1.0, 0.0) * prompt_s * np.sqrt(1.0 - free_frac) / free_frac
    names = ("ttft_s", "ttft_longest_s", "ttft_parts_s", "tpot_s", "e2e_s", "ttft_log_sd")
    out = {name: getattr(estimate, name).copy() for name in names}
    out["ttft_s"][rows] += burst_s
    out["ttft_longest_s"][rows] += burst_s
    out["ttft_parts_s"][QUEUE, rows] += burst_s
    out["tpot_s"][rows] *= 1.0 + behind_s / np.maximum(decoding_s, 1e-300)
    out["e2e_s"][rows] += burst_s + behind_s
    bursts_log_sd = BURSTS_LOG_SD * (1.0 - 1.0 / np.maximum(uneven, 1.0))
    out["ttft_log_sd"][rows] = np.hypot(out["ttft_log_sd"][rows], bursts_log_sd)
    return replace(estimate, **out)
