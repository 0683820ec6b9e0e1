"""Goodput as an objective, and the fewest GPUs under percentiles on a log, held against every plan by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.metrics import GOODPUT
from autotune.planning.model_tables import replica_offers
from autotune.report.answer import answer_report, tune_report
from autotune.report.verdict import tune_verdict
from autotune.scoring.limits import LOAD_SERVED, SERVED_WITHIN, study_limits
from autotune.simulation.percentile_limits import percentile_limits
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.storage import open_store
from autotune.study import Study, in_place
from autotune.traffic.load import load_study
from autotune.tuning import PlanResult, Violation, tune
from autotune.tuning.knob_choices import every_choice
from autotune.tuning.pareto_front import front_study, study_goals
from autotune.tuning.simulated_limits import may_keep, with_percentiles
from costmodel.errors import InputError
from tests.tuning.brute import question

SHORT = Violation(code=LOAD_SERVED, value=9.0, limit=10.0, excess=1.0, unit="requests/s")
"""What a plan breaks that takes less than the fullest bin of a log."""
RATE = {"isl": 1009, "osl": 64, "request_rate_per_s": 4.0}
CLOSED = {"isl": {"min": 700, "max": 1300}, "osl": {"min": 40, "max": 90}, "concurrency": 8}
GOODPUT_OBJECTIVE = {"maximize": GOODPUT}


pytestmark = pytest.mark.usefixtures("few_requests")
"""Which plan wins follows from the same requests on either side, whatever their number."""


def asked(limits: dict[str, float], load: dict[str, Any] | None = None) -> Study:
    """A study of few plans by goodput."""
    return question("llama-3.1-8b", 4, workload=load or RATE, constraints=limits, objective=GOODPUT_OBJECTIVE)


def every_plan(study: Study) -> list[PlanResult]:
    """All plans that take the load, scored by means."""
    free = replace(study, constraints=type(study.constraints)(), objective=question("llama-3.1-8b", 4).objective)
    return list(tune(free).ranked)


def by_hand(study: Study, plan: PlanResult, bounds_s: dict[str, float]) -> float:
    """Requests of a simulated plan that keep every bound, over the time in which they came, per GPU."""
    traffic = study_traffic(study)
    forecast = simulate_plan(study, plan, traffic).forecast
    served = forecast.expected.served
    first = (served.first_token_s - served.requests.arrival_s) * forecast.errors.first
    rest = served.finish_s - served.first_token_s
    figures = {"ttft": first, "tpot": rest / np.maximum(served.requests.output - 1, 1), "e2e": first + rest}
    good = np.all([figures[name] <= bound for name, bound in bounds_s.items()], axis=0)
    rate = traffic.rate_per_s
    if rate is None:
        # each is sent as another ends (Little's law)
        rate = (traffic.concurrency or 0) / float((first + rest).mean())
    return rate * float(good.mean()) / plan.layout.gpus


@pytest.mark.parametrize(
    ("limits", "bounds_s"),
    [
        ({"ttft_ms": 45.0, "tpot_ms": 5.0}, {"ttft": 0.045, "tpot": 0.005}),
        ({"e2e_ms": 330.0}, {"e2e": 0.33}),
        ({"ttft_p50_ms": 400.0, "ttft_p90_ms": 500.0, "tpot_ms": 4.2}, {"ttft": 0.5, "tpot": 0.0042}),
    ],
)
@pytest.mark.parametrize("load", [RATE, CLOSED])
def test_goodput_is_that_of_all_plans_by_hand(
    limits: dict[str, float], bounds_s: dict[str, float], load: dict[str, Any]
) -> None:
    """The plan of the most goodput, found in order, is that of every plan's requests counted one by one, with every
    token budget."""
    study = asked(limits, load)
    found = tune(study)
    choices = every_choice(study, every_plan(study))
    counted = {(plan.plan, plan.knobs): by_hand(study, plan, bounds_s) for plan in choices}
    assert found.by_percentile is not None
    assert max(counted.values()) > 0.0
    for plan in found.ranked:
        assert plan.metrics[GOODPUT] == pytest.approx(counted[plan.plan, plan.knobs], rel=1e-9)
    # ranked by three digits, and the time of a request in those that follow
    best = max(counted.values())
    assert found.ranked[0].metrics[GOODPUT] == pytest.approx(best, rel=5e-3)
    tables = [block.table for block in tune_report(found, top=3).blocks if block.table is not None]
    assert any(column.title == "Goodput" for table in tables for column in table.columns)


def test_a_limit_on_single_requests_is_none_on_the_mean() -> None:
    """A plan whose mean breaks `ttft_ms` still has the goodput of those of its requests that keep it."""
    first = tune(asked({"tpot_ms": 3.2})).ranked[0]
    assert first.breakdown["percentiles"]["tpot_mean_ms"] > 3.2
    assert 0.0 < first.metrics[GOODPUT] < 1.0


def test_a_plan_without_a_request_within_the_limits_breaks_one() -> None:
    """Goodput 0 is no plan's answer: it is a violation by name, never ranked, and surely no limit kept."""
    study = asked({"tpot_ms": 3.2})
    found = tune(study)
    none = [plan for plan in found.infeasible if SERVED_WITHIN in plan.margins]
    assert found.ranked
    assert none
    assert all(plan.metrics[GOODPUT] > 0.0 for plan in found.ranked)
    for plan in none:
        (broken,) = plan.violations
        assert (broken.code, broken.value, plan.p_meets) == (SERVED_WITHIN, 0.0, 0.0)
        assert plan.metrics[GOODPUT] == 0.0


@pytest.mark.parametrize("load", [RATE, CLOSED])
def test_where_no_request_is_within_the_limits_that_is_the_answer(load: dict[str, Any]) -> None:
    """No plan is recommended, and limits are named with which one has about half of its requests within them."""
    study = asked({"tpot_ms": 0.1, "ttft_p95_ms": 900.0}, load)
    found = tune(study)
    assert not found.ranked
    assert answer_report(found, top=3).reason == "No plan serves a request within the limits."
    (setting,) = tune_verdict(found, "it").settings
    key, _, bound_ms = setting.partition("=")
    assert key == "constraints.tpot_ms"
    own = replace(study, constraints=replace(study.constraints, tpot_s=float(bound_ms) / 1e3))
    assert max(plan.breakdown["simulated"][SERVED_WITHIN]["value"] for plan in tune(own).ranked) >= 0.5


def test_plans_that_do_not_take_the_load_are_not_said_to_have_no_request_within_the_limits() -> None:
    """They were not simulated: what is said is said of the others."""
    found = tune(asked({"tpot_ms": 0.1}, {**RATE, "request_rate_per_s": 110.0}))
    assert answer_report(found, top=3).reason == "No plan that takes the load serves a request within the limits."


def test_a_front_and_commands_on_means_take_throughput() -> None:
    """What looks at means alone answers by throughput per GPU and limits on means, and says so."""
    study = asked({"ttft_ms": 45.0})
    for own in (front_study(study), in_place(study)):
        assert own.objective.metric == "total_tokens_per_s_per_gpu"
        assert any(GOODPUT in text for text in own.assumptions if "throughput per GPU" in text)
        assert any(limit.code == "ttft_ms" for limit in study_limits(own))
    assert all(metric != GOODPUT for metric, _ in study_goals(study))
    assert not any(limit.code == "ttft_ms" for limit in study_limits(study))


def test_goodput_needs_a_load_and_limits() -> None:
    """What a request has to keep and how requests come are asked for by name."""
    with pytest.raises(InputError, match=r"workload\.request_rate_per_s or workload\.concurrency"):
        question(objective=GOODPUT_OBJECTIVE, constraints={"ttft_ms": 500})
    with pytest.raises(InputError, match="needs ttft_ms, tpot_ms or e2e_ms"):
        question(objective=GOODPUT_OBJECTIVE, workload=RATE)


def test_simulated_trials_are_stored_whole(tmp_path: Path) -> None:
    """A trial holds the percentiles of its requests and their limits as constraints; asked again, nobody simulates."""
    import optuna

    study = replace(asked({"tpot_ms": 4.2, "ttft_p99_ms": 60.0}), name="stored")
    path = tmp_path / "journal.log"

    def run() -> object:
        from autotune.scoring.trial_record import study_header

        return tune(study, open_store(str(path), study_header(study)))

    first, again = run(), run()
    assert [p.plan for p in first.ranked] == [p.plan for p in again.ranked]
    assert [p.metrics for p in first.ranked] == [p.metrics for p in again.ranked]
    assert again.scored_now == 0
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    (name,) = optuna.study.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    simulated = [t for t in trials if "ttft_p99_ms" in t.user_attrs]
    assert len(simulated) == first.by_percentile.simulated
    for trial in simulated:
        attrs = trial.user_attrs
        assert attrs["ttft_p50_ms"] <= attrs["ttft_p90_ms"] <= attrs["ttft_p99_ms"]
        assert attrs["itl_p50_ms"] <= attrs["itl_p99_ms"]
        assert trial.constraints["ttft_p99_ms"] == pytest.approx(attrs["ttft_p99_ms"] - 60.0)
    kept = [t for t in trials if all(excess <= 0.0 for excess in t.constraints.values())]
    assert max(kept, key=lambda t: t.value).user_attrs["plan"] == first.ranked[0].plan


def _log(path: Path) -> Path:
    """Sparse requests, and a burst of a third of them that lasts six seconds."""
    random = np.random.default_rng(4)
    times = np.sort(np.concatenate([random.uniform(0.0, 300.0, 200), random.uniform(200.0, 206.0, 120)]))
    rows = [f"{t:.3f},{random.integers(1000, 6000)},{random.integers(20, 200)}" for t in times]
    path.write_text("\n".join(["timestamp,input_tokens,output_tokens", *rows]) + "\n")
    return path


def test_the_fewest_gpus_that_keep_percentiles_on_a_log(tmp_path: Path) -> None:
    """No plan on fewer GPUs keeps the percentiles over the log's own requests, by hand."""
    log = _log(tmp_path / "log.csv")
    file = tmp_path / "study.toml"
    file.write_text(
        f"""engine = "vllm"
model = "meta-llama/Llama-3.1-8B-Instruct"
[cluster]
gpus = 4
gpu = "h100_sxm"
[workload]
traffic = "{log.name}"
[constraints]
e2e_p50_ms = 4000
ttft_p50_ms = 400
[objective]
minimize = "gpus"
[search]
gpus = [1, 2, 4]
"""
    )
    study = load_study(file)
    found = tune(study)
    limits, traffic = percentile_limits(study), study_traffic(study)
    everything = tune(replace(study, constraints=type(study.constraints)()))
    plans = [*everything.ranked, *everything.infeasible]
    kept = {}
    for plan in plans:
        if any(v.code != "request_rate_per_s" for v in plan.violations):
            continue
        checked = with_percentiles(study, plan, limits, traffic)
        if checked.feasible:
            kept.setdefault(plan.layout.gpus, []).append(plan.plan)
    fewest = min(kept)
    assert found.ranked[0].layout.gpus == fewest
    assert found.ranked[0].plan in kept[fewest]
    assert {p.plan for p in found.ranked} <= {name for names in kept.values() for name in names}
    assert fewest < max(kept)
    short = replace(found.ranked[0], feasible=False, violations=(SHORT,))
    assert may_keep(study, short)
    assert with_percentiles(study, short, limits, traffic).feasible
    assert not may_keep(replace(study, workload=replace(study.workload, recorded=None)), short)


def test_replicas_are_scaled_by_limits_on_means_under_goodput() -> None:
    """One request within the limits is no capacity: what scales replicas asks for throughput in place of goodput."""
    study = asked({"tpot_ms": 5.0})
    by_throughput = replace(study, objective=question("llama-3.1-8b", 4).objective)
    offers, same = (replica_offers(s, most_gpus=4) for s in (study, by_throughput))
    assert [offer.capacities.each_per_s.tolist() for offer in offers] == [
        offer.capacities.each_per_s.tolist() for offer in same
    ]
