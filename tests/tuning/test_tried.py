"""Every evaluation of a layout is kept in its trial, not the best one alone."""

from __future__ import annotations

import json
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest

from autotune.scoring.tried import Tried, rounded
from autotune.storage import open_store
from autotune.study import load_study, study_fingerprint
from autotune.tuning import tune
from costmodel.errors import InputError
from tests.studies import FOLDER

SMALL = ("cluster.gpus=16", "model=gpt-oss-120b", "baseline.plan=tp8", "search.max_num_batched_tokens=[2048,8192]")


def test_every_evaluation_is_in_the_storage(tmp_path: Path) -> None:
    """Trials hold all choices of knobs with their figures, and the best of those is the one that was ranked."""
    knobs = ("search.concurrency=[64,256,1024]", 'search.kv_dtype=["fp8","bf16"]')
    study = load_study(FOLDER / "deepseek-v3-128xh200.toml", (*SMALL, *knobs))
    store = open_store(tmp_path / "journal.log", study.name, study_fingerprint(study), ["maximize"], gpus=16)
    result = tune(study, store)
    records = {r.attrs["plan"]: r for r in store.records()}
    assert len(records) == len(result.space.candidates)
    for plan in result.ranked:
        tried = records[plan.plan].attrs["tried"]
        assert {len(column) for column in tried.values()} == {2 * 3 * 2}
        kept = [
            (rate * meets, budget, in_flight, dtype)
            for rate, meets, budget, in_flight, dtype, excess in zip(
                tried["total_tokens_per_s_per_gpu"],
                tried["p_meets"],
                tried["max_num_batched_tokens"],
                tried["concurrency"],
                tried["kv_dtype"],
                tried["excess_frac"],
                strict=True,
            )
            if excess == 0
        ]
        own = plan.metrics["total_tokens_per_s_per_gpu"] * plan.p_meets
        assert max(kept)[0] == pytest.approx(own, rel=1e-5)
        chosen = (plan.knobs.max_num_batched_tokens, plan.knobs.concurrency, plan.knobs.kv_dtype)
        assert chosen in {choice[1:] for choice in kept}


def test_figures_as_json() -> None:
    """Numbers keep six digits, whole ones stay whole, and what is not finite is null."""
    kept = Tried(
        columns={"a": np.array([1.23456789, 2048.0]), "b": np.array([inf, nan])}, dtypes={"kv_dtype": ["x", "y"]}
    )
    assert json.dumps(kept.to_json()) == '{"a": [1.23457, 2048], "b": [null, null], "kv_dtype": ["x", "y"]}'
    assert rounded(np.array([0.0, -1e-9, 123456789.0])).tolist() == [0.0, -1e-9, 123457000.0]


def test_too_many_choices_of_knobs() -> None:
    """What would not fit into memory is refused, with the limit and the product named."""
    many = (f"search.max_num_batched_tokens={list(range(16, 816))}", f"search.concurrency={list(range(1, 801))}")
    with pytest.raises(
        InputError, match=r"\$\.search: must give at most 100,000 choices of knobs .* 800 concurrency x 800"
    ):
        load_study(FOLDER / "deepseek-v3-128xh200.toml", many)
