"""The plan in production has the checkpoint's dtypes where a study opens several and says none of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotune.comparison.compare_plans import compare
from autotune.evaluation import evaluate
from autotune.launch.export import current_service
from autotune.report.answer import next_block
from autotune.report.document import assumptions
from autotune.report.evaluation import evaluation_document
from autotune.report.verdict import tune_verdict
from autotune.study import Baseline, Study
from autotune.tuning import score_baseline, tune
from autotune.tuning.answer_study import score_plan
from tests.tuning.brute import question

PLAN = "tp4"


def asked(weights: list[str], caches: list[str], **baseline: object) -> Study:
    """A BF16 model on four GPUs, several dtypes open."""
    return question(
        "llama-3.1-8b",
        4,
        workload={"isl": 1009, "osl": 64, "concurrency": 8},
        search={"weight_dtype": weights, "kv_dtype": caches},
        baseline={"plan": PLAN, **baseline},
    )


def dtypes_of(study: Study) -> tuple[str | None, str | None]:
    """What the study's baseline is scored with."""
    found = score_baseline(study)
    assert found is not None
    assert found.result is not None
    return found.result.knobs.weight_dtype, found.result.knobs.kv_dtype


@pytest.mark.parametrize(
    ("weights", "caches", "given", "taken"),
    [
        (["bf16", "fp8"], ["bf16", "fp8"], {}, ("bf16", "bf16")),
        (["fp8", "int4"], ["fp8", "bf16"], {}, (None, "bf16")),
        (["bf16", "fp8"], ["bf16", "fp8"], {"weight_dtype": "fp8"}, ("fp8", "bf16")),
        (["fp8"], ["fp8"], {}, ("fp8", "fp8")),
    ],
)
def test_of_several_dtypes_the_checkpoints(
    weights: list[str], caches: list[str], given: dict[str, str], taken: tuple[str | None, str | None]
) -> None:
    """Under its name in the search, or none where the search lacks it; what is given stays, and a single one too."""
    assert dtypes_of(asked(weights, caches, **given)) == taken


def test_the_gain_is_against_the_checkpoints_dtypes() -> None:
    """`tune` ranks as if they had been given, and says what it took."""
    open_study = asked(["bf16", "fp8"], ["bf16", "fp8"])
    said = asked(["bf16", "fp8"], ["bf16", "fp8"], weight_dtype="bf16", kv_dtype="bf16")
    found, wanted = tune(open_study), tune(said)
    assert found.baseline is not None
    assert wanted.baseline is not None
    assert found.baseline.result == wanted.baseline.result
    assert found.confidence == wanted.confidence
    assert found.ranked[0].knobs.weight_dtype == "fp8"
    lines = assumptions(found)
    assert "baseline.plan: weight_dtype not given: the checkpoint's, bf16" in lines
    assert "baseline.plan: kv_dtype not given: the checkpoint's, bf16" in lines
    assert not any("weight_dtype not given" in line and "baseline" in line for line in assumptions(wanted))


def test_a_plan_that_is_only_named_has_the_best() -> None:
    """`--plan` asks what a plan would bring, `--current` what runs; a rank is a row of the ranking."""
    study = asked(["bf16", "fp8"], ["bf16", "fp8"])
    named = score_plan(study, PLAN).result
    assert named is not None
    assert named.knobs.weight_dtype == "fp8"
    current = compare(replace(study, baseline=None), PLAN, scenarios=False).current
    assert current.result is not None
    assert (current.result.knobs.weight_dtype, current.result.knobs.kv_dtype) == ("bf16", "bf16")
    assert current_service(study, PLAN).knobs.weight_dtype == "bf16"
    first = compare(replace(study, baseline=Baseline(plan=PLAN)), "1", scenarios=False).current
    assert first.result is not None
    assert first.result.knobs.weight_dtype == "fp8"


def test_other_dtypes_of_the_same_layout_are_a_switch() -> None:
    """One layout on one GPU: `tune`, `evaluate` and `compare` all say that FP8 weights are worth it, and that it is
    they that are; where they are given, nothing is left to change."""
    bf16 = question(
        "llama-3.1-8b",
        1,
        workload={"isl": 1000, "osl": 500, "concurrency": 16},
        search={"weight_dtype": ["bf16", "fp8"], "max_num_batched_tokens": [8192]},
        baseline={"plan": "tp1"},
    )
    assert bf16.baseline is not None
    fp8 = replace(bf16, baseline=replace(bf16.baseline, weight_dtype="fp8"))
    found = tune(bf16)
    verdict = tune_verdict(found, "TP1")
    assert verdict.headline == "Switch to TP1 with weights in fp8."
    steps = next_block(found, verdict, lambda _: None)
    assert steps is not None
    assert "compare" in str(steps.lines[0])
    judged = evaluate(bf16)
    assert "another plan is better. Instead: vllm:TP1 with weights in fp8, which serves" in judged.conclusion
    assert judged.p_better_than_best is not None
    assert judged.p_better_than_best < 0.1
    assert any("compare" in step for step in evaluation_document(judged)["next"])
    assert compare(bf16, scenarios=False).verdict.verdict == "switch"
    assert tune_verdict(tune(fp8), "TP1").headline == "Keep the plan in production, TP1."
    assert "Proceed" in evaluate(fp8).conclusion
    assert compare(fp8, scenarios=False).verdict.rule == "same_plan"


def test_the_steps_that_follow_are_of_the_plan_that_was_judged() -> None:
    """Its name alone stands for the best dtypes of the search: the plan in production is named `baseline` then."""
    study = question(
        "llama-3.1-8b",
        1,
        workload={"isl": 1000, "osl": 500, "concurrency": 16},
        search={"weight_dtype": ["bf16", "fp8"], "max_num_batched_tokens": [8192]},
        baseline={"plan": "tp1"},
    )
    own, named = evaluate(study), evaluate(study, "tp1")
    assert own.result is not None
    for found, name in ((own, "baseline"), (named, "TP1")):
        steps = evaluation_document(found)["next"]
        assert steps
        assert all(f" {name} " in step for step in steps if "verify" not in step)
    again = score_plan(study, "baseline").result
    assert again is not None
    assert again.launch == own.result.launch
    assert score_plan(study, "TP1").result == named.result
    sole = replace(study, search=replace(study.search, weight_dtype=("bf16",)))
    assert all("baseline" not in step for step in evaluation_document(evaluate(sole))["next"])
