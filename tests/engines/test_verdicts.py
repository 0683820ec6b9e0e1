"""What the engines' own classes built, held against our rules: `verdicts`, written by `make engines-build`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.space import enumerate_space
from costmodel.arch import load_model
from tests.launch.helpers import expressible, plans, service

WHOLE = "SGLANG_SHARED_EXPERT_TP1"
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
        if not isinstance(starts, list | str):  # what stages need
            continue
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


@pytest.mark.parametrize(
    ("engine", "version", "model"), [case for case in CASES if "needs" in VERDICTS[case[:2]][case[2]]]
)
def test_the_launch_gives_what_a_stage_needs(engine: str, version: str, model: str) -> None:
    """Options and variables that keep layers whole are written exactly where a stage was built only with them."""
    arch, by = load_model(model), VERDICTS[engine, version][model]
    seen = 0
    for gpus in (16, 64):
        for candidate in plans(model, engine, gpus):
            layout = candidate.layout
            if layout.width != gpus:
                continue
            needs = by["needs"].get(f"{layout.attn_tp}x{layout.attn_dp} {layout.moe_tp}x{layout.moe_ep}", [])
            plan = expressible(service(candidate, arch))
            if plan is None:
                continue
            head = plan.processes[0]
            words = " ".join(a for a in head.argv if isinstance(a, str))
            assert ("--moe-dense-tp-size 1" in words) is ("--moe-dense-tp-size 1" in needs), candidate
            assert (head.env.get(WHOLE) == "1") is (f"{WHOLE}=1" in needs), candidate
            seen += 1
    assert seen > 20
