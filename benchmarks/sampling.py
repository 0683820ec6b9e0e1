"""Sampling against known optima: `python -m benchmarks.sampling [--brute] [--seeds N] [--space NAME]`.

Three real studies with many axes opened, each far beyond `search.exhaustive_limit`. `--brute` scores every candidate of
each once and keeps the optimum in `sampling.json`; without it the optimum is read from there. Then TPE (the product's
sampler, through the product's own code) and random search get as many evaluations as 2 % of the space, with 20 seeds;
an evaluation is a candidate scored with its best knobs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autotune.scoring.best_knobs import score
from autotune.scoring.objective import plan_expected
from autotune.scoring.plan_result import PlanResult, plan_key
from autotune.space import Candidate
from autotune.study import Study, study_from_document
from autotune.tuning.sampling.sampler import sample
from autotune.tuning.study_space import study_space

DATA = Path(__file__).with_name("sampling.json")
COMMAND = "python -m benchmarks.sampling --brute"
SHARE = 0.02
"""Of a space, that is evaluated at most."""
GOOD_FRAC = 0.01
"""As near to the optimum is good enough."""
BATCH = 512

SPACES: dict[str, dict[str, Any]] = {
    "deepseek-v3, cheapest tokens": {
        "engine": "any",
        "model": "deepseek-v3",
        "cluster": {"gpus": 128, "gpu": "h200_sxm"},
        "workload": {"isl": 4000, "osl": 1000},
        "constraints": {"ttft_ms": 5000, "tpot_ms": 50},
        "objective": {"minimize": "usd_per_million_tokens"},
        "prices": {"h200_sxm": 3.0, "h100_sxm": 2.2, "b200_sxm": 5.0},
        "search": {
            "gpus": [64, 96, 192, 256],
            "gpu": ["h100_sxm", "b200_sxm"],
            "redundant_experts": [0, 32, 64],
            "dcp": [1, 2, 4],
            "kv_dtype": ["bf16", "fp8"],
        },
    },
    "qwen3-235b, fewest GPUs for a rate": {
        "engine": "any",
        "model": "qwen3-235b",
        "cluster": {"gpus": 64, "gpu": "h100_sxm"},
        "workload": {"isl": 8000, "osl": 500, "request_rate_per_s": 25.0},
        "constraints": {"ttft_ms": 5000, "tpot_ms": 50},
        "objective": {"minimize": "gpus"},
        "search": {
            "gpus": [32, 96, 128],
            "gpu": ["h200_sxm", "h20"],
            "attn_cp": [1, 2, 4],
            "redundant_experts": [0, 16, 32],
            "kv_dtype": ["bf16", "fp8"],
        },
    },
    "gpt-oss-120b, throughput at 12 ms": {
        "engine": "any",
        "model": "gpt-oss-120b",
        "cluster": {"gpus": 32, "gpu": "h100_sxm"},
        "workload": {"isl": 2000, "osl": 800},
        "constraints": {"ttft_ms": 1500, "tpot_ms": 12},
        "objective": {"maximize": "output_tokens_per_s_per_gpu"},
        "search": {
            "gpus": [8, 16, 24, 48, 64],
            "gpu": ["h200_sxm"],
            "attn_cp": [1, 2],
            "dcp": [1, 2],
            "redundant_experts": [0, 16, 32],
            "weight_dtype": ["mxfp4", "bf16"],
            "max_num_batched_tokens": [2048, 8192],
            "stage_layers": "balanced",
        },
    },
}


class Space:
    """A study with its candidates, each scored at most once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.study: Study = study_from_document({"name": name, **SPACES[name]}, Path("sampling.toml"))
        self.candidates = study_space(self.study).candidates
        self.known: dict[str, PlanResult] = {}

    def scored(self, study: Study, candidates: Sequence[Candidate]) -> list[PlanResult]:
        """As `score`; what another seed has asked for before is not computed again."""
        missing = [c for c in candidates if plan_key(c) not in self.known]
        self.known.update((p.plan, p) for p in score(study, missing))
        return [self.known[plan_key(c)] for c in candidates]

    def optimum(self) -> dict[str, Any]:
        """By brute force: every candidate."""
        for start in range(0, len(self.candidates), BATCH):
            self.scored(self.study, self.candidates[start : start + BATCH])
        values = {p.plan: plan_expected(self.study, p) for p in self.known.values() if p.feasible}
        best = (min if self.minimized else max)(values, key=lambda plan: values[plan])
        return {
            "candidates": len(self.candidates),
            "feasible": len(values),
            "plan": best,
            "value": values[best],
            "within_1_percent": sum(self.gap(v, values[best]) <= GOOD_FRAC for v in values.values()),
            "command": COMMAND,
        }

    def still(self, optimum: dict[str, Any]) -> bool:
        """Whether the space is as large as it was, and the stored plan worth what it was."""
        found = [c for c in self.candidates if plan_key(c) == optimum["plan"]]
        if not found or len(self.candidates) != optimum["candidates"]:
            return False
        return abs(self.gap(plan_expected(self.study, self.scored(self.study, found)[0]), optimum["value"])) < 1e-9

    @property
    def minimized(self) -> bool:
        """Whether less is better."""
        return self.study.objective.direction == "minimize"

    def gap(self, value: float, best: float) -> float:
        """How far from the optimum, as a share of it; negative is better than it."""
        return value / best - 1.0 if self.minimized else 1.0 - value / best


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One seed."""

    gap_frac: float
    """Infinite where nothing feasible was found."""
    reached_after: int | None
    """Evaluations until 1 % from the optimum."""
    seconds: float


def run(space: Space, sampler: str, seed: int, best: float, *, budget: int) -> Run:
    """Sample a space once."""
    search = replace(space.study.search, sampler=sampler, seed=seed)
    study = replace(space.study, search=search)
    start, count, gap, reached = time.process_time(), 0, float("inf"), None
    for batch in sample(study, space.candidates, [], budget=budget, scorer=space.scored):
        for plan in batch:
            count += 1
            if plan.feasible:
                gap = min(gap, space.gap(plan_expected(study, plan), best))
            if reached is None and gap <= GOOD_FRAC:
                reached = count
    if count > budget:
        raise RuntimeError(f"evaluations must be at most {budget}, got {count}")
    return Run(gap_frac=gap, reached_after=reached, seconds=time.process_time() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brute", action="store_true", help="find the optima again, and keep them")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--space", choices=list(SPACES), action="append")
    options = parser.parse_args()
    known = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    print(f"{'space':<36} {'plans':>7} {'good':>5} {'sampler':<8} {'evals':>6} {'share':>6} "
          f"{'median gap':>10} {'worst':>7} {'within 1 %':>11} {'median evals':>12} {'CPU s':>6}")  # fmt: skip
    for name in options.space or SPACES:
        space = Space(name)
        if options.brute:
            known[name] = space.optimum()
            DATA.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        optimum = known[name]
        if not space.still(optimum):
            print(f"{name}: the kept optimum is of another space or cost model and is found again ({COMMAND} keeps it)")
            optimum = space.optimum()
        budget = int(SHARE * len(space.candidates))
        for sampler in ("tpe", "random"):
            runs = [run(space, sampler, seed, optimum["value"], budget=budget) for seed in range(options.seeds)]
            gaps = [r.gap_frac for r in runs]
            if min(gaps) < -1e-9:
                raise SystemExit(f"{name}: a plan better than the stored optimum was found; run {COMMAND}")
            reached = [r.reached_after or budget + 1 for r in runs]
            good, needed = sum(g <= GOOD_FRAC for g in gaps), int(np.median(reached))
            print(
                f"{name:<36} {len(space.candidates):>7,} {optimum['within_1_percent']:>5} {sampler:<8} {budget:>6} "
                f"{budget / len(space.candidates):>6.2%} {np.median(gaps):>10.2%} {max(gaps):>7.1%} "
                f"{good:>5} of {len(runs):>2} {needed if needed <= budget else f'> {budget}':>12} "
                f"{np.median([r.seconds for r in runs]):>6.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
