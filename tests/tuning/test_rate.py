"""A given request rate: no plan serves more than what arrives, and equals are told apart by time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.study import Study, load_study
from autotune.tuning import tune
from autotune.tuning.study_space import study_space
from tests.studies import FOLDER


def _at(rate: float) -> Study:
    overrides = ["cluster.gpus=32", "baseline.plan=ADP8+EP8", f"workload.request_rate_per_s={rate}"]
    return load_study(FOLDER / "deepseek-v3-128xh200.toml", overrides)


@pytest.mark.parametrize("rate", [0.001, 0.5, 6.0])
def test_nothing_serves_more_than_arrives(rate: float) -> None:
    """Far below one request in flight per replica too; the GPUs are busy for as little."""
    result = tune(_at(rate))
    assert result.ranked
    for plan in result.ranked:
        assert plan.metrics["requests_per_s"] == pytest.approx(rate, rel=1e-6)
        assert plan.metrics["total_tokens_per_s"] == pytest.approx(rate * 5000, rel=1e-6)
    if rate == 0.001:
        assert max(p.metrics["gpu_util_frac"] for p in result.ranked) < 0.05


def test_equals_are_told_apart_by_time() -> None:
    """Among plans that keep the limits as surely, the quicker one goes first."""
    ranked = [p for p in tune(_at(0.5)).ranked if p.p_meets > 0.9999]
    times = [p.metrics["ttft_s"] + 999 * p.metrics["tpot_s"] for p in ranked]
    assert len(times) > 10
    assert all(a <= b for a, b in pairwise(times))


def test_the_objective_says_so() -> None:
    """A study that maximises what is given is told what it is ranked by."""
    assert any("at a given request rate" in a for a in _at(1.0).assumptions)


def test_saturation_is_not_held_to_the_rate() -> None:
    """What a plan could serve is asked of the same rows, and lies far above what arrives."""
    study = _at(0.5)
    variant = Variant(candidate=study_space(study).candidates[0], weight_dtype=None, kv_dtype=None)
    rows = KnobGrid.of(study, [variant], [4096])
    many = np.array([512.0])
    assert rows.evaluate(many).requests_per_s[0] > 1.0
    assert rows.serving(many).requests_per_s[0] == pytest.approx(0.5)
