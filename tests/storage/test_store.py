"""Storages: each plan once, whatever dies; nothing infeasible is best; foreign files are left alone."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from autotune.files import locked
from autotune.storage import TrialRecord, default_location
from costmodel.errors import InputError
from tests.storage.helpers import HEADER, optuna_study, optunas, record, store_at

LOCATIONS = ("journal.log", "runs.db")


@pytest.fixture(params=LOCATIONS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A place for a storage of each kind of file."""
    return tmp_path / "deep" / request.param


@pytest.fixture(params=(*LOCATIONS, "postgresql"))
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a storage of every kind."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql").url
    return str(tmp_path / request.param)


def test_what_is_written_is_read_again(location: str) -> None:
    """Records come back equal from the same store and from a reopened one, in order."""
    written = [
        record(i, value=float(i), excess=i - 5.0, metrics={"ttft_s": 0.1 * i}, plan="TP4", parts=[1, 2.5, None])
        for i in range(20)
    ]
    store = store_at(location)
    assert store.add(written) == 20
    assert store.records() == written
    again = store_at(location)
    assert again.records() == written
    assert again.known_keys() == {str(i) for i in range(20)}
    assert again.damaged == store.damaged == 0


def test_a_key_is_stored_once(location: str) -> None:
    """Trials that are there, within a batch or by another writer, are not written again."""
    first, second = store_at(location), store_at(location)
    assert first.add([record(1), record(2), record(2)]) == 2
    assert second.add([record(2), record(3)]) == 1
    assert first.add([record(3)]) == 0
    assert first.known_keys() == second.known_keys() == {"1", "2", "3"}
    assert [r.key for r in first.records()] == ["1", "2", "3"]
    assert first.add([]) == 0


def test_trials_are_optunas_and_the_best_is_feasible(path: Path) -> None:
    """Optuna sees finished trials with all that they hold, its best is feasible, and the metric has its name."""
    store = store_at(path)
    store.add([record("wins", value=5.0, plan="TP8"), record("cheats", value=9.0, excess=0.5), record("loses")])
    study = optuna_study(path)
    assert study.metric_names == list(HEADER.metrics)
    assert study.user_attrs["autotune_overrides"] == list(HEADER.overrides)
    assert study.best_trial.user_attrs["plan_key"] == "wins"
    assert study.best_trial.params["moe_ep"] == 16
    assert [t.number for t in study.trials] == [0, 1, 2]
    assert study.trials[1].constraints == {"ttft": 0.5, "memory": -0.1, "0": 0.5, "1": -0.1}
    assert [dict(r.constraints) for r in store.records()][1] == {"ttft": 0.5, "memory": -0.1}
    assert all(t.state.name == "COMPLETE" for t in study.trials)
    assert all(t.datetime_complete is not None for t in study.trials)


def test_nothing_feasible_is_no_best(path: Path) -> None:
    """Where nothing is feasible Optuna raises rather than name a trial."""
    store_at(path).add([record(1, excess=2.0)])
    with pytest.raises(ValueError, match="No feasible trials"):
        _ = optuna_study(path).best_trial


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_objectives_that_are_not_finite(path: Path, value: float) -> None:
    """Such a plan is a PRUNED trial: known, never best, and no storage or plot meets an infinity."""
    store = store_at(path)
    store.add([record("odd", value=value, excess=math.inf, metrics={"ttft_s": math.inf, "x": (1.0, math.nan)})])
    store.add([record("fine")])
    assert store.known_keys() == {"odd", "fine"}
    study = optuna_study(path)
    assert [t.state.name for t in study.trials] == ["PRUNED", "COMPLETE"]
    assert study.best_trial.user_attrs["plan_key"] == "fine"
    odd = store_at(path).records()[0]
    assert odd.values == ()
    assert not odd.feasible
    assert odd.attrs == {"metrics": {"ttft_s": None, "x": [1.0, None]}}


def test_another_question_is_another_study(path: Path) -> None:
    """A storage answers only for the fingerprint it was filled for."""
    store_at(path).add([record(1)])
    other = store_at(path, replace(HEADER, fingerprint="e" * 64, question="b" * 64))
    assert other.known_keys() == set()
    assert not other.earlier
    assert other.add([record(1), record(2)]) == 2
    assert store_at(path).known_keys() == {"1"}


def test_the_same_question_of_another_model_is_named(path: Path) -> None:
    """A study of an older model is found when its question is asked of a newer one, and only then."""
    store_at(path).add([record(1)])
    newer = replace(HEADER, fingerprint="e" * 64, model={"version": 2, "data": {}})
    assert store_at(path, newer).earlier == {HEADER.study_name: HEADER.model}
    assert not store_at(path, newer).earlier
    front = replace(newer, name="mine-pareto", directions=("maximize", "minimize"), metrics=("a", "b"))
    assert not store_at(path, front).earlier


def test_a_study_that_was_made_half_way_is_made_whole(path: Path) -> None:
    """What a kill leaves of a study without trials is completed by the next run."""
    store_at(path)
    storage = optunas(path)
    study_id = storage.create_new_study(storage.get_study_directions(0 if "log" in path.name else 1), "other-eeee")
    header = replace(HEADER, name="other", fingerprint="eeee")
    store_at(path, header).add([record(1)])
    assert storage.get_study_user_attrs(study_id)["autotune_model"] == {"version": 1, "data": {}}
    assert store_at(path, header).known_keys() == {"1"}


def test_samplers_work_on_a_store(path: Path) -> None:
    """An Optuna sampler can ask on top of stored trials, and what it adds is no plan of ours."""
    from autotune.storage.trials import distributions

    store = store_at(path)
    store.add([record(i, value=float(i)) for i in range(12)])
    study = optuna_study(path)
    trial = study.ask({name: distributions(128)[name] for name in ("replicas", "pp", "engine")})
    study.tell(trial, 1.0)
    assert store.add([record(99)]) == 1
    assert len(store.records()) == 13
    assert store.damaged == 0


def test_wrong_records_are_refused(path: Path) -> None:
    """A NaN excess, an unknown parameter and one out of bounds are programming errors; nothing is written."""
    store = store_at(path)
    with pytest.raises(ValueError, match="excess must be a number, got"):
        record(1, excess=math.nan)
    with pytest.raises(ValueError, match="must not be called checksum"):
        record(1, checksum="x")
    with pytest.raises(ValueError, match="params must be among engine, replicas"):
        store.add([record(1), TrialRecord(key="2", params={"width": 3}, values=(1.0,))])
    with pytest.raises(ValueError, match="replicas"):
        store.add([TrialRecord(key="2", params={"replicas": 500}, values=(1.0,))])
    assert store.known_keys() == set()


def writer(path: Path, count: int, batch: int) -> tuple[int, int]:
    """A process that adds plans in batches: its number, and a pipe that says when each is stored."""
    told, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        return child, told
    try:
        store = store_at(path)
        for first in range(0, count, batch):
            store.add([record(k, pad="x" * 500) for k in range(first, first + batch)])
            os.write(tell, b".")
    finally:
        os._exit(0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_two_processes_write_each_plan_once(path: Path) -> None:
    """Two processes that create the study and add the same trials at once leave each exactly once."""
    path.parent.mkdir()
    for child, told in [writer(path, 300, 25) for _ in range(2)]:
        assert len(os.read(told, 1)) == 1
        os.waitpid(child, 0)
        os.close(told)
    assert sorted(int(r.key) for r in store_at(path).records()) == list(range(300))
    assert len(optuna_study(path).trials) == 300


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_killed_writers_leave_a_storage_to_go_on_from(path: Path) -> None:
    """kill -9 at any moment leaves whole trials and no lock that holds; the next run adds what is missing."""
    path.parent.mkdir()
    random, before = Random(str(path.name)), 0  # noqa: S311  # decides when
    for _ in range(8):
        child, told = writer(path, 4000, 20)
        os.read(told, 1)
        time.sleep(random.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        now = len(store_at(path).known_keys())
        assert now >= max(before, 20)
        before = now
    store = store_at(path)
    known = set(store.known_keys())
    wanted = [record(k) for k in range(before + 20)]
    assert store.add(wanted) == len({r.key for r in wanted} - known)
    records = store_at(path).records()
    assert {r.key for r in records} == known | {r.key for r in wanted}
    assert len(records) == len(optuna_study(path).trials)
    assert all(t.state.is_finished() for t in optuna_study(path).trials)


def test_trials_of_other_studies_are_not_read(tmp_path: Path) -> None:
    """A file that holds many studies costs a command the trials of its own: those of others may be anything."""
    path = tmp_path / "journal.log"
    other = replace(HEADER, name="other", question="b" * 64)
    store_at(path, other).add([record(i) for i in range(3)])
    store_at(path).add([record("own")])
    lines = path.read_bytes().splitlines(keepends=True)
    made = [i for i, line in enumerate(lines) if b'"op_code":4' in line]
    lines[made[1]] = lines[made[1]][:200] + b"\n"
    path.write_bytes(b"".join(lines))
    store = store_at(path)
    assert [r.key for r in store.records()] == ["own"]
    assert store.add([record("next")]) == 1
    assert [r.key for r in store_at(path).records()] == ["own", "next"]
    with pytest.raises(InputError, match="is not a readable Optuna storage"):
        store_at(path, other).records()


def test_trials_that_somebody_changes_are_read_with_all_others(tmp_path: Path) -> None:
    """Optuna's own trials are changed by their number over all studies; such a file is read as Optuna reads it."""
    path = tmp_path / "journal.log"
    store_at(path, replace(HEADER, name="other", question="b" * 64)).add([record(i) for i in range(3)])
    store = store_at(path)
    store.add([record("own")])
    optuna_study(path).optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=2)
    assert store.known_keys() == {"own"}
    assert store.add([record("next")]) == 1
    assert [r.key for r in store_at(path).records()] == ["own", "next"]
    assert len(optuna_study(path).trials) == 4


@pytest.mark.parametrize("cut", [1, 7, 400])
def test_a_torn_last_line_is_cut(tmp_path: Path, cut: int) -> None:
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


def test_a_write_that_fails_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up half-way through a batch leaves the file as it was, and one message."""
    path = tmp_path / "journal.log"
    store = store_at(path)
    store.add([record(0)])
    before = path.read_bytes()
    real = os.write

    def full(handle: int, data: bytes) -> int:
        if len(data) > 300:
            return real(handle, bytes(data[:300]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InputError, match=r"journal\.log: .*No space left on device"):
        store.add([record(i) for i in range(1, 9)])
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert store.known_keys() == {"0"}
    assert store.add([record(1)]) == 1
    assert [r.key for r in store_at(path).records()] == ["0", "1"]


def test_a_lock_of_a_live_process_is_waited_for(tmp_path: Path) -> None:
    """A journal that another process keeps locked is one message; what is stored can be read meanwhile."""
    path = tmp_path / "journal.log"
    store_at(path).add([record(0)])
    store = store_at(path, lock_timeout_s=0.1)
    with locked(path), pytest.raises(InputError, match=r"journal\.log: is locked by another process"):
        store.add([record(1)])
    with locked(path):
        assert store.known_keys() == {"0"}
    assert store.add([record(1)]) == 1
    assert not path.with_name("journal.log.lock").exists()


def test_optunas_own_lock_is_respected_until_it_is_old(tmp_path: Path) -> None:
    """A lock of Optuna's is waited for until its grace period is over; one that a killed run of ours left is not."""
    from optuna.storages.journal import JournalFileOpenLock, JournalFileSymlinkLock

    path = tmp_path / "journal.log"
    store = store_at(path, lock_timeout_s=0.1)
    lock = path.with_name("journal.log.lock")
    for number, kind in enumerate((JournalFileSymlinkLock, JournalFileOpenLock)):
        kind(str(path)).acquire()
        with pytest.raises(InputError, match="is locked by another process"):
            store.add([record(f"{number}a")])
        past = time.time() - 60.0
        os.utime(lock, (past, past), follow_symlinks=False)
        assert store.add([record(f"{number}a")]) == 1
    lock.symlink_to("././journal.log")
    assert store.add([record(2)]) == 1


def test_optuna_keeps_out_while_we_write(tmp_path: Path) -> None:
    """Optuna's own lock finds ours taken, and its trials and ours are in one file afterwards."""
    path = tmp_path / "journal.log"
    store = store_at(path)
    seen = []
    real = store._journal._cut_torn_line  # type: ignore[attr-defined]

    def look() -> int:
        seen.append(path.with_name("journal.log.lock").exists())
        return real()

    store._journal._cut_torn_line = look  # type: ignore[attr-defined]
    store.add([record(1)])
    assert seen == [True]
    study = optuna_study(path)
    study.tell(study.ask(), 3.0)
    assert store.add([record(2)]) == 1
    assert len(study.trials) == 3


def test_a_journal_that_was_replaced_is_not_written_to(tmp_path: Path) -> None:
    """Another file of the name, or none, is an error, and gets nothing."""
    path = tmp_path / "journal.log"
    store = store_at(path)
    path.rename(tmp_path / "aside")
    with pytest.raises(InputError, match=r"journal\.log"):
        store.add([record(1)])
    assert not path.exists()
    store_at(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="was replaced by another file"):
        store.add([record(1)])
    assert path.read_bytes() == before


def test_a_locked_database_is_one_message(tmp_path: Path) -> None:
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
def test_foreign_files_are_left_alone(tmp_path: Path, name: str, content: bytes) -> None:
    """A file of something else is an error that names it, and keeps its content."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=name):
        store_at(path)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """Optuna's tables are not put into somebody's database."""
    path = tmp_path / "runs.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE customers (id INTEGER)")
    other.commit()
    other.close()
    with pytest.raises(InputError, match=r"another program's database \(tables customers\)"):
        store_at(path)


def test_impossible_places(tmp_path: Path) -> None:
    """A file where a directory must be, an impossible name and an unknown database are InputErrors."""
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match=r"cannot be made the storage: (Not a directory|File exists)"):
        store_at(tmp_path / "file" / "journal.log")
    with pytest.raises(InputError, match="is not a file name"):
        store_at("a\0b")
    with pytest.raises(InputError, match="cannot be used as storage"):
        store_at("nosuchdb://host/x")


def test_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory means its journal.log; without one the XDG data directory is used, relative ones ignored."""
    assert Path(store_at(tmp_path).location) == tmp_path / "journal.log"
    assert default_location(tmp_path) == tmp_path / "journal.log"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_location() == tmp_path / "autotune" / "journal.log"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_location() == tmp_path / ".local" / "share" / "autotune" / "journal.log"


def test_optuna_is_imported_where_a_storage_is_opened() -> None:
    """Reading a study and answering it without a storage does not import Optuna, so that it starts fast."""
    code = "import sys, autotune.study, autotune.tuning, autotune.cli.stores; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
