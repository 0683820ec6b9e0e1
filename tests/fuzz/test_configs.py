"""Model files that ask for strange things are understood, approximated or refused, and never crash a reader."""

from __future__ import annotations

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from costmodel.errors import visible
from tests.fuzz.configs import changed, refusal_of
from tests.fuzz.limits import limited


@given(seed=st.integers(0, 1 << 32))
@example(213)  # entries of compressed attention in a file without the rest of it
@settings(max_examples=100, deadline=None)
def test_a_changed_file_is_understood_or_refused(seed: int) -> None:
    """Every refusal is in visible characters, with approximation and without."""
    config = changed(random.Random(seed))  # noqa: S311  # the same files each time, not secrets
    for approximate in (False, True):
        with limited():
            refusal = refusal_of(config, approximate=approximate)
        assert refusal is None or refusal == visible(refusal)
