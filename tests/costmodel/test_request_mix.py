"""Traffic of two kinds of requests: what each kind takes, put together by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.estimate.batch import PlanBatch
from costmodel.estimate.request_mix import Kinds, combined, point_loads
from costmodel.serving.requests import RequestKind
from tests.costmodel.helpers import entry, estimate, load

KINDS = (RequestKind(isl=100.0, osl=10.0, weight=0.75), RequestKind(isl=700.0, osl=90.0, weight=0.25))


def test_the_cache_is_shared_by_how_long_requests_stay() -> None:
    """Shares of 0.75 x 10 and 0.25 x 90 tokens of output: a quarter and three quarters of the sequences in flight."""
    loads = point_loads(load(np.array([3.0, 5.0])), Kinds.of([KINDS]), 2)
    assert (loads.kv_isl.tolist(), loads.kv_osl.tolist()) == ([550.0] * 4, [70.0] * 4)
    assert (loads.isl.tolist(), loads.osl.tolist()) == ([100.0, 100.0, 700.0, 700.0], [10.0, 10.0, 90.0, 90.0])
    assert loads.concurrency.tolist() == [3.0, 5.0, 3.0, 5.0]


def test_what_kinds_take_adds_up() -> None:
    """Requests/s are the harmonic mean, TTFT the mean by requests, TPOT that by output tokens; Little's law holds."""
    batch = replace(PlanBatch.of([entry("llama-3.1-8b", attn_tp=2)]), residual=None)
    work = point_loads(load(64.0), Kinds.of([KINDS]), 1)
    spread = batch.take(np.zeros(2, dtype=np.int64)).evaluate(
        work, longest_prompt=np.array([700.0]), memory_fraction=np.array([0.9])
    )
    mixed = combined(spread, Kinds.of([KINDS]))
    first, second = spread.requests_per_s
    assert mixed.requests_per_s[0] == pytest.approx(1.0 / (0.75 / first + 0.25 / second))
    assert mixed.ttft_s[0] == pytest.approx(0.75 * spread.ttft_s[0] + 0.25 * spread.ttft_s[1])
    tokens = 0.75 * 9.0, 0.25 * 89.0
    by_tokens = tokens[0] * spread.tpot_s[0] + tokens[1] * spread.tpot_s[1]
    assert mixed.tpot_s[0] == pytest.approx(by_tokens / sum(tokens))
    assert mixed.requests_per_s[0] * (mixed.ttft_s[0] + sum(tokens) * mixed.tpot_s[0]) == pytest.approx(64.0)
    assert mixed.total_tokens_per_s[0] == pytest.approx(mixed.requests_per_s[0] * (250.0 + 30.0))


def test_a_request_takes_ttft_and_its_other_tokens() -> None:
    """From arrival to the last token: the first token, and TPOT for each of the 29 after it."""
    found = estimate([entry("llama-3.1-8b", attn_tp=2)], load(64.0, osl=30.0))
    assert found.e2e_s[0] == pytest.approx(found.ttft_s[0] + 29.0 * found.tpot_s[0])
