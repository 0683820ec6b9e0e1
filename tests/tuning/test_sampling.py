"""Sampling a space with a known optimum: a short form of `python -m benchmarks.sampling`."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from autotune.scoring.objective import plan_expected
from autotune.scoring.plan_result import plan_key
from autotune.study import Study
from autotune.tuning import tune
from autotune.tuning.sampling.axes import SampleAxes
from autotune.tuning.sampling.sampler import sample
from autotune.tuning.study_space import study_space
from benchmarks.sampling import DATA, SHARE, SPACES, Space, run
from tests.tuning.brute import question

TABLES = {
    "engine": "sglang",
    "cluster": {"gpus": 16, "gpu": "h100_sxm"},
    "constraints": {"ttft_ms": 3000, "tpot_ms": 25},
    "objective": {"minimize": "usd_per_million_tokens"},
    "prices": {"h100_sxm": 2.0, "h200_sxm": 2.6},
}
SEARCH = {"max_num_batched_tokens": [4096], "gpus": [8, 32], "gpu": ["h200_sxm"], "redundant_experts": [0, 2]}


def small(**search: object) -> Study:
    """Qwen3-30B-A3B on three counts of two types: about a thousand plans."""
    return question("qwen3-30b-a3b", search={**SEARCH, **search}, **TABLES)


def test_tpe_comes_near_the_optimum_and_random_search_does_not() -> None:
    """With a tenth of the space, TPE ends within 1 % of the best of all plans at the median; random search does not."""
    study = small()
    space = Space.__new__(Space)
    space.name, space.study, space.candidates, space.known = "small", study, study_space(study).candidates, {}
    optimum = space.optimum()
    assert optimum["value"] == pytest.approx(plan_expected(study, tune(study).ranked[0]), rel=1e-12)
    budget = len(space.candidates) // 10
    gaps = {
        sampler: [run(space, sampler, seed, optimum["value"], budget=budget).gap_frac for seed in range(5)]
        for sampler in ("tpe", "random")
    }
    assert np.median(gaps["tpe"]) <= 0.01
    assert np.median(gaps["random"]) > np.median(gaps["tpe"])
    assert min(map(min, gaps.values())) >= -1e-12  # nothing is better than the best, and nothing infeasible counts


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_no_plan_is_scored_twice(sampler: str) -> None:
    """Whatever is proposed, each evaluation is another candidate, to the last one of the space."""
    study = question(search={"sampler": sampler, "max_num_batched_tokens": [4096]})
    candidates = study_space(study).candidates
    found = [p.plan for batch in sample(study, candidates, [], budget=10_000) for p in batch]
    assert sorted(found) == sorted(map(plan_key, candidates))


def test_what_is_known_counts_and_is_not_repeated() -> None:
    """A resumed sampling scores the rest of its budget, other plans than before."""
    study = replace(small(), search=replace(small().search, seed=3))
    candidates = study_space(study).candidates
    before = [p for batch in sample(study, candidates, [], budget=32) for p in batch]
    names = {p.plan for p in before}
    missing = [c for c in candidates if plan_key(c) not in names]
    after = [p.plan for batch in sample(study, missing, before, budget=48) for p in batch]
    assert len(after) == 16
    assert not names & set(after)


def test_axes_are_what_candidates_differ_in() -> None:
    """Every candidate has a place of its own, and a proposal at its place means it unless it is taken."""
    candidates = study_space(small()).candidates
    axes = SampleAxes.of(candidates)
    assert "dcp" not in axes.distributions  # all agree
    assert {"gpu", "gpus", "width", "moe_ep"} <= set(axes.distributions)
    assert len({tuple(row) for row in axes.places.tolist()}) == len(candidates)
    taken = np.zeros(len(candidates), dtype=bool)
    for index in range(0, len(candidates), 97):
        assert axes.nearest(axes.params(index), taken) == index
        taken[index] = True
        assert axes.nearest(axes.params(index), taken) != index


def test_the_kept_optima_belong_to_the_spaces() -> None:
    """Every space of the benchmark has its optimum kept, with the command that found it, for 2 % of it at most."""
    kept = json.loads(DATA.read_text(encoding="utf-8"))
    assert set(kept) == set(SPACES)
    for optimum in kept.values():
        assert optimum["command"] == "python -m benchmarks.sampling --brute"
        assert SHARE <= 0.02
        assert 0 < optimum["within_1_percent"] < optimum["feasible"]
