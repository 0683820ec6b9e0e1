"""What would have to give, done as it is said."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from autotune.study import load_study
from autotune.tuning import TuneResult, tune
from autotune.tuning.remedy import fewest_gpus, find_remedy
from tests.studies import FOLDER

STUDIES = ("llama-70b-16xh100.toml", "deepseek-v3-128xh200.toml", "reference-128.toml", "infeasible-example.toml")
GPUS = {
    "llama-70b-16xh100.toml": (4, 8, 16),
    "deepseek-v3-128xh200.toml": (16, 32),
    "reference-128.toml": (16, 32),
}


def infeasible(seed: int) -> tuple[str, tuple[str, ...], TuneResult]:
    """A random study that no plan answers: its file, what was changed, and the answer."""
    draw = random.Random(seed)  # noqa: S311  # no secret
    while True:
        name = draw.choice(STUDIES)
        settings = [
            f"constraints.ttft_ms={draw.choice((20, 100, 400, 1000))}",
            f"constraints.tpot_ms={draw.choice((2, 5, 8, 15, 30))}",
            f"workload.isl={draw.choice((500, 2000, 8000))}",
            "baseline=",
            "search.disaggregated=off",
        ]
        settings += [f"cluster.gpus={draw.choice(GPUS[name])}"] if name in GPUS else []
        load = draw.choice(("", f"workload.concurrency={draw.choice((1, 32, 500))}", "workload.request_rate_per_s=300"))
        settings += ["workload.concurrency=", "workload.request_rate_per_s=", load] if load else []
        if draw.random() < 0.3:
            settings.append(f"constraints.min_total_tokens_per_s_per_gpu={draw.choice((3000, 90_000))}")
        if draw.random() < 0.2:
            settings.append("constraints.e2e_ms=900")
        result = tune(load_study(FOLDER / name, settings))
        if not result.ranked:
            return name, tuple(settings), result


@pytest.mark.parametrize("seed", range(30))
def test_what_would_have_to_give_does(seed: int) -> None:
    """The settings that an answer names make the study feasible when it is asked again with them."""
    name, settings, result = infeasible(seed)
    found = find_remedy(result)
    assert found.settings or found.fewest_gpus is not None, (name, settings)
    change = found.settings or (f"cluster.gpus={found.fewest_gpus}",)
    again = tune(load_study(FOLDER / name, [*settings, *change]))
    if found.settings:
        assert again.ranked, (name, settings, change)
        assert any(plan.plan == found.plan.plan for plan in again.ranked) if found.plan is not None else False
    else:
        assert all(v.code != "kv_capacity" for p in again.infeasible[:1] for v in p.violations), (name, settings)


def test_the_fewest_gpus_hold_the_model_and_fewer_do_not() -> None:
    """DeepSeek-V3 takes 627 GiB: six H200 hold it beside a request, and five do not."""
    study = load_study(FOLDER / "deepseek-v3-128xh200.toml", ["cluster.gpus=4", "baseline="])
    result = tune(study)
    found = find_remedy(result)
    assert found.plan is None
    assert found.too_large is not None
    assert "627 GiB" in found.too_large
    assert found.fewest_gpus == 6
    five = replace(study, cluster=replace(study.cluster, gpus=5))
    assert not tune(five).ranked
    assert fewest_gpus(five) == 6


@pytest.mark.parametrize(("dtype", "size", "fewest"), [("int4", "325 GiB", 3), ("bf16", "1,250 GiB", 12)])
def test_the_fewest_gpus_are_of_the_weights_as_the_search_stores_them(dtype: str, size: str, fewest: int) -> None:
    """DeepSeek-V3's 671 billion weights take half as much in INT4 as in the FP8 of the checkpoint, BF16 twice."""
    settings = ["cluster.gpus=2", "baseline=", f'search.weight_dtype=["{dtype}"]', "search.disaggregated=off"]
    found = find_remedy(tune(load_study(FOLDER / "deepseek-v3-128xh200.toml", settings)))
    assert size in (found.too_large or "")
    assert found.fewest_gpus == fewest


@pytest.mark.parametrize("extra", [(), ("constraints.ttft_p95_ms=1500",)])
def test_a_rate_that_no_plan_takes_gives_to_the_highest_that_one_does(extra: tuple[str, ...]) -> None:
    """A plan takes the rate that is named, on means no plan takes 1 % more, and the rate asked for changes nothing."""
    base = ["cluster.gpus=4", "baseline=", "constraints.ttft_ms=1500", "constraints.tpot_ms=40", *extra]
    asked = (30, 15)
    rates = []
    for rate in asked:
        study = load_study(FOLDER / "llama-70b-16xh100.toml", [*base, f"workload.request_rate_per_s={rate}"])
        found = find_remedy(tune(study))
        assert [setting.partition("=")[0] for setting in found.settings] == ["workload.request_rate_per_s"]
        rates.append(float(found.settings[0].partition("=")[2]))
    assert rates[0] == rates[1]

    def takers(rate: float) -> list[str]:
        study = load_study(FOLDER / "llama-70b-16xh100.toml", [*base, f"workload.request_rate_per_s={rate}"])
        return [plan.plan for plan in tune(study).ranked]

    assert found.plan is not None
    assert found.plan.plan in takers(rates[0])
    assert extra or not takers(1.01 * rates[0])


def test_the_rate_that_keeps_percentiles_is_close_to_the_highest() -> None:
    """It was half of what means allow: some plan keeps the limit at what is named, and none at 5 % more."""
    base = ["cluster.gpus=4", "baseline=", "constraints.tpot_p99_ms=11", "workload.isl=1000", "workload.osl=300"]
    base += [
        "model=llama-3.1-8b",
        "constraints.ttft_ms=",
        "constraints.tpot_ms=",
        "search.max_num_batched_tokens=[2048]",
    ]

    def answer(rate: float) -> TuneResult:
        return tune(load_study(FOLDER / "llama-70b-16xh100.toml", [*base, f"workload.request_rate_per_s={rate}"]))

    found = find_remedy(answer(150.0))
    rate = float(found.settings[0].partition("=")[2])
    assert rate > 48.0
    assert found.plan is not None
    assert found.plan.plan in [plan.plan for plan in answer(rate).ranked]
    assert not answer(1.05 * rate).ranked


def test_a_limit_on_percentiles_gives_too() -> None:
    """A percentile is loosened like a mean, and the simulation agrees."""
    settings = ["constraints.ttft_p95_ms=20", "workload.request_rate_per_s=1", "cluster.gpus=4", "baseline="]
    result = tune(load_study(FOLDER / "llama-70b-16xh100.toml", settings))
    found = find_remedy(result)
    assert any(setting.startswith("constraints.ttft_p95_ms=") for setting in found.settings)
    assert tune(load_study(FOLDER / "llama-70b-16xh100.toml", [*settings, *found.settings])).ranked
