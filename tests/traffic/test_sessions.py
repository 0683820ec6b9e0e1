"""A study whose workload is sessions of several turns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autotune.scoring.best_knobs import score
from autotune.simulation.session_requests import REQUESTS, session_requests
from autotune.simulation.simulate_plan import study_traffic
from autotune.study import Sessions, Study, study_from_document
from autotune.traffic.load import study_at
from autotune.traffic.profile import profile_of_arrays
from autotune.traffic.workload import with_traffic
from autotune.tuning.study_space import study_space
from costmodel.errors import InputError
from costmodel.simulation.policies.base import BLOCK

WORKLOAD = {"isl": 200, "osl": 100, "request_rate_per_s": 10.0, "sessions": {"turns": 5, "system_tokens": 1000}}


def _document(**workload: object) -> dict[str, object]:
    return {
        "model": "llama-3.1-8b",
        "engine": "vllm",
        "cluster": {"gpus": 4, "gpu": "h100_sxm"},
        "workload": {**WORKLOAD, **workload},
        "constraints": {"ttft_ms": 800},
    }


@pytest.fixture(scope="module")
def study() -> Study:
    """With messages and answers of one length, so that every turn's prompt is known."""
    return study_from_document(_document(), Path("study.toml"))


def test_prompts_grow_by_what_was_said(study: Study) -> None:
    """Turn after turn by a message and an answer, behind the system prompt, as often as each other and at the rate."""
    requests = session_requests(study, Sessions(turns=5, system_tokens=1000, pause_s=10.0), 10.0)
    turns, counts = np.unique(requests.prompt, return_counts=True)
    assert turns.tolist() == [1200, 1500, 1800, 2100, 2400]
    assert counts.min() > 0.8 * counts.max()
    assert len(requests) == pytest.approx(REQUESTS, rel=0.05)
    assert requests.arrival_s[-1] == pytest.approx(REQUESTS / 10.0, rel=0.05)


def test_a_turn_finds_all_that_was_said_before(study: Study) -> None:
    """In a cache that drops nothing; in a small one the system prompt, and in several ones what was said in each."""
    requests = session_requests(study, Sessions(turns=5, system_tokens=1000, pause_s=10.0), 10.0)
    assert requests.blocks is not None
    each = BLOCK
    before = np.where(requests.prompt == 1200, 1000, requests.prompt - 200)
    assert np.array_equal(requests.cached, before // each * each)
    small = requests.with_caches(caches=1, tokens=4000.0)
    assert small.blocks is None
    assert 1000 // each * each <= np.median(small.cached) < np.median(requests.cached)
    dealt = requests.with_caches(caches=4, tokens=1e9)
    assert small.cached.sum() < dealt.cached.sum() < requests.cached.sum()


@pytest.mark.parametrize(
    ("turns", "pause_s", "rate"),
    [(100, 3.0, 6.0), (200, 5.0, 1.0), (50, 30.0, 6.0), (1000, 100.0, 100.0), (10, 60.0, 100.0), (2, 3600.0, 1000.0)],
)
def test_requests_come_at_the_rate_that_is_asked(study: Study, turns: int, pause_s: float, rate: float) -> None:
    """However long sessions last, with every turn as often as every other."""
    requests = session_requests(study, Sessions(turns=turns, pause_s=pause_s), rate)
    assert (len(requests) - 1) / requests.arrival_s[-1] == pytest.approx(rate, rel=1e-9)
    assert (np.diff(requests.arrival_s) >= 0.0).all()
    assert requests.prompt.mean() == pytest.approx(300.0 * (turns - 1) / 2 + 200.0, rel=0.01)


def test_sessions_are_drawn_until_servers_have_filled() -> None:
    """A minute of them where that is more than a few thousand requests, of which the first do not count."""
    busy = study_at(_document(request_rate_per_s=200.0), Path("study.toml"))
    drawn = study_traffic(busy)
    assert len(drawn.requests) == pytest.approx(60.0 * 200.0, rel=0.01)
    assert drawn.counted_from == pytest.approx(0.2 * len(drawn.requests), abs=1.0)


def test_sessions_are_the_same_at_a_rate_wherever_it_is_said() -> None:
    """Drawn anew, as caches find the less of them the more there are: their mean share was taken, at any rate."""
    here, there = (study_at(_document(request_rate_per_s=rate), Path("study.toml")) for rate in (10.0, 40.0))
    asked, own = study_traffic(here, rate_per_s=40.0), study_traffic(there)
    assert np.array_equal(asked.requests.arrival_s, own.requests.arrival_s)
    assert np.array_equal(asked.requests.prompt, own.requests.prompt)
    assert asked.counted_from == own.counted_from
    few, many = (traffic.requests.with_caches(caches=2, tokens=2e5) for traffic in (study_traffic(here), asked))
    assert many.cached.sum() < 0.9 * few.cached.sum()


@pytest.mark.parametrize("system_tokens", [0, 40, 10_300, 200_000])
def test_long_prompts_are_found_but_for_the_newest_message(study: Study, system_tokens: int) -> None:
    """To a block of the engines, whatever a prompt's length."""
    requests = session_requests(study, Sessions(turns=100, system_tokens=system_tokens, pause_s=3.0), 6.0)
    assert requests.blocks is not None
    assert (requests.prompt - requests.cached < 200 + BLOCK).all()
    found = [int(requests.blocks.cached(caches=4, tokens=tokens).sum()) for tokens in (1e5, 1e6, 1e7)]
    assert found == sorted(found)


def test_sessions_that_outlast_what_is_drawn_stand_for_more(study: Study) -> None:
    """Of ten times as many in flight a cache of ten times the size finds as much, drawn in full or in part."""
    few, many = (session_requests(study, Sessions(turns=10, pause_s=60.0), rate) for rate in (10.0, 100.0))
    assert few.blocks is not None
    assert many.blocks is not None
    one = np.ones(1, np.int64)
    for tokens in (5e5, 1e6):
        found = few.blocks.hit_frac(caches=one, tokens=np.array([tokens]))
        assert many.blocks.hit_frac(caches=one, tokens=np.array([10.0 * tokens])) == pytest.approx(found, abs=0.05)


def test_the_longest_prompt_finds_what_was_said_before_it() -> None:
    """Its first token takes a little longer than the mean, and not as if all beyond a mean prompt were new."""
    document = _document(sessions={"turns": 100, "system_tokens": 10_300, "pause_s": 3.0})
    loaded = study_at(document, Path("study.toml"))
    plan = next(p for p in score(loaded, study_space(loaded).candidates) if p.layout.replicas == 4)
    assert plan.metrics["ttft_longest_s"] < 2.0 * plan.metrics["ttft_s"]


def test_the_study_has_their_lengths_and_shared_prefixes(study: Study) -> None:
    """As one with a log: kinds of requests, the share that is found, the rate as given, and requests to simulate."""
    loaded = study_at(_document(), Path("study.toml")).workload
    assert loaded.request_rate_per_s == 10.0
    assert loaded.recorded is not None
    assert loaded.isl.mean == pytest.approx(1800.0, rel=0.02)
    assert loaded.prefix_cache_hit_frac == pytest.approx(
        loaded.recorded.cached.sum() / loaded.recorded.prompt.sum(), rel=1e-9
    )
    assert study.workload.recorded is None


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"request_rate_per_s": None, "concurrency": 8}, r"workload\.sessions: needs workload\.request_rate_per_s"),
        ({"prefix_cache_hit_frac": 0.5}, r"prefix_cache_hit_frac: must not be given with workload\.sessions"),
        ({"traffic": "log.csv"}, r"workload\.traffic: must not be given with workload\.sessions"),
        ({"sessions": {"turns": 0}}, r"workload\.sessions\.turns"),
        ({"sessions": {}}, r"workload\.sessions\.turns"),
    ],
)
def test_what_contradicts_sessions_is_refused(workload: dict[str, object], message: str) -> None:
    """By its name."""
    document = _document(**workload)
    table = document["workload"]
    assert isinstance(table, dict)
    document["workload"] = {key: value for key, value in table.items() if value is not None}
    with pytest.raises(InputError, match=message):
        study_at(document, Path("study.toml"))


def test_a_log_s_own_shared_prefixes_replace_those_of_sessions() -> None:
    """What a log's prompts share is known of it; where it says nothing, prompts share as the study's sessions do."""
    profile = profile_of_arrays(np.arange(100.0), np.full(100, 1500.0), np.full(100, 50.0))
    told = replace(profile, shared_prefix_frac=0.25)
    asked = study_at(_document(), Path("study.toml"))
    assert asked.workload.sessions is not None
    assert with_traffic(asked, profile).workload.sessions == asked.workload.sessions
    assert with_traffic(asked, told).workload.sessions is None
