"""What a study is called in a storage: equal exactly where the answer is."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from autotune.study import Study, load_study, study_fingerprint
from autotune.study.fingerprint import _plain as plain_content
from autotune.study.fingerprint import model_age, model_stamp, question_digest
from autotune.tuning import score_plan
from costmodel.calibration.measured_cells import own_key
from costmodel.calibration.profile import VALUES, Profile, ProfileCell, profile_text
from costmodel.calibration.residual import FEATURES
from costmodel.version import MODEL_VERSION

ROOT = Path(__file__).resolve().parents[2]
STUDY = """
engine = "vllm"
model = "llama-3.1-8b"
[cluster]
gpus = 8
gpu = "h100_sxm"
[workload]
isl = 1000
osl = 100
"""
Asked = Callable[..., Study]


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """The study with settings."""

    def load(*settings: str, name: str = "mine.toml") -> Study:
        (tmp_path / name).write_text(STUDY, encoding="utf-8")
        return load_study(tmp_path / name, settings)

    return load


def profile(study: Study, tpot: float) -> Profile:
    """A calibration that makes every step of the study's model slower by a factor of e^tpot."""
    numbers = (tpot, *[0.0] * (len(FEATURES) - 1), *[0.0] * (VALUES - len(FEATURES)))
    key = own_key("vllm", study.cluster.gpu.name, study.arch)
    return Profile(cells={key: ProfileCell(runs=5, tpot=numbers, ttft=numbers)})


def test_it_is_of_the_question(asked: Asked) -> None:
    """The name and the spelling of defaults change nothing; whatever changes results changes it."""
    plain = study_fingerprint(asked())
    assert plain == study_fingerprint(asked(name="other.toml"))
    same = [
        "name=else",
        "workload.expert_skew=0",
        "search.seed=0",
        "objective.maximize=total_tokens_per_s_per_gpu",
    ]
    assert plain == study_fingerprint(asked(*same))
    changes = [
        "constraints.ttft_ms=800",
        "workload.isl=1001",
        "cluster.gpus=16",
        "cluster.gpu.hbm_gib=79",
        "engine=sglang",
        "search.seed=1",
        "model=mixtral-8x22b",
        "search.kv_dtype=['fp8']",
        "engine_options.cuda_graphs=false",
        "baseline.plan=tp8",
        "baseline={plan='tp8', engine_options={max_num_seqs=4}}",
    ]
    assert len({study_fingerprint(asked(change)) for change in changes} | {plain}) == len(changes) + 1


def test_a_baseline_without_options_of_its_own_is_the_question_that_it_was(asked: Asked) -> None:
    """Nothing of the new key is in what is digested, so that stored trials stay valid."""
    study = asked("baseline.plan=tp8")
    assert study.baseline is not None
    assert "engine_options" not in plain_content(study.baseline)
    assert "engine_options" in plain_content(study)


def test_a_study_holds_its_calibration(asked: Asked, tmp_path: Path) -> None:
    """The profile counts by its content, and is a value: it works where its file is gone, and in another process."""
    path = tmp_path / "p.toml"
    prints, tpots = set(), []
    for tpot in (0.0, 0.25):
        path.write_text(profile_text(profile(asked(), tpot)), encoding="utf-8")
        study = asked(f"calibration={path}")
        path.unlink()
        (tmp_path / "mine.toml").unlink()
        prints |= {study_fingerprint(study), study_fingerprint(pickle.loads(pickle.dumps(study)))}  # noqa: S301  # ours
        result = score_plan(study, "R8", concurrency=64, batched_tokens=8192).result
        assert result is not None
        tpots.append(result.metrics["tpot_s"])
    assert len(prints) == 2
    assert tpots[1] == pytest.approx(tpots[0] * 2.718281828**0.25, rel=0.02)


def test_the_model_is_a_version_and_the_files_that_are_used(asked: Asked) -> None:
    """Kernels of each GPU's generation and residuals of each engine that the study may run, and no others."""
    stamp = model_stamp(asked())
    assert stamp["version"] == MODEL_VERSION
    assert set(stamp["data"]) == {"hopper-vllm.json", "residual-vllm.json"}
    wider = model_stamp(asked("search.gpu=['b200']", "baseline.plan=tp8", "baseline.engine=trtllm"))["data"]
    assert set(wider) - set(stamp["data"]) == {
        "blackwell-vllm.json", "blackwell-trtllm.json", "hopper-trtllm.json", "residual-trtllm.json",
    }  # fmt: skip
    assert all(wider.values())


def test_what_an_older_model_scored_is_told_from_what_this_one_did(asked: Asked) -> None:
    """By its version, or by the calibration files that have another content now; nonsense is no present model."""
    stamp = model_stamp(asked())
    assert model_age(stamp) is None
    assert "version 0" in str(model_age({**stamp, "version": 0}))
    changed = model_age({**stamp, "data": {**stamp["data"], "hopper-vllm.json": "0" * 16}})
    assert changed is not None
    assert "hopper-vllm.json" in changed
    assert "residual" not in changed
    for nonsense in (None, 7, [], {}, {"version": MODEL_VERSION, "data": {"/etc/passwd": "0", "no.json": "0"}}):
        assert model_age(nonsense) is not None


def test_question_and_model_are_told_apart(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of the model is another fingerprint of the same question."""
    study = asked()
    before = study_fingerprint(study)
    monkeypatch.setattr("autotune.study.fingerprint.MODEL_VERSION", MODEL_VERSION + 1)
    assert study_fingerprint(study) != before
    assert question_digest(study) == question_digest(replace(study, name="x", overrides=("a=1",)))


SHOW = "from autotune.study import load_study, study_fingerprint; print(study_fingerprint(load_study('mine.toml')))"


def test_words_of_the_code_are_not_in_it_and_data_is(asked: Asked, tmp_path: Path) -> None:
    """An edited docstring leaves stored trials valid; an edited calibration file does so where it is not used."""
    asked()
    for package in ("autotune", "costmodel"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))

    def shown() -> str:
        return subprocess.run(
            [sys.executable, "-c", SHOW],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def append(file: str, text: str) -> None:
        path = tmp_path / file
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")

    first = shown()
    assert first.strip() == study_fingerprint(asked())
    steady_state = tmp_path / "costmodel" / "serving" / "steady_state.py"
    text = steady_state.read_text(encoding="utf-8")
    assert text.startswith('"""')
    steady_state.write_text('"""Edited. ' + text[3:], encoding="utf-8")
    append("autotune/tuning/answer_study.py", "\n# a remark\n")
    append("costmodel/calibration/data/blackwell-vllm.json", "\n")
    assert shown() == first
    append("costmodel/calibration/data/hopper-vllm.json", "\n")
    assert shown() != first
