"""The short form of the fuzzing: no reader raises anything but `InputError`, hangs or eats memory, whatever it gets."""

from __future__ import annotations

import resource
import signal
import tempfile
import time
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.errors import visible
from tests.fuzz.limits import limited
from tests.fuzz.mutate import NASTY, spliced
from tests.fuzz.readers import READERS

PIECES = st.sampled_from(NASTY) | st.binary(max_size=8) | st.integers(-9, 10**9).map(lambda n: str(n).encode())
EDITS = st.lists(st.tuples(st.integers(0, 1 << 20), st.sampled_from([0, 1, 2, 5, 20, 200]), PIECES), max_size=4)

STATE = ("ledger.jsonl", "current.json")


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=25)
@given(data=st.data())
def test_input_is_understood_or_refused(name: str, data: st.DataObject) -> None:
    """Good input with pieces replaced, and rubbish: understood, or refused in words that cannot move a cursor."""
    reader = READERS[name]
    seed = data.draw(st.sampled_from(reader.seeds))
    content = spliced(seed, data.draw(EDITS)) if data.draw(st.booleans()) else data.draw(st.binary(max_size=200))
    with tempfile.TemporaryDirectory() as folder:
        with limited():
            said = reader.run(content, Path(folder))
        made = {p.name.partition(".torn-at-")[0] for p in Path(folder).iterdir()}
        assert made == {reader.suffix if reader.suffix in STATE else f"input{reader.suffix}"}
    assert said is None or said == visible(said)


def test_the_limits_hold() -> None:
    """A loop without an end and a gigabyte are both stopped, and neither limit is left behind."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(TimeoutError, match=r"more than 0\.05 s of CPU"), limited(seconds=0.05):
        sum(1 for _ in count())
    with pytest.raises(MemoryError), limited():
        bytearray(1100 << 20)
    with limited(seconds=0.05):
        time.sleep(0.1)  # no CPU
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
