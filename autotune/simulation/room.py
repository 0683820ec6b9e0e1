"""How many requests a plan has room for at once."""

from __future__ import annotations

from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.requests import Requests
from costmodel.simulation.simulate import ServerModel


def most_in_flight(model: ServerModel | PoolsModel, requests: Requests, *, generated_frac: float) -> int:
    """Requests that take all seats, or all of the cache.

    Args:
        model: of the plan; of two pools the requests of both count, of which those of the first hold no output.
        requests: whose mean lengths are taken.
        generated_frac: share of its output that a request holds: none as it is admitted, a half on average.
    """
    prompt = float(requests.prompt.mean())
    whole = prompt + generated_frac * float(requests.output.mean())
    sides = ((model.prefill, prompt), (model.decode, whole)) if isinstance(model, PoolsModel) else ((model, whole),)
    return sum(
        max(int(min(side.limits.max_num_seqs, side.limits.kv_tokens / held)), 1) * side.table.ranks * side.replicas
        for side, held in sides
    )
