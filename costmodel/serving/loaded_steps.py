"""How many steps carry prompts, where those that do are longer than others and more prompts come while they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from costmodel.plan.columns import Columns, Floats
from costmodel.serving.settle import Plant, Settling

TURNS = 5
"""Times that the share of steps with prompts is moved halfway to what follows from it."""
STEEP_TURNS = 8
"""Times more that it is looked for where what follows falls so steeply that it overshoots."""


def steps_with_prompts(plant: Plant, needed: Floats, chunks: Floats, settling: Settling) -> Floats:
    """Steps with prompts per step that decodes, where `needed` chunks come per step; shape `(num_plans,)`.

    Were all steps alike, `1 - exp(-needed)`. Those that carry prompts are longer, so that more prompts come while they
    run, which share the next one.

    Args:
        plant: the plans.
        needed: chunks of prompts per step.
        chunks: of a prompt.
        settling: has the lengths of steps as they were last found; where there are none, steps are taken to be alike.
    """
    apart, engine, base_s = -np.expm1(-needed), plant.engine, settling.base_s
    steps = _Steps(
        needed=needed,
        chunks=chunks,
        apart=apart,
        base_s=base_s,
        long_s=settling.with_prompts_s,
        between_s=plant.front_s + engine.handover_steps * base_s,
        open_loop=plant.load.open_loop,
    )
    # turns of a pipeline are looked at as a whole, once the steps are known
    known = ~np.isnan(base_s) & (plant.share.micro_batches <= 1.0)
    found = apart.copy()
    for searched, solve in ((engine.mixes > 0.0, _beside_decoding), (engine.mixes <= 0.0, _before_decoding)):
        rows = np.flatnonzero(known & searched)
        if rows.size:
            found[rows] = solve(steps.slice(rows))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps(Columns):
    """What decides how many steps carry prompts. Arrays of shape `(num_plans,)` or `(1,)`."""

    needed: Floats
    """Chunks of prompts that come per step."""
    chunks: Floats
    """Of a prompt."""
    apart: Floats
    """Share of steps with prompts, were all steps alike."""
    base_s: Floats
    """Length of a step without prompts."""
    long_s: Floats
    """Length of a step with prompts."""
    between_s: Floats
    """From the end of a request to the prompt that takes its place."""
    open_loop: Floats

    def carrying(self, share: Floats) -> Floats:
        """The share that follows from a share: it falls as that rises, so that one share follows from itself."""
        mean_s = self.base_s + share * (self.long_s - self.base_s)
        most = np.where(self.open_loop > 0.0, np.inf, 1.0 + self.between_s / mean_s)
        after_long = self.needed * np.minimum(np.maximum(self.long_s / mean_s, 1.0), most)
        # what short steps have left, written so that nothing cancels where next to all steps are long
        beyond = share * (self.needed * self.long_s / mean_s - after_long) / np.maximum(1.0 - share, 1e-12)
        after_short = self.needed * self.base_s / mean_s + beyond
        begins = -np.expm1(-after_short)
        return np.minimum(begins / np.maximum(begins + np.exp(-after_long), 1e-300), self.apart)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search(Columns):
    """Where the search for the share that follows from itself is. Arrays of shape `(num_plans,)`."""

    share: Floats
    low: Floats
    """More follows from so small a share; 0: none is known."""
    high: Floats
    """No more follows from so large a share."""
    more: Floats
    """How much more follows from `low`."""
    less: Floats
    """How much less follows from `high`, at most 0."""

    def after(self, steps: _Steps, *, halfway: bool) -> Self:
        """After a turn: between two bounds by a secant, and `halfway` to what follows where there is one bound."""
        off = steps.carrying(self.share) - self.share
        small = off > 0.0
        low, high = np.where(small, self.share, self.low), np.where(small, self.high, self.share)
        # an end that stays counts half as much each time, so that both ends move
        more, less = np.where(small, off, 0.5 * self.more), np.where(small, 0.5 * self.less, off)
        between = low + (high - low) * more / np.maximum(more - less, 1e-300)
        share = np.where(low > 0.0, between, self.share + 0.5 * off if halfway else self.share)
        return type(self)(share=share, low=low, high=high, more=more, less=less)


def _beside_decoding(steps: _Steps) -> Floats:
    """Share of steps with prompts where those ride on decode steps.

    In a closed loop only so many prompts come during a long step: those of the requests that ended while the last ones
    went through the front end.
    """
    none = np.zeros_like(steps.apart)
    search = _Search(share=steps.apart, low=none, high=steps.apart, more=none, less=none)
    for turn in range(TURNS + 1):
        search = search.after(steps, halfway=turn < TURNS)
    share, steep = search.share, np.flatnonzero(search.low > 0.0)
    if steep.size:
        steps, search = steps.slice(steep), search.slice(steep)
        for _ in range(STEEP_TURNS - 1):
            search = search.after(steps, halfway=False)
        share[steep] = search.share
    return share


def _before_decoding(steps: _Steps) -> Floats:
    """Steps with prompts per step that decodes, with prefill first.

    Nothing ends while prompts are computed: passes follow each other until the front end is empty, and then steps
    decode alone until the first request that ends has been through it again.
    """
    # half a step more until the scheduler looks
    alone = np.maximum(steps.between_s / steps.base_s + 0.5, 1.0)
    further = np.maximum(steps.between_s / steps.long_s, 1.0)
    passes = 1.0 + further * -np.expm1(-steps.needed * alone / further)
    first = np.minimum(passes / (1.0 / steps.apart + alone), steps.apart)
    return np.where((steps.open_loop > 0.0) | (steps.chunks > 1.0), steps.apart, first)
