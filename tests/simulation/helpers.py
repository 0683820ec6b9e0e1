"""Servers to be simulated: of a few prime figures, and of plans of the catalog."""

from __future__ import annotations

import numpy as np

from autotune.engines import policies_by_name
from costmodel.simulation.policies import Policy
from costmodel.simulation.simulate import ServerModel
from costmodel.simulation.state import RankLimits
from costmodel.simulation.step_table import ChunkTable, Line, PartTables, StepTable

POLICIES = policies_by_name()
FRACTION = np.array([0.9])


def line(slope: float, most: float = 1e6) -> Line:
    """A proportional function of one number."""
    return Line.through(np.array([0.0, most]), np.array([0.0, slope * most]))


def small_table(*, prompt_token_s: float = 0.0, context_s: float = 0.0, step_s: float = 0.0) -> StepTable:
    """One GPU of which only the named figures take time: a computed token, a token of context, and a step."""
    edges = np.array([0.0, 10_000.0])
    parts = PartTables(
        rest_s=[0.0] * 10_001,
        experts_s=None,
        logits_s=line(0.0),
        decode_s=line(context_s),
        prompt_s=ChunkTable.through(np.array([0.0, 1e6]), edges, np.array([[0.0, prompt_token_s * edges[1]]] * 2)),
        floor_s=0.0,
    )
    return StepTable(
        ranks=1,
        stages=1,
        slowest=parts,
        through=parts,
        step_s=step_s,
        sequence_s=0.0,
        scheduling_sequence_s=0.0,
        capture_tokens=0.0,
        draft_frac=0.0,
        step_tokens=1.0,
        accepted_tokens=1.0,
        frontend_s=0.0,
        token_s=0.0,
        handover_steps=0.0,
    )


def small_server(
    table: StepTable,
    policy: Policy = POLICIES["vllm"],
    *,
    budget: int = 8192,
    seats: int = 1024,
    kv_tokens: float = 1e9,
) -> ServerModel:
    """One replica with these limits."""
    limits = RankLimits(batched_tokens=budget, max_num_seqs=seats, kv_tokens=kv_tokens)
    return ServerModel(table=table, policy=policy, limits=limits, replicas=1)
