"""`best` and a rank name the rows that `tune` answers, in every command, on whatever cluster those plans are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotune.comparison import compare
from autotune.evaluation import evaluate
from autotune.graph.plan import plan_graph
from autotune.launch.export import choose_plan
from autotune.launch.targets.registry import find_target
from autotune.report.comparison import comparison_document
from autotune.report.evaluation import evaluation_document
from autotune.report.reach import idle_gpus
from autotune.study import Study, study_from_document
from autotune.traffic.load import load_study
from autotune.tuning import score_plan, tune
from tests.command import autotune

QUESTIONS: dict[str, dict[str, Any]] = {
    "the fewest GPUs": {"objective": {"minimize": "gpus"}},
    "several counts": {"search": {"gpus": [1, 2], "max_num_batched_tokens": [2048]}},
    "another type": {"search": {"gpu": ["h200_sxm"], "max_num_batched_tokens": [2048]}},
    "goodput": {
        "objective": {"maximize": "goodput_requests_per_s_per_gpu"},
        "search": {"gpus": [1], "max_num_batched_tokens": [2048]},
    },
}

TOML = """
model = "llama-3.1-8b"
engine = "vllm"
cluster = {gpus = 4, gpu = "h100_sxm"}
workload = {isl = 1024, osl = 64}
constraints = {tpot_ms = 45}
search = {max_num_batched_tokens = [2048]}
"""


def document(**tables: Any) -> dict[str, Any]:
    """Llama-3.1-8B on four GPUs at a rate that one of them carries."""
    return {
        "model": "llama-3.1-8b",
        "engine": "vllm",
        "cluster": {"gpus": 4, "gpu": "h100_sxm"},
        "workload": {"isl": 1024, "osl": 64, "request_rate_per_s": 10.0},
        "constraints": {"ttft_ms": 900, "tpot_ms": 45},
        "baseline": {"plan": "R4/TP1"},
        **tables,
    }


def asked(question: str) -> Study:
    """The study of a question."""
    return study_from_document(document(**QUESTIONS[question]), Path("study.toml"))


@pytest.mark.parametrize("question", list(QUESTIONS))
def test_commands_take_the_row_of_tune(question: str) -> None:
    """`evaluate`, `compare`, `dag` and `export` are about the first row, and about the third."""
    study = asked(question)
    ranked = tune(study).ranked
    for text, row in (("best", ranked[0]), ("3", ranked[2])):
        evaluated = evaluate(study, text)
        assert evaluated.result is not None
        assert evaluation_document(evaluated)["plan"] == row.plan
        compared = compare(study, candidate=text, scenarios=False).candidate
        assert compared is not None
        assert compared.plan == row.plan
        if question == "goodput":  # every ranking is simulated, which takes its time
            break
        exported, _ = choose_plan(study, find_target("vllm"), text)
        assert exported is not None
        assert exported.plan == row.plan
        assert plan_graph(study, text).plan == row.plan
        assert evaluated.result.metrics == pytest.approx(row.metrics)


def test_fewer_gpus_are_a_switch() -> None:
    """Where one GPU of four is enough, `compare` says to switch to what `tune` says, and weighs the GPUs."""
    found = compare(asked("the fewest GPUs"), scenarios=False)
    assert found.candidate is not None
    assert found.candidate.result is not None
    assert found.candidate.result.metrics["gpus"] == 1.0
    assert found.verdict.verdict == "switch"
    assert found.gain is not None
    assert found.gain.per_s > 0.0
    (step, *_) = comparison_document(found)["next"]
    assert found.candidate.plan in step


def test_under_a_log_too(tmp_path: Path) -> None:
    """Requests of a log on one, two or four GPUs: `compare` takes the first row, and says how many GPUs it needs."""
    log = tmp_path / "log.csv"
    rows = "".join(f"{0.1 * i:.1f},1024,64\n" for i in range(600))
    log.write_text(f"timestamp,prompt_tokens,output_tokens\n{rows}", encoding="utf-8")
    file = tmp_path / "study.toml"
    own = TOML.replace("{isl = 1024, osl = 64}", '{traffic = "log.csv"}').replace("{max", "{gpus = [1, 2, 4], max")
    file.write_text(f'{own}baseline = {{plan = "R4/TP1"}}\n', encoding="utf-8")
    study = load_study(file)
    first = tune(study).ranked[0]
    found = compare(study, scenarios=False)
    assert found.candidate is not None
    assert (found.candidate.plan, first.metrics["gpus"]) == (first.plan, 1.0)
    assert first.plan != "vllm:R4/PP1/ATP1/ADP1/MTP1/EP1"
    assert "needs 1 GPU instead of 4" in found.verdict.reason


def test_gpus_that_may_be_taken_instead_are_not_idle() -> None:
    """Only those of `cluster.also` are there beside the cluster's own."""
    study = asked("another type")
    assert study.axes.gpu_types
    assert {idle_gpus(study, plan) for plan in tune(study).ranked} == {""}


def test_a_plan_on_other_gpus_is_evaluated_there() -> None:
    """Its cluster is what it is held against, its baseline elsewhere is left out, and the next steps name it whole."""
    study = asked("the fewest GPUs")
    found = evaluate(study, "R1/TP2")
    assert found.passed
    assert (found.study.cluster.gpus, found.elsewhere) == (2, "vllm:R1/PP1/ATP2/ADP1/MTP1/EP1")
    assert found.best is not None
    assert found.best.metrics["gpus"] == 2.0
    assert sum("2 x h100_sxm alone" in text or "baseline left out" in text for text in found.assumptions) == 2
    for line in evaluation_document(found)["next"]:
        assert "--plan" not in line or "vllm:R1/PP1/ATP2" in line
    assert not evaluate(study, "R4/TP1").elsewhere


def test_a_rank_is_of_all_engines_whatever_the_target() -> None:
    """A target writes the row of its engine; that of another is refused by name, not taken for the next of its own."""
    table = document(engine="any", search={"gpus": [2], "max_num_batched_tokens": [2048]})
    study = study_from_document(table, Path("study.toml"))
    ranked = tune(study).ranked
    place, row = next((i, p) for i, p in enumerate(ranked, start=1) if p.engine == "sglang")
    exported, _ = choose_plan(study, find_target("sglang"), str(place))
    assert exported is not None
    assert exported.plan == row.plan
    with pytest.raises(ValueError, match="must be of the target's engine"):
        choose_plan(study, find_target("vllm"), str(place))


def test_simulate_takes_the_row_whatever_the_rate(tmp_path: Path) -> None:
    """`--rate` says what comes, not which plan is meant: without a rate of its own the study ranks other plans."""
    path = tmp_path / "study.toml"
    path.write_text(TOML)
    first = tune(load_study(path)).ranked[0]
    at_rate = score_plan(load_study(path, ["workload.request_rate_per_s=1"]), "best")
    assert at_rate.result is not None
    assert at_rate.result.plan != first.plan, "the question must rank other plans at that rate"
    done = autotune("simulate", str(path), "--plan", "best", "--rate", "1", "--json")
    assert json.loads(done.stdout)["plan"] == first.plan
