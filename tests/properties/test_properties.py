"""Two hundred random studies: every statement that costs little, and by turns those that score plans again."""

from __future__ import annotations

import pytest

from tests.properties.run import violations_of

STUDIES, CHUNKS, PLANS = 200, 20, 2


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_statement_is_violated(chunk: int) -> None:
    """None of the statements, by any of the studies; most of them have plans."""
    found = {seed: violations_of(seed, PLANS, quick=True) for seed in range(chunk, STUDIES, CHUNKS)}
    assert not [(seed, violation) for seed, violations in found.items() for violation in violations or ()]
    assert sum(violations is not None for violations in found.values()) >= STUDIES // CHUNKS // 3
