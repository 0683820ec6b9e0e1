"""What prefix caches of any size find of the prompts of sessions, each of which begins with all that was said before.

A session's prompts differ in where they end alone, so that one number per prompt stands for all its blocks. A block is
found where the cache has room for all that was used since its last use (`costmodel.simulation.prefix_cache`): the
system prompt, what other sessions hold that came in between, each counted once, and what stands before the block in its
own session. That is the same as with a number for each block of the engine's size, for prompts of any length.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from costmodel.plan.columns import Floats, Ints
from costmodel.simulation.policies.base import BLOCK
from costmodel.simulation.prefix_cache import greater_before


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPrompts:
    """The prompts of sessions, in the order in which they come. Arrays have shape `(num_prompts,)`."""

    session: Ints
    """Whose each is, numbers from 0."""
    prompt: Ints
    """Tokens of each."""
    after: Ints
    """Tokens of the session behind the prompt's answer, which the session's next prompt begins with."""
    system_tokens: int
    """At the beginning of every prompt, the same in all sessions."""
    warm_up: int = 0
    """Prompts at the beginning that fill the caches and are not asked for."""
    stands_for: float = 1.0
    """Sessions that each one stands for, of those that come between two prompts of another."""
    _known: dict[int, _Reuse] = field(default_factory=dict, repr=False, compare=False)
    """By number of caches: each is worked out once."""

    @property
    def has_blocks(self) -> NDArray[np.bool_]:
        """Which prompts caches are known to find something of, but those of the warm-up: all."""
        return np.ones(self.prompt.size - self.warm_up, dtype=np.bool_)

    def cached(self, *, caches: int, tokens: float) -> Ints:
        """Tokens of each prompt that are found, of which the last is always computed; without those of the warm-up.

        Args:
            caches: how many there are; prompts go to them in turn.
            tokens: what each holds.
        """
        reuse, blocks = self._reuse(caches), np.floor(tokens / BLOCK)
        found = sum(np.clip(blocks - part.room, 0.0, part.held) for part in (reuse.system, reuse.own))
        return np.minimum(np.asarray(found, dtype=np.int64) * BLOCK, self.prompt[self.warm_up :] - 1)

    def hit_frac(self, *, caches: Ints, tokens: Floats) -> Floats:
        """Share of prompt tokens that are found, for several numbers of caches and sizes; arrays of one shape."""
        out = np.empty(tokens.shape)
        for count in np.unique(caches):
            reuse, own = self._reuse(int(count)), caches == count
            blocks = np.floor(tokens[own] / BLOCK)
            out[own] = reuse.system.found(blocks) + reuse.own.found(blocks)
        return out * BLOCK / max(int(self.prompt[self.warm_up :].sum()), 1)

    def _reuse(self, caches: int) -> _Reuse:
        if caches not in self._known:
            self._known[caches] = _reuse_of(self, caches)
        return self._known[caches]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Blocks of each prompt that lie behind each other and were last used together. Shape `(num_prompts,)`."""

    room: Floats
    """Blocks that a cache holds before it holds the first of these."""
    held: Floats
    """How many these are; 0: none was used before."""

    def found(self, blocks: Floats) -> Floats:
        """How many of all prompts' are found by caches of so many blocks, same shape."""
        blocks = np.minimum(blocks, (self.room + self.held).max(initial=0.0))  # no sum is lost beside a huge size
        return _over(self.room, blocks) - _over(self.room + self.held, blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reuse:
    """What so many caches find of the prompts that are asked for."""

    system: _Part
    own: _Part


def _over(room: Floats, blocks: Floats) -> Floats:
    """The sum of what each of some sizes exceeds each room by, shape `(num_sizes,)`."""
    ascending = np.sort(room)
    sums = np.concatenate([[0.0], np.cumsum(ascending)])
    below = np.searchsorted(ascending, blocks)
    return np.asarray(below * blocks - sums[below])


def _reuse_of(prompts: SessionPrompts, caches: int) -> _Reuse:
    shared = prompts.system_tokens // BLOCK
    # the prompts of one cache after those of the other
    order = np.argsort(np.arange(prompts.session.size) % caches, kind="stable")
    own = (prompts.after // BLOCK - shared)[order]
    cache = order % caches
    key = cache * (int(prompts.session.max(initial=0)) + 1) + prompts.session[order]
    by_key = np.argsort(key, kind="stable")
    again = np.flatnonzero(key[by_key][1:] == key[by_key][:-1])
    place, last = by_key[again + 1], by_key[again]
    in_order = np.argsort(place)
    place, last = place[in_order], last[in_order]
    # all that came since the last prompt of the session, less what a session came back with within that time
    sums = np.concatenate([[0], np.cumsum(own)])
    between = sums[place] - sums[last + 1] - greater_before(last, own[last])
    room, held = np.zeros(order.size), np.zeros(order.size)
    room[order[place]], held[order[place]] = prompts.stands_for * between, own[last]
    asked = slice(prompts.warm_up, None)
    filled = np.arange(order.size) >= caches
    system = np.where(filled, float(shared), 0.0)
    return _Reuse(
        system=_Part(room=np.zeros(order.size)[asked], held=system[asked]),
        own=_Part(room=shared + room[asked], held=held[asked]),
    )
