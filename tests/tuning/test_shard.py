"""Shares of a study: every plan in one of them, whoever scores which, and one answer when all are in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.report.document import tune_document
from autotune.scoring.trial_record import study_header
from autotune.storage import Store, open_store
from autotune.study import Study
from autotune.tuning import TuneResult, tune
from autotune.tuning.shard import Shard, tune_shard
from costmodel.errors import InputError
from tests.studies import FOLDER
from tests.tuning.brute import question

STUDY = str(FOLDER / "reference-128.toml")


def asked(**search: object) -> Study:
    """A study of some dozen plans."""
    return question(engine="any", search={"max_num_batched_tokens": [1024], "min_p_meets": 0.0, **search})


def store_of(study: Study, path: Path) -> Store:
    """Where all shares of it are kept."""
    return open_store(path, study_header(study))


def answer(result: TuneResult) -> str:
    """Everything that a run says but for how it came to it."""
    document = tune_document(result, top=0)
    return json.dumps({k: v for k, v in document.items() if k not in ("scored_now", "storage")}, sort_keys=True)


@pytest.mark.parametrize("name", ["journal.log", "runs.db"])
def test_shares_make_the_answer(name: str, tmp_path: Path) -> None:
    """Three shares, in any order, score every plan once; then the storage has the answer of an undivided run."""
    study, whole = asked(), tune(asked())
    scored = 0
    for number in (3, 1, 2):
        done = tune_shard(study, store_of(study, tmp_path / name), Shard(number=number, of=3))
        scored += done.scored_now
        assert 0 < done.scored_now == done.plans < done.plans_in_all == len(whole.space.candidates)
        assert done.stored == scored
    assert scored == len(whole.space.candidates)
    assert tune_shard(study, store_of(study, tmp_path / name), Shard(number=1, of=3)).scored_now == 0
    result = tune(study, store_of(study, tmp_path / name))
    assert result.scored_now == 0
    assert answer(result) == answer(whole)


def test_a_missing_share_is_scored_by_who_ranks(tmp_path: Path) -> None:
    """`tune` on some of the shares scores the rest."""
    study = asked()
    done = tune_shard(study, store_of(study, tmp_path / "j.log"), Shard(number=2, of=3))
    result = tune(study, store_of(study, tmp_path / "j.log"))
    assert result.scored_now == done.plans_in_all - done.plans
    assert answer(result) == answer(tune(study))


def test_the_first_share_has_the_disaggregated_plans(tmp_path: Path) -> None:
    """Their search cannot be divided: the first share does it, the others leave it."""
    study = asked(disaggregated="auto")
    tune_shard(study, store_of(study, tmp_path / "j.log"), Shard(number=2, of=2))
    assert not any("pools" in r.attrs for r in store_of(study, tmp_path / "j.log").records())
    tune_shard(study, store_of(study, tmp_path / "j.log"), Shard(number=1, of=2))
    result = tune(study, store_of(study, tmp_path / "j.log"))
    assert result.scored_now == 0
    assert any(p.pools is not None for p in result.ranked)


def test_a_plans_share_follows_from_its_name() -> None:
    """Each name is in one share, and shares are of about one size."""
    for of in (1, 2, 7):
        shards = [Shard(number=n, of=of) for n in range(1, of + 1)]
        names = [f"vllm:R{i}/PP2" for i in range(1, 5001)]
        assert all(sum(s.has(name) for s in shards) == 1 for name in names)
        sizes = [sum(map(s.has, names)) for s in shards]
        assert max(sizes) < 1.3 * min(sizes)


def test_what_cannot_be_divided(tmp_path: Path) -> None:
    """A space that is sampled has no shares, and a share is one of them."""
    study = asked(trials=5)
    with pytest.raises(InputError, match="is sampled"):
        tune_shard(study, store_of(study, tmp_path / "j.log"), Shard(number=1, of=2))
    for number, of in ((0, 3), (4, 3), (1, 0)):
        with pytest.raises(InputError, match="must be i/n"):
            Shard(number=number, of=of)


def test_the_command(tmp_path: Path) -> None:
    """`--shard` says what it did as JSON and for people; what it has no meaning with is refused."""
    run = CliRunner()
    common = ["tune", STUDY, "--storage", str(tmp_path / "plans.db")]
    first = json.loads(run.invoke(cli, [*common, "--shard", "1/2", "--json"], catch_exceptions=False).stdout)
    assert first["shard"] == "1/2"
    assert 0 < first["scored_now"] == first["stored"] < first["plans_in_all"]
    text = run.invoke(cli, [*common, "--shard", "2/2", "--table"], catch_exceptions=False).stdout
    assert f"{first['plans_in_all']} of {first['plans_in_all']} plans" in text
    assert json.loads(run.invoke(cli, [*common, "--json"], catch_exceptions=False).stdout)["scored_now"] == 0
    for wrong in (["2/1"], ["x"], ["1"], ["1/2", "--html", "x.html"], ["1/2", "--pareto"], ["1/2", "--no-storage"]):
        with pytest.raises(InputError, match="--shard"):
            run.invoke(cli, [*common, "--shard", *wrong], catch_exceptions=False)
