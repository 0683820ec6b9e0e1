"""Trials as Optuna's tools see them: the value is what ranks, the parameters are what was open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from autotune.scoring.objective import ranking_value
from autotune.scoring.trial_record import Recorder, plan_of, study_header
from autotune.storage import open_store
from autotune.storage.browse import Studies
from autotune.tuning import tune
from tests.storage.helpers import optunas
from tests.tuning.brute import question

LIMITS = {"constraints": {"ttft_ms": 2000, "tpot_ms": 40}}
PRICES = {"prices": {"h100_sxm": 2.0, "h200_sxm": 3.0}}
ASKED: dict[str, dict[str, Any]] = {
    "throughput": {**LIMITS},
    "latency": {**LIMITS, "objective": {"minimize": "tpot_s"}},
    "rate": {**LIMITS, "workload": {"isl": 1009, "osl": 211, "request_rate_per_s": 3.0}},
    "cost": {**LIMITS, **PRICES, "objective": {"minimize": "usd_per_million_tokens"}},
    "fewest GPUs": {
        **LIMITS,
        "workload": {"isl": 1009, "osl": 211, "request_rate_per_s": 3.0},
        "objective": {"minimize": "gpus"},
        "search": {"gpus": [4, 8], "max_num_batched_tokens": [4096]},
    },
    "pools": {**LIMITS, "search": {"disaggregated": "auto", "max_num_batched_tokens": [4096]}},
}


@pytest.mark.parametrize("name", list(ASKED))
def test_optunas_best_is_the_plan_that_tune_names_first(name: str, tmp_path: Path) -> None:
    """Whatever is asked for: values order trials as the ranking does, and limits keep the others out."""
    study = question(engine="any", **ASKED[name])
    store = open_store(tmp_path / "j.log", study_header(study))
    result = tune(study, store)
    assert len(result.ranked) > 1
    values = [ranking_value(study, p) for p in result.ranked]
    assert values == sorted(values, reverse=study.objective.direction == "maximize")
    found = optuna.load_study(study_name=store.name, storage=optunas(store.location))
    assert found.best_value == values[0]
    ties = {p.plan for p, value in zip(result.ranked, values, strict=True) if value == values[0]}
    assert found.best_trial.user_attrs["plan"] in ties
    assert [t.plan for t in Studies(store.location).study(store.name).ranked] == [p.plan for p in result.ranked]
    plans = {p.key: p for p in (*result.ranked, *result.infeasible)}
    assert {r.key: plan_of(r) for r in store.records()} == plans
    for trial in found.trials:
        plan = plans[trial.user_attrs["plan_key"]]
        assert trial.user_attrs["metrics"][study.objective.metric] == plan.metrics[study.objective.metric]


def test_constants_are_no_parameters(tmp_path: Path) -> None:
    """A trial has parameters for what the study leaves open, and the same ones in every trial of one kind."""
    study = question(search={"max_num_batched_tokens": [1024], "min_p_meets": 0.0})
    store = open_store(tmp_path / "j.log", study_header(study))
    space = tune(study, store).space
    trials = optuna.load_study(study_name=store.name, storage=optunas(store.location)).trials
    (names,) = {frozenset(t.params) for t in trials}
    assert names == {"replicas", "pp", "attn_tp", "attn_dp", "moe_tp", "moe_ep", "concurrency"}
    assert all(len({t.params[n] for t in trials}) > 1 for n in names)
    wider = question(
        engine="any",
        workload={"isl": 9, "osl": 9, "concurrency": 4},
        search={"kv_dtype": ["fp8", "bf16"], "gpus": [4, 8], "gpu": ["h200_sxm"], "disaggregated": "auto"},
    )
    opened = Recorder.of(wider, space.candidates).params
    assert {"engine", "max_num_batched_tokens", "kv_dtype", "gpus", "gpu", "prefill_gpus", "prefill_pp"} <= opened
    assert not {"concurrency", "weight_dtype"} & opened
