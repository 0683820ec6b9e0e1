"""The knobs that plans are launched with, and how sure the ranking of them is."""

from __future__ import annotations

from math import ceil

import pytest

from autotune.scoring.best_knobs import score
from autotune.scoring.joint_uncertainty import confidence
from autotune.tuning import tune
from autotune.tuning.study_space import study_space
from tests.tuning.brute import question

WORK = {"isl": 1009, "osl": 211, "concurrency": 61}


@pytest.mark.parametrize("seats", [1024, 4])
def test_sequences_of_a_rank(seats: int) -> None:
    """Sixty-one requests over the replicas and their attention-DP ranks, rounded up, no more than have seats."""
    study = question(engine="any", workload=WORK, engine_options={"max_num_seqs": seats})
    plans = score(study, study_space(study).candidates)
    assert {plan.layout.attn_dp for plan in plans} > {1, 2}
    for plan in plans:
        assert plan.knobs.concurrency == 61
        assert plan.knobs.max_num_seqs == min(ceil(61 / plan.layout.replicas / plan.layout.attn_dp), seats)


def test_who_cannot_be_told_apart() -> None:
    """A plan that the first one beats with less than four in five is among the best, others are not."""
    study = question(engine="any", workload=WORK)
    ranked = tune(study).ranked
    found = confidence(study, ranked, None)
    chances = [found[plan.plan].p_best_is_better for plan in ranked]
    assert [found[plan.plan].among_best for plan in ranked] == [p < 0.8 for p in chances]
    assert any(0.5 < p < 0.8 for p in chances)
    assert any(p > 0.9 for p in chances)
