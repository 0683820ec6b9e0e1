"""A study whose workload is a request log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.study import Study
from autotune.study.fingerprint import study_fingerprint
from autotune.study.portable import STUDY_FILE, portable_study
from autotune.traffic.load import load_study
from autotune.traffic.read import read_traffic
from autotune.traffic.workload import with_traffic
from autotune.tuning.answer_study import score_named
from costmodel.errors import InputError
from tests.conftest import DATA
from tests.traffic.helpers import lines

LOG = DATA / "azure_llm_2023_conv.csv"
STUDY = """
model = "llama-3.1-8b"
engine = "vllm"
[cluster]
gpus = 4
gpu = "h100_sxm"
[workload]
traffic = "requests.csv"
[constraints]
ttft_p95_ms = 800
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study file beside its log."""
    (tmp_path / "requests.csv").write_bytes(LOG.read_bytes())
    path = tmp_path / "study.toml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def test_the_log_says_lengths_rate_and_times(study: Path) -> None:
    """Means are those of the log's profile; percentiles are simulated on its requests, the first at 0 s."""
    loaded = load_study(study)
    log = read_traffic(str(LOG))
    assert log.columns is not None
    assert loaded.workload.request_rate_per_s == log.profile().rate.peak_per_s
    assert loaded.workload.isl.mean == pytest.approx(log.profile().prompt_mean)
    served = study_traffic(loaded)
    assert served.recorded
    assert np.array_equal(served.requests.prompt, log.columns.prompt)
    assert served.requests.arrival_s == pytest.approx(log.columns.times_s - log.columns.times_s[0])
    assert not study_traffic(loaded, rate_per_s=3.0).recorded


def test_a_log_that_is_given_is_a_setting_too(tmp_path: Path) -> None:
    """The settings that commands repeat after `--traffic`, and the study beside launch files, ask the same question."""
    plain = tmp_path / "plain.toml"
    own = "isl = 100\nosl = 10\nrequest_rate_per_s = 1"
    plain.write_text(STUDY.replace('traffic = "requests.csv"', own), encoding="utf-8")
    given = load_study(plain, ["constraints.ttft_p95_ms=900"], traffic=str(LOG))
    stamp = study_fingerprint(given)
    assert study_fingerprint(load_study(plain, given.overrides)) == stamp
    (tmp_path / STUDY_FILE).write_text(portable_study(given)[STUDY_FILE], encoding="utf-8")
    assert study_fingerprint(load_study(tmp_path / STUDY_FILE)) == stamp


def test_the_answer_is_that_of_this_log(study: Path) -> None:
    """The same log is the same question, under another name too; with a request less it is another one."""
    stamp = study_fingerprint(load_study(study))
    moved = study.parent / "other.csv"
    moved.write_bytes(LOG.read_bytes())
    assert study_fingerprint(load_study(study, ['workload.traffic="other.csv"'])) == stamp
    moved.write_bytes(b"".join(LOG.read_bytes().splitlines(keepends=True)[:-1]))
    assert study_fingerprint(load_study(study, ['workload.traffic="other.csv"'])) != stamp


def test_other_traffic_takes_its_place(study: Path) -> None:
    """A profile of other traffic leaves nothing of the log."""
    loaded = load_study(study)
    other: Study = with_traffic(loaded, read_traffic(str(LOG)).profile(), load="mean")
    assert other.workload.recorded is None
    assert replace(other.workload, traffic_digest="") == other.workload


def test_what_the_log_says_is_not_given_beside_it(study: Path) -> None:
    """Each key that a log says itself is named; a log that is not there, or of one request, is one clear line."""
    with pytest.raises(InputError, match=r"(?s)workload\.isl: must not be given.*workload\.request_rate_per_s"):
        load_study(study, ["workload.isl=7", "workload.request_rate_per_s=3"])
    with pytest.raises(InputError, match=r"nowhere\.csv: cannot be read"):
        load_study(study, ['workload.traffic="nowhere.csv"'])
    one = study.parent / "one.csv"
    one.write_bytes(b"".join(LOG.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match=r"one\.csv"):
        load_study(study, ['workload.traffic="one.csv"'])


def test_each_plan_finds_what_its_own_caches_hold(tmp_path: Path, study: Path) -> None:
    """Of a log with block hashes, in the closed form and in the simulation, and less in several small caches."""
    random, prompts = np.random.default_rng(4), list[list[int]]()
    for i in range(600):
        shared = prompts[int(random.integers(max(i - 200, 0), i))] if i and random.random() < 0.8 else []
        prompts.append([*shared[:60], *range(10_000 * i, 10_000 * i + int(random.integers(1, 6)))])
    rows = [
        {"timestamp": 150 * i, "input_length": 512 * len(p), "output_length": 100, "hash_ids": p}
        for i, p in enumerate(prompts)
    ]
    (tmp_path / "requests.csv").write_text(lines(rows), encoding="utf-8")
    loaded = load_study(study)
    found = {}
    for replicas, name in ((1, "TP4"), (4, "R4/TP1")):
        plan = score_named(loaded, name, path="--plan", missing="").result
        assert plan is not None
        grid = KnobGrid.of(loaded, [Variant.of(plan)], [2048])
        served = simulate_plan(loaded, plan, study_traffic(loaded), with_range=False)
        requests = served.forecast.expected.served.requests
        found[replicas] = float(grid.prefix_hit_frac[0])
        assert requests.cached.sum() / requests.prompt.sum() == pytest.approx(found[replicas], abs=0.01)
    shared_frac = loaded.workload.prefix_cache_hit_frac
    assert 0.05 < found[4] < found[1] - 0.05
    assert found[1] <= shared_frac + 1e-9
    assert any("longest ago" in text for text in loaded.assumptions)
