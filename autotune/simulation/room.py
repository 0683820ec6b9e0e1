"""How many requests a plan has room for at once."""

from __future__ import annotations

from math import ceil

from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.requests import Requests
from costmodel.simulation.simulate import ServerModel

STEPS = 2.0
"""Steps of prompts that a prefill pool has in flight where it has always something to do."""


def most_in_flight(model: ServerModel | PoolsModel, requests: Requests, *, generated_frac: float) -> int:
    """Requests that take all seats, or all of the cache; of a prefill pool as many as fill a step of each stage twice.

    Args:
        model: of the plan; of two pools the requests of both count, of which those of the first hold no output.
        requests: whose mean lengths are taken.
        generated_frac: share of its output that a request holds: none as it is admitted, a half on average.
    """
    prompt = float(requests.prompt.mean())
    whole = prompt + generated_frac * float(requests.output.mean())
    if not isinstance(model, PoolsModel):
        return _of_side(model, whole)
    # more prompts than that only wait in front of it
    steps = ceil(STEPS * model.prefill.limits.batched_tokens / prompt) * model.prefill.table.stages
    workers = model.prefill.table.ranks * model.prefill.replicas
    return min(_of_side(model.prefill, prompt), steps * workers) + _of_side(model.decode, whole)


def _of_side(model: ServerModel, held: float) -> int:
    """On all ranks and replicas, where each request holds so many tokens."""
    each = max(int(min(model.limits.max_num_seqs, model.limits.kv_tokens / held)), 1)
    return each * model.table.ranks * model.replicas
