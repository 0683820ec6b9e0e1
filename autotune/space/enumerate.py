"""Every way to factor N GPUs, and which of them the engines accept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from autotune.engines import ENGINES, engines_of, split_layers
from autotune.engines.layout_rules import Candidates, Rule, Violation, explain
from autotune.study import Search
from costmodel.arch import Arch
from costmodel.errors import InputError
from costmodel.plan.layout import LAYOUT_AXES, Layout

MAX_GPUS = 1_000_000
ANY_LAYOUT = Search()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A layout and the engine that would launch it."""

    engine: str
    layout: Layout
    gpu: str | None = None
    """GPU type by catalog name, where it is not the cluster's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What was enumerated: `enumerated == len(candidates) + sum(rejected.values())`."""

    enumerated: int
    rejected: dict[str, int]
    """Rule -> candidates that it was the first to forbid."""
    candidates: tuple[Candidate, ...]


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def enumerate_space(
    arch: Arch,
    *,
    gpus: int,
    engine: str,
    search: Search = ANY_LAYOUT,
    version: str | None = None,
    drafts: bool = False,
) -> Space:
    """All layouts of exactly `gpus` GPUs for `engine` ("any": every one), in a fixed order.

    `search` has the degrees that no factorisation decides. `version` is of the engine, whose rules it decides about;
    None: the newest that is known. `drafts`: every plan decodes with drafts.

    Raises:
        InputError: `gpus` is not between 1 and `MAX_GPUS`.
    """
    if not 1 <= gpus <= MAX_GPUS:
        raise InputError.single("$.cluster.gpus", f"must lie between 1 and {MAX_GPUS}, got {gpus}")
    everything = _factorisations(arch, _replicas_of(gpus), search, version)
    rejected: dict[str, int] = {}
    candidates: list[Candidate] = []
    engines = engines_of(engine)
    for name in engines:
        rules = ENGINES[name].rules_of(None, drafts=drafts)
        first = _first_broken(arch, rules, replace(everything, engine=name))
        for number, count in _counts(first).items():
            rejected[rules[number].name] = rejected.get(rules[number].name, 0) + count
        candidates += _build(arch, name, everything, np.flatnonzero(first < 0))
    return Space(enumerated=len(engines) * int(everything.pp.size), rejected=rejected, candidates=tuple(candidates))


def enumerate_replicas(  # noqa: PLR0913  # what a layout is asked about
    arch: Arch,
    *,
    most_gpus: int,
    engine: str,
    role: str | None = None,
    search: Search = ANY_LAYOUT,
    version: str | None = None,
    drafts: bool = False,
) -> tuple[Candidate, ...]:
    """All layouts of one replica on at most so many GPUs that the rules of one engine accept, in a pool of that role.

    Those of any number of GPUs are these, repeated, in the order of `enumerate_space`: no rule looks at replicas.
    """
    shapes = [(1, pp, width) for pp in range(1, most_gpus + 1) for width in range(1, most_gpus // pp + 1)]
    everything = _factorisations(arch, shapes, search, version)
    broken = _first_broken(arch, ENGINES[engine].rules_of(role, drafts=drafts), replace(everything, engine=engine))
    return tuple(_build(arch, engine, everything, np.flatnonzero(broken < 0)))


def rejected_by_value(  # noqa: PLR0913  # what a layout is asked about
    arch: Arch,
    *,
    gpus: int,
    engine: str,
    axis: str,
    search: Search = ANY_LAYOUT,
    version: str | None = None,
    drafts: bool = False,
) -> dict[int, dict[str, int]]:
    """Value of a layout's `axis` (one of `LAYOUT_AXES`) -> rule -> candidates with it that the rule forbids.

    Of the same candidates as `enumerate_space`; every value that was enumerated has an entry, ascending. A candidate
    counts under each rule that it breaks, so that the rule with the most is the one that stands against the value.
    """
    everything = _factorisations(arch, _replicas_of(gpus), search, version)
    column = getattr(everything, axis)
    out: dict[int, dict[str, int]] = {int(value): {} for value in np.unique(column)}
    for name in engines_of(engine):
        for rule in ENGINES[name].rules_of(None, drafts=drafts):
            broken = column[rule.broken(arch, replace(everything, engine=name))]
            for value, count in zip(*np.unique(broken, return_counts=True), strict=True):
                out[int(value)][rule.name] = out[int(value)].get(rule.name, 0) + int(count)
    return out


def conditions(arch: Arch, candidates: Sequence[Candidate], version: str | None = None) -> tuple[tuple[Rule, int], ...]:
    """What some of the valid candidates start with alone, and how many they are; none that is asked of no one."""
    found = []
    for name in dict.fromkeys(c.engine for c in candidates):
        own = [c.layout for c in candidates if c.engine == name]
        columns = {axis: np.array([getattr(layout, axis) for layout in own], dtype=np.int64) for axis in LAYOUT_AXES}
        table = Candidates(**columns, engine=name, version=version)
        counts = [(rule, int(rule.broken(arch, table).sum())) for rule in ENGINES[name].conditions]
        found += [(rule, count) for rule, count in counts if count]
    return tuple(found)


def _first_broken(arch: Arch, rules: Sequence[Rule], candidates: Candidates) -> NDArray[np.int64]:
    """Index into `rules` of the first that each candidate breaks; -1: none."""
    first = np.full(candidates.pp.shape, -1, dtype=np.int64)
    for number, rule in enumerate(rules):
        first[(first < 0) & rule.broken(arch, candidates)] = number
    return first


def _counts(numbers: NDArray[np.int64]) -> dict[int, int]:
    """How often each rule's number occurs, ascending; -1 is left out."""
    found, counts = np.unique(numbers[numbers >= 0], return_counts=True)
    return {int(n): int(c) for n, c in zip(found, counts, strict=True)}


def _replicas_of(gpus: int) -> list[tuple[int, int, int]]:
    """Replicas, stages and width that make up so many GPUs."""
    return [(gpus // pp // width, pp, width) for pp in divisors(gpus) for width in divisors(gpus // pp)]


def _factorisations(
    arch: Arch, shapes: Sequence[tuple[int, int, int]], search: Search, version: str | None
) -> Candidates:
    """Columns of every candidate. Dense models keep `moe_tp = moe_ep = 1`: they have no second reading of W.

    `shapes` are replicas, stages and W.
    """
    rows: list[tuple[int, ...]] = []
    for replicas, pp, width in shapes:
        experts = [(width // ep, ep) for ep in divisors(width)] if arch.is_moe else [(1, 1)]
        attention = [
            (width // cp // dp, dp, cp) for cp in search.attn_cp if width % cp == 0 for dp in divisors(width // cp)
        ]
        rows += [(replicas, pp, tp, dp, cp, moe_tp, moe_ep) for tp, dp, cp in attention for moe_tp, moe_ep in experts]
    table = np.array(rows, dtype=np.int64)
    knobs = list(product(search.dcp, search.redundant_experts, map(int, search.two_batch_overlap)))
    index = np.repeat(np.arange(len(table)), len(knobs))
    table = np.hstack([table[index], np.tile(np.array(knobs, dtype=np.int64), (len(table), 1))])
    columns = {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(LAYOUT_AXES)}
    return Candidates(**columns, engine="", version=version)


def _build(
    arch: Arch, engine: str, c: Candidates, chosen: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> list[Candidate]:
    columns = [getattr(c, name)[chosen].tolist() for name in LAYOUT_AXES]
    out = []
    for values in zip(*columns, strict=True):
        degrees = dict(zip(LAYOUT_AXES, values, strict=True))
        stages = split_layers(engine, arch.num_hidden_layers, degrees["pp"])
        out.append(Candidate(engine=engine, layout=Layout(**degrees, stage_layers=stages)))
    return out


def violations(
    arch: Arch,
    engine: str,
    layout: Layout,
    version: str | None = None,
    role: str | None = None,
    *,
    drafts: bool = False,
) -> tuple[Violation, ...]:
    """Every rule of `engine` that one layout breaks, in a pool of that role; `version` None: the newest known.

    `drafts`: it decodes with drafts.
    """
    columns = {name: np.array([getattr(layout, name)], dtype=np.int64) for name in LAYOUT_AXES}
    one = Candidates(**columns, engine=engine, version=version)
    rules = ENGINES[engine].rules_of(role, drafts=drafts)
    return tuple(explain(rule, arch, one, 0) for rule in rules if rule.broken(arch, one)[0])
