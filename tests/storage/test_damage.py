"""Stored trials are believed where their checksum is right: damage is scored again or refused, never another answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import pytest

from autotune.scoring.trial_record import study_header
from autotune.storage import open_store
from autotune.storage.browse import Studies
from autotune.study import Study, load_study
from autotune.tuning import PlanResult, tune
from autotune.tuning.pareto_front import Front, pareto, study_goals
from costmodel.errors import InputError
from tests.storage.helpers import record, store_at
from tests.studies import FOLDER

FLIPS = 25
"""Of each kind, on each kind of storage."""
SMALL = (
    "cluster.gpus=4",
    "model=gpt-oss-120b",
    "engine=sglang",
    "baseline.plan=tp4",
    "search.max_num_batched_tokens=[4096]",
    "workload.concurrency=320",
)


@pytest.fixture(scope="module")
def study() -> Study:
    """A study of few plans."""
    return load_study(FOLDER / "deepseek-v3-128xh200.toml", SMALL)


def plans(study: Study, path: Path) -> list[PlanResult]:
    """What a run answers, best first, with everything that it says of each plan."""
    result = tune(study, open_store(path, study_header(study)))
    return [*result.ranked, *result.infeasible]


def points(study: Study, path: Path) -> Front:
    """The Pareto front that a run finds."""
    return pareto(study, open_store(path, study_header(study, study_goals(study))))


@pytest.mark.parametrize("name", ["journal.log", "runs.db"])
@pytest.mark.parametrize("digits", [True, False], ids=["digits", "bytes"])
def test_one_flip_never_changes_the_answer(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, digits: bool
) -> None:
    """One digit or byte is another one: the same answer, to the last figure, or one error that names the storage."""
    # Optuna loads all its migrations at each opening, which is most of what this test would take
    monkeypatch.setattr("optuna.storages._rdb.storage._VersionManager.check_table_schema_compatibility", lambda _: None)
    random = Random(f"{name} {digits}")  # noqa: S311  # decides what is damaged
    path = tmp_path / name
    answer = plans(study, path)
    whole = path.read_bytes()
    places = [m.start() for m in re.finditer(rb"[0-9]", whole)] if digits else range(len(whole))
    answered, refused = 0, []
    for place in random.sample(places, FLIPS):
        other = random.choice([c for c in (b"0123456789" if digits else range(256)) if c != whole[place]])
        path.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
        try:
            assert plans(study, path) == answer, (place, whole[max(place - 60, 0) : place + 30])
            answered += 1
        except InputError as error:
            refused.append(str(error))
    assert all(name in text for text in refused)
    # of bytes nearly each makes a line of a journal no JSON any more
    assert answered > FLIPS / 2 or (not digits and name == "journal.log")


def test_a_damaged_trial_is_scored_again_and_counted(study: Study, tmp_path: Path) -> None:
    """A better figure than the plan's own is not believed; the plan is stored anew, once."""
    path = tmp_path / "journal.log"
    answer = plans(study, path)
    text = path.read_text()
    mine = json.dumps(answer[-1].metrics["ttft_s"])
    path.write_text(text.replace(mine, "0.0001", 1))
    store = open_store(path, study_header(study))
    result = tune(study, store)
    assert [*result.ranked, *result.infeasible] == answer
    assert (result.scored_now, store.damaged) == (1, 1)
    again = tune(study, open_store(path, study_header(study)))
    assert again.scored_now == 0
    (name,) = Studies(str(path)).names()
    shown = Studies(str(path)).study(name)
    assert sum(t.damaged for t in shown.trials) == 1
    assert [t.plan for t in shown.ranked] == [p.plan for p in result.ranked]


def test_a_point_that_is_lost_is_found_again(tmp_path: Path) -> None:
    """A plan of a Pareto front whose further results are not all there is scored again."""
    path = tmp_path / "journal.log"
    study = load_study(FOLDER / "deepseek-v3-128xh200.toml", SMALL[:-1])
    front = points(study, path)
    assert any(p.variant for p in front.points)
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"variant"' in line)
    lines[at] = lines[at].replace('"ttft_s":', '"ttft_s":1', 1)
    path.write_text("".join(lines))
    again = points(study, path)
    assert again.points == front.points
    assert again.scored_now == 1


@pytest.mark.parametrize("damage", [b"garbage\n", b'{"op_code":4}\n', b'"text"\n', b"[" * 100_000 + b"\n", b"\xff\n"])
def test_a_journal_with_a_broken_line_is_one_message(tmp_path: Path, damage: bytes) -> None:
    """A line that is no change of Optuna's is an error that names the file."""
    path = tmp_path / "journal.log"
    store_at(path).add([record(1), record(2)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], damage, *lines[1:]]))
    with pytest.raises(InputError, match=r"journal\.log: is not a readable Optuna storage"):
        store_at(path)


@pytest.mark.parametrize("name", ["journal.log", "runs.db", "sqlite:///{}/runs.db", ""])
def test_a_storage_behind_a_link_is_refused(tmp_path: Path, name: str) -> None:
    """Whoever may write the folder could have trials written to somewhere else."""
    for file in ("journal.log", "runs.db"):
        (tmp_path / file).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a symbolic link, which is not followed"):
        store_at(name.format(tmp_path) if "{" in name else tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()
