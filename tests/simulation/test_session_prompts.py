"""What caches find of sessions, against a number for each block."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.simulation.policies.base import BLOCK
from costmodel.simulation.prefix_cache import PromptBlocks, greater_before
from costmodel.simulation.session_prompts import SessionPrompts

SIZES = (10.0, 500.0, 2_000.0, 5_000.0, 20_000.0, 1e5, 1e18)


def prompts_of_sessions(system_tokens: int, seed: int) -> SessionPrompts:
    """Turns of 40 sessions in any order, each longer than the one before."""
    random = np.random.default_rng(seed)
    session = random.integers(0, 40, 400)
    prompt, after, said = np.zeros(400, np.int64), np.zeros(400, np.int64), dict.fromkeys(range(40), system_tokens)
    for turn, own in enumerate(session.tolist()):
        prompt[turn] = said[own] + random.integers(1, 200)
        said[own] = after[turn] = prompt[turn] + random.integers(1, 100)
    return SessionPrompts(session=session, prompt=prompt, after=after, system_tokens=system_tokens, warm_up=100)


def block_by_block(prompts: SessionPrompts) -> PromptBlocks:
    """The same with a number for each block that a session holds."""
    shared, number = prompts.system_tokens // BLOCK, dict[tuple[int, int], int]()
    ids = []
    for own, held in zip(prompts.session.tolist(), (prompts.after // BLOCK).tolist(), strict=True):
        mine = (number.setdefault((own, place), shared + len(number)) for place in range(held - shared))
        ids.append([*range(shared), *mine])
    start = np.concatenate([[0], np.cumsum([len(one) for one in ids])])
    flat = np.array([block for one in ids for block in one])
    return PromptBlocks(ids=flat, start=start, prompt=prompts.prompt, tokens_each=BLOCK, warm_up=prompts.warm_up)


@pytest.mark.parametrize("caches", [1, 3])
@pytest.mark.parametrize("system_tokens", [0, 10, 100, 1000])
def test_the_same_as_with_a_number_for_each_block(caches: int, system_tokens: int) -> None:
    """Prompt by prompt, from a cache with hardly any room to one that drops nothing."""
    prompts = prompts_of_sessions(system_tokens, seed=caches)
    blocks = block_by_block(prompts)
    for tokens in SIZES:
        found, wanted = (x.cached(caches=caches, tokens=tokens) for x in (prompts, blocks))
        assert np.array_equal(found, wanted), tokens
    each, sizes = np.full(len(SIZES), caches), np.array(SIZES)
    shares = prompts.hit_frac(caches=each, tokens=sizes)
    assert shares == pytest.approx(blocks.hit_frac(caches=each, tokens=sizes), rel=1e-12)
    assert (np.diff(shares) >= 0.0).all()


def test_a_session_that_stands_for_several_takes_as_much_room() -> None:
    """Of what comes between two of its prompts: three caches' worth of others is what one cache sees of a third."""
    prompts = prompts_of_sessions(0, seed=5)
    thrice = SessionPrompts(
        session=prompts.session,
        prompt=prompts.prompt,
        after=prompts.after,
        system_tokens=0,
        warm_up=100,
        stands_for=3.0,
    )
    one, tokens = np.ones(1, np.int64), np.array([5_000.0])
    assert thrice.hit_frac(caches=one, tokens=tokens)[0] < prompts.hit_frac(caches=one, tokens=tokens)[0]
    # what a session has for itself counts once
    assert thrice.hit_frac(caches=one, tokens=3.0 * tokens)[0] >= prompts.hit_frac(caches=one, tokens=tokens)[0]


def test_weights_of_greater_values_before() -> None:
    """Against looking at each pair."""
    random = np.random.default_rng(4)
    values, weights = random.permutation(300)[:150], random.integers(0, 50, 150)
    wanted = [int(weights[:i][values[:i] > v].sum()) for i, v in enumerate(values)]
    assert greater_before(values, weights).tolist() == wanted
