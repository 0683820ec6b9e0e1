"""Requests to be simulated: when they arrive, and how long their prompts and outputs are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from costmodel.plan.columns import Floats, Ints
from costmodel.simulation.policies.base import BLOCK
from costmodel.simulation.prefix_cache import PromptBlocks
from costmodel.simulation.session_prompts import SessionPrompts

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Requests in the order of their arrival. Every array has shape `(num_requests,)`."""

    arrival_s: Floats
    """Ascending."""
    prompt: Ints
    """Tokens, at least 1."""
    cached: Ints
    """Those of them that are found in the prefix cache."""
    output: Ints
    """Tokens, at least 1."""
    blocks: PromptBlocks | SessionPrompts | None = None
    """Of their prompts, where a log has hashes of them, or they are of sessions: what is `cached` then follows from the
    size of the cache."""

    def __len__(self) -> int:
        return int(self.arrival_s.size)

    def take(self, index: Ints) -> Requests:
        """Some of them, in the order of `index`, with what was cached of each; their blocks say nothing any more."""
        return Requests(
            arrival_s=self.arrival_s[index],
            prompt=self.prompt[index],
            cached=self.cached[index],
            output=self.output[index],
        )

    def with_caches(self, *, caches: int, tokens: float) -> Requests:
        """The same with what so many caches, to which they go in turn and which hold so many tokens each, find of them.

        Without blocks, and of prompts that have none, that is what it was.
        """
        if self.blocks is None:
            return self
        found = self.blocks.cached(caches=caches, tokens=tokens)
        found = np.where(self.blocks.has_blocks, found, self.cached)
        return replace(self, cached=np.minimum(found, self.prompt - 1), blocks=None)

    def longer(self, *, prompts: float = 1.0, outputs: float = 1.0) -> Requests:
        """The same with prompts, what is cached of them, and outputs so many times as long."""
        if prompts == outputs == 1.0:
            return self
        prompt = np.maximum(np.rint(self.prompt * prompts), 1.0).astype(np.int64)
        return replace(
            self,
            prompt=prompt,
            cached=np.minimum((self.cached * prompts).astype(np.int64), prompt - 1),
            output=np.maximum(np.rint(self.output * outputs), 1.0).astype(np.int64),
        )

    def with_hits(self, hit_frac: float) -> Requests:
        """The same with a share of each prompt found in the prefix cache, whatever was found of it."""
        return replace(self, cached=found_in_blocks(self.prompt, hit_frac), blocks=None)


def found_in_blocks(prompt: Ints, hit_frac: float) -> Ints:
    """Tokens of prompts of which a share is in the prefix cache that are found there: whole blocks, and never all."""
    return np.minimum((prompt * hit_frac).astype(np.int64) // BLOCK * BLOCK, prompt - 1)


def arrivals(count: int, rate_per_s: float, cv: float, random: np.random.Generator) -> Floats:
    """Times of `count` arrivals at a mean rate, seconds, the first at 0.

    `cv` is the coefficient of variation of the gaps: 0 for equal ones, 1 for Poisson arrivals, above it for bursts
    (gamma distributed gaps). The gaps are scaled so that their mean is that of the rate.
    """
    if cv == 0.0:
        return np.arange(count) / rate_per_s
    shape = 1.0 / (cv * cv)
    gaps = random.gamma(shape, 1.0 / (shape * rate_per_s), max(count - 1, 0))
    if gaps.size and gaps.sum() > 0.0:
        gaps *= gaps.size / rate_per_s / gaps.sum()
    return np.concatenate([np.zeros(min(count, 1)), np.cumsum(gaps)])


def uniform_lengths(least: float, most: float, count: int, random: np.random.Generator) -> Ints:
    """Whole numbers between two, both included, each as likely as any other."""
    return random.integers(round(least), round(most) + 1, count)


def quantile_lengths(quantiles: dict[float, float], mean: float, count: int, random: np.random.Generator) -> Ints:
    """Lengths with these quantiles (share -> tokens), as far as the mean allows.

    Between two given quantiles lengths are equally likely. Below the first and above the last they go on as beside
    them; what the mean has more or less than that is put between the quantiles, in proportion to their distance.
    """
    shares = sorted(quantiles)
    values = [quantiles[s] for s in shares]
    low = max(values[0] - (values[1] - values[0]) * shares[0] / (shares[1] - shares[0]), 1.0)
    high = values[-1] + (values[-1] - values[-2]) * (1.0 - shares[-1]) / (shares[-1] - shares[-2])
    knots, lengths = np.array([0.0, *shares, 1.0]), np.array([low, *values, high])

    # a power of the place between two knots moves the mean and leaves the quantiles
    def drawn(power: float, places: Floats) -> Floats:
        at = np.clip(np.searchsorted(knots, places, side="right") - 1, 0, len(knots) - 2)
        share = (places - knots[at]) / (knots[at + 1] - knots[at])
        return lengths[at] + (lengths[at + 1] - lengths[at]) * share**power

    grid = (np.arange(4096) + 0.5) / 4096
    least, most = 0.05, 20.0
    for _ in range(40):
        middle = np.sqrt(least * most)
        least, most = (middle, most) if drawn(middle, grid).mean() > mean else (least, middle)
    return np.maximum(np.round(drawn(np.sqrt(least * most), random.random(count))), 1.0).astype(np.int64)
