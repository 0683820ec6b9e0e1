"""Servers to be simulated: of a few prime figures, and of plans of the catalog."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from autotune.engines import policies_by_name
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.plan.columns import Ints
from costmodel.serving.load import Load
from costmodel.serving.steady_state import SteadyState
from costmodel.simulation.policies import Policy
from costmodel.simulation.server import server_model
from costmodel.simulation.simulate import ServerModel, Simulated, simulate_closed
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """A plan by its closed form and by simulation."""

    formula: SteadyState
    ttft_s: float
    tpot_s: float
    requests_per_s: float
    simulated: Simulated


def drawn(mean: float, count: int, random: np.random.Generator) -> Ints:
    """Lengths around a mean, from half of it to half more."""
    return np.maximum(np.round(mean * random.uniform(0.5, 1.5, count)), 1.0).astype(np.int64)


def both(entry: PlanEntry, load: Load, *, waves: int = 12, seed: int = 2) -> Both:
    """Serve a closed loop whose lengths vary; its first third and its last wave are not counted."""
    batch = replace(PlanBatch.of([entry]), residual=None)
    formula = batch.steady(load, longest_prompt=load.isl, memory_fraction=FRACTION)
    model = server_model(
        batch,
        load,
        policy=POLICIES[entry.engine.name],
        longest_prompt=load.isl,
        memory_fraction=FRACTION,
    )
    concurrency, random = int(load.concurrency[0]), np.random.default_rng(seed)
    count = min(max(waves * concurrency, 200), 4000)
    prompt, output = drawn(float(load.isl[0]), count, random), drawn(float(load.osl[0]), count, random)
    cached = (prompt * load.prefix_hit_frac[0]).astype(np.int64)
    simulated = simulate_closed(model, prompt, cached, output, concurrency=concurrency)
    served = simulated.served
    kept = slice(count // 3, count - concurrency)
    outputs = served.requests.output[kept]
    ttft, e2e = served.ttft_s[kept], served.e2e_s[kept]
    arrivals = served.requests.arrival_s[kept]
    return Both(
        formula=formula,
        ttft_s=float(ttft.mean()),
        tpot_s=float((e2e - ttft).sum() / max(int(np.maximum(outputs - 1, 0).sum()), 1)),
        requests_per_s=float((arrivals.size - 1) / (arrivals[-1] - arrivals[0])),
        simulated=simulated,
    )
