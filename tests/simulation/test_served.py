"""What a plan serves of the requests that come, below and above what it can do."""

from __future__ import annotations

import pytest

from autotune.scoring.best_knobs import score
from autotune.simulation.goodput import served_per_s
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.space import parse_plan, resolve
from tests.tuning.brute import question

RATES = (6.0, 12.0, 14.0, 14.6, 15.0, 16.0, 20.0, 30.0, 1000.0, 1e6)


@pytest.mark.parametrize("count", [40, 400, 4000])
def test_no_less_is_served_where_more_comes(count: int) -> None:
    """What comes, then what the plan can do: within 6 % of the closed form's with all its room taken, few or many."""
    study = question(model="qwen3-32b", workload={"isl": 3000, "osl": 300, "request_rate_per_s": 6})
    found = resolve(parse_plan("R2 TP4"), arch=study.arch, gpus=8, engine="vllm", version=study.engine_version)
    (plan,) = score(study, [found.candidate])
    served = []
    for rate in RATES:
        traffic = study_traffic(study, rate_per_s=rate, count=count)
        served.append(served_per_s(traffic, simulate_plan(study, plan, traffic, with_range=False)))
    assert served == sorted(served)
    assert served[:2] == [6.0, 12.0]
    full = question(model="qwen3-32b", workload={"isl": 3000, "osl": 300, "request_rate_per_s": 1000})
    (most,) = score(full, [found.candidate])
    if count > 400:
        assert served[-1] == pytest.approx(most.metrics["requests_per_s"], rel=0.06)
