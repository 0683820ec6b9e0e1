"""Whether more requests come than a plan serves: first tokens, or whole requests, take ever longer as they come."""

from __future__ import annotations

import numpy as np

from costmodel.plan.columns import Floats
from costmodel.simulation.simulate import Simulated

GROWN = 1.5
"""TTFT of the last quarter of the requests over that of the first from which on the queue is said to grow."""
GROWN_IN_WINDOWS = 2.0
"""The same in the windows of a sample, of which each has few requests."""

LONGER, LONGER_EACH_S = 1.1, 0.01
"""Time of a request in the last quarter over that in the first, and what it gains in each second, from both of which on
ever more requests are at the plan. Those that come at random gain so much in a while by chance, but not both."""


def takes_ever_longer(done: Simulated) -> bool:
    """Whether ever more requests are at the plan, in a queue or served ever slower beside each other.

    By Little's law requests take as much longer as more of them are there: where a share more comes than is served, a
    request that comes a second later takes that share of a second longer.
    """
    served = done.served
    size = max(len(served.requests) // 4, 1)
    first_s, last_s = float(served.e2e_s[:size].mean()), float(served.e2e_s[-size:].mean())
    passed_s = float(served.requests.arrival_s[-size:].mean() - served.requests.arrival_s[:size].mean())
    return last_s > LONGER * first_s and last_s - first_s > LONGER_EACH_S * passed_s


def queue_grows(done: Simulated) -> bool:
    """Whether first tokens came ever later: of all requests, or in the windows of one level of load of a sample."""
    ttft_s, tpot_s = done.served.ttft_s, float(np.median(done.served.tpot_s)) if done.served.tpot_s.size else 0.0
    if done.sample is None or done.window is None:
        return _longer([ttft_s], tpot_s, GROWN)
    found: dict[int, list[Floats]] = {}
    for window, stratum in enumerate(done.sample.stratum.tolist()):
        own = ttft_s[done.window == window]
        if own.size:
            found.setdefault(stratum, []).append(own)
    return any(_longer(runs, tpot_s, GROWN_IN_WINDOWS) for runs in found.values())


def _longer(runs: list[Floats], tpot_s: float, grown: float) -> bool:
    """Whether the last quarters of runs took far longer than the first."""
    sizes = [max(run.size // 4, 1) for run in runs]
    first = float(np.concatenate([run[:size] for run, size in zip(runs, sizes, strict=True)]).mean())
    last = float(np.concatenate([run[-size:] for run, size in zip(runs, sizes, strict=True)]).mean())
    return not last <= grown * (first + tpot_s)
