"""A study whose workload is sessions of several turns: `[workload] sessions`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autotune.simulation.session_requests import session_requests
from autotune.study import Study
from autotune.traffic.profile import profile_of_arrays
from autotune.traffic.workload import with_traffic


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
        workload=replace(
            drawn.workload,
            request_rate_per_s=work.request_rate_per_s,
            sessions=work.sessions,
            recorded=requests,
            turn=(work.isl, work.osl),
        ),
    )
