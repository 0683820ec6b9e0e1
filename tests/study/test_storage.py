"""Storages: each plan once, whatever dies; nothing infeasible is best; foreign files are left alone."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autotune.storage import TrialRecord, default_location, open_store
from autotune.storage.locking import OwnedLock
from costmodel.errors import InputError

FINGERPRINT = "f" * 64
LOCATIONS = ("journal.log", "runs.db")


def record(key: int | str, *, value: float = 1.0, excess: float = -1.0, **attrs) -> TrialRecord:
    params = {"engine": "vllm", "replicas": 4, "pp": 2, "attn_tp": 4, "attn_dp": 4, "moe_tp": 1, "moe_ep": 16}
    return TrialRecord(
        key=str(key),
        params=params,
        values=(value,),
        constraints={"ttft": excess, "memory": -0.1},
        attrs=attrs,
    )


def store_at(path: Path, **options):
    return open_store(path, "mine", FINGERPRINT, ["maximize"], gpus=128, **options)


@pytest.fixture(params=LOCATIONS)
def path(request, tmp_path):
    return tmp_path / "deep" / request.param


def test_what_is_written_is_read_again(path):
    """Records come back equal from the same store and from a reopened one, in order."""
    written = [
        record(i, value=float(i), excess=i - 5.0, metrics={"ttft_s": 0.1 * i}, plan="TP4", parts=[1, 2.5, None])
        for i in range(20)
    ]
    store = store_at(path)
    assert store.add(written) == 20
    assert store.records() == written
    again = store_at(path)
    assert again.records() == written
    assert again.known_keys() == {str(i) for i in range(20)}


def test_a_key_is_stored_once(path):
    """Trials that are there, within a batch or by another writer, are not written again."""
    first, second = store_at(path), store_at(path)
    assert first.add([record(1), record(2), record(2)]) == 2
    assert second.add([record(2), record(3)]) == 1
    assert first.add([record(3)]) == 0
    assert first.known_keys() == second.known_keys() == {"1", "2", "3"}
    assert [r.key for r in first.records()] == ["1", "2", "3"]
    assert first.add([]) == 0


def test_trials_are_optunas_and_the_best_is_feasible(path):
    """Optuna sees finished trials with params, constraints and attributes; its best trial is feasible."""
    store = store_at(path)
    store.add([record("wins", value=5.0, plan="TP8"), record("cheats", value=9.0, excess=0.5), record("loses")])
    study = store.optuna_study()
    assert study.best_trial.user_attrs == {"plan_key": "wins", "plan": "TP8"}
    assert study.best_trial.params["moe_ep"] == 16
    assert [t.number for t in study.trials] == [0, 1, 2]
    assert study.trials[1].constraints == {"ttft": 0.5, "memory": -0.1, "0": 0.5, "1": -0.1}
    assert [dict(r.constraints) for r in store.records()][1] == {"ttft": 0.5, "memory": -0.1}
    assert all(t.state.name == "COMPLETE" for t in study.trials)
    assert all(t.datetime_complete is not None for t in study.trials)
    best = store.best()
    assert best is not None
    assert best.key == "wins"


def test_nothing_feasible_is_no_best(path):
    """Where nothing is feasible there is no best record, and Optuna raises rather than name a trial."""
    store = store_at(path)
    store.add([record(1, excess=2.0)])
    assert store.best() is None
    with pytest.raises(ValueError, match="No feasible trials"):
        _ = store.optuna_study().best_trial


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_objectives_that_are_not_finite(path, value):
    """Such a plan is a PRUNED trial: known, never best, and no storage or plot meets an infinity."""
    store = store_at(path)
    store.add([record("odd", value=value, excess=math.inf, metrics={"ttft_s": math.inf, "x": (1.0, math.nan)})])
    store.add([record("fine")])
    assert store.known_keys() == {"odd", "fine"}
    assert [t.state.name for t in store.optuna_study().trials] == ["PRUNED", "COMPLETE"]
    odd = store_at(path).records()[0]
    assert odd.values == ()
    assert not odd.feasible
    assert odd.attrs == {"metrics": {"ttft_s": None, "x": [1.0, None]}}
    best = store.best()
    assert best is not None
    assert best.key == "fine"


def test_another_question_is_another_study(path):
    """A storage answers only for the fingerprint it was filled for."""
    store_at(path).add([record(1)])
    other = open_store(path, "mine", "e" * 64, ["minimize"], gpus=128)
    assert other.known_keys() == set()
    other.add([record(1, value=3.0), record(2, value=2.0)])
    best = other.best()
    assert best is not None
    assert best.key == "2"
    assert store_at(path).known_keys() == {"1"}


def test_samplers_work_on_a_store(path):
    """An Optuna sampler can ask on top of stored trials: the distributions fit those of the trials."""
    import optuna

    from autotune.storage.optuna_trials import distributions

    store = store_at(path)
    store.add([record(i, value=float(i)) for i in range(12)])
    study = store.optuna_study(optuna.samplers.TPESampler(seed=1))
    space = {name: distributions(128)[name] for name in ("replicas", "pp", "engine")}
    assert set(study.ask(space).params) == {"replicas", "pp", "engine"}


def test_wrong_records_are_refused(path):
    """A NaN excess, an unknown parameter and one out of bounds are programming errors; nothing is written."""
    store = store_at(path)
    with pytest.raises(ValueError, match="excess must be a number, got"):
        record(1, excess=math.nan)
    with pytest.raises(ValueError, match="params must be among engine, replicas"):
        store.add([record(1), TrialRecord(key="2", params={"width": 3}, values=(1.0,))])
    with pytest.raises(ValueError, match="replicas"):
        store.add([TrialRecord(key="2", params={"replicas": 500}, values=(1.0,))])
    assert store.known_keys() == set()


WRITER = """
import sys
from autotune.storage import TrialRecord, open_store
path, start, count, batch = sys.argv[1], *map(int, sys.argv[2:])
store = open_store(path, "mine", "f" * 64, ["maximize"], gpus=128)
params = {"replicas": 4, "pp": 2}
for first in range(start, start + count, batch):
    keys = range(first, first + batch)
    store.add([TrialRecord(key=str(k), params=params, values=(1.0,), attrs={"pad": "x" * 500}) for k in keys])
    print(first, flush=True)
"""


def writer(path: Path, start: int, count: int, batch: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(path), str(start), str(count), str(batch)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_each_plan_once(path):
    """Two processes that create the study and add the same trials at once leave each exactly once."""
    path.parent.mkdir()
    writers = [writer(path, 0, 300, 25) for _ in range(2)]
    assert [w.wait(60) for w in writers] == [0, 0]
    for w in writers:
        w.communicate()
    store = store_at(path)
    assert sorted(int(r.key) for r in store.records()) == list(range(300))
    assert len(store.optuna_study().trials) == 300


@pytest.mark.parametrize("delay_s", [0.0, 0.004, 0.02])
def test_a_killed_writer_leaves_a_storage_to_go_on_from(path, delay_s):
    """kill -9 at any moment leaves whole trials and no lock that holds; the next run adds what is missing."""
    path.parent.mkdir()
    killed = writer(path, 0, 4000, 20)
    assert killed.stdout is not None
    killed.stdout.readline()
    time.sleep(delay_s)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    store = store_at(path)
    before = store.known_keys()
    assert len(before) >= 20
    assert store.add([record(k) for k in range(200)]) == 200 - len(before & {str(k) for k in range(200)})
    records = store_at(path).records()
    assert len(records) == len({r.key for r in records}) == len(before | {str(k) for k in range(200)})
    assert all(t.state.is_finished() for t in store.optuna_study().trials)


@pytest.mark.parametrize("cut", [1, 7, 400])
def test_a_torn_last_line_is_cut(tmp_path, cut):
    """What a writer did not finish is cut off by the next one, and written again."""
    path = tmp_path / "journal.log"
    store_at(path).add([record(i, pad="x" * 300) for i in range(3)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    store = store_at(path)
    assert store.known_keys() == {"0", "1"}
    assert store.add([record(i) for i in range(4)]) == 2
    assert [r.key for r in store_at(path).records()] == ["0", "1", "2", "3"]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_write_that_fails_is_taken_back(tmp_path, monkeypatch):
    """A disk that fills up half-way through a batch leaves the file as it was, and one message."""
    path = tmp_path / "journal.log"
    store = store_at(path)
    store.add([record(0)])
    before = path.read_bytes()
    real = os.write

    def full(handle, data):
        if len(data) > 300:
            return real(handle, bytes(data[:300]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InputError, match=r"journal\.log: cannot be used as storage: No space left on device"):
        store.add([record(i) for i in range(1, 9)])
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert store.add([record(1)]) == 1


def test_a_lock_of_a_live_process_is_waited_for_and_named(tmp_path):
    """A journal that another process keeps locked is one message with that process's number."""
    path = tmp_path / "journal.log"
    store_at(path).add([record(0)])
    hold = "from autotune.storage.locking import OwnedLock; from pathlib import Path; import sys, time\n"
    hold += "OwnedLock(Path(sys.argv[1]), 1.0).acquire(); print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    store = store_at(path, lock_timeout_s=0.1)
    with pytest.raises(InputError, match=rf"is locked by process {holder.pid} on .*journal\.log\.lock"):
        store.add([record(1)])
    assert store.known_keys() == {"0"}
    holder.kill()
    holder.communicate()
    assert store.add([record(1)]) == 1
    assert not path.with_name("journal.log.lock").exists()


def test_optunas_own_lock_is_respected_until_it_is_old(tmp_path):
    """A nameless lock of Optuna's is waited for, and taken over after Optuna's grace period."""
    path = tmp_path / "journal.log"
    store = store_at(path, lock_timeout_s=0.1)
    lock = path.with_name("journal.log.lock")
    lock.symlink_to(path)
    with pytest.raises(InputError, match="is locked by another process for 0 s"):
        store.add([record(1)])
    past = time.time() - 60.0
    os.utime(lock, (past, past), follow_symlinks=False)
    assert store.add([record(1)]) == 1


def test_a_locked_database_is_one_message(tmp_path):
    """A SQLite file that another connection keeps locked is an error that names it, and nothing is written."""
    path = tmp_path / "runs.db"
    store = store_at(path, lock_timeout_s=0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(InputError, match=r"runs\.db: cannot be used as storage: database is locked"):
        store.add([record(1)])
    other.execute("ROLLBACK")
    other.close()
    assert store.add([record(1)]) == 1


@pytest.mark.parametrize("name", LOCATIONS)
@pytest.mark.parametrize("content", [b"hello\n", b"hello", b"[1]\n", b"\x00" * 100, b'{"a": 1}\n', b"7\n", b"\xff\n"])
def test_foreign_files_are_left_alone(tmp_path, name, content):
    """A file of something else is an error that names it, and keeps its content."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=name):
        store_at(path)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_database_of_another_program_is_left_alone(tmp_path):
    """Optuna's tables are not put into somebody's database."""
    path = tmp_path / "runs.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE customers (id INTEGER)")
    other.commit()
    other.close()
    with pytest.raises(InputError, match=r"another program's database \(tables customers\)"):
        store_at(path)


@pytest.mark.parametrize("damage", [b"garbage\n", b'{"op_code":4}\n', b'"text"\n'])
def test_a_damaged_journal_is_one_message(tmp_path, damage):
    """A journal with a broken line in its middle is an error that names the file."""
    path = tmp_path / "journal.log"
    store_at(path).add([record(1), record(2)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], damage, *lines[1:]]))
    with pytest.raises(InputError, match=r"journal\.log: is not a readable Optuna journal"):
        store_at(path)


def test_impossible_places(tmp_path):
    """A file where a directory must be, an impossible name and an unknown database are InputErrors."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match=r"cannot be made the storage: (Not a directory|File exists)"):
        store_at(tmp_path / "file" / "journal.log")
    with pytest.raises(InputError, match="is not a file name"):
        store_at("a\0b")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be used as storage"):
        store_at("nosuchdb://host/x")  # type: ignore[arg-type]


def test_locations(tmp_path, monkeypatch):
    """A directory means its journal.log; without one the XDG data directory is used, relative ones ignored."""
    assert Path(store_at(tmp_path).location) == tmp_path / "journal.log"
    assert default_location(tmp_path) == tmp_path / "journal.log"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_location() == tmp_path / "autotune" / "journal.log"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_location() == tmp_path / ".local" / "share" / "autotune" / "journal.log"


def test_study_files_need_no_optuna():
    """Reading a study does not import Optuna, so that commands without a storage start fast."""
    code = "import sys, autotune.study; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_lock_that_cannot_be_given_back_is_a_message(tmp_path, monkeypatch):
    """The folder turned read-only while the lock was held: one error, and the lock is taken over afterwards."""
    lock = OwnedLock(tmp_path / "journal.log", timeout_s=1.0)
    lock.acquire()

    def read_only(self):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", read_only)
        with pytest.raises(InputError, match=r"journal\.log.*cannot be locked for writing: Read-only file system"):
            lock.release()
    assert (tmp_path / "journal.log.lock").exists()
