"""Stack distances against caches that are kept step by step."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from costmodel.simulation.prefix_cache import PromptBlocks, greater_before

EACH = 16


def conversations(count: int, seed: int) -> tuple[list[list[int]], np.ndarray]:
    """Prompts that grow out of earlier ones, or begin anew; their blocks' numbers stand for all that is before."""
    random = np.random.default_rng(seed)
    prompts: list[list[int]] = []
    following = 0
    for _ in range(count):
        shared: list[int] = []
        if prompts and random.random() < 0.7:
            other = prompts[random.integers(max(len(prompts) - 30, 0), len(prompts))]
            shared = other[: random.integers(0, len(other) + 1)]
        new = int(random.integers(0 if shared else 1, 6))
        prompts.append([*shared, *range(following, following + new)])
        following += new
    tokens = np.array([max(EACH * len(p) - int(random.integers(0, EACH)), 1) for p in prompts])
    return prompts, tokens


def blocks_of(prompts: list[list[int]], tokens: np.ndarray) -> PromptBlocks:
    """The same as columns."""
    start = np.concatenate([[0], np.cumsum([len(p) for p in prompts])])
    ids = np.array([i for p in prompts for i in p], dtype=np.int64)
    return PromptBlocks(ids=ids, start=start, prompt=tokens, tokens_each=EACH)


def found_step_by_step(prompts: list[list[int]], caches: int, room: int) -> list[int]:
    """Blocks at the beginning of each prompt that its cache holds; the cache drops what was used longest ago."""
    held: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(caches)]
    out = []
    for number, prompt in enumerate(prompts):
        own = held[number % caches]
        known = 0
        for block in prompt:
            if block not in own:
                break
            known += 1
        out.append(known)
        for block in reversed(prompt):
            own[block] = None
            own.move_to_end(block)
        while len(own) > room:
            own.popitem(last=False)
    return out


@pytest.mark.parametrize("caches", [1, 3])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_size_finds_what_it_holds(caches: int, seed: int) -> None:
    """Prompt by prompt, from a cache of one block to one that drops nothing."""
    prompts, tokens = conversations(400, seed)
    blocks = blocks_of(prompts, tokens)
    for room in (1, 2, 5, 13, 40, 150, 2000):
        known = np.array(found_step_by_step(prompts, caches, room))
        cached = blocks.cached(caches=caches, tokens=float(EACH * room))
        assert np.array_equal(cached, np.minimum(EACH * known, tokens - 1))
        share = blocks.hit_frac(caches=np.array([caches]), tokens=np.array([EACH * room + 0.5]))
        assert share[0] == pytest.approx(np.minimum(EACH * known, tokens).sum() / tokens.sum())


def test_some_prompts_keep_their_blocks() -> None:
    """Chosen by a slice or in any order."""
    prompts, tokens = conversations(50, 3)
    blocks = blocks_of(prompts, tokens)
    for chosen in (slice(10, 30), np.array([40, 3, 3, 17])):
        found = blocks.rows(chosen)
        assert np.array_equal(found.prompt, tokens[chosen])
        wanted = [prompts[i] for i in np.arange(50)[chosen]]
        assert [found.ids[a:b].tolist() for a, b in zip(found.start, found.start[1:], strict=False)] == wanted


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_greater_values_before(count: int) -> None:
    """Against looking at each pair."""
    values = np.random.default_rng(count).permutation(2 * count)[:count]
    assert greater_before(values).tolist() == [int((values[:i] > v).sum()) for i, v in enumerate(values)]
