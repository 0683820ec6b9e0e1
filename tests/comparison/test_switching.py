"""The switch: waves, bytes, capacity and payback, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.comparison.replicas_in_transition import fleet_of, weight_bytes_per_gpu
from autotune.comparison.switching import load_s, longest_request_s, switch_cost
from autotune.comparison.values import SwitchCost
from autotune.scoring.value_and_gain import gain_over
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.arch import weight_bytes
from tests.comparison.helpers import dense, scored


def cost_of(study: Study, current: str, candidate: str, capacities: tuple[float, float], load: float) -> SwitchCost:
    """The switch between two plans, the candidate worth twice the current plan."""
    return switch_cost(
        study,
        scored(study, current),
        scored(study, candidate),
        capacities=capacities,
        load_requests_per_s=load,
    )


def test_waves_of_equal_replicas_by_hand() -> None:
    """TP2 to TP2/PP2 frees two replicas for each one that starts: four waves of 0.7 + load + 101 + 13 seconds."""
    study = dense()
    cost = cost_of(study, "TP2", "TP2/PP2", (80.0, 80.0), 100.0)
    each = weight_bytes_per_gpu(scored(study, "TP2/PP2"))
    loading = min(4 * each, weight_bytes(study.arch)) / 3.0e9
    assert [(w.replicas_down, w.replicas_started) for w in cost.waves] == [(2, 1)] * 4
    assert [w.capacity_requests_per_s for w in cost.waves] == [60.0, 60.0, 60.0, 60.0]
    assert cost.duration_s == pytest.approx(4 * (0.7 + loading + 101.0 + 13.0))
    # of the 100 that come the current plan takes 80 and turns 20 away anyway
    assert (cost.load_requests_per_s, cost.served_requests_per_s) == (100.0, 80.0)
    assert cost.lost_requests == pytest.approx(20.0 * cost.duration_s)
    assert cost.gpu_s == pytest.approx(4 * cost.duration_s)
    assert cost.weight_bytes == pytest.approx(16 * each)
    assert cost.requests_drained == 64
    # worth 100 a second of the 80 that it takes, and the candidate as much again
    assert cost.loss(100.0) == pytest.approx(1.25 * cost.lost_requests)
    gain = gain_over(
        current_per_s=100.0, candidate_per_s=200.0, horizon_s=1e4, duration_s=cost.duration_s, loss=cost.loss(100.0)
    )
    assert gain.payback_s == pytest.approx(cost.duration_s + 1.25 * cost.lost_requests / 100.0)


def test_one_replica_down_starts_several_smaller_ones() -> None:
    """A replica of eight GPUs makes room for four of two, and the second wave is served by both kinds."""
    cost = cost_of(dense(), "TP8", "TP2", (10.0, 24.0), 10.0)
    assert [(w.replicas_down, w.replicas_started) for w in cost.waves] == [(1, 4), (1, 4)]
    assert [w.capacity_requests_per_s for w in cost.waves] == [5.0, 12.0]
    assert cost.least_capacity_requests_per_s == 5.0
    assert cost.lost_requests == pytest.approx(5.0 * cost.waves[0].duration_s)


def test_more_replicas_go_down_at_once_where_that_loses_less() -> None:
    """Of 100 that come two waves of four turn 60 away twice, eight of one 30 each; a light load takes no risk."""
    study = dense(switch={"max_replicas_down": 4, "drain_s": 0.0, "startup_s": 100.0, "warmup_s": 0.0})
    cost = cost_of(study, "TP2", "TP1/PP2", (80.0, 80.0), 100.0)
    assert [(w.replicas_down, w.replicas_started) for w in cost.waves] == [(4, 4), (4, 4)]
    assert cost.lost_requests == pytest.approx(2 * 40.0 * cost.waves[0].duration_s)
    light = cost_of(study, "TP2", "TP1/PP2", (80.0, 80.0), 10.0)
    assert [(w.replicas_down, w.replicas_started) for w in light.waves] == [(1, 1)] * 8
    assert light.lost_requests == 0.0


def test_a_quarter_may_be_down_unless_told_otherwise() -> None:
    """Eight replicas under too much load go down by two; the bound that is filled in is said."""
    study = dense()
    cost = cost_of(study, "TP2", "TP1/PP2", (80.0, 80.0), 100.0)
    assert cost.replicas_down_at_once == 2
    assert any(
        "switch.max_replicas_down not given: up to 25% of them at once" in t for t in study.operation_assumptions
    )
    assert (
        cost_of(dense(switch={"max_replicas_down": 1}), "TP2", "TP1/PP2", (80.0, 80.0), 100.0).replicas_down_at_once
        == 1
    )


def test_other_numbers_of_gpus_by_hand() -> None:
    """Eight more GPUs take the first of the candidate's replicas at no loss; on half of them one replica is enough."""
    small = dense(cluster={"gpus": 8, "gpu": "h100_sxm", "gpus_per_node": 8}, switch={"max_replicas_down": 1})
    eight, sixteen = scored(small, "TP8"), scored(dense(), "TP4")

    def change(current: PlanResult, candidate: PlanResult) -> SwitchCost:
        return switch_cost(small, current, candidate, capacities=(10.0, 40.0), load_requests_per_s=5.0)

    grown = change(eight, sixteen)
    assert [(w.replicas_down, w.replicas_started) for w in grown.waves] == [(0, 2), (1, 2)]
    assert (grown.gpus_restarted, grown.lost_requests) == (16, 0.0)
    assert grown.gpu_s == pytest.approx(8 * sum(w.duration_s for w in grown.waves))
    shrunk = change(sixteen, eight)
    assert sum(w.replicas_started for w in shrunk.waves) == 1
    assert shrunk.gpus_restarted == 8


def test_the_same_launch_restarts_nothing() -> None:
    """Plans that differ only in the requests let in are started by the same command."""
    study = dense()
    plan = scored(study, "TP2")
    other = replace(plan, knobs=replace(plan.knobs, concurrency=7))
    assert plan.launch == other.launch
    cost = switch_cost(study, plan, other, capacities=(9.0, 9.0), load_requests_per_s=9.0)
    assert (cost.restart, cost.gpus_restarted, cost.waves, cost.lost_requests) == (False, 0, (), 0.0)
    assert plan.launch != replace(plan, knobs=replace(plan.knobs, max_num_batched_tokens=8192)).launch


def test_storage_is_read_once_per_node_and_peers_send_to_each_gpu() -> None:
    """Eight GPUs of a node read one checkpoint from storage; from peers each GPU gets its share over its own link."""
    stored = dense()
    plan = scored(stored, "TP1")
    every = fleet_of(stored, plan)
    assert load_s(stored, plan, every, peers=True) == pytest.approx(weight_bytes(stored.arch) / 3.0e9, rel=1e-3)
    peered = dense(switch={"weights_from": "peer", "peer_gb_per_s": 5.0, "storage_gb_per_s": 3.0})
    assert load_s(peered, plan, every, peers=True) == pytest.approx(weight_bytes_per_gpu(plan) / 5.0e9)
    assert load_s(peered, plan, every, peers=False) == load_s(stored, plan, every, peers=False)


def test_a_replica_drains_until_its_longest_request_is_done() -> None:
    """Without a limit the drain is the longest prompt's TTFT and one TPOT for each further token."""
    study = dense(switch={})
    plan = scored(study, "TP2")
    by_hand = plan.metrics["ttft_longest_s"] + 210 * plan.metrics["tpot_s"]
    assert longest_request_s(study, plan) == pytest.approx(by_hand)
    assert cost_of(study, "TP2", "TP4", (9.0, 9.0), 1.0).drain_s == pytest.approx(by_hand)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["TP1", "TP2", "TP4", "TP8", "TP2/PP2", "TP8/PP2", "PP4"]),
    st.sampled_from(["TP1", "TP2", "TP4", "TP8", "TP4/PP2", "TP8/PP2", "PP8"]),
    st.integers(1, 16),
    st.floats(0.1, 100.0),
)
def test_every_replica_goes_down_once_and_comes_up_once(current: str, candidate: str, most: int, load: float) -> None:
    """Whatever the shapes, the waves take down all old replicas, start all new ones and never use a GPU twice."""
    study = dense(switch={"max_replicas_down": most})
    before, after = scored(study, current), scored(study, candidate)
    cost = cost_of(study, current, candidate, (50.0, 60.0), load)
    if not cost.restart:
        return
    assert sum(w.replicas_down for w in cost.waves) == before.layout.replicas
    assert sum(w.replicas_started for w in cost.waves) == after.layout.replicas
    old, new = before.layout.replicas, 0
    sizes = (before.layout.pp * before.layout.width, after.layout.pp * after.layout.width)
    for wave in cost.waves:
        old, new = old - wave.replicas_down, new + wave.replicas_started
        assert old * sizes[0] + new * sizes[1] <= 16
        assert wave.capacity_requests_per_s <= 110.0 + 1e-9
    assert 0.0 <= cost.lost_requests <= load * cost.duration_s + 1e-9


def test_payback_and_net_gain_by_hand() -> None:
    """10 to 12 a second after 100 s that cost 300: net 2 x 900 - 300 over 1,000 s, paid back after 100 + 150 s."""
    gain = gain_over(current_per_s=10.0, candidate_per_s=12.0, horizon_s=1000.0, duration_s=100.0, loss=300.0)
    assert gain.net == pytest.approx(1500.0)
    assert gain.net_frac == pytest.approx(0.15)
    assert gain.payback_s == pytest.approx(250.0)


def test_no_gain_is_never_paid_back() -> None:
    """A candidate that is worth less never pays, and a current plan that is worth nothing gives no relative gain."""
    assert gain_over(current_per_s=2.0, candidate_per_s=2.0, horizon_s=9.0, duration_s=1.0, loss=0.0).payback_s is None
    assert gain_over(current_per_s=0.0, candidate_per_s=2.0, horizon_s=9.0, duration_s=1.0, loss=0.0).net_frac is None
