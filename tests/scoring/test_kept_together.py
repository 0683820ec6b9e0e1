"""Limits that hang on the same errors: those that follow from others take nothing away, and two are kept as drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from autotune.metrics import RATE_SD, TPOT_SD, TTFT_SD
from autotune.scoring.kept_together import ALL, BOTH, DECODE, FIRST, Kept, merged, p_together
from autotune.scoring.limits import means_kept, study_limits
from costmodel.estimate.error_model import TARGET_CORRELATION, Correction
from costmodel.plan.columns import Floats
from tests.tuning.brute import question

ROUNDING = 1e-3
PLANS = 400
OUTPUTS = 99.0


def plans() -> dict[str, Floats]:
    """Figures and errors of plans whose requests take anything from mostly the first token to mostly the others."""
    random = np.random.default_rng(6)
    ttft, tpot = np.exp(random.uniform(-3.0, 2.0, PLANS)), np.exp(random.uniform(-5.0, -2.0, PLANS))
    sds = random.uniform(0.02, 0.5, (2, PLANS))
    e2e = ttft + OUTPUTS * tpot
    correction = Correction(
        ttft_factor=np.ones(1), tpot_factor=np.ones(1), ttft_log_sd=sds[0], tpot_log_sd=sds[1]
    )  # fmt: skip
    return {
        "ttft_s": ttft,
        "ttft_longest_s": ttft,
        "tpot_s": tpot,
        "e2e_s": e2e,
        "output_tokens_per_s_per_gpu": 1.0 / e2e,
        TTFT_SD: sds[0],
        TPOT_SD: sds[1],
        RATE_SD: correction.throughput_log_sd(ttft / e2e),
    }


STUDY = question()
SI = {"ms": ("s", 1e-3)}


def p_kept(figures: Mapping[str, Floats], row: int, **limits: float) -> float:
    """Probability that one of the plans keeps limits, which are named and measured as in a study's file."""
    fields = {}
    for name, value in limits.items():
        stem, _, unit = name.rpartition("_")
        own, factor = SI.get(unit, (unit, 1.0))
        fields[f"{stem}_{own}"] = value * factor
    study = replace(STUDY, constraints=replace(STUDY.constraints, **fields))
    own = {name: values[[row]] for name, values in figures.items()}
    return float(p_together(means_kept(study_limits(study), own.__getitem__, np.zeros(1)))[0])


def test_a_limit_that_follows_from_others_takes_nothing_away() -> None:
    """End to end from TTFT and TPOT, either from end to end, a floor of throughput from the time of a request."""
    figures, random = plans(), np.random.default_rng(7)
    for row in range(PLANS):
        room = np.exp(random.uniform(-0.1, 0.6, 3))
        ttft, tpot, e2e = (
            1e3 * figures[name][row] * r for name, r in zip(("ttft_s", "tpot_s", "e2e_s"), room, strict=True)
        )
        both = p_kept(figures, row, ttft_ms=ttft, tpot_ms=tpot)
        with_sum = p_kept(figures, row, ttft_ms=ttft, tpot_ms=tpot, e2e_ms=ttft + OUTPUTS * tpot)
        assert with_sum == pytest.approx(both, abs=ROUNDING)
        whole = p_kept(figures, row, e2e_ms=e2e)
        with_parts = p_kept(figures, row, e2e_ms=e2e, ttft_ms=e2e, tpot_ms=e2e / OUTPUTS)
        assert whole - 0.02 <= with_parts <= whole + 1e-12
        floor = p_kept(figures, row, e2e_ms=e2e, min_output_tokens_per_s_per_gpu=1e3 / e2e)
        assert floor == pytest.approx(whole, abs=1e-9)


def test_two_limits_are_kept_as_often_as_they_are_drawn() -> None:
    """TTFT and TPOT by draws of their errors, which go together; end to end by those of both."""
    figures, random = plans(), np.random.default_rng(8)
    pace, own = random.standard_normal((2, 200_000))
    first = TARGET_CORRELATION * pace + np.sqrt(1.0 - TARGET_CORRELATION**2) * own
    for row in range(0, PLANS, 20):
        ttft = figures["ttft_s"][row] * np.exp(figures[TTFT_SD][row] * first)
        tpot = figures["tpot_s"][row] * np.exp(figures[TPOT_SD][row] * pace)
        e2e = ttft + OUTPUTS * tpot
        most = {"ttft_ms": ttft, "tpot_ms": tpot, "e2e_ms": e2e}
        limits = {name: 1e3 * float(np.quantile(values, 0.6)) for name, values in most.items()}
        for pair in (("ttft_ms", "tpot_ms"), ("ttft_ms", "e2e_ms"), ("tpot_ms", "e2e_ms")):
            drawn = np.logical_and(*(1e3 * most[name] <= limits[name] for name in pair)).mean()
            # the log of a sum of two log-normal values is not quite normal
            assert p_kept(figures, row, **{name: limits[name] for name in pair}) == pytest.approx(drawn, abs=0.03)


def test_the_least_of_each_latency_counts() -> None:
    """More limits on one latency, and a share of requests that is surer than they are, change nothing."""
    kept = {FIRST: Kept(z=np.array([0.7]), first=np.array([0.8])), DECODE: Kept(z=np.array([0.4]), first=np.zeros(1))}
    alone = float(p_together(kept)[0])
    surer = [(name, Kept(z=one.z + more, first=np.ones(1))) for name, one in kept.items() for more in (0.01, 0.1, 2.0)]
    sure = [(ALL, Kept(z=np.array([3.0]), first=np.zeros(1))), (BOTH, Kept(z=np.array([np.inf]), first=np.zeros(1)))]
    assert float(p_together(merged([*kept.items(), *surer, *sure]))[0]) == alone
    assert float(p_together({})[0]) == 1.0
