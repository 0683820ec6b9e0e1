"""Where better hardware may make a plan worth less: why, and by how much at most."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autotune.engines import ENGINES
from autotune.scoring.best_knobs import KnobGridAtLoad
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.scoring.plan_result import PlanResult
from autotune.study import Study
from tests.properties.given import REL, value

MOVED_REL, MOVED_PASSES_REL, MOVED_WAITING_REL = 5e-4, 0.02, 0.02
"""What a request may take longer in all where its parts move: queues are approximated, and the calibration has factors
of their own for first and later tokens. It was 3e-4 at most; 1.6 % with prefill first, where fewer prompts share a
quicker pass and decoding waits for more of them; and 1.4 % where requests wait for cache, as more room lets others
decode in their place."""
FULLER = 0.003
"""What more room for cache may cost where requests wait for it and prompts fill every step: more sequences decode
beside them, which makes the steps longer and no more of them. It was 0.2 % at most."""


def explained(study: Study, other: Study, before: PlanResult, after: PlanResult) -> bool:
    """Whether one of the reasons below holds."""
    return (
        traded(study, other, before, after) or less_sure(study, before, after) or shifted(study, other, before, after)
    )


def traded(study: Study, other: Study, before: PlanResult, after: PlanResult) -> bool:
    """Whether as many requests in flight take no longer in all, and only the parts of their time have moved.

    Faster prefill or more room for cache lets more sequences decode at once: with the same requests in flight first
    tokens come sooner and each further one later, or the other way round, or both later and cache sooner. That a
    request takes no longer in all bounds it, but for what the queue in front of prefill is approximated to. The load
    that is chosen is no worse than the old.
    """
    if before.pools is not None:
        given, moved, bound = study.workload.concurrency is not None, after.metrics, MOVED_REL
    else:
        grid = KnobGrid.of(other, [Variant.of(before)], [before.knobs.max_num_batched_tokens])
        load = np.array([float(before.knobs.concurrency)])
        same = KnobGridAtLoad(grid, load).scored.standing
        given = same.worst[0] > 0.0 or value(other, after) >= float(same.gain[0]) - REL * abs(float(same.gain[0]))
        estimate = grid.evaluate(load)
        moved = {name: float(getattr(estimate, name)[0]) for name in ("ttft_s", "tpot_s", "e2e_s", "kv_wait_s")}
        bound = MOVED_REL if ENGINES[before.engine].policy.mixes else MOVED_PASSES_REL
        bound = bound if estimate.kv_wait_s[0] <= 0.0 else MOVED_WAITING_REL
    parts = [moved[name] / max(before.metrics[name], 1e-300) for name in ("ttft_s", "tpot_s")]
    waited = before.breakdown["ttft_parts_s"].get("kv_wait", 0.0)
    parts += [moved["kv_wait_s"] / waited] if waited > 0.0 and before.pools is None else []
    return given and min(parts) < 1.0 and moved["e2e_s"] <= before.metrics["e2e_s"] * (1.0 + bound)


def shifted(study: Study, other: Study, before: PlanResult, after: PlanResult) -> bool:
    """Whether the formulas alone serve as many requests no slower on `other`: the calibration's factors make the loss.

    It moves first and later tokens by factors of their own, the same on both sides, and not the wait for cache: where
    faster steps or more cache move time from one part to another, a request takes longer by the ratio of these factors
    at most. With the same knobs on `other` it is no better than with those that were chosen: the choice loses nothing.
    """
    old = value(study, before)
    if before.pools is not None or value(other, after) >= old:
        return False
    budget, load = before.knobs.max_num_batched_tokens, np.array([float(before.knobs.concurrency)])
    grids = [KnobGrid.of(s, [Variant.of(before)], [budget]) for s in (study, other)]
    alone = [replace(g, batch=replace(g.batch, residual=None)).evaluate(load) for g in grids]
    moved = [g.evaluate(load) for g in grids]
    fuller = alone[0].kv_wait_s[0] > 0.0 and alone[1].running_per_rank[0] > alone[0].running_per_rank[0]
    if alone[1].requests_per_s[0] < alone[0].requests_per_s[0] * (1.0 - (FULLER if fuller else REL)):
        return False
    first = [(m.ttft_s - m.kv_wait_s)[0] / (a.ttft_s - a.kv_wait_s)[0] for m, a in zip(moved, alone, strict=True)]
    decodes = study.workload.osl.mean > 1.0
    later = [m.tpot_s[0] / a.tpot_s[0] for m, a in zip(moved, alone, strict=True)] if decodes else first
    if any(abs(factors[1] / factors[0] - 1.0) > REL for factors in (first, later)):
        return False
    same = KnobGridAtLoad(grids[1], load).scored.standing
    if same.worst[0] <= 0.0 and value(other, after) < float(same.gain[0]) - REL * abs(float(same.gain[0])):
        return False
    loss = max(first[0], later[0]) / min(first[0], later[0]) * (1.0 + (FULLER if fuller else REL))
    return value(other, after) >= old * (loss if old < 0.0 else 1.0 / loss)


def less_sure(study: Study, before: PlanResult, after: PlanResult) -> bool:
    """Whether fewer requests in flight serve the rate, each no slower, and only how sure that is has fallen.

    Estimates of light loads are less sure, and what is expected of a plan counts the probability to keep its limits:
    by the ratio of these probabilities it may be worth less, and by the last of the three digits that count.
    """
    rate = study.workload.request_rate_per_s
    if rate is None or before.pools is not None or after.knobs.concurrency >= before.knobs.concurrency:
        return False
    slower = any(after.metrics[m] > before.metrics[m] * (1.0 + REL) for m in ("ttft_s", "tpot_s", "e2e_s"))
    served = after.metrics["requests_per_s"] >= before.metrics["requests_per_s"] * (1.0 - REL)
    old, new = value(study, before), value(study, after)
    digit = 10.0 ** (np.floor(np.log10(old)) - 2.0) if old > 0.0 else 0.0
    bounded = old - new <= abs(old) * (before.p_meets / max(after.p_meets, 1e-300) - 1.0 + REL) + digit
    return after.feasible and served and not slower and bounded
