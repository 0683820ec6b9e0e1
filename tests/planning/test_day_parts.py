"""What a day's schedule rests on and ends in: loads, forecast, scalers, files, the replay's requests."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import yaml

from autotune.launch.quoting import check_name
from autotune.planning.day_program import DayRules, ReplicaKind
from autotune.planning.forecast import Forecast, forecast_day
from autotune.planning.joined_days import DayShape, joined_days
from autotune.planning.loads import DAY_S, DayLoads, day_loads
from autotune.planning.plan_day import surge_windows
from autotune.planning.replay import recorded_day, surged
from autotune.planning.schedule_files import (
    AskedDay,
    Deployment,
    crontab,
    dynamo_bounds,
    keda_objects,
    launch_script,
    triggers,
)
from autotune.planning.strategies import reactive
from autotune.traffic.read import read_traffic
from autotune.traffic.requests import Columns
from costmodel.errors import InputError
from costmodel.simulation.requests import Requests

TRACE = "tests/data/azure_llm_2023_conv.csv"


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> DayLoads:
    """Three days of up to a request each two seconds."""
    file = tmp_path_factory.mktemp("week") / "week.csv"
    file.write_text(joined_days(read_traffic(TRACE), DayShape(peak_per_s=0.5), days=3), encoding="utf-8")
    return day_loads(str(file), read_traffic(str(file)), step_s=3600.0)


def loads_of(peaks: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> DayLoads:
    """Days with these loads and no single requests."""
    none = np.empty(0)
    empty = Columns(
        times_s=none, prompt=none.astype("int32"), output=none.astype("int32"), cached=None, requests_each=1.0
    )
    steps = peaks.shape[1]
    return DayLoads(
        step_s=DAY_S // steps,
        starts_s=np.arange(steps) * (DAY_S // steps),
        peak_per_s=peaks,
        mean_per_s=peaks,
        midnight_s=0.0,
        requests=empty,
    )


def test_loads_of_days(week: DayLoads) -> None:
    """Every hour of each day is there, all requests are counted, and noon is fuller than midnight."""
    assert week.peak_per_s.shape == (3, 24)
    assert week.whole_day
    assert float(week.mean_per_s.sum() * 3600.0) == pytest.approx(week.requests.times_s.size, rel=1e-3)
    assert (week.mean_per_s[:, 12] > 3.0 * week.mean_per_s[:, 0]).all()
    assert (week.peak_per_s >= week.mean_per_s).all()


@pytest.mark.parametrize(("step_s", "message"), [(3500.0, "divide a day"), (30.0, "at least 1m"), (1800.5, "divide")])
def test_steps_that_do_not_fit_a_day(step_s: float, message: str) -> None:
    """A step must divide a day and be a minute or more."""
    with pytest.raises(InputError, match=message):
        day_loads(TRACE, read_traffic(TRACE), step_s=step_s)


def test_forecast_finds_the_spread_that_days_have() -> None:
    """Of many days drawn with known spreads the forecast's median and both spreads are those."""
    random = np.random.default_rng(1)
    median = np.linspace(1.0, 5.0, 24)
    days = random.normal(0.0, 0.3, (400, 1)) + random.normal(0.0, 0.1, (400, 24))
    found = forecast_day(loads_of(median * np.exp(days)))
    assert found.median_per_s == pytest.approx(median, rel=0.1)
    assert (found.day_log_sd, found.step_log_sd) == pytest.approx((0.3, 0.1), rel=0.1)
    assert found.quantile(0.9) / found.median_per_s == pytest.approx(np.exp(1.2816 * np.hypot(0.3, 0.1)), rel=0.05)


def test_weekends_are_forecast_by_weekends() -> None:
    """Quiet weekends are no error of days: after a Sunday comes a weekday's load, after a Friday a weekend's."""
    random = np.random.default_rng(4)
    monday = 20_577 * DAY_S  # 4 May 2026
    quiet = np.where(np.arange(28) % 7 >= 5, 0.5, 1.0)
    days = quiet[:, None] * 3.0 * np.exp(random.normal(0.0, 0.1, (28, 1)) + random.normal(0.0, 0.05, (28, 24)))
    month = replace(loads_of(days), midnight_s=float(monday))
    after_sunday, after_friday = forecast_day(month), forecast_day(month.first_days(26))
    assert after_sunday.median_per_s == pytest.approx(3.0, rel=0.15)
    assert after_friday.median_per_s == pytest.approx(1.5, rel=0.15)
    assert after_sunday.weekend_factor == pytest.approx(0.5, rel=0.1)
    assert after_sunday.day_log_sd < 0.2 < forecast_day(loads_of(days)).day_log_sd
    assert forecast_day(month.first_days(6)).weekend_factor is None


def test_quantiles_hold_in_draws() -> None:
    """A tenth of the drawn days lies beyond the quantile of 0.9, of few days as of many."""
    for days in (4, 30):
        forecast = Forecast(median_per_s=np.ones(3), day_log_sd=0.2, step_log_sd=0.1, days=days, assumed=False)
        beyond = (forecast.draws(40_000, np.random.default_rng(2)) > forecast.quantile(0.9)).mean()
        assert beyond == pytest.approx(0.1, abs=0.01)


def test_one_day_says_nothing_of_its_error() -> None:
    """The error of a forecast by one day is assumed, and is what is given where it is given."""
    one = loads_of(np.full((1, 4), 2.0))
    assert forecast_day(one).assumed
    given = forecast_day(one, log_sd=0.4)
    assert given.log_sd == pytest.approx(0.4)
    assert given.quantile(0.9) == pytest.approx(2.0 * np.exp(0.4 * NormalDist().inv_cdf(0.9)))


def test_a_threshold_scaler_follows_late() -> None:
    """A load that doubles takes replicas that start first, and gives them back after the stabilisation time."""
    kind = ReplicaKind(gpus=2, start_s=240.0, drain_s=0.0, capacity_per_s=np.array([1.0]))
    rules = DayRules(gpus=64, step_s=3600.0, min_replicas=1, change_gpu_s=0.0, cyclic=False)
    counts = np.full(60, 0.6 * 60.0)
    counts[10:20] = 1.3 * 60.0
    fleet = reactive(0, (kind,), counts, np.array([0]), rules, 0.6)
    served = [(s.start_s / 60.0, s.end_s / 60.0, s.replicas[0]) for s in fleet.stretches]
    # seen at minute 11, started by 15; the last full minute counts until 25
    assert served == [(0.0, 15.0, 1), (15.0, 25.0, 2), (25.0, 60.0, 1)]
    assert fleet.gpu_s == pytest.approx(2 * 60.0 * (60 + 14))


def test_a_threshold_scaler_on_each_pool() -> None:
    """Of two pools that which the load fills scales, and the other, twice as quick, stays as it is."""
    prefill = ReplicaKind(gpus=2, start_s=240.0, drain_s=0.0, capacity_per_s=np.array([1.0]))
    rules = DayRules(gpus=64, step_s=3600.0, min_replicas=1, change_gpu_s=0.0, cyclic=False)
    counts = np.full(60, 0.6 * 60.0)
    counts[10:20] = 1.3 * 60.0
    fleet = reactive(0, (prefill, replace(prefill, capacity_per_s=np.array([2.0]))), counts, np.array([0]), rules, 0.6)
    assert [s.replicas for s in fleet.stretches] == [(1, 1), (2, 1), (1, 1)]
    assert fleet.gpu_s == pytest.approx(2 * 60.0 * (60 + 14 + 60))


def few(times_s: list[float]) -> Requests:
    """Requests of ten tokens at these times."""
    ten = np.full(len(times_s), 10)
    return Requests(arrival_s=np.array(times_s), prompt=ten, cached=ten * 0, output=ten)


def test_surges() -> None:
    """In a window twice as many come, in order, and outside as many as before."""
    found = surged(few([0.0, 10.0, 20.0, 30.0]), [(10.0, 25.0)], 2)
    assert found.arrival_s.tolist() == [0.0, 10.0, 15.0, 20.0, 25.0, 30.0]


def test_surges_fall_on_what_comes() -> None:
    """From the first minute of the fullest and of the quietest step in which anything comes; a single step has one."""
    loads = loads_of(np.array([[np.nan, 1.0, 3.0, 2.0]]))
    loads = replace(loads, mean_per_s=np.array([[np.nan, 0.0, 3.0, 2.0]]))
    times = np.array([50_407.0, 64_500.0, 64_801.0, 70_000.0])  # steps of six hours
    full, quiet = surge_windows(loads, 0, times)
    assert full == (50_400.0, 51_300.0)
    assert quiet == (64_800.0, 65_700.0)
    assert len(surged(few(times.tolist()), (full, quiet), 2)) == len(times) + 2
    assert surge_windows(loads, 0, times[1:2]) == ((64_500.0, 64_800.0),)
    assert surge_windows(loads, 0, times[:0]) == ()


def test_a_day_of_few_requests_is_served_whole() -> None:
    """Nothing but what lies outside the steps is left out; steps weigh what came in them."""
    day = recorded_day(few([5.0, 3599.0, 3600.0, 9000.0]), np.array([0, 3600]), 3600.0)
    assert len(day.requests) == 3
    assert day.weight.tolist() == [2.0, 1.0]


def test_a_full_day_is_served_in_its_fullest_stretches() -> None:
    """Of many requests those around each step's fullest minute remain, and the steps' weights are of all."""
    quiet, burst = np.linspace(0.0, 3599.0, 30_000), np.linspace(1800.0, 1859.0, 3000)
    day = recorded_day(few(sorted([*quiet, *burst])), np.array([0]), 3600.0)
    assert 7_000 < len(day.requests) < 15_000
    assert ((day.requests.arrival_s >= 1800.0) & (day.requests.arrival_s < 1860.0)).sum() > 3000
    assert day.weight.tolist() == [33_000.0]


def document(replicas: list[int], *, decode: list[int] | None = None, start_s: float = 100.0) -> dict[str, Any]:
    """A day of one plan in four steps of six hours; with `decode`, of one with two pools."""
    roles = ["replica"] if decode is None else ["prefill", "decode"]
    steps = [
        {
            "start_s": 21_600 * i,
            "replicas": dict(zip(roles, counts, strict=False)),
            "plan_index": 0,
            "plan": "vllm:TP2",
        }
        for i, counts in enumerate(zip(replicas, decode or replicas, strict=True))
    ]
    kinds = [{"role": role, "replica": "PP2 TP2", "start_s": start_s, "gpus": 4, "nodes": 1} for role in roles]
    launch = {"plan": "vllm:R2/TP2", "target": "k8s", "settings": ["cluster.gpus=4", "baseline="]}
    plan = {"replica": "PP2 TP2", "kinds": kinds, "engine": "vllm", "launch": launch}
    return {"study": "a Study", "step_s": 21_600, "whole_day": True, "steps": steps, "plans": [plan], "gpus": 16}


def test_triggers_start_early_and_cross_midnight() -> None:
    """Replicas begin to start whole minutes before their step; evening and night of the same number are one trigger."""
    least, found = triggers(document([3, 1, 1, 3]), Deployment(plan_index=0, role="replica"))
    assert least == 1
    assert [(t.start_s, t.end_s, t.replicas) for t in found] == [(64_800 - 120, 21_600, 3)]


def test_keda_objects_are_read_back() -> None:
    """A constant number has its least and a trigger all the same; names are DNS labels."""
    (scaled,) = yaml.safe_load_all(keda_objects(document([2, 2, 2, 2])))
    assert scaled["metadata"]["name"] == "a-study-vllm-pp2-tp2"
    assert scaled["spec"]["minReplicaCount"] == scaled["spec"]["maxReplicaCount"] == 2
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["start"] != trigger["metadata"]["end"]


def test_pools_scale_as_deployments_of_their_own() -> None:
    """Each pool has its object and its numbers, and Dynamo's planner the lesser as its least."""
    day = document([1, 2, 2, 1], decode=[3, 3, 3, 3])
    scaled = {o["metadata"]["name"]: o["spec"] for o in yaml.safe_load_all(keda_objects(day))}
    counts = {name: (spec["minReplicaCount"], spec["maxReplicaCount"]) for name, spec in scaled.items()}
    assert counts == {"a-study-vllm-pp2-tp2-prefill": (1, 2), "a-study-vllm-pp2-tp2-decode": (3, 3)}
    bounds = yaml.safe_load(dynamo_bounds(day))["bounds"]
    assert [(b["min_endpoint"], b["prefill_workers"], b["decode_workers"]) for b in bounds] == [
        (1, 1, 3), (2, 2, 3), (2, 2, 3), (1, 1, 3),
    ]  # fmt: skip


ASKED = AskedDay(
    program=("/bin/autotune",),
    study="/s/s.toml",
    traffic="/s/t.csv",
    settings=("cluster.gpus=8",),
    options=("--plans", "2"),
    of_log=("workload.traffic=/s/t.csv",),
    out="/d/100% day",
    state="/d/state",
)


def test_a_crontab_of_standard_input_plans_no_next_day() -> None:
    """What came in a pipe cannot be read again, and a name with a line break is refused."""
    assert "plan-day" not in crontab(document([1, 2, 2, 2]), replace(ASKED, traffic=None))
    with pytest.raises(InputError, match="control characters"):
        crontab(document([1, 2, 2, 2]), replace(ASKED, study="s\n.toml"))


def test_a_crontab_asks_what_was_asked() -> None:
    """The next day is planned into the same folder with every option of this one, and the traffic judged; `%`, which
    ends a command of cron, is escaped."""
    found = crontab(document([1, 2, 2, 2]), ASKED)
    question = "/s/s.toml --set cluster.gpus=8 --traffic /s/t.csv"
    assert f"/bin/autotune plan-day {question} --plans 2 --out '/d/100\\% day'" in found
    assert f"/bin/autotune retune {question} --state /d/state" in found


def test_replicas_over_nodes_are_scaled_as_what_they_are() -> None:
    """A LeaderWorkerSet has another kind for KEDA and for kubectl, and the same name for both and for the export."""
    day: dict[str, Any] = document([1, 2, 2, 2])
    day["plans"][0]["kinds"][0]["nodes"] = 2
    (scaled,) = yaml.safe_load_all(keda_objects(day))
    target = scaled["spec"]["scaleTargetRef"]
    assert target["kind"] == "LeaderWorkerSet"
    assert f"kubectl scale leaderworkerset/{target['name']} --replicas=2" in crontab(day, ASKED)
    assert f"--name {target['name']} " in launch_script(day, ASKED)


def test_what_nobody_can_load_by_its_name_is_asked_for() -> None:
    """A model of one's own is named when its launch files are written; Dynamo's are a manifest of another name."""
    day: dict[str, Any] = document([1, 2, 2, 2], decode=[1, 1, 1, 1])
    day["plans"][0]["launch"]["target"] = "dynamo"
    script = launch_script(day, replace(ASKED, model_named=False))
    assert ': "${MODEL:?' in script
    assert '--model "$MODEL"' in script
    assert "kubectl apply -f '/d/100% day-launch/a-study-vllm-pp2-tp2'/dynamographdeployment.yaml" in script
    assert "MODEL" not in launch_script(day, ASKED)


def test_names_fit_what_is_behind_them() -> None:
    """However long the study's name, the shape stays, and all of it is a name that an export takes."""
    day: dict[str, Any] = document([1, 2, 2, 2], decode=[1, 1, 1, 1])
    day["study"] = "9 " + "very long " * 12
    names = [o["metadata"]["name"] for o in yaml.safe_load_all(keda_objects(day))]
    assert all(name.endswith(("-vllm-pp2-tp2-prefill", "-vllm-pp2-tp2-decode")) for name in names)
    for name in names:
        check_name(name.rpartition("-")[0])


def test_crontab_replays_the_schedule() -> None:
    """Read line by line, the crontab ends each step with the replicas that it asks for."""
    wanted = [1, 4, 2, 2]
    lines = [x.split() for x in crontab(document(wanted), ASKED).splitlines() if "kubectl" in x]
    moments = sorted((60 * int(x[1]) + int(x[0]), int(x[-1].split("=")[1])) for x in lines)

    def running(minute: int) -> int:
        past = [n for at, n in moments if at <= minute]
        return past[-1] if past else moments[-1][1]

    assert [running(360 * i + 180) for i in range(4)] == wanted
