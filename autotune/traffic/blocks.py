"""Shared prefixes by the hashes of a prompt's blocks, as traces of Mooncake's and Bailian's kind have them."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from costmodel.simulation.prefix_cache import PromptBlocks

MAX_BLOCKS = 4_000_000
"""Distinct blocks that are remembered; a cache that holds more is larger than a cluster's."""
SIZES = (512, 256, 128, 64, 32, 16)
"""Tokens of a block that are recognised. Mooncake's traces have 512 (Qin et al. 2024, arXiv:2407.00079, appendix),
Bailian's 16."""
FITS_FRAC = 0.9
"""Share of requests whose number of blocks has to fit their prompt."""
CACHE_TOKENS = (100_000, 1_000_000, 10_000_000, 100_000_000)
"""Sizes of caches that shared prefixes are shown for."""


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
    """Blocks of all prompts so far, by numbers in place of hashes."""

    _numbers: dict[Hashable, int] = field(default_factory=dict)
    _ids: array[int] = field(default_factory=lambda: array("i"))
    _start: array[int] = field(default_factory=lambda: array("q", [0]))
    _tokens: array[int] = field(default_factory=lambda: array("i"))
    _following: int = 0

    def take(self, hashes: Sequence[Hashable], prompt: int) -> tuple[int, int]:
        """Take the next prompt, of so many tokens.

        Returns how many blocks at its beginning an earlier one had, and its place among all prompts.
        """
        numbers, known, whole = self._numbers, 0, True
        for block in hashes:
            number = numbers.get(block)
            if number is None:
                number, whole = self._following, False
                self._following += 1
                if len(numbers) < MAX_BLOCKS:
                    numbers[block] = number
            known += whole
            self._ids.append(number)
        self._start.append(len(self._ids))
        self._tokens.append(prompt)
        return known, len(self._start) - 2

    def prompts(self, tokens_each: int) -> PromptBlocks:
        """The blocks of every prompt, of so many tokens each; behind them, as the last, a prompt without any."""
        return PromptBlocks(
            ids=np.array(self._ids, dtype=np.int64),
            start=np.append(np.array(self._start, dtype=np.int64), len(self._ids)),
            prompt=np.append(np.array(self._tokens, dtype=np.int64), 1),
            tokens_each=tokens_each,
        )
