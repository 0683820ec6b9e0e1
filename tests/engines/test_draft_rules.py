"""Speculative decoding and pipeline stages: what SGLang refuses is no plan, with drafts alone."""

from __future__ import annotations

import pytest

from autotune.disaggregated.pool_rows import pool_layouts
from autotune.engines import ENGINES, rule_texts
from autotune.space.enumerate import rejected_by_value
from autotune.study import Study
from autotune.tuning import score_baseline
from autotune.tuning.answer_study import score_plan
from autotune.tuning.study_space import study_space
from tests.tuning.brute import question

RULE = "speculative_stages"
DRAFTS = {"draft_tokens": 3, "accepted_per_step": 2.4}


def asked(engine: str = "sglang", *, version: str | None = None, drafts: bool = True, **tables: object) -> Study:
    """A dense model on eight GPUs, with drafts or without."""
    return question(
        "llama-3.1-8b",
        8,
        workload={"isl": 1009, "osl": 64, "concurrency": 8},
        engine=engine,
        engine_version=version,
        **({"speculative": DRAFTS} if drafts else {}),
        **tables,
    )


def stages(study: Study) -> set[int]:
    """Numbers of stages of the study's plans."""
    return {c.layout.pp for c in study_space(study).candidates}


@pytest.mark.parametrize("version", [None, "0.5.9", "0.5.22"])
def test_sglang_drafts_in_one_stage(version: str | None) -> None:
    """With drafts every plan has one stage, and the others are counted under the rule; without, there are more."""
    study = asked(version=version)
    assert stages(study) == {1}
    assert study_space(study).rejected[RULE] > 0
    assert max(stages(asked(version=version, drafts=False))) > 1
    assert RULE in rule_texts()
    counted = rejected_by_value(
        study.arch, gpus=8, engine="sglang", axis="pp", search=study.search, version=version, drafts=True
    )
    assert counted[2][RULE] > 0
    assert RULE not in counted[1]


@pytest.mark.parametrize("engine", ["vllm", "trtllm"])
def test_other_engines_have_ways_to_draft_with_stages(engine: str) -> None:
    """Nothing is left out of them."""
    assert stages(asked(engine)) == stages(asked(engine, drafts=False))


def test_a_pool_that_prefills_may_have_stages() -> None:
    """Since versions that were looked at after 0.5.9; a pool that decodes may not."""
    for version, role, most in ((None, "prefill", 2), (None, "decode", 1), ("0.5.9", "prefill", 1)):
        found = pool_layouts(asked(version=version, search={"disaggregated": "auto"}), "sglang", role, (4,))
        assert found
        assert (max(c.layout.pp for c in found) >= 2) is (most == 2)


def test_a_named_plan_breaks_it_unless_it_runs_without_drafts() -> None:
    """The plan in production may decode without the study's drafts."""
    named = score_plan(asked(), "PP2/TP4")
    assert named.result is None
    assert [v.rule for v in named.resolution.violations] == [RULE]
    given = {"plan": "PP2/TP4", "engine_options": {"speculative": False}}
    own = score_baseline(asked(baseline=given))
    assert own is not None
    assert own.result is not None
    assert not any(rule.name == RULE for rule in ENGINES["sglang"].rules_of(None))
