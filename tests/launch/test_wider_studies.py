"""Launching plans of studies that open more than the layout: other clusters, speculation, chosen stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.launch.export import choose_plan, make_export
from autotune.launch.targets.registry import find_target, target_files
from autotune.study import load_study
from costmodel.errors import InputError

STUDY = Path(__file__).resolve().parents[2] / "studies" / "llama-70b-16xh100.toml"


def test_a_plan_on_fewer_gpus_is_launched_on_them() -> None:
    """The launch is for the plan's own cluster, and says that the drafter that was scored is not part of it."""
    study = load_study(STUDY, ["search.gpus=[8]", "speculative={draft_tokens=3, accepted_per_step=2.2}"])
    plan, _ = choose_plan(study, find_target("vllm"), "R1/TP8")
    assert plan is not None
    export = make_export(study, plan)
    assert export.service.cluster.gpus == 8
    assert any("speculative" in text for text in export.service.assumptions)


def test_chosen_stages_are_told_to_the_engine() -> None:
    """Layers per stage other than the engine's own stand in what is launched."""
    study = load_study(STUDY, [])
    plan, _ = choose_plan(study, find_target("vllm"), "PP2/TP8/SPLIT41-39")
    assert plan is not None
    files = target_files(find_target("vllm"), make_export(study, plan), current=None)
    assert any("VLLM_PP_LAYER_PARTITION=41,39" in file.text for file in files.values())


def test_an_engine_of_those_that_run_is_a_target() -> None:
    """Where `any` leaves out an engine that does not run on the GPUs, the others can be launched, and it cannot."""
    study = load_study(STUDY, ["engine=any", "cluster.gpu=mi300x", "baseline.engine=vllm"])
    assert study.engine == "vllm+sglang"
    plan, _ = choose_plan(study, find_target("sglang"), "TP8")
    assert plan is not None
    assert plan.engine == "sglang"
    with pytest.raises(InputError, match=r"is trtllm, the study is about vllm\+sglang"):
        choose_plan(study, find_target("trtllm"), "TP8")
