"""Shared prefixes by the hashes of a prompt's blocks, as traces of Mooncake's and Bailian's kind have them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MAX_BLOCKS = 4_000_000
"""Distinct blocks that are remembered; a cache that holds more is larger than a cluster's."""
SIZES = (512, 256, 128, 64, 32, 16)
"""Tokens of a block that are recognised. Mooncake's traces have 512 (Qin et al. 2024, arXiv:2407.00079, appendix),
Bailian's 16."""
FITS_FRAC = 0.9
"""Share of requests whose number of blocks has to fit their prompt."""
CACHE_TOKENS = (100_000, 1_000_000, 10_000_000, 100_000_000)
"""Sizes of caches that shared prefixes are counted for."""


def block_tokens(prompts: NDArray[np.int32], counts: NDArray[np.int32]) -> int | None:
    """Tokens of a block, by prompts and how many blocks each has, shape `(num_requests,)`; None: no size fits.

    The last block of a prompt may be incomplete, or left out where it is.
    """
    long = counts >= 2
    if not long.any():
        long = counts >= 1
    prompts, counts = prompts[long], counts[long]
    if prompts.size == 0:
        return None
    for size in SIZES:
        fits = (counts == -(-prompts // size)) | (counts == prompts // size)
        if float(fits.mean()) >= FITS_FRAC:
            return size
    return None


@dataclass(slots=True)
class Blocks:
    """Blocks of all prompts so far."""

    seen: set[Hashable] = field(default_factory=set)

    def known(self, ids: Sequence[Hashable]) -> int:
        """Blocks at the beginning of a prompt that an earlier one had; all of them are remembered."""
        known = 0
        for block in ids:
            if block not in self.seen:
                break
            known += 1
        if len(self.seen) < MAX_BLOCKS:
            self.seen.update(ids)
        return known


@dataclass(slots=True)
class BoundedCaches:
    """Caches of `CACHE_TOKENS` that drop what was used longest ago, with the prompt tokens that each found."""

    tokens_each: int
    """Of a block."""
    found: list[int] = field(default_factory=lambda: [0] * len(CACHE_TOKENS))
    prompts: int = 0
    """Prompt tokens in all."""
    _held: list[OrderedDict[Hashable, None]] = field(default_factory=lambda: [OrderedDict() for _ in CACHE_TOKENS])

    def take(self, ids: Sequence[Hashable], prompt: int) -> None:
        """Serve one prompt."""
        self.prompts += prompt
        for i, held in enumerate(self._held):
            known = 0
            for block in ids:
                if block not in held:
                    break
                known += 1
            self.found[i] += min(known * self.tokens_each, prompt)
            for block in reversed(ids):  # the beginning is used last: it is dropped last
                held[block] = None
                held.move_to_end(block)
            while len(held) > CACHE_TOKENS[i] // self.tokens_each:
                held.popitem(last=False)

    def shares(self) -> dict[int, float]:
        """Tokens of a cache -> share of prompt tokens that it found."""
        return {size: found / max(self.prompts, 1) for size, found in zip(CACHE_TOKENS, self.found, strict=True)}
