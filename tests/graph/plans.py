"""Studies and plans to draw, at random but the same each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from autotune.space import enumerate_space, format_plan
from autotune.study import Study, load_study

STUDIES = Path(__file__).resolve().parents[2] / "studies"
REFERENCE, DEEPSEEK, QWEN, LLAMA = (
    str(STUDIES / f"{name}.toml")
    for name in ("reference-128", "deepseek-v3-128xh200", "qwen3-235b-64xh100", "llama-70b-16xh100")
)
MODELS = {
    "reference": (REFERENCE, ()),
    "llama-70b": (QWEN, ("model=llama-3.1-70b",)),
    "deepseek-v3": (DEEPSEEK, ()),
    "gpt-oss-120b": (QWEN, ("model=gpt-oss-120b",)),
    "qwen3-235b": (QWEN, ()),
    "qwen3.5-397b": (DEEPSEEK, ("model=qwen3.5-397b",)),
}
"""Dense, MLA, window and linear attention, with and without shared experts."""


@lru_cache(maxsize=256)
def study(file: str, *overrides: str) -> Study:
    """A shipped study with some fields changed."""
    return load_study(Path(file), overrides)


def random_plans(seed: int, count: int) -> Iterator[tuple[Study, str, str]]:
    """Study, plan string and phase: models, engines, GPUs, lengths, loads and budgets of every kind."""
    rng = random.Random(seed)  # noqa: S311  # the same plans each time, not secrets
    for i in range(count):
        file, about = MODELS[list(MODELS)[i % len(MODELS)]]
        gpus, isl = rng.choice([4, 6, 8, 12]), rng.choice([16, 500, 3000, 6000])
        changes = [f"cluster.gpus={gpus}", "engine=any", f"workload.isl={isl}", f"workload.longest_prompt={isl}"]
        changes.append(f"search.max_num_batched_tokens=[{rng.choice([1024, 4096, 16384])}]")
        changes.append(f"workload.concurrency={rng.choice([1, 3, 64, 1000])}")
        asked = study(file, *about, *changes)
        valid = enumerate_space(asked.arch, gpus=gpus, engine="any").candidates
        # half of them with attention-DP, where the model has plans with it
        candidate = rng.choice([c for c in valid if rng.random() < 0.5 or c.layout.attn_dp > 1] or valid)
        yield asked, format_plan(candidate.layout, candidate.engine), ("prefill", "decode")[i // len(MODELS) % 2]
