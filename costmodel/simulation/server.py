"""A plan as simulations run it: its table of steps, its engine's scheduler, its cache and its seats."""

from __future__ import annotations

from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats
from costmodel.serving.load import Load
from costmodel.simulation.policies import Policy
from costmodel.simulation.simulate import Routing, ServerModel
from costmodel.simulation.state import RankLimits
from costmodel.simulation.step_table import step_table


def server_model(
    batch: PlanBatch,
    load: Load,
    *,
    policy: Policy,
    longest_prompt: Floats,
    memory_fraction: Floats,
    routing: Routing = Routing.ROUND_ROBIN,
) -> ServerModel:
    """The one plan of `batch`, from the formulas alone; arguments as those of `PlanBatch.evaluate`.

    Of `load` counts what the engine was started with, and the mean lengths that its cache is shared out by: a plan's
    cache per token is that of a sequence of mean length.
    """
    room = batch.kv_tokens(load, longest_prompt=longest_prompt, memory_fraction=memory_fraction)
    tokens, seats = int(load.batched_tokens[0]), int(load.max_num_seqs[0])
    verified = float(load.step_tokens[0])
    table = step_table(
        batch,
        most_tokens=tokens + int(seats * verified) + 1,
        step_tokens=verified,
        accepted_tokens=float(load.accepted_tokens[0]),
        draft_frac=float(load.draft_frac[0]),
    )
    limits = RankLimits(batched_tokens=tokens, max_num_seqs=seats, kv_tokens=float(room[0]))
    return ServerModel(
        table=table, policy=policy, limits=limits, replicas=int(batch.layout.replicas[0]), routing=routing
    )
