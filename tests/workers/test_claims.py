"""Claims: of several workers one gets each plan, the dead ones' are free again, and every storage behaves alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.storage import Store, TrialRecord, claims, open_store
from autotune.storage.claims import DEAD_AFTER_S, Claim, choose, dead, new_worker, survey
from tests.postgresql import Server

FINGERPRINT = "f" * 64
KEYS = [str(i) for i in range(10)]


def record(key: str) -> TrialRecord:
    return TrialRecord(key=key, params={"replicas": 4, "pp": 2}, values=(1.0,))


@pytest.fixture(params=["journal.log", "runs.db", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Every kind of storage."""
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgresql")
        return server.url
    return str(tmp_path / request.param)


def store_at(location: str) -> Store:
    return open_store(location, "mine", FINGERPRINT, ["maximize"], gpus=128)


def test_each_plan_is_claimed_once(location: str) -> None:
    """Two workers never get the same plan; what is stored or claimed is skipped, in the order given."""
    first, second = store_at(location), store_at(location)
    assert first.claim(KEYS, 4) == ("0", "1", "2", "3")
    assert second.claim(KEYS, 4) == ("4", "5", "6", "7")
    first.add([record(key) for key in ("0", "1", "2", "3")])
    assert first.claim(KEYS, 4) == ("8", "9")
    assert first.known_keys() == {"0", "1", "2", "3"}
    assert store_at(location).claim(KEYS, 4) == ()


def test_what_is_given_back_is_free(location: str) -> None:
    """A claim ends with the next one; an empty one gives all back."""
    first, second = store_at(location), store_at(location)
    first.claim(KEYS, 10)
    assert second.claim(KEYS, 10) == ()
    assert first.claim((), 0) == ()
    assert second.claim(KEYS, 10) == tuple(KEYS)


def test_claims_leave_no_trials(location: str) -> None:
    """Optuna sees no trial of a claim, and a store without claims none of its attributes' effects."""
    store = store_at(location)
    store.claim(KEYS, 10)
    store.beat()
    assert store.optuna_study().trials == []
    assert store.records() == []


CLAIMANT = """
import sys, time
from autotune.storage import open_store
store = open_store(sys.argv[1], "mine", "f" * 64, ["maximize"], gpus=128)
print(",".join(store.claim([str(i) for i in range(10)], 6)), flush=True)
time.sleep(60)
"""


def test_a_killed_workers_claim_is_free_at_once(location: str) -> None:
    """The process is gone from this machine: nobody waits for its sign of life to grow old."""
    process = subprocess.Popen([sys.executable, "-c", CLAIMANT, location], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "0,1,2,3,4,5"
    store = store_at(location)
    assert store.claim(KEYS, 10) == ("6", "7", "8", "9")
    process.kill()  # and not waited for: a process that ended but was not looked at is dead too
    deadline = time.monotonic() + 10.0
    while (claimed := store.claim(KEYS, 10)) != tuple(KEYS) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.communicate()
    assert claimed == tuple(KEYS)


def test_a_worker_elsewhere_is_dead_by_its_heartbeat(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another machine only signs of life are seen: it keeps its claim while they come, and loses it after."""
    here = new_worker()
    elsewhere = replace(here, host="elsewhere", machine="other-boot/1", id="far")
    monkeypatch.setattr("autotune.storage.database_store.new_worker", lambda: elsewhere)
    monkeypatch.setattr("autotune.storage.journal_store.new_worker", lambda: elsewhere)
    far = store_at(location)
    monkeypatch.undo()
    store = store_at(location)
    far.claim(KEYS, 6)
    assert store.claim(KEYS, 10) == ("6", "7", "8", "9")
    assert store.other_hosts == {"elsewhere"}
    monkeypatch.setattr("autotune.storage.claims.DEAD_AFTER_S", 0.3)
    with far.alive(every_s=0.05):
        time.sleep(0.6)
        assert store.claim(KEYS, 10) == ("6", "7", "8", "9")
    time.sleep(0.6)
    assert store.claim(KEYS, 10) == tuple(KEYS)
    assert store.other_hosts == frozenset()
    assert far.add([record("0")]) == 1  # it was only slow: what it brings is kept, once
    assert store.add([record("0")]) == 0


def test_clocks_that_jump() -> None:
    """On one machine the clock that can be set decides nothing; between machines the older sign of life counts."""
    me = new_worker()
    now = (1_000.0, 2_000_000_000.0)
    sibling = replace(me, id="sibling")  # this very process, so it lives
    for jump_s in (-86_400.0, 0.0, 86_400.0):
        assert not dead(sibling, [999.0, now[1] + jump_s], now, me)
    assert dead(sibling, [1_000.0 - DEAD_AFTER_S - 1.0, now[1]], now, me)
    far = replace(me, id="far", host="elsewhere", machine="other/1")
    assert not dead(far, [5.0, now[1] - 1.0], now, me)
    assert dead(far, [999.0, now[1] - DEAD_AFTER_S - 1.0], now, me)
    assert dead(replace(far, host=me.host), [999.0, now[1]], now, me)  # this machine, before it was started again
    assert dead(sibling, "nonsense", now, me)
    assert dead(sibling, None, now, me)


def test_a_process_number_used_again_is_another_process() -> None:
    """The start of the process is compared too."""
    me = new_worker()
    assert claims.process_lives(os.getpid(), me.started)
    assert not claims.process_lives(os.getpid(), "1")


@given(
    st.dictionaries(
        st.sampled_from(["autotune:claim:a", "autotune:claim:b", "autotune:beat:a", "autotune:beat:b", "other"]),
        st.recursive(
            st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8
        ),
    )
)
def test_attributes_of_any_content(attrs: dict[str, object]) -> None:
    """What stands in a storage that others can write to claims nothing unless it is a claim."""
    seen = survey(json.loads(json.dumps(attrs)), (1.0, 2.0), new_worker())
    assert seen.claimed == frozenset()


@given(
    st.lists(st.text(max_size=3), unique=True),
    st.sets(st.text(max_size=3)),
    st.sets(st.text(max_size=3)),
    st.integers(0, 9),
)
def test_choice(wanted: list[str], stored: set[str], claimed: set[str], most: int) -> None:
    """The first free ones, in order, and no more than asked for."""
    free = [key for key in wanted if key not in stored | claimed]
    assert choose(wanted, stored, claimed, most) == tuple(free[:most])


def test_claims_read_back() -> None:
    """A claim is JSON and back."""
    claim = Claim(worker=new_worker(), keys=("TP4", "TP8"))
    assert Claim.from_json(json.loads(json.dumps(claim.to_json()))) == claim
    assert Claim.from_json(None) is None
