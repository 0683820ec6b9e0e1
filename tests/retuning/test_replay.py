"""The replay: joined traces, rolling changes by hand, four strategies over traffic that was made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.disaggregated.rescore import rescored
from autotune.report.replay import replay_document, replay_markdown
from autotune.report.svg.replay_plot import replay_svg
from autotune.retuning.replay import ALWAYS, NEVER, ORACLE, OURS, Move, Replay, _oracle, _served, replay
from autotune.retuning.replay_steps import Change, Player, Segment, overlaps
from autotune.retuning.replay_trace import Trace, join, most_per_s
from autotune.simulation.percentile_limits import request_bounds
from autotune.simulation.simulate_plan import recorded_traffic, simulate_plan
from autotune.study import Study, study_from_document
from autotune.traffic.read import read_traffic
from autotune.traffic.traffic_log import TrafficLog
from autotune.tuning import PlanResult
from autotune.tuning.answer_study import score_plan
from costmodel.errors import InputError

DOCUMENT: dict[str, Any] = {
    "name": "small",
    "engine": "vllm",
    "model": "llama-3.1-8b",
    "cluster": {"gpus": 4, "gpu": "h100_sxm", "gpus_per_node": 8},
    "workload": {"isl": 1000, "osl": 200},
    "constraints": {"ttft_ms": 2000, "tpot_ms": 40},
    "search": {"max_num_batched_tokens": [4096]},
    "switch": {"startup_s": 60.0, "warmup_s": 10.0},
    "baseline": {"plan": "TP4"},
}


def question(**tables: Any) -> Study:
    """An 8B model on 4 GPUs, all of them one replica for no reason."""
    return study_from_document({**DOCUMENT, **tables}, Path("small.toml"))


def traffic_file(folder: Path, name: str, *, prompt: int, output: int, seconds: int = 2700) -> str:
    """A request every other second of 45 minutes, lengths within 10 %."""
    random = np.random.default_rng(prompt)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for second in range(0, seconds + 1, 2):
        longer = random.uniform(0.9, 1.1)
        at = f"2024-05-01 {second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        lines.append(f"{at},{prompt * longer:.0f},{output * longer:.0f}")
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrafficLog, TrafficLog]:
    """45 minutes of long answers, as many of long prompts."""
    folder = tmp_path_factory.mktemp("traffic")
    return (
        read_traffic(traffic_file(folder, "chat", prompt=300, output=600)),
        read_traffic(traffic_file(folder, "code", prompt=4000, output=30)),
    )


def played(study: Study, logs: tuple[TrafficLog, ...], *, from_baseline: bool = True) -> Replay:
    """A replay in steps of a quarter of an hour."""
    return replay(study, logs, step_s=900.0, window_s=900.0, load_frac=0.8, from_baseline=from_baseline)


@pytest.fixture(scope="module")
def from_baseline(logs: tuple[TrafficLog, TrafficLog]) -> Replay:
    """Both logs, beginning with the plan in production."""
    return played(question(), logs)


def test_logs_follow_each_other_and_load_the_cluster(logs: tuple[TrafficLog, TrafficLog]) -> None:
    """Each log comes at its share of what the best plan takes of it; the second begins where the first ends."""
    study = question()
    trace = join(study, logs, 0.5)
    assert trace.ends_s == (2700.0, 5400.0)
    assert np.all(np.diff(trace.times_s) >= 0.0)
    for log, start in zip(logs, (0.0, 2700.0), strict=True):
        inside = (trace.times_s >= start) & (trace.times_s <= start + 2700.0)
        own = trace.each[inside & (trace.prompt < 1000.0)] if start == 0.0 else trace.each[trace.prompt > 1000.0]
        assert own.sum() / 2700.0 == pytest.approx(0.5 * most_per_s(study, log.source, log.profile()), rel=1e-6)
    assert set(join(study, logs, None).each) == {1.0}


class Simple(Player):
    """Three steps of 100 s with 10 requests a second, of which the old plan takes 4 and the new one 20."""

    def __init__(self, change: Change, old: PlanResult) -> None:
        self.step_s, self.starts, self.seen = 100.0, [0.0, 100.0, 200.0], {}
        self._planned, self._old = change, old

    def offered_per_s(self, k: int) -> float:  # noqa: ARG002
        """The same in all steps."""
        return 10.0

    def most_per_s(self, k: int, plan: PlanResult) -> float:  # noqa: ARG002
        """By the plan alone."""
        return 4.0 if plan.plan == self._old.plan else 20.0

    def counted_per_s(self, k: int, plan: PlanResult) -> float | None:  # noqa: ARG002
        """No request is simulated."""
        return None

    def change(self, at_s: float, before: PlanResult, after: PlanResult) -> Change | None:  # noqa: ARG002
        """As it was given, from the time on that is asked for."""
        moved = [replace(s, start_s=s.start_s + at_s, end_s=s.end_s + at_s) for s in self._planned.segments]
        return replace(self._planned, segments=tuple(moved))


def test_a_rolling_change_by_hand() -> None:
    """Half of the old, then half of the new: 2 a second for 50 s, 10 for 100 s; the next switch waits for its end."""
    study = question()
    old, new = (score_plan(study, text).result for text in ("TP4", "TP2"))
    assert old is not None
    assert new is not None
    segments = (
        Segment(start_s=0.0, end_s=50.0, before=old, after=new, serving_frac=0.1),
        Segment(start_s=50.0, end_s=150.0, before=old, after=new, serving_frac=0.5),
    )
    assert overlaps(segments[1], [0.0, 100.0, 200.0]) == [(0, 50.0), (1, 50.0)]
    player = Simple(Change(segments=segments, gpu_s=77.0), old)
    moves = tuple(Move(at_s=at, decision="", rule="", reason="", plan="") for at in player.starts)
    walk = _served(player, OURS, old, moves, [old, new, new])
    # 0-100 s: 4 a second; 100-150 s: 2; from then on 10
    assert walk.goodput_per_s == pytest.approx((4.0, (2.0 * 50 + 10.0 * 50) / 100, 10.0))
    assert (walk.switches, walk.lost_requests, walk.restart_gpu_s) == (1, pytest.approx(2.0 * 50), 77.0)
    assert walk.gpu_s == pytest.approx(4 * 300.0)
    free = _served(player, ORACLE, old, moves, [old, new, new])
    assert free.goodput_per_s == (4.0, 10.0, 10.0)
    back = _served(player, ALWAYS, new, moves, [old, new, new])
    # the first change takes until 150 s, so that the second one begins there, and ends at 300 s
    assert back.switched_at_s == (0.0, 100.0)
    assert back.goodput_per_s[1] == pytest.approx((10.0 * 50 + 2.0 * 50) / 100)


def test_a_bad_plan_in_production_is_left_once(from_baseline: Replay) -> None:
    """One replica over all GPUs is left at the first decision, and for good; that beats staying and every switch."""
    walks = {w.strategy: w for w in from_baseline.walks}
    assert walks[NEVER].switches == 0
    assert walks[OURS].switched_at_s[0] == 900.0
    assert walks[OURS].switches <= 2
    served = {name: from_baseline.requests(w) for name, w in walks.items()}
    assert served[NEVER] < served[OURS]
    assert served[ALWAYS] <= served[OURS] * (1.0 + 1e-9)
    assert served[OURS] >= 0.8 * served[ORACLE]  # a sixth of the time is gone before the first decision


def test_no_strategy_exceeds_the_oracle_nor_the_oracle_the_traffic(from_baseline: Replay) -> None:
    """In every step what is served is at most the oracle's, and that at most what came."""
    oracle = next(w for w in from_baseline.walks if w.strategy == ORACLE)
    assert oracle.lost_requests == 0.0
    for walk in from_baseline.walks:
        for mine, best, came in zip(walk.goodput_per_s, oracle.goodput_per_s, from_baseline.offered_per_s, strict=True):
            assert 0.0 <= mine <= best * (1.0 + 1e-9)
            assert best <= came * (1.0 + 1e-9)


def test_steady_traffic_leaves_the_best_plan_alone(logs: tuple[TrafficLog, TrafficLog]) -> None:
    """45 minutes of one kind, beginning with the best plan: nothing drifts, nothing is switched, all do the same."""
    found = played(question(), logs[:1], from_baseline=False)
    walks = {w.strategy: w for w in found.walks}
    assert [m.rule for m in walks[OURS].moves] == ["", "no_drift", "no_drift"]
    assert walks[OURS].switches == walks[NEVER].switches == 0
    assert walks[OURS].goodput_per_s == walks[NEVER].goodput_per_s


def test_what_is_written_adds_up(from_baseline: Replay) -> None:
    """Switches of each log sum to all; attainment is requests over requests; tables and plot name every strategy."""
    document = json.loads(json.dumps(replay_document(from_baseline)))
    for walk in document["strategies"]:
        assert sum(walk["switches_by_traffic"]) == walk["switches"]
        assert walk["slo_attainment_frac"] == pytest.approx(walk["goodput_requests"] / document["requests"])
        assert walk["gpu_hours"] == pytest.approx(4 * 1.5)
        assert walk["gpu_hours_restarting"] <= walk["gpu_hours"]
    drawn = ElementTree.fromstring(replay_svg(document))  # noqa: S314  # our own text
    words = {node.text for node in drawn.iter() if node.text}
    table = replay_markdown(document)
    for name in (OURS, NEVER, ALWAYS, ORACLE):
        assert name in words
        assert f"| {name} |" in table


def test_a_short_trace_and_a_refused_log_are_wrong_input(logs: tuple[TrafficLog, TrafficLog]) -> None:
    """A step that does not fit twice, and a log that cannot be judged, are said with their path."""
    with pytest.raises(InputError, match=r"--step: must fit the trace at least twice, 2700 s long"):
        replay(question(), logs[:1], step_s=1400.0, window_s=1400.0, load_frac=None)
    with pytest.raises(InputError, match="cannot be replayed: half of it is noise"):
        join(question(), [replace(logs[0], refusal="half of it is noise")], None)


def test_pools_are_played_back(logs: tuple[TrafficLog, TrafficLog]) -> None:
    """A plan of two pools in production is held against others on recorded traffic; none exceeds the oracle."""
    study = question(
        search={"max_num_batched_tokens": [4096], "disaggregated": "only"},
        disaggregation={"pool_gpus_multiple_of": 2},
        baseline={"plan": "P2:TP2+D2:TP2"},
    )
    found = replay(study, logs[:1], step_s=1300.0, window_s=1300.0, load_frac=None)
    walks = {w.strategy: w for w in found.walks}
    assert walks[NEVER].moves[0].plan.startswith("vllm:P2:")
    assert all("+D" in move.plan for walk in found.walks for move in walk.moves)
    assert 0.0 < found.requests(walks[NEVER]) <= found.requests(walks[ORACLE]) * (1 + 1e-9)


def test_steps_without_traffic_are_waited_through() -> None:
    """Where hardly anything comes, retune refuses to decide and nothing is served, lost or divided by."""
    times = np.r_[np.linspace(0.0, 599.0, 300), 1750.0]
    trace = Trace(
        names=("gap",),
        ends_s=(1800.0,),
        times_s=times,
        prompt=np.full(times.size, 500.0),
        output=np.full(times.size, 50.0),
        each=np.full(times.size, 1.0),
    )
    player = Player(question(), trace, step_s=600.0, window_s=600.0)
    assert [p is None for p in player.profiles] == [False, True, True]
    plan = player.best(0.0, 600.0)
    assert plan is not None
    assert (player.goodput_per_s(1, plan), player.change(650.0, plan, plan)) == (0.0, None)


def _in_bursts() -> Trace:
    """Twenty minutes in which 120 long prompts come within a second, every half minute."""
    times = np.sort(np.concatenate([at + np.linspace(0.0, 1.0, 120) for at in np.arange(2.0, 1200.0, 30.0)]))
    return Trace(
        names=("bursts",),
        ends_s=(1200.0,),
        times_s=times,
        prompt=np.full(times.size, 3000.0),
        output=np.full(times.size, 60.0),
        each=np.full(times.size, 1.0),
    )


def test_the_requests_of_a_step_are_counted() -> None:
    """Bursts that a plan takes by its means break the limit on TTFT of many requests: those that keep it count."""
    study, trace = question(constraints={"ttft_ms": 600, "tpot_ms": 100}), _in_bursts()
    player = Player(study, trace, step_s=600.0, window_s=600.0)
    whole, parts = (score_plan(study, text).result for text in ("TP4", "R4/TP1"))
    assert whole is not None
    assert parts is not None
    for k, plan in ((0, whole), (1, whole), (1, parts)):
        offered = player.offered_per_s(k)
        assert player.most_per_s(k, plan) > offered
        own, requests = player.step_study(k), trace.requests(600.0 * k, 600.0 * (k + 1), 0.0)
        assert own is not None
        assert requests is not None
        # a burst is over long before the next one comes, so that servers are empty when a step begins
        done = simulate_plan(own, rescored(own, plan), recorded_traffic(requests), with_range=False)
        kept = done.forecast.attainment(**request_bounds(own)).value
        assert 0.05 < kept < 0.95
        assert player.goodput_per_s(k, plan) == pytest.approx(kept * offered, rel=1e-6)
    scaled = Player(study, replace(trace, each=2.0 * trace.each), step_s=600.0, window_s=600.0)
    assert scaled.goodput_per_s(1, whole) == pytest.approx(scaled.offered_per_s(1))


def test_a_replay_says_how_it_judged(logs: tuple[TrafficLog, TrafficLog], from_baseline: Replay) -> None:
    """Traffic as it came is counted, and scaled traffic is not; no strategy exceeds the oracle."""
    came = replay(question(), logs[:1], step_s=1300.0, window_s=1300.0, load_frac=None)
    assert [replay_document(found)["counted"] for found in (came, from_baseline)] == [True, False]
    oracle = next(w for w in came.walks if w.strategy == ORACLE)
    for walk in came.walks:
        assert all(m <= b * (1 + 1e-9) for m, b in zip(walk.goodput_per_s, oracle.goodput_per_s, strict=True))


def test_counted_requests_decide_for_the_oracle() -> None:
    """Of two plans that take all by their means the one is chosen under which more requests keep the limits."""
    study = question(constraints={"ttft_ms": 600, "tpot_ms": 100})
    player = Player(study, _in_bursts(), step_s=600.0, window_s=600.0)
    plans = [p for p in (score_plan(study, text).result for text in ("TP4", "R4/TP1")) if p is not None]
    kept = [player.goodput_per_s(1, plan) for plan in plans]
    assert kept[0] != pytest.approx(kept[1], rel=0.02)
    worse, better = (plans[i] for i in np.argsort(kept))
    assert min(player.most_per_s(1, plan) for plan in plans) > player.offered_per_s(1)
    chosen = _oracle(player, 1, worse)
    assert player.goodput_per_s(1, chosen) >= player.goodput_per_s(1, better) > player.goodput_per_s(1, worse)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--load", "much"], r"--load: must be as-is, or a share from 0\.01 to 10, got 'much'"),
        (["--load", "nan"], r"--load: must be as-is, or a share from 0\.01 to 10, got 'nan'"),
        (["--window", "5m"], "--window: must be at least a step, 600 s, got 300 s"),
        (["--step", "0s"], "--step: must be a time of more than 0"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: list[str], message: str) -> None:
    """Options out of range are wrong input, and said."""
    source = traffic_file(tmp_path, "few", prompt=100, output=10, seconds=60)
    study = str(Path(__file__).resolve().parents[2] / "studies" / "llama-70b-16xh100.toml")
    result = CliRunner().invoke(cli, ["retune", "replay", study, "--traffic", source, *options])
    with pytest.raises(InputError, match=message):
        raise result.exception or AssertionError
