"""Layers per pipeline stage, chosen: the contiguous split whose worst stage is as light as any split's.

Layers cost unlike (dense ones before expert ones, windows beside full attention), the last stage has the LM head on
top, and engines split by count. All splits keep the order of the layers, so the least worst stage can be found exactly:
a bound can be kept if and only if filling stages to it, first to last, uses no more stages than there are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.scoring.solve_concurrency import solve_concurrency
from autotune.space import Candidate
from autotune.study import Study
from costmodel.arch import Arch
from costmodel.plan.columns import Floats
from costmodel.plan.stages import layer_kinds, stage_counts, stage_params

HALVINGS = 42
"""Of the bound's interval: to the last digits of a float."""


def balanced_splits(study: Study, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The pipelined ones of `candidates` with their layers balanced, in other splits than the engine's own.

    What "worst" means depends on the phase, so each gets up to four, and scoring chooses among them and the engine's:
    by a decode step, by a chunk of a prompt, by what a request takes of a stage in both, and by the weights. Times are
    those at the load that the engine's own split takes.
    """
    piped = [c for c in candidates if c.layout.pp > 1]
    if not piped:
        return ()
    weight, kv = study.search.weight_dtype[0], study.search.kv_dtype[0]
    variants = [Variant(candidate=c, weight_dtype=weight, kv_dtype=kv) for c in piped]
    rows = KnobGrid.of(study, variants, study.search.max_num_batched_tokens[-1:])
    state = rows.steady(solve_concurrency(rows))
    size = len(piped)
    decode, prompt = (
        _per_kind(study.arch, p.step.per_layer_s, p.step.send_s, size) for p in (state.decode, state.prefill_loaded)
    )
    floor = np.broadcast_to(
        state.prefill_loaded.layer_floor_s / np.maximum(state.prefill_loaded.factor, 1e-12), (size,)
    )
    shares = [np.broadcast_to(x, (size,)) for x in (state.prefill_passes_per_request, state.decode_passes_per_request)]
    kinds = _kind_counts(study.arch)
    params = np.array(stage_params(study.arch, (1,) * study.arch.num_hidden_layers), dtype=np.float64)
    by_weight = {pp: best_split(params[None, :], pp) for pp in {c.layout.pp for c in piped}}
    out: dict[Candidate, None] = {}
    for i, candidate in enumerate(piped):
        launched = np.full(len(kinds), floor[i])
        costs = (
            (kinds @ decode[i])[None, :],
            np.stack([kinds @ prompt[i], launched]),
            (kinds @ (shares[0][i] * prompt[i] + shares[1][i] * decode[i]))[None, :],
        )
        splits = dict.fromkeys((*(best_split(c, candidate.layout.pp) for c in costs), by_weight[candidate.layout.pp]))
        own = candidate.layout.stage_layers
        out.update(
            (replace(candidate, layout=replace(candidate.layout, stage_layers=s)), None) for s in splits if s != own
        )
    return tuple(out)


def best_split(costs: Floats, stages: int) -> tuple[int, ...]:
    """Layers per stage with the least largest stage, every stage at least one layer.

    Args:
        costs: of each layer, shape `(kinds, layers)`; a stage costs the largest of its sums over `kinds`.
        stages: at most the number of layers.

    Of all splits with that largest stage the one closest to equal shares of the first kind.
    """
    ends = [[0.0, *row] for row in np.cumsum(costs, axis=1).tolist()]
    largest, total = float(costs.max()), max(row[-1] for row in ends)
    low = max(largest, total / stages) * (1.0 - 1e-12)
    # a stage filled to below the bound leaves out a layer that would break it: the bound is less than one layer away
    high = min(total / stages + largest if len(ends) == 1 else total, total)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if _fits(ends, stages, middle):
            high = middle
        else:
            low = middle
    return _even(ends, stages, high * (1.0 + 1e-12))


def _reach(ends: list[list[float]], start: int, bound: float) -> int:
    """The last layer end that a stage from `start` can have within the bound."""
    return min(bisect_right(row, row[start] + bound) - 1 for row in ends)


def _fits(ends: list[list[float]], stages: int, bound: float) -> bool:
    layers, at = len(ends[0]) - 1, 0
    for stage in range(stages):
        end = min(_reach(ends, at, bound), layers - (stages - 1 - stage))  # leave a layer for each stage to come
        if end <= at:
            return False
        at = end
    return at == layers


def _even(ends: list[list[float]], stages: int, bound: float) -> tuple[int, ...]:
    layers = len(ends[0]) - 1
    backwards = [[row[-1] - x for x in reversed(row)] for row in ends]
    latest = [layers]  # from the last stage back: the earliest that a stage may begin, so that the rest fits
    for stage in range(stages - 1):
        reach = min(_reach(backwards, layers - latest[-1], bound), layers - (stages - 1 - stage))
        latest.append(layers - reach)
    least = latest[::-1]  # least[s]: the first place where stage s may end
    cuts, at = [0], 0
    for stage in range(stages - 1):
        most = min(_reach(ends, at, bound), layers - (stages - 1 - stage))
        wanted = ends[0][-1] * (stage + 1) / stages
        near = bisect_left(ends[0], wanted)
        near -= near > 0 and wanted - ends[0][near - 1] < ends[0][near] - wanted
        at = min(max(near, least[stage], at + 1), most)
        cuts.append(at)
    return tuple(b - a for a, b in pairwise([*cuts, layers]))


def _per_kind(arch: Arch, per_layer_s: dict[str, Floats], send_s: Floats, size: int) -> Floats:
    """Seconds of a layer of every kind, shape `(size, len(layer_kinds(arch)))`; the head's stage hands nothing on."""
    head = {"head": np.maximum(per_layer_s["head"] - send_s, 0.0)}
    known = {**per_layer_s, **head}
    return np.stack([np.broadcast_to(known.get(kind, np.zeros(1)), (size,)) for kind in layer_kinds(arch)], axis=1)


def _kind_counts(arch: Arch) -> Floats:
    """Each layer as a stage of its own: layers by kind, shape `(layers, len(layer_kinds(arch)))`."""
    return stage_counts(arch, (1,) * arch.num_hidden_layers)
