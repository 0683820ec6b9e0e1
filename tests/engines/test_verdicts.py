"""What the engines' own classes built, held against our rules: `verdicts`, written by `make engines-build`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.space import enumerate_space
from costmodel.arch import load_model

SIZES = (16, 32, 64, 128)
VERDICTS: dict[tuple[str, str], dict[str, Any]] = {
    (path.name.partition("-")[0], path.stem.partition("-")[2]): tomllib.loads(path.read_text(encoding="utf-8"))
    for path in sorted(Path(__file__).with_name("verdicts").glob("*.toml"))
}
"""Engine and version -> model -> stage -> numbers of stages with which it starts, or a refusal."""
CASES = [(*of, model) for of, told in VERDICTS.items() for model, by in told.items() if isinstance(by, dict)]


def started(by: dict[str, list[int] | str], gpus: int) -> Iterator[tuple[int, ...]]:
    """Every layout of so many GPUs that the engine started: stages, attention TP and DP, expert TP and EP."""
    for stage, starts in by.items():
        attention, experts = (tuple(map(int, side.split("x"))) for side in stage.split())
        for pp in starts if isinstance(starts, list) else ():
            if gpus % (pp * attention[0] * attention[1]) == 0:
                yield (pp, *attention, *experts)


@pytest.mark.parametrize(("engine", "version", "model"), CASES)
def test_valid_is_what_the_engine_builds(engine: str, version: str, model: str) -> None:
    """By our rules exactly the layouts are valid that the engine started, on clusters of four sizes."""
    arch, by = load_model(model), VERDICTS[engine, version][model]
    for gpus in SIZES:
        valid = {
            (c.layout.pp, c.layout.attn_tp, c.layout.attn_dp, c.layout.moe_tp, c.layout.moe_ep)
            for c in enumerate_space(arch, gpus=gpus, engine=engine, version=version).candidates
        }
        theirs = set(started(by, gpus))
        assert valid - theirs == set()
        assert theirs - valid == set()


def test_the_engines_refused_some_and_built_some() -> None:
    """A file in which nothing was refused, or nothing built, would hold no rule to anything."""
    for engine, version, model in CASES:
        by = VERDICTS[engine, version][model]
        assert any(isinstance(said, str) for said in by.values()), (engine, model)
        assert len(set(started(by, 64))) > 20
