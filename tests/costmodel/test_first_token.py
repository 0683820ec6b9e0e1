"""What a first token waits for beside its own prefill: the front end, the step that runs, and other prompts."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest

from costmodel.calibration.load import load_calibration
from costmodel.estimate.batch import PlanBatch
from costmodel.estimate.result import TTFT_PARTS
from costmodel.serving.balance import Residence, balance, prefill_queue_s
from costmodel.serving.load import Load
from costmodel.serving.steady_state import SteadyState
from tests.costmodel.helpers import TRAITS, entry, estimate, load

FRONT = TTFT_PARTS.index("front_end")


def _settled(engine: str, work: Load) -> SteadyState:
    batch = replace(PlanBatch.of([entry("llama-3.1-70b", engine, attn_tp=8)]), residual=None)
    return batch.steady(work, longest_prompt=work.isl, memory_fraction=np.array([0.9]))


def _residence(**values: float) -> Residence:
    quiet = {"service_s": 0.0, "queue_weight": 0.0, "most_decoding": np.inf, "per_decoding_s": 0.0}
    given = {**quiet, **values}
    return Residence(**{f.name: np.array([given[f.name]]) for f in fields(Residence)})


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize(
    ("model", "layers", "experts", "hidden"), [("deepseek-v3", 58, 256, 7168), ("llama-3.1-70b", 0, 0, 0)]
)
def test_front_end_by_hand(engine: str, model: str, layers: int, experts: int, hidden: int) -> None:
    """Request handling, tokenising, and a start in each layer of experts, of no more of them than were measured."""
    serving = load_calibration("hopper", TRAITS[engine]).serving
    plan = entry(model, engine, attn_tp=8, **({"moe_tp": 8} if layers else {}))
    found = estimate([plan], load(isl=1500.0), formulas=True).ttft_parts_s[FRONT, 0]
    start = serving["moe_start_s"] * min(layers * experts / 128 * hidden / 4096, serving["moe_start_most"])
    assert found == pytest.approx(serving["frontend_s"] + serving["token_s"] * 1500 + start)


def test_balance_without_a_queue_by_hand() -> None:
    """Of 29 requests that wait 3 s and decode for 7 s, seven tenths decode."""
    decoding, queue = balance(np.array([29.0]), _residence(before_decode_s=3.0, undisturbed_s=7.0))
    assert decoding[0] == pytest.approx(29.0 * 0.7, rel=1e-9)
    assert queue[0] == pytest.approx(0.0, abs=1e-8)


def test_balance_accounts_for_prompts_that_disturb() -> None:
    """`d (before + undisturbed + more d) = running (undisturbed + more d)`, solved by hand for primes."""
    found, _ = balance(np.array([11.0]), _residence(before_decode_s=5.0, undisturbed_s=3.0, per_decoding_s=2.0))
    # 2 d^2 + (5 + 3 - 22) d - 33 = 0
    assert found[0] == pytest.approx((14.0 + np.sqrt(14.0**2 + 8.0 * 33.0)) / 4.0, rel=1e-7)


def test_the_queue_is_that_of_pollaczek_and_khinchine() -> None:
    """Requests that come at a rate x for a service s wait `x s / (2 (1 - x s))` services, at the rate that settles."""
    residence = _residence(before_decode_s=2.0, undisturbed_s=13.0, service_s=0.7, queue_weight=1.0)
    decoding, queue = balance(np.array([17.0]), residence)
    use = decoding[0] / 13.0 * 0.7
    assert queue[0] == pytest.approx(0.7 * use / (2.0 * (1.0 - use)), rel=1e-5)
    assert decoding[0] / 13.0 * (2.0 + 13.0 + queue[0]) == pytest.approx(17.0)


def test_more_than_may_decode_waits() -> None:
    """Where the token budget lets 5 of 19 decode, the others wait at the pace at which those are served."""
    residence = _residence(before_decode_s=2.0, undisturbed_s=7.0, most_decoding=5.0)
    decoding, queue = balance(np.array([19.0]), residence)
    assert decoding[0] == pytest.approx(5.0)
    assert queue[0] == pytest.approx(14.0 * 7.0 / 5.0 - 2.0)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_a_request_alone_meets_nobody(engine: str) -> None:
    """It waits half a step and its own prefill, queues behind nobody, and decodes without a prompt beside it."""
    found = _settled(engine, load(1.0, isl=6007.0, osl=101.0))
    assert found.ttft_parts_s["queue"][0] == pytest.approx(0.0, abs=1e-9)
    assert found.tpot_s[0] == pytest.approx(found.round_s[0], rel=1e-9)
    assert found.requests_per_s[0] * (found.ttft_s[0] + 100.0 * found.tpot_s[0]) == pytest.approx(1.0)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_a_request_of_one_token_alone(engine: str) -> None:
    """Nothing decodes, so that it waits for less than two steps more than its prefill takes."""
    found = _settled(engine, load(1.0, isl=1009.0, osl=1.0))
    parts = {name: values[0] for name, values in found.ttft_parts_s.items()}
    assert parts["own_prefill"] == pytest.approx(found.prefill.through_s[0], rel=0.25)
    assert parts["running_step"] < 2.0 * parts["own_prefill"]
    assert (parts["queue"], parts["kv_wait"]) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_requests_of_one_token_queue_for_prefill_alone() -> None:
    """Little's law and the queue of Pollaczek and Khinchine hold, and no more is served than prefill takes."""
    for running, weight in ((1.0, 0.0), (2.0, 0.5), (3.0, 1.0), (50.0, 0.7), (7.0, 0.0)):
        residence = _residence(before_decode_s=0.3, undisturbed_s=1e-5, service_s=0.1, queue_weight=weight)
        queue = prefill_queue_s(np.array([running]), residence)[0]
        use = running / (0.3 + queue) * 0.1
        assert 0.0 < use < 1.0 + 1e-12
        if weight:
            assert queue == pytest.approx(weight * 0.1 * use / (2.0 * (1.0 - use)))
        else:
            assert queue == pytest.approx(max(running * 0.1 - 0.3, 0.0))


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_more_requests_of_one_token_are_served_no_slower(engine: str) -> None:
    """Twice as many in flight lower no rate, and the GPU is busy for no more than all of the time."""
    rates = []
    for running in (2.0, 4.0, 8.0, 64.0):
        found = _settled(engine, load(running, isl=3011.0, osl=1.0))
        rates.append(found.requests_per_s[0])
        assert found.gpu_busy_frac[0] <= 1.0
    # rounding may show where prefill works all the time
    assert all(more >= fewer * (1.0 - 1e-12) for fewer, more in pairwise(rates))


@pytest.mark.parametrize("engine", ["sglang", "vllm"])
@pytest.mark.parametrize("concurrency", [4.0, 16.0, 32.0])
def test_a_first_wave_queues_and_spares_the_next_tokens(engine: str, concurrency: float) -> None:
    """A benchmark that begins with all its requests at once waits longer before its first tokens."""
    work = load(concurrency, isl=1000.0, osl=2000.0)
    steady, begun = (_settled(engine, replace(work, waves=np.array([waves]))) for waves in (0.0, 5.0))
    long = _settled(engine, replace(work, waves=np.array([50.0])))
    assert begun.ttft_parts_s["queue"][0] > long.ttft_parts_s["queue"][0] > steady.ttft_parts_s["queue"][0]
    assert begun.ttft_parts_s["own_prefill"][0] == steady.ttft_parts_s["own_prefill"][0]


def test_requests_of_the_same_lengths_stay_whole_waves_where_decoding_waits() -> None:
    """SGLang decodes once all prompts are prefilled: the queue of every round is that of the first."""
    work = replace(load(16.0, isl=1000.0, osl=2000.0), same_lengths=np.ones(1))
    few, many = (_settled("sglang", replace(work, waves=np.array([waves]))) for waves in (2.0, 100.0))
    assert few.ttft_parts_s["queue"][0] == pytest.approx(many.ttft_parts_s["queue"][0])
    assert few.ttft_parts_s["queue"][0] > 0.0
