"""What prefix caches of any size find of the prompts of a log, by the hashes of their blocks.

A cache drops the blocks that were used longest ago. A larger one holds all that a smaller one does: a block is found in
every cache that has room for as many blocks as were used since its last use, its stack distance (Mattson, Gecsei, Slutz
and Traiger, IBM Systems Journal 9 (1970) 78). One pass over a log therefore answers for every size, exactly.

Of a prompt the blocks at its beginning are found, up to the first that is not. Its blocks are used when it comes, the
first of them last, so that beginnings are dropped last. A block's hash stands for all blocks before it as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from costmodel.plan.columns import Floats, Ints

NEVER = np.iinfo(np.int64).max
"""The distance of a block that was not used before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptBlocks:
    """The blocks of prompts, in the order in which they come."""

    ids: Ints
    """Of all blocks, prompt after prompt. Equal blocks have equal numbers from 0. Shape `(num_blocks,)`."""
    start: Ints
    """Where the blocks of each prompt begin, and where the last ones end. Shape `(num_prompts + 1,)`."""
    prompt: Ints
    """Tokens of each prompt. Shape `(num_prompts,)`."""
    tokens_each: int
    """Prompt tokens of a block; the last one of a prompt may have fewer."""
    warm_up: int = 0
    """Prompts at the beginning that fill the caches and are not asked for."""
    _known: dict[int, _Reuse] = field(default_factory=dict, repr=False, compare=False)
    """By number of caches: each is worked out once."""

    def __len__(self) -> int:
        return self.start.size - 1

    def rows(self, chosen: slice | Ints) -> PromptBlocks:
        """The blocks of some prompts, in the order of `chosen`."""
        index = np.arange(len(self))[chosen]
        counts = np.diff(self.start)[index]
        start = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(start[-1]) - np.repeat(start[:-1] - self.start[:-1][index], counts)
        return PromptBlocks(ids=self.ids[places], start=start, prompt=self.prompt[index], tokens_each=self.tokens_each)

    @property
    def has_blocks(self) -> NDArray[np.bool_]:
        """Which prompts have any, but those of the warm-up."""
        return np.asarray(np.diff(self.start)[self.warm_up :] > 0)

    @property
    def owner(self) -> Ints:
        """The prompt of each block."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def cached(self, *, caches: int, tokens: float) -> Ints:
        """Tokens of each prompt that are found, of which the last is always computed; without those of the warm-up.

        Args:
            caches: how many there are; prompts go to them in turn.
            tokens: what each holds.
        """
        found = self._reuse(caches).room <= tokens / self.tokens_each
        blocks = np.bincount(self.owner, found, minlength=len(self)).astype(np.int64)
        return np.minimum(blocks * self.tokens_each, self.prompt - 1)[self.warm_up :]

    def hit_frac(self, *, caches: Ints, tokens: Floats) -> Floats:
        """Share of prompt tokens that are found, for several numbers of caches and sizes; arrays of one shape.

        A prompt that is found whole counts as whole.
        """
        out = np.empty(tokens.shape)
        for count in np.unique(caches):
            reuse, own = self._reuse(int(count)), caches == count
            out[own] = reuse.found[np.searchsorted(reuse.rooms, tokens[own] / self.tokens_each, side="right")]
        return out / max(int(self.prompt[self.warm_up :].sum()), 1)

    def _reuse(self, caches: int) -> _Reuse:
        if caches not in self._known:
            room, owner = _least_room(self, caches), self.owner
            place = np.arange(self.ids.size) - self.start[:-1][owner]
            part = np.clip(self.prompt[owner] - place * self.tokens_each, 0, self.tokens_each)
            part = np.where(owner < self.warm_up, 0, part)
            order = np.argsort(room, kind="stable")
            found = np.concatenate([[0], np.cumsum(part[order])])
            self._known[caches] = _Reuse(room=room, rooms=room[order], found=found)
        return self._known[caches]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reuse:
    """What so many caches find, by what each of them holds."""

    room: Ints
    """Blocks that a cache has to hold so that a block of a prompt is found with all before it. Shape `(num_blocks,)`.
    """
    rooms: Ints
    """The same, ascending."""
    found: Ints
    """Prompt tokens that are found where the first so many of `rooms` suffice. Shape `(num_blocks + 1,)`."""


def _least_room(blocks: PromptBlocks, caches: int) -> Ints:
    """`_Reuse.room`."""
    # the uses of one cache after those of the other, and of each prompt's blocks the first one last
    order = np.argsort(np.arange(len(blocks)) % caches, kind="stable")
    counts = np.diff(blocks.start)[order]
    ends = np.cumsum(counts)
    owner = np.repeat(np.arange(order.size), counts)
    place = np.arange(owner.size) - (ends - counts)[owner]
    source = blocks.start[:-1][order][owner] + (counts[owner] - 1 - place)
    cache = (order % caches)[owner]
    key = cache * (int(blocks.ids.max(initial=0)) + 1) + blocks.ids[source]
    by_key = np.argsort(key, kind="stable")
    again = np.flatnonzero(key[by_key][1:] == key[by_key][:-1])
    last = np.full(key.size, -1)
    last[by_key[again + 1]] = by_key[again]
    began = (ends - counts)[owner]
    known = np.flatnonzero((last >= 0) & (last < began))
    used = began[known] - last[known] - greater_before(last[known])
    room = np.full(blocks.ids.size, NEVER)
    room[source[known]] = used
    # whatever a block needs, those behind it need as well
    most = blocks.ids.size + 1
    begins = blocks.owner * (most + 1)
    reached = np.maximum.accumulate(begins + np.minimum(room, most)) - begins
    return np.where(reached < most, reached, NEVER)


def greater_before(values: Ints, weights: Ints | None = None) -> Ints:
    """How many of the values before each are greater than it; distinct numbers from 0, shape `(num_values,)`.

    With `weights`, of the same shape, it is the sum of theirs.

    From the highest bit to the lowest: of values whose higher bits are equal, those with a 1 are greater than those
    with a 0. Values stay in groups of equal higher bits, each in its first order.
    """
    count = np.zeros(values.size, dtype=np.int64)
    order, begins = np.arange(values.size), np.zeros(values.size, dtype=np.int64)
    place = np.arange(values.size)
    for bit in reversed(range(int(values.max(initial=0)).bit_length())):
        one = (values[order] >> bit) & 1
        ones = _sums(one, begins)
        count[order] += np.where(one == 0, ones if weights is None else _sums(one * weights[order], begins), 0)
        zeros = place - begins - ones
        last = np.flatnonzero(np.append(begins[1:] != begins[:-1], True)) if values.size else place
        sizes = np.diff(np.append(begins[last], values.size))
        of_group = np.repeat(zeros[last] + 1 - one[last], sizes)
        moved = begins + np.where(one == 0, zeros, of_group + ones)
        following = np.empty_like(order), np.empty_like(begins)
        following[0][moved], following[1][moved] = order, np.where(one == 0, begins, begins + of_group)
        order, begins = following
    return count


def _sums(values: Ints, begins: Ints) -> Ints:
    """The sum of the values before each from where its group begins, same shape."""
    before = np.concatenate([[0], np.cumsum(values)])
    return before[:-1] - before[begins]
