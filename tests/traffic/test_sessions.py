"""A study whose workload is sessions of several turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autotune.study import Sessions, Study, study_from_document
from autotune.traffic.load import study_at
from autotune.traffic.sessions import REQUESTS, session_requests
from costmodel.errors import InputError

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
    each = requests.blocks.tokens_each
    before = np.where(requests.prompt == 1200, 1000, requests.prompt - 200)
    assert np.array_equal(requests.cached, before // each * each)
    small = requests.with_caches(caches=1, tokens=4000.0)
    assert small.blocks is None
    assert 1000 // each * each <= np.median(small.cached) < np.median(requests.cached)
    dealt = requests.with_caches(caches=4, tokens=1e9)
    assert small.cached.sum() < dealt.cached.sum() < requests.cached.sum()


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
