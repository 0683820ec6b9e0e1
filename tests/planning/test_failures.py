"""Losses: the worst is the worst of all, years of failures agree with formulas, requests that are lost are served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from itertools import combinations
from math import ceil, comb, inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.planning import failures
from autotune.planning.failures import YEAR_S, FailureRates, expected_failures_per_year, years_of_failures
from autotune.planning.free_slots import FreeSlots
from autotune.planning.model_tables import ReplicaOffer, offer_simulation, replica_offers
from autotune.planning.place import DOMAINS, Place, worst_loss
from autotune.planning.replica_loss import LossEvent, LossRun, run_loss
from autotune.planning.slots import Slots
from autotune.planning.survive import placed, survive
from autotune.simulation.draw_requests import study_requests
from autotune.study import Study, on_cluster, study_from_document
from autotune.study.resilience import Resilience
from autotune.tuning import tune
from costmodel.errors import InputError
from tests.remembered import remembered

HOUR_S = 3600.0
NEVER_S = 1e15
FOUND = remembered(replica_offers)
survived = remembered(survive)


def offers(study: Study, *, most_gpus: int) -> tuple[ReplicaOffer, ...]:
    """What replicas take, found once for each load: what has to be survived does not change it."""
    return FOUND(replace(study, resilience=Resilience(), resilience_assumptions=()), most_gpus=most_gpus)


@pytest.fixture(scope="module", autouse=True)
def _offers_found_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # the package's function of that name hides the module
        patch.setattr(import_module("autotune.planning.survive"), "replica_offers", offers)
        yield


def random_place(seed: int) -> Place:
    """A small cluster, sizes that divide each other or do not."""
    random = np.random.default_rng(seed)
    node = int(random.choice([2, 4, 6]))
    size = int(random.choice([1, 2, 3, 4, 8]))
    gpus = node * int(random.integers(2, 6))
    most = max(gpus // size, 1)
    return Place(
        gpus=max(gpus, size),
        replica_gpus=size,
        replicas=int(random.integers(1, most + 1)),
        node_gpus=node,
        rack_gpus=2 * node,
    )


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_loss_is_worse(seed: int, count: int) -> None:
    """Over all choices of so many GPUs, hosts or racks, none takes more replicas down."""
    place = random_place(seed)
    running = set(place.running())
    assert len(running) == place.replicas
    for domain in DOMAINS:
        touched = [set(place.slots_of(domain, i)) & running for i in range(place.domains(domain))]
        worst = max(len(set().union(*chosen)) for chosen in combinations(touched, min(count, len(touched))))
        assert worst_loss(place, domain, count) == worst


@pytest.mark.parametrize("replicas", range(1, 17))
def test_replicas_are_spread(replicas: int) -> None:
    """Of replicas that fill half a host a host or a rack holds no more than it must."""
    place = Place(gpus=64, replica_gpus=4, replicas=replicas, node_gpus=8, rack_gpus=16)
    assert worst_loss(place, "gpu", 1) == 1
    assert worst_loss(place, "node", 1) == ceil(replicas / 8)
    assert worst_loss(place, "rack", 1) == ceil(replicas / 4)


def rates(**changes: float) -> FailureRates:
    """GPUs fail every 100 h and are repaired within 10; nothing else fails."""
    given = {"gpu": 100 * HOUR_S, "node": NEVER_S, "rack": NEVER_S}
    return FailureRates(
        mtbf_s={**given, **{d: s for d, s in changes.items() if d in given}},
        repair_s=dict.fromkeys(DOMAINS, 10 * HOUR_S),
        detect_s=changes.get("detect_s", 0.0),
        start_s=changes.get("start_s", 0.0),
    )


def test_gpus_without_spares_are_binomial() -> None:
    """Four replicas of one GPU each are up as often as four coins that are fair in 10 of 11 throws."""
    place = Place(gpus=4, replica_gpus=1, replicas=4, node_gpus=4, rack_gpus=4)
    found = years_of_failures(place, rates())
    up = 100.0 / 110.0
    binomial = [comb(4, j) * up**j * (1 - up) ** (4 - j) for j in range(5)]
    assert found.up_frac == pytest.approx(binomial, abs=0.005)
    assert found.up_frac.sum() == pytest.approx(1.0)
    assert found.down_s == pytest.approx(10 * HOUR_S, rel=1e-6)
    assert found.failures_per_year == pytest.approx(expected_failures_per_year(place, rates()), rel=0.03)


def test_hosts_take_all_their_replicas() -> None:
    """Where hosts alone fail, both replicas of the one host are up or down together."""
    place = Place(gpus=8, replica_gpus=4, replicas=2, node_gpus=8, rack_gpus=8)
    found = years_of_failures(place, rates(gpu=NEVER_S, node=100 * HOUR_S))
    assert found.up_frac == pytest.approx([10 / 110, 0.0, 100 / 110], abs=0.01)


def test_a_spare_shortens_the_outage() -> None:
    """With room to start in, a replica is down for as long as noticing and starting take, and almost always up."""
    alone = Place(gpus=4, replica_gpus=2, replicas=2, node_gpus=4, rack_gpus=4)
    with_spare = replace(alone, gpus=8)
    slow = rates(gpu=10_000 * HOUR_S, detect_s=60.0, start_s=240.0)
    without, spared = (years_of_failures(place, slow) for place in (alone, with_spare))
    assert without.down_s >= 10 * HOUR_S
    assert spared.down_s == pytest.approx(300.0, rel=0.1)
    assert spared.up_frac[2] > without.up_frac[2]


OFTEN = FailureRates(
    mtbf_s={"gpu": 79_200 * HOUR_S, "node": 50_100 * HOUR_S, "rack": 37_900 * HOUR_S},
    repair_s={"gpu": 24 * HOUR_S, "node": 24 * HOUR_S, "rack": 4 * HOUR_S},
    detect_s=30.0,
    start_s=221.0,
)
"""As often as is taken unless a study says it."""


@pytest.mark.parametrize("replicas", [8, 10, 11])
def test_losses_are_those_of_replicas_as_placed(replicas: int) -> None:
    """A year has as many losses as failures of the GPUs, hosts and racks in which replicas were placed."""
    place = Place(gpus=64, replica_gpus=4, replicas=replicas, node_gpus=8, rack_gpus=16)
    with_one = {"gpu": 4 * replicas, "node": 8, "rack": 4}
    expected = sum(with_one[d] * YEAR_S / (OFTEN.mtbf_s[d] + OFTEN.repair_s[d]) for d in DOMAINS)
    found = years_of_failures(place, OFTEN)
    error = (expected / found.years) ** 0.5
    assert found.losses_per_year == pytest.approx(expected, abs=3.0 * error)


def test_a_rack_takes_no_more_than_it_did_at_first() -> None:
    """Eleven replicas in four racks: fewer than eight serve only where a second rack is lost before a repair."""
    place = Place(gpus=64, replica_gpus=4, replicas=11, node_gpus=8, rack_gpus=16)
    assert worst_loss(place, "rack", 1) == 3
    often = rates(gpu=NEVER_S, rack=10_000 * HOUR_S, detect_s=HOUR_S)
    found = years_of_failures(place, often)
    rack_down = 10 / 10_010
    assert found.up_frac[:8].sum() < 6 * rack_down**2
    assert found.up_frac[8:11].sum() > rack_down / 10


def test_hosts_hold_one_replica_each_for_years(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 512 hosts, where there is always a host with none, no failure of a host takes two of 352 replicas."""
    taken: Counter[tuple[str, int]] = Counter()

    class Watched(Slots):
        def fail(self, at_s: float, domain: str, number: int) -> list[tuple[float, int]]:
            before = len(self.lost_at)
            started = super().fail(at_s, domain, number)
            taken[domain, len(self.lost_at) - before] += 1
            return started

    monkeypatch.setattr(failures, "Slots", Watched)
    place = Place(gpus=4096, replica_gpus=4, replicas=352, node_gpus=8, rack_gpus=16)
    years_of_failures(place, OFTEN)
    assert max(number for domain, number in taken if domain == "node") == worst_loss(place, "node", 1) == 1
    assert taken["node", 1] > 1000


@pytest.mark.parametrize("seed", range(60))
def test_what_is_repaired_is_as_it_was(seed: int) -> None:
    """Whatever fails, no two replicas share a slot, none is in a broken one, and in the end each is in its own."""
    place = random_place(seed)
    slots, random = Slots(place, detect_s=1.0, start_s=2.0), np.random.default_rng(seed)
    down: set[tuple[str, int]] = set()
    starting: list[tuple[float, int]] = []
    for step in range(200):
        at, domain = 10.0 * step, str(random.choice(DOMAINS))
        number = int(random.integers(place.domains(domain)))
        change = slots.repair if (domain, number) in down else slots.fail
        down ^= {(domain, number)}
        starting += change(at, domain, number)
        assert len(slots.slot_of) + len(slots.waiting) == place.replicas
        assert {slot: replica for replica, slot in slots.slot_of.items()} == slots.replica_in
        assert not any(slots.broken[slot] for slot in slots.replica_in)
        held = set(slots.replica_in) | {slot for slot in range(place.slots) if slots.broken[slot]}
        assert not slots.waiting or not set(range(place.slots)) - held - slots.own
        for started in starting:
            slots.serve(*started)
    for domain, number in sorted(down):
        starting += slots.repair(2000.0, domain, number)
    for started in starting:
        slots.serve(*started)
    assert slots.slot_of == {own: own for own in place.running()}
    assert not slots.lost_at


@pytest.mark.parametrize("seed", range(60))
def test_the_fewest_are_found(seed: int) -> None:
    """The next slot is on a host with the fewest replicas, of such in a rack with the fewest, as counted by hand."""
    place, random = random_place(seed), np.random.default_rng(seed)
    own = place.running()
    free, held = FreeSlots(place, own), set(own)
    open_slots = set(range(place.slots)) - held

    def around(slot: int) -> tuple[int, int]:
        gpu = slot * place.replica_gpus
        sizes = (place.node_gpus, place.rack_gpus)
        on_host, in_rack = (sum(other * place.replica_gpus // size == gpu // size for other in held) for size in sizes)
        return on_host, in_rack

    for _ in range(100):
        found = free.fewest()
        assert (found is None) == (not open_slots)
        assert found is None or around(found) == min(around(slot) for slot in open_slots)
        if found is not None and random.random() < 0.5:
            free.take(found)
            held.add(found)
            open_slots.discard(found)
        elif held:
            left = int(random.choice(sorted(held)))
            free.leave(left)
            held.discard(left)
            if random.random() < 0.7:
                free.open(left)
                open_slots.add(left)


def dense(**tables: Any) -> Study:
    """A dense model on four nodes of H100."""
    document: dict[str, Any] = {
        "engine": "vllm",
        "model": "llama-3.1-70b",
        "cluster": {"gpus": 32, "gpu": "h100_sxm"},
        "workload": {"isl": 1000, "osl": 100, "request_rate_per_s": 12},
        "constraints": {"ttft_ms": 1000, "tpot_ms": 40},
        "search": {"max_num_batched_tokens": [8192]},
        **tables,
    }
    return study_from_document(document, Path("dense.toml"))


@pytest.mark.parametrize(
    "resilience",
    [
        {"survive": "gpu"},
        {"survive": "node"},
        {"survive": "node", "k": 2},
        {"survive": "rack", "nodes_per_rack": 2},
        {"survive": "node", "degraded_load_frac": 0.5},
        {"survive": "node", "degraded_latency_factor": 2.0},
    ],
)
def test_no_fewer_replicas_survive(resilience: dict[str, Any]) -> None:
    """Of every kind of replica one less would not do, and the cheapest kind that fits is chosen."""
    study = dense(resilience=resilience)
    found = survived(study)
    asked = study.resilience
    for way in found.ways:

        def enough(replicas: int, way: Any = way) -> bool:
            left = replicas - worst_loss(placed(study, way.offer, replicas), asked.survive, asked.k)
            kept = way.degraded.together(left) >= asked.degraded_load_frac * found.load_per_s * (1 - 1e-9)
            return kept and way.offer.capacities.together(replicas) >= found.load_per_s * (1 - 1e-9)

        assert enough(way.replicas)
        assert not any(enough(n) for n in range(1, way.replicas))
        assert way.fits == (way.gpus <= 32)
        assert (way.degraded.each_per_s >= way.offer.capacities.each_per_s).all()
    fitting = [w.gpus for w in found.ways if w.fits]
    assert (found.best is None) == (not fitting)
    assert found.best is None or found.best.gpus == min(fitting)
    assert found.best is None or found.best.gpus >= found.plain.gpus_without


@pytest.mark.parametrize("rate_per_s", [1.4, 1.55, 2.95])
def test_so_many_replicas_keep_the_limits_in_tune(rate_per_s: float) -> None:
    """On the GPUs of the replicas that a loss leaves, and of those that are enough without one, `tune` finds a plan."""
    study = dense(
        cluster={"gpus": 16, "gpu": "h100_sxm"},
        workload={"isl": 8000, "osl": 50, "request_rate_per_s": rate_per_s},
        constraints={"ttft_ms": 700, "tpot_ms": 80},
        resilience={"survive": "gpu"},
        search={},
    )
    found = survive(study)
    assert found.best is not None
    left = (found.best.replicas - found.best.lost) * found.best.offer.gpus
    for gpus in {left, found.plain.gpus_without}:
        assert tune(on_cluster(study, replace(study.cluster, gpus=gpus))).ranked


def test_asking_for_more_takes_no_fewer_gpus() -> None:
    """A host is worse than a GPU, two are worse than one, half the load is less than all of it."""

    def gpus(**asked: Any) -> float:
        best = survived(dense(resilience=asked)).best
        return inf if best is None else best.gpus

    node = gpus(survive="node")
    assert gpus(survive="gpu") <= node <= gpus(survive="node", k=2)
    assert gpus(survive="node", degraded_load_frac=0.5) <= node


def test_more_replicas_are_more_available() -> None:
    """The plan that survives is up at least as much as the replicas that are just enough."""
    found = survived(dense(resilience={"survive": "node"}))
    assert found.years is not None
    assert found.years_plain is not None
    assert found.years.availability >= found.years_plain.availability
    assert 0.99 < found.years_plain.availability < 1.0
    assert found.years.goodput_per_year >= found.years_plain.goodput_per_year


def lost(at_s: float, *, back_s: float = inf, detect_s: float = 5.0) -> LossRun:
    """Three replicas at 6 requests a second for 200 s, of which one is lost."""
    study = dense()
    offer = next(o for o in offers(study, most_gpus=32) if o.gpus == 4)
    requests = study_requests(study, count=1200, rate_per_s=6.0)
    event = LossEvent(at_s=at_s, lost=1, detect_s=detect_s, back_s=back_s)
    return run_loss(offer_simulation(study, offer), requests, 3, event)


def test_a_loss_after_the_end_changes_nothing() -> None:
    """Without a loss in the traffic both runs are the same."""
    run = lost(1e6)
    assert run.retried == 0
    assert run.with_loss.finish_s == pytest.approx(run.without.finish_s)


def test_requests_of_a_lost_replica_are_sent_again() -> None:
    """All requests are served; those that were held or sent in vain begin anew once the loss is noticed."""
    run = lost(100.0)
    served, arrival = run.with_loss, run.with_loss.requests.arrival_s
    assert np.isfinite(served.finish_s).all()
    doomed = np.arange(1200) % 3 == 2
    held = doomed & (arrival < 100.0) & (run.without.finish_s > 100.0)
    in_vain = doomed & (arrival >= 100.0) & (arrival < 105.0)
    assert run.retried == (held | in_vain).sum() > 0
    assert (served.first_token_s[held | in_vain] > 105.0).all()
    before = run.without.finish_s < 100.0
    assert served.finish_s[before] == pytest.approx(run.without.finish_s[before])
    assert served.ttft_s.max() > run.without.ttft_s.max()


def test_coming_back_helps() -> None:
    """Requests that come once the replica is back are served sooner than if it stayed away."""
    stays, returns = lost(60.0), lost(60.0, back_s=40.0)
    late = stays.with_loss.requests.arrival_s > 130.0
    assert returns.with_loss.e2e_s[late].mean() < stays.with_loss.e2e_s[late].mean()


def test_a_load_is_required() -> None:
    """Without a load nothing says how many replicas have to be left."""
    with pytest.raises(InputError, match="request_rate_per_s"):
        survive(dense(workload={"isl": 1000, "osl": 100}))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"survive": "datacenter"}, r"resilience.survive"),
        ({"k": 0}, r"resilience.k"),
        ({"gpu_mtbf_h": 0}, r"resilience.gpu_mtbf_h"),
        ({"degraded_load_frac": 1.5}, r"resilience.degraded_load_frac"),
        ({"mtbf": 3}, r"resilience.mtbf"),
    ],
)
def test_mistakes(table: dict[str, Any], message: str) -> None:
    """Every mistake is named by its key."""
    with pytest.raises(InputError, match=message):
        dense(resilience=table)
