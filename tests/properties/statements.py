"""What must be true of every study, each as a function that says where it is not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf, isfinite

import numpy as np

from autotune.comparison.probability_better import p_better
from autotune.metrics import METRICS, Measured
from autotune.scoring.best_knobs import KnobGridAtLoad, candidate_grid, score, score_launches
from autotune.scoring.knob_grid import KnobGrid
from autotune.scoring.load_rivals import SMALL_STEPS
from autotune.scoring.plan_order import rank
from autotune.scoring.plan_result import PlanResult
from autotune.scoring.solve_concurrency import bounds, solve_concurrency
from autotune.space import Candidate
from autotune.study import IntRange, Study
from autotune.tuning.answer_study import score_plan
from costmodel.hardware import Gpu
from tests.properties.conserved import bytes_held, bytes_read, flops, tokens
from tests.properties.excuses import explained
from tests.properties.given import REL, Found, Given, value
from tests.properties.studies import FIELDS

EDGE_SDS = 2.0
"""Standard deviations of the sequences that decode in a step, by which a prompt may miss its budget."""


def no_worse(study: Study, before: Sequence[PlanResult], after: Sequence[PlanResult]) -> Found:
    """Plans that are lost, or worth less than before, and the best if it is worse."""
    pairs = [(value(study, a), value(study, b), a.plan) for a, b in zip(before, after, strict=True)]
    yield from (f"{name}: {old:.9g} -> {new:.9g}" for old, new, name in pairs if new < old - REL * abs(old))
    best, other = max((old for old, _, _ in pairs), default=-inf), max((new for _, new, _ in pairs), default=-inf)
    if other < best - REL * abs(best):
        yield f"the best: {best:.9g} -> {other:.9g}"


def relaxed(given: Given) -> Found:
    """A limit that asks for less loses no plan that kept it, and makes none worse."""
    for name in (
        "ttft_s",
        "tpot_s",
        "e2e_s",
        "memory_util_frac",
        "min_gpu_util_frac",
        "min_output_tokens_per_s_per_gpu",
    ):
        limit = getattr(given.study.constraints, name)
        if limit is None:
            continue
        looser = (
            limit / 1.5 if name.startswith("min_") else min(limit * 1.5, 1.0) if name.endswith("frac") else limit * 1.5
        )
        other = replace(given.study, constraints=replace(given.study.constraints, **{name: looser}))
        yield from (f"{name}: {found}" for found in no_worse(other, given.plans, given.again(other)))


def better_gpu(gpu: Gpu, field: str) -> Gpu:
    """A GPU with half more of one figure."""
    if field == "peak_flops_per_s":
        return replace(
            gpu, peak_flops_per_s={k: v * 1.5 for k, v in gpu.peak_flops_per_s.items()}, base=gpu.measured_as
        )
    return replace(gpu, base=gpu.measured_as, **{field: getattr(gpu, field) * 1.5})


def better_hardware(given: Given) -> Found:
    """More memory, bandwidth or arithmetic makes no plan worse, with the same layers in each stage.

    With a minimised metric or cost the plans under a floor are left out: faster hardware is busy for less of the time.
    """
    kept = replace(given.study, constraints=replace(given.study.constraints, min_gpu_util_frac=None))
    before = given.plans if kept.constraints == given.study.constraints else given.again(kept)
    own = replace(given.study.cluster.gpu, base=given.study.cluster.gpu.measured_as)
    before = before if own == given.study.cluster.gpu else given.again(_on(kept, own))
    for field in FIELDS:
        other = _on(kept, better_gpu(own, field))
        after = given.again(other)
        held = [
            (a, b)
            for a, b in zip(before, after, strict=True)
            if value(other, b) >= value(other, a) or not explained(_on(kept, own), other, a, b)
        ]
        found = no_worse(other, [a for a, _ in held], [b for _, b in held])
        yield from (f"{field}: {text}" for text in found)


def _on(study: Study, gpu: Gpu) -> Study:
    return replace(study, cluster=replace(study.cluster, gpu=gpu))


def shares(given: Given) -> Found:
    """Shares lie between 0 and 1, every figure is a number, and none that counts is below 0."""
    for plan in given.plans:
        for name, figure in plan.metrics.items():
            # weights beyond the memory leave less room than none: by how much orders what is infeasible
            least = -inf if name == "kv_fits_longest" and not plan.feasible else 0.0
            if np.isnan(figure) or figure < least:
                yield f"{plan.plan} {name} = {figure}"
            is_share = name in ("gpu_util_frac", "compute_util_frac", "bandwidth_util_frac")
            if is_share and figure > 1.0 + REL:
                yield f"{plan.plan} {name} = {figure}"
        if plan.feasible and plan.metrics["memory_util_frac"] > 1.0 + REL:
            yield f"{plan.plan} memory_util_frac = {plan.metrics['memory_util_frac']}"
        if not 0.0 <= plan.p_meets <= 1.0:
            yield f"{plan.plan} p_meets = {plan.p_meets}"


def intervals(given: Given) -> Found:
    """p10 <= p50 <= p90 of every metric."""
    for plan in given.plans:
        measured: Measured = plan
        for name in plan.metrics:
            metric = METRICS.get(name)
            if metric is None or not isfinite(plan.metrics[name]):
                continue
            low, high = metric.interval(measured)
            if not low <= metric.of(measured) <= high:
                yield f"{plan.plan} {name}: {low}, {metric.of(measured)}, {high}"


def margins(given: Given) -> Found:
    """A plan is feasible exactly where no limit is broken."""
    for plan in given.plans:
        if plan.feasible != all(excess <= 0.0 for excess in plan.margins.values()):
            yield f"{plan.plan}: feasible is {plan.feasible}, margins are {dict(plan.margins)}"


def ranking(given: Given) -> Found:
    """Best first by the value that is stated, ties by name, in whatever order plans come."""
    ranked, others = rank(given.study, given.plans)
    stated = sorted((-value(given.study, p), p.plan) for p in given.plans if p.feasible)
    if [(p.plan) for p in ranked] != [name for _, name in stated]:
        yield f"{[p.plan for p in ranked][:5]} is not {[name for _, name in stated][:5]}"
    if rank(given.study, list(given.plans)[::-1]) != (ranked, others):
        yield "another order of given.plans, another ranking"


def pairs(given: Given) -> Found:
    """One of two plans is better: the probabilities of either sum to 1."""
    for one, other in pairwise(given.plans):
        total = p_better(given.study, one, other) + p_better(given.study, other, one)
        if abs(total - 1.0) > 1e-9:
            yield f"{one.plan}, {other.plan}: {total}"


def alone(given: Given) -> Found:
    """A plan that is named has the value that it has in the ranking."""
    for plan in given.plans[:2]:
        named = score_plan(given.study, plan.plan).result
        if named is None or named.metrics != plan.metrics or named.knobs != plan.knobs:
            yield f"{plan.plan}: {None if named is None else named.knobs} alone, {plan.knobs} in the ranking"


def batches(given: Given) -> Found:
    """Plans come out as they are whatever is scored beside them: permuted, doubled or split."""
    half = len(given.candidates) // 2
    variants: dict[str, list[PlanResult]] = {
        "permuted": score(given.study, given.candidates[::-1])[::-1],
        "doubled": score(given.study, [*given.candidates, *given.candidates])[: len(given.candidates)],
        "split": [*score(given.study, given.candidates[:half]), *score(given.study, given.candidates[half:])],
    }
    for name, found in variants.items():
        for a, b in zip(given.plans, found, strict=True):
            if a.knobs != b.knobs or any(abs(a.metrics[m] - b.metrics[m]) > REL * abs(a.metrics[m]) for m in a.metrics):
                yield f"{name}: {a.plan} {a.knobs} is {b.knobs}"


def scaled(given: Given) -> Found:
    """Twice the replicas under twice the load serve twice as much at the same latency, at a given load and a solved.

    At a rate latencies are no longer: dealt out in turn, requests come to each of more replicas more evenly.
    """
    cluster = replace(given.study.cluster, gpus=given.study.cluster.gpus * 2)
    for plan in given.plans[:2]:
        work, replicas = given.study.workload, plan.layout.replicas
        twice = replace(plan, layout=replace(plan.layout, replicas=replicas * 2))
        at_load = [replace(work, concurrency=plan.knobs.concurrency * n, request_rate_per_s=None) for n in (1, 2)]
        asked = []
        if plan.knobs.concurrency % replicas == 0:
            asked.append([replace(given.study, workload=load) for load in at_load])
        if work.concurrency is None:
            rate = work.request_rate_per_s
            double = replace(work, request_rate_per_s=None if rate is None else 2.0 * rate)
            search = replace(given.study.search, concurrency=_doubled(given.study.search.concurrency))
            asked.append([given.study, replace(given.study, workload=double, search=search)])
        for single, doubled in asked:
            (one,) = score_launches(single, [plan])
            (both,) = score_launches(replace(doubled, cluster=cluster), [twice])
            for name, factor in (("requests_per_s", 2.0), ("ttft_s", 1.0), ("tpot_s", 1.0)):
                wanted = one.metrics[name] * factor
                off = both.metrics[name] - wanted
                sooner = off < 0.0 and factor == 1.0 and single.workload.request_rate_per_s is not None
                if abs(off) > 1e-9 * abs(wanted) and not sooner:
                    yield f"{plan.plan}: {name} is {both.metrics[name]} for two, {wanted} by one"


def _doubled(asked: IntRange | Sequence[int] | None) -> IntRange | tuple[int, ...] | None:
    """Twice the requests in flight that a study looks at."""
    if isinstance(asked, IntRange):
        return replace(asked, min=2 * asked.min, max=2 * asked.max)
    return None if asked is None else tuple(2 * number for number in asked)


def whole_requests(given: Given) -> Found:
    """No request takes less in all with more in flight, but for small steps, which the search for loads allows for.

    Where prompts may come to need another step beside more decoding, they may fit the captured graphs, or share steps
    with others: such loads the search looks at.
    """
    alone = replace(given.study.workload, concurrency=None, request_rate_per_s=None)
    grid, _ = candidate_grid(replace(given.study, workload=alone), given.candidates[:6])
    loads, rows = np.unique((2.0 ** np.arange(0.0, 13.0, 0.25)).round()), np.arange(grid.variant.size)
    every = np.repeat(rows, loads.size)
    found = grid.take(every).evaluate(np.tile(loads, rows.size) * grid.batch.layout.replicas[every])
    taken_s = found.e2e_s.reshape(rows.size, -1)
    layout, prompt = grid.batch.layout, alone.isl.mean * (1.0 - alone.prefix_cache_hit_frac)
    decoding = loads / (layout.pp * layout.attn_dp)[:, None]
    budget = grid.batched_tokens[:, None]
    left = np.maximum(budget - decoding - EDGE_SDS * np.sqrt(decoding), 1.0)
    alike = np.ceil(prompt / left) == np.ceil(prompt / budget)
    falls = np.where(alike[:, 1:], taken_s[:, :-1] / taken_s[:, 1:], 0.0)
    for row, at in np.argwhere(falls > SMALL_STEPS):
        name = f"{grid.variants[grid.variant[row]].candidate} with {loads[at]:g} a replica and then {loads[at + 1]:g}"
        yield f"{name}: a request takes {falls[row, at]:.4f} times as long with fewer"


def global_load(given: Given) -> Found:
    """No other number of requests in flight is better than the solved one, by the rule that ranks: brute force."""
    grid, _ = candidate_grid(given.study, given.candidates[:3])
    rows = range(0, grid.variant.size, max(grid.variant.size // 2, 1))
    yield from (f"{name}: {loss:.3g}" for name, loss in load_losses(grid, rows, every=300) if loss > REL)


def load_losses(grid: KnobGrid, rows: Iterable[int], *, every: int) -> Iterator[tuple[str, float]]:
    """Of rows whose load is solved, by how much the best of all loads is better, as a share; infinite: by a limit.

    Tried are all numbers per replica up to `every`, and a fine geometric row of them up to the KV room. Where a request
    rate is given the fewest that serve it are the best.
    """
    study, replicas = grid.study, grid.batch.layout.replicas
    rate = study.workload.request_rate_per_s
    if study.workload.concurrency is not None:
        return
    solved = solve_concurrency(grid)
    for row in rows:
        own, copies = grid.take(np.array([row])), float(replicas[row])
        most = _room(own)
        tried = np.unique(np.r_[np.arange(1.0, min(most, float(every)) + 1.0), np.geomspace(1.0, most, every).round()])
        tried = tried[tried >= bounds(study, replicas[row : row + 1])[0][0]]
        rows_tried = grid.take(np.full(tried.size, row))
        name = f"{grid.variants[grid.variant[row]].candidate} with {solved[row] / copies:g} a replica"
        if rate is not None:
            serves = rows_tried.evaluate(tried * copies).requests_per_s >= rate * (1.0 - 1e-9)
            served = own.evaluate(solved[row : row + 1]).requests_per_s[0] >= rate * (1.0 - 1e-9)
            if serves.any():
                fewest = tried[serves.argmax()]
                loss = solved[row] / copies / fewest - 1.0 if served else inf
                yield f"{name}, {fewest:g} serve the rate", loss
            continue
        here = KnobGridAtLoad(own, solved[row : row + 1]).scored.standing
        found = KnobGridAtLoad(rows_tried, tried * copies).scored.standing
        kept = found.worst <= 0.0
        if not kept.any():
            continue
        best = np.where(kept, found.gain, -inf).argmax()
        gain = found.gain[best]
        loss = (gain - here.gain[0]) / max(abs(gain), 1e-300) if here.worst[0] <= 0.0 else inf
        yield f"{name}, best with {tried[best]:g}", float(loss)


def _room(row: KnobGrid) -> float:
    """Most requests in flight of one row's replica that have KV room, by doubling and halving."""
    replicas = float(row.batch.layout.replicas[0])
    low, high = 1.0, 2.0**20
    while high - low > max(low * 1e-3, 1.0):
        middle = np.floor((low + high) / 2.0)
        if row.evaluate(np.array([middle * replicas])).kv_wait_s[0] <= 0.0:
            low = float(middle)
        else:
            high = float(middle)
    return low


Statement = Callable[[Given], Found]
STATEMENTS: dict[str, Statement] = {
    f.__name__: f
    for f in (
        relaxed,
        better_hardware,
        shares,
        tokens,
        flops,
        bytes_held,
        bytes_read,
        intervals,
        margins,
        ranking,
        pairs,
        alone,
        batches,
        scaled,
        whole_requests,
        global_load,
    )
}


COSTLY = ("relaxed", "better_hardware", "batches", "scaled", "whole_requests", "global_load", "alone")
"""Statements that score plans again, by which a study takes a second and not a tenth of one."""


def chosen(rng: random.Random, candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Some of the candidates."""
    return list(candidates) if len(candidates) <= count else rng.sample(list(candidates), count)
