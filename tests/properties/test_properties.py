"""Fifty random studies: every statement that costs little, and by turns those that score plans again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autotune.scoring.best_knobs import candidate_grid
from autotune.tuning.answer_study import score_plan
from autotune.tuning.study_space import study_space
from tests.properties.given import REL, value
from tests.properties.run import violations_of
from tests.properties.statements import better_gpu, load_losses
from tests.properties.studies import study_of

STUDIES, CHUNKS, PLANS = 50, 10, 2
BEHIND_A_HOLLOW: list[dict[str, Any]] = [
    # prompts of one token's outputs leave the GPUs idle together until they fill more than one step
    {
        "engine": "sglang",
        "model": "Qwen/Qwen3.5-122B-A10B",
        "cluster": {"gpus": 2, "gpu": "b300_sxm"},
        "workload": {"isl": 426, "osl": 1},
        "constraints": {"ttft_ms": 312.0, "memory_util_frac": 0.694},
        "search": {"max_num_batched_tokens": [16384]},
    },
    # a pipeline of six stages that six requests fill
    {
        "engine": "trtllm",
        "model": "meta-llama/Llama-2-13b-hf",
        "cluster": {"gpus": 6, "gpu": "h20_141g"},
        "workload": {"isl": 340, "osl": 1429},
        "constraints": {"tpot_ms": 9.0738},
        "objective": {"maximize": "output_tokens_per_s_per_gpu"},
        "search": {"max_num_batched_tokens": [2048]},
    },
]
"""Studies in which a plan is worth less with more requests in flight and then more again, until a limit cuts it off."""

VIOLATED_ONCE = [
    pytest.param(200409, "better_hardware", id="steps that had not settled"),
    pytest.param(300417, "global_load", id="steps that were nearly found and sought elsewhere"),
    pytest.param(603306, "whole_requests", id="prompts that wait for passes of few"),
    pytest.param(602917, "whole_requests", id="steps that outgrow the captured graphs by chance"),
    pytest.param(601472, "whole_requests", id="outputs of one token"),
    pytest.param(800676, "whole_requests", id="fewer requests than a pipeline's stages"),
    pytest.param(1116228, "whole_requests", id="steps with prompts many times as long as others"),
    pytest.param(260136, "better_hardware", id="steps of which lengths alone still moved"),
    pytest.param(150443, "better_hardware", id="loads that were tried by what there is room for"),
    pytest.param(170007, "better_hardware", id="the fewest that serve a rate by what there is room for"),
    pytest.param(200044, "relaxed", id="a sharp peak between two loads"),
    pytest.param(210541, "global_load", id="a broad peak between two loads"),
    pytest.param(900116, "relaxed", id="a bend and a peak close to each other"),
    pytest.param(220226, "global_load", id="a step more for each prompt at once"),
    pytest.param(200397, "pools, better_hardware", id="pools whose best loads lie further off"),
    pytest.param(200029, "pools, better_hardware", id="passes of experts that launching bounds"),
    pytest.param(201581, "pools, better_hardware", id="dtypes chosen where they were tried"),
    pytest.param(210225, "pools, relaxed", id="token budgets chosen where they were tried"),
    pytest.param(4505, "pools, relaxed", id="token budgets that keep a floor only where they run"),
    pytest.param(302653, "pools, better_hardware", id="pools that do more together alone"),
    pytest.param(300065, "pools, relaxed", id="sequences admitted that were not tried"),
]
"""Seed and statement."""


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_statement_is_violated(chunk: int) -> None:
    """None of the statements, by any of the studies; most of them have plans."""
    found = {seed: violations_of(seed, PLANS, quick=True) for seed in range(chunk, STUDIES, CHUNKS)}
    assert not [(seed, violation) for seed, violations in found.items() for violation in violations or ()]
    assert sum(violations is not None for violations in found.values()) >= STUDIES // CHUNKS // 3


@pytest.mark.parametrize(("seed", "statement"), VIOLATED_ONCE)
def test_what_was_violated_once(seed: int, statement: str) -> None:
    """Studies by which something was found that is mended."""
    found = violations_of(seed, 10, only=statement)
    assert found is not None
    assert not found


@pytest.mark.parametrize("document", BEHIND_A_HOLLOW, ids=lambda document: str(document["engine"]))
def test_the_solved_load_is_the_best_behind_a_hollow(document: dict[str, Any]) -> None:
    """No load is better than the one solved for."""
    study = study_of({"name": "behind-a-hollow", **document})
    grid, _ = candidate_grid(study, study_space(study).candidates)
    losses = list(load_losses(grid, range(grid.variant.size), every=100))
    assert losses
    assert not [loss for loss in losses if loss[1] > REL]


def test_pools_whose_light_loads_alone_are_in_time_lose_nothing_by_more_memory() -> None:
    """More room for cache holds more sequences than the limit on TTFT lets decode: that limit sets what is tried."""
    study = study_of({
        "name": "light-loads",
        "engine": "sglang",
        "model": "deepseek-ai/DeepSeek-V3.2",
        "cluster": {"gpus": 8, "gpu": "mi325x"},
        "workload": {"isl": {"min": 6, "max": 270}, "osl": 1955},
        "constraints": {"ttft_ms": 570.73},
        "search": {"max_num_batched_tokens": [8192], "min_p_meets": 0.0},
    })  # fmt: skip
    gpu = replace(study.cluster.gpu, base=study.cluster.gpu.measured_as)
    values = []
    for one in (gpu, better_gpu(gpu, "hbm_bytes")):
        other = replace(study, cluster=replace(study.cluster, gpu=one))
        plan = score_plan(other, "P4:ATP4/MTP4+D4:ATP4/MTP4").result
        assert plan is not None
        assert plan.feasible
        values.append(value(other, plan))
    assert values[1] >= values[0] * (1.0 - REL)
