"""Plan strings of disaggregated plans: `vllm:P32:EP32/ATP1/ADP32+D96:EP96/ATP1/ADP96`.

`P` and `D` carry the GPUs of the pool, and `@name` the GPU type where it is not the cluster's. What follows the colon
is a plan string as elsewhere. In short strings the GPUs may be left out: of one pool where the other one's are
given, of both where the numbers in the strings say how many they use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from autotune.engines import split_name
from autotune.space import PlanSpec, format_plan, parse_plan
from autotune.space.pool_plan import Pools
from costmodel.errors import InputError
from costmodel.plan.layout import Layout

_POOLED = re.compile(
    r"^\s*p\s*(?P<pn>\d{1,7})?(?:@(?P<pgpu>[\w.-]{1,60}))?\s*:(?P<p>[^+:]+)\+\s*"
    r"d\s*(?P<dn>\d{1,7})?(?:@(?P<dgpu>[\w.-]{1,60}))?\s*:(?P<d>[^+:]+)$",
    re.IGNORECASE,
)
_SHAPE = re.compile(r"^\s*p\s*\d*(?:@[\w.-]+)?\s*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """One side of a disaggregated plan string."""

    gpus: int | None
    gpu: str | None
    plan: PlanSpec

    @property
    def named_gpus(self) -> int:
        """GPUs that the string's own numbers multiply to."""
        s = self.plan
        tp, dp = s.attn_tp or s.tp or 1, s.attn_dp or s.dp or 1
        width = max(tp * dp * (s.attn_cp or 1), (s.ep or 1) * (s.moe_tp or 1))
        stages = s.pp or (len(s.stage_layers) if s.stage_layers else 1)
        return (s.replicas or 1) * stages * width


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledSpec:
    """What a disaggregated plan string says."""

    text: str
    engine: str | None
    prefill: PoolSpec
    decode: PoolSpec


def is_pooled(text: str) -> bool:
    """Whether a plan string begins as a disaggregated one does."""
    return _SHAPE.match(split_name(text)[1]) is not None


def parse_pooled(text: str) -> PooledSpec:
    """Read a disaggregated plan string.

    Raises:
        InputError: not of the form `P32:PLAN+D96:PLAN`, or a side that cannot be read.
    """
    engine, body = split_name(text)
    found = _POOLED.match(body[:4000])
    if found is None:
        raise InputError.single("plan", f"must read P32:PLAN+D96:PLAN, as in P32:EP32+D96:EP96, got {text[:200]!r}")
    sides = {}
    for side in "pd":
        count = found[f"{side}n"]
        if count is not None and int(count) < 1:
            raise InputError.single("plan", f"a pool must have at least 1 GPU, got {side.upper()}{count}")
        sides[side] = PoolSpec(
            gpus=None if count is None else int(count), gpu=found[f"{side}gpu"], plan=parse_plan(found[side])
        )
    return PooledSpec(text=text, engine=engine, prefill=sides["p"], decode=sides["d"])


def format_pooled(engine: str, prefill: tuple[str | None, Layout], decode: tuple[str | None, Layout]) -> str:
    """The full string of two pools (GPU type where it is not the cluster's, layout), which means just them."""
    sides = [
        f"{letter}{layout.gpus}{'' if gpu is None else f'@{gpu}'}:{format_plan(layout, engine).partition(':')[2]}"
        for letter, (gpu, layout) in zip("PD", (prefill, decode), strict=True)
    ]
    return f"{engine}:{'+'.join(sides)}"


def short_pooled(full: str, pools: Pools, short: tuple[str, str]) -> str:
    """What fits a table: `P32:DP32 EP32 + D96:R3 DP32 EP32`; `short` are the two layouts' own short strings.

    GPU types are left out where the full string has none: there both pools are of the cluster's own.
    """
    sides = zip("PD", (pools.prefill, pools.decode), short, strict=True)
    return " + ".join(f"{role}{p.gpus}{f'@{p.gpu}' if '@' in full else ''}:{own}" for role, p, own in sides)
