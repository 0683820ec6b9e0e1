"""The closed form is the fluid limit of the simulation: both have the same steps, and meet in what follows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from benchmarks.closed_form import Both, both
from costmodel.estimate.batch import PlanBatch
from costmodel.serving.load import Load
from tests.costmodel.helpers import entry

PLANS = (
    ("llama-3.1-70b", {"attn_tp": 8}),
    ("gpt-oss-120b", {"attn_tp": 2, "moe_tp": 2}),
    ("deepseek-v3", {"attn_dp": 8, "moe_ep": 8}),
    ("mixtral-8x22b", {"pp": 2, "attn_tp": 4, "moe_tp": 4}),
)
LOADS = ((1.0, 2000.0, 300.0, 0.0), (16.0, 1000.0, 500.0, 0.5), (64.0, 3000.0, 400.0, 0.9))
"""Requests in flight, prompt, output, share of the prompt that is cached."""


def _load(concurrency: float, isl: float, osl: float, hit: float) -> Load:
    values = {"concurrency": concurrency, "isl": isl, "osl": osl, "prefix_hit_frac": hit}
    values |= {"batched_tokens": 8192.0, "max_num_seqs": 1024.0}
    return Load(**{name: np.array([value]) for name, value in values.items()})


@cache
def _all() -> tuple[Both, ...]:
    cases = product(("vllm", "sglang", "trtllm"), PLANS, LOADS)
    return tuple(both(entry(model, engine, **degrees), _load(*at)) for engine, (model, degrees), at in cases)


def _errors(formula: str, simulated: str) -> np.ndarray:
    return np.array([abs(getattr(b.formula, formula)[0] / getattr(b, simulated) - 1.0) for b in _all()])


def test_tpot_of_both() -> None:
    """Median within 3 %, and none off by more than an eighth."""
    errors = _errors("tpot_s", "tpot_s")
    assert np.median(errors) < 0.03
    assert errors.max() < 0.125


def test_ttft_of_both() -> None:
    """Median within 8 %, nine of ten within 25 %."""
    errors = _errors("ttft_s", "ttft_s")
    assert np.median(errors) < 0.08
    assert np.quantile(errors, 0.9) < 0.25


def test_throughput_of_both() -> None:
    """Median within 3 %, and none off by more than an eighth: the closed form saturates where the simulation does."""
    errors = _errors("requests_per_s", "requests_per_s")
    assert np.median(errors) < 0.03
    assert errors.max() < 0.125


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_a_request_alone_is_exact(engine: str) -> None:
    """One request at a time meets nobody, so that both give the same but for lengths that vary."""
    found = both(entry("llama-3.1-70b", engine, attn_tp=8), _load(1.0, 8000.0, 200.0, 0.0))
    assert found.formula.tpot_s[0] == pytest.approx(found.tpot_s, rel=0.005)
    assert found.formula.ttft_s[0] == pytest.approx(found.ttft_s, rel=0.03)


@pytest.mark.parametrize(
    ("engine", "load"), [("sglang", (115.0, 694.0, 191.0, 0.0)), ("trtllm", (60.0, 3000.0, 400.0, 0.0))]
)
def test_a_pipeline_is_as_slow_as_its_slowest_micro_batch(engine: str, load: tuple[float, ...]) -> None:
    """Prompts many times as long as a decode step: the others queue behind them, by the formula and event by event."""
    found = both(entry("llama-3.1-70b", engine, pp=4, attn_tp=2), _load(*load))
    assert found.formula.tpot_s[0] == pytest.approx(found.tpot_s, rel=0.09)
    assert found.formula.ttft_s[0] == pytest.approx(found.ttft_s, rel=0.25)
    # without bubbles a sequence would wait for the other micro-batches alone
    steps = found.formula.micro_batches * found.formula.decode.stage_s
    assert found.tpot_s > 1.8 * steps[0]


@pytest.mark.parametrize(("pp", "in_flight"), [(1, 2.0), (1, 8.0), (4, 2.0)])
def test_requests_of_one_token_wait_once(pp: int, in_flight: float) -> None:
    """A prompt waits for those before it, and not for the step that runs as well; each has a micro-batch of its own."""
    found = both(entry("llama-3.1-70b", "vllm", pp=pp, attn_tp=4 // pp), _load(in_flight, 3000.0, 1.0, 0.0))
    assert found.formula.ttft_s[0] == pytest.approx(found.ttft_s, rel=0.12)


@pytest.mark.parametrize("load", [(100.0, 351.0, 9.0, 0.0), (16.0, 2000.0, 20.0, 0.0)])
def test_the_step_with_the_most_prompts_paces_a_pipeline(load: tuple[float, ...]) -> None:
    """Prompts fall on the micro-batches of a turn unevenly: the mean of them would be a quarter too quick."""
    found = both(entry("llama-3.1-70b", "trtllm", pp=4, attn_tp=2), _load(*load))
    assert found.formula.requests_per_s[0] == pytest.approx(found.requests_per_s, rel=0.08)


def test_pipelines_do_no_more_than_they_have_time_for() -> None:
    """Chunks that fill every step of both stages keep them busy, and not for more than all of the time."""
    load = replace(_load(256.0, 1610.0, 211.0, 0.0), batched_tokens=np.array([512.0]))
    batch = replace(PlanBatch.of([entry("llama-3.1-70b", "trtllm", pp=2, attn_tp=1)]), residual=None)
    busy = batch.steady(load, longest_prompt=load.isl, memory_fraction=np.array([0.9])).gpu_busy_frac[0]
    assert 0.9 < busy <= 1.0 + 1e-9


@pytest.mark.parametrize("in_flight", [4.0, 8.0])
def test_prompts_of_ranks_share_passes(in_flight: float) -> None:
    """With prefill first, a pass takes all prompts that are on their way: of eight ranks none waits for the others."""
    load = replace(_load(in_flight, 5770.0, 6.0, 0.0), batched_tokens=np.array([2048.0]))
    found = both(entry("deepseek-v3", "sglang", attn_dp=8, attn_tp=2, moe_ep=16), load)
    assert found.formula.ttft_s[0] == pytest.approx(found.ttft_s, rel=0.25)
    assert found.formula.requests_per_s[0] == pytest.approx(found.requests_per_s, rel=0.35)
