"""Rules for pairs of pools: layouts between which an engine hands a prompt's cache over.

A rule also says what a pool can be joined with as columns that can be compared: a pool that is no less in all of them
can be joined with whatever the other can, which is what lets a search leave points out by proof.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autotune.engines.layout_rules import Bools, Ints, Rule, Violation, kv_head_counts
from costmodel.arch import Arch
from costmodel.arch.attention import GroupedQuery, Latent
from costmodel.arch.recurrent import Recurrent, StateSpace
from costmodel.plan.layout import Layout

ANY_DEGREE = 2**40
"""Above every degree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Degrees:
    """What rules for pairs look at, of layouts in any shape."""

    attn_tp: Ints
    pp: Ints

    @classmethod
    def of(cls, layouts: Sequence[Layout]) -> Degrees:
        """Those of some layouts, shape `(layouts,)`."""
        return cls(attn_tp=np.array([x.attn_tp for x in layouts]), pp=np.array([x.pp for x in layouts]))

    def at(self, index: Ints | tuple[slice | None, ...]) -> Degrees:
        """Those at an index, as arrays take one."""
        return Degrees(attn_tp=self.attn_tp[index], pp=self.pp[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRule(ABC):
    """What one connector of an engine asks of a prefill pool and the decode pool beside it."""

    name: str
    text: str
    source: str
    """Where it was read."""

    @abstractmethod
    def broken(self, arch: Arch, prefill: Degrees, decode: Degrees) -> Bools:
        """Whether pools of these degrees, which broadcast, cannot be joined."""

    @abstractmethod
    def reach(self, arch: Arch, own: Degrees, *, prefill: bool) -> tuple[Ints, ...]:
        """Columns in which a pool of a role that is nowhere less can be joined with no fewer of the other role's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TpInterval(PairRule):
    """The decode pool's attention TP must lie in an interval that follows from the prefill pool's."""

    least: Callable[[Arch, Ints], Ints]
    """Least degree of a decode pool for each degree of a prefill pool."""
    most: Callable[[Arch, Ints], Ints]
    """The same, most."""

    def broken(self, arch: Arch, prefill: Degrees, decode: Degrees) -> Bools:
        """As of every rule."""
        least, most = self.least(arch, prefill.attn_tp), self.most(arch, prefill.attn_tp)
        return np.asarray((decode.attn_tp < least) | (decode.attn_tp > most))

    def reach(self, arch: Arch, own: Degrees, *, prefill: bool) -> tuple[Ints, ...]:
        """Wider intervals of a prefill pool; for a decode pool the side on which they end anywhere."""
        tp = own.attn_tp
        if prefill:
            return -self.least(arch, tp), self.most(arch, tp)
        bounded_below = self.least(arch, np.array([ANY_DEGREE]))[0] > 1
        bounded_above = self.most(arch, np.ones(1, dtype=np.int64))[0] < ANY_DEGREE
        return (tp,) * bool(bounded_below) + (-tp,) * bool(bounded_above)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillStages(PairRule):
    """A decode pool has one stage, or those of the prefill pool."""

    def broken(self, arch: Arch, prefill: Degrees, decode: Degrees) -> Bools:
        """As of every rule."""
        return np.asarray((decode.pp > 1) & (decode.pp != prefill.pp))

    def reach(self, arch: Arch, own: Degrees, *, prefill: bool) -> tuple[Ints, ...]:
        """Of several stages only what has the same; of one a prefill pool reaches least, a decode pool all."""
        return _same_or(-ANY_DEGREE if prefill else ANY_DEGREE, own.pp, own.pp == 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedTp(PairRule):
    """A prefill pool with stages hands caches of KV heads only to ranks of its own attention TP."""

    def broken(self, arch: Arch, prefill: Degrees, decode: Degrees) -> Bools:
        """As of every rule."""
        return np.asarray((prefill.pp > 1) & (prefill.attn_tp != decode.attn_tp) & (not _all_latent(arch)))

    def reach(self, arch: Arch, own: Degrees, *, prefill: bool) -> tuple[Ints, ...]:
        """Of one stage a prefill pool reaches all; otherwise only what has the same degree."""
        if _all_latent(arch):
            return ()
        return _same_or(ANY_DEGREE, own.attn_tp, (own.pp == 1) & prefill)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipleTp(PairRule):
    """The larger attention TP of the two pools is a multiple of the smaller."""

    def broken(self, arch: Arch, prefill: Degrees, decode: Degrees) -> Bools:
        """As of every rule."""
        least = np.minimum(prefill.attn_tp, decode.attn_tp)
        return np.asarray(np.maximum(prefill.attn_tp, decode.attn_tp) % least > 0)

    def reach(self, arch: Arch, own: Degrees, *, prefill: bool) -> tuple[Ints, ...]:
        """Powers of two reach each other; otherwise a degree of 1 reaches all, and any other what its own does."""
        if all(int(a.heads) & (int(a.heads) - 1) == 0 for a in arch.attentions):
            return ()
        return _same_or(ANY_DEGREE, own.attn_tp, own.attn_tp == 1)


def _same_or(otherwise: int, degree: Ints, apart: Bools) -> tuple[Ints, ...]:
    """Columns in which only equal degrees are alike, and `otherwise` where a pool stands apart."""
    return np.where(apart, otherwise, degree), np.where(apart, otherwise, -degree)


def _all_latent(arch: Arch) -> bool:
    return all(isinstance(a, Latent) for a in arch.attentions)


def _has_states(arch: Arch) -> bool:
    return any(isinstance(a, Recurrent | StateSpace) for a in arch.attentions)


def _copied_heads(arch: Arch, prefill_tp: Ints) -> Ints:
    """The prefill pool's degree where it keeps copies of KV heads, else 1."""
    if not all(isinstance(a, GroupedQuery) for a in arch.attentions):
        return np.ones_like(prefill_tp)
    return np.where(prefill_tp > min(kv_head_counts(arch)), prefill_tp, 1)


def _unbounded(_: Arch, prefill_tp: Ints) -> Ints:
    return np.full_like(prefill_tp, ANY_DEGREE)


NIXL_ONE_STAGE = Rule(
    name="pool_stages",
    text="vLLM's NixlConnector hands caches over between servers of one pipeline stage: pp of each pool must be 1",
    fields=("pp",),
    broken=lambda _, c: c.pp > 1,
)
"""0.33, nixl/base_worker.py: a consumer with stages is refused, a producer's caches are read as if of one stage.
`NixlPushConnector` takes those of several, by a front that asks both pools at once, which Dynamo's does not."""
SGLANG_WHOLE_PROMPTS = Rule(
    name="decode_prompt_ranks",
    text="SGLang's decode pool takes caches in without context parallelism of prompts: attn_cp must be 1",
    fields=("attn_cp",),
    broken=lambda _, c: c.attn_cp > 1,
)
"""0.5.23, srt/disaggregation/common/conn.py."""
NIXL_KV_HEAD_COPIES = TpInterval(
    name="nixl_kv_head_copies",
    text="vLLM's NIXL connector hands copied KV heads to no fewer ranks: where the prefill pool's attn_tp is above "
    "num_key_value_heads, the decode pool's must be at least as large",
    source="vLLM 0.25 and 0.26, distributed/kv_transfer/kv_connector/v1/nixl/base_worker.py",
    least=_copied_heads,
    most=_unbounded,
)
NIXL_EQUAL_STATES = TpInterval(
    name="nixl_equal_states",
    text="vLLM's NIXL connector hands recurrent states over between equal ranks alone: both pools' attn_tp must be the "
    "same",
    source="vLLM, docs/features/nixl_connector_compatibility.md",
    least=lambda arch, tp: tp if _has_states(arch) else np.ones_like(tp),
    most=lambda arch, tp: tp if _has_states(arch) else np.full_like(tp, ANY_DEGREE),
)
MOONCAKE_MULTIPLE_TP = MultipleTp(
    name="mooncake_multiple_tp",
    text="vLLM's MooncakeConnector maps ranks of one pool to those of the other by whole multiples: the larger attn_tp "
    "of both must be a multiple of the smaller",
    source="vLLM 0.24.0, 0.29.0 and 0.33.0, distributed/kv_transfer/kv_connector/v1/mooncake/mooncake_connector.py",
)


SGLANG_PREFILL_STAGES = PrefillStages(
    name="prefill_stages",
    text="SGLang's decode pool must have one stage or as many as the prefill pool",
    source="SGLang 0.5.23, srt/disaggregation/common/conn.py",
)
SGLANG_STAGED_TP = StagedTp(
    name="staged_attention_tp",
    text="SGLang has no buffer for unequal attention TP with NIXL where prompts run through stages: pp of the prefill "
    "pool must be 1, or attn_tp of both the same",
    source="SGLang 0.5.23, srt/disaggregation/prefill.py",
)
SGLANG_MULTIPLE_TP = MultipleTp(
    name="multiple_attention_tp",
    text="SGLang maps ranks of one pool to those of the other by whole multiples: the larger attn_tp of both must "
    "be a multiple of the smaller",
    source="SGLang 0.5.23, srt/disaggregation/common/conn.py",
)
VLLM_CONNECTORS: dict[str, tuple[PairRule, ...]] = {
    "NixlConnector": (NIXL_KV_HEAD_COPIES, NIXL_EQUAL_STATES),
    "MooncakeConnector": (MOONCAKE_MULTIPLE_TP,),
}
SGLANG_CONNECTORS: dict[str, tuple[PairRule, ...]] = {
    "nixl": (SGLANG_PREFILL_STAGES, SGLANG_STAGED_TP, SGLANG_MULTIPLE_TP),
    "mooncake": (SGLANG_PREFILL_STAGES, SGLANG_MULTIPLE_TP),  # whose buffer knows prompts that run through stages
}


def pair_violations(rules: tuple[PairRule, ...], arch: Arch, prefill: Layout, decode: Layout) -> tuple[Violation, ...]:
    """Every rule that a pair of pools breaks, with its source."""
    first, second = Degrees.of([prefill]), Degrees.of([decode])
    values = ", ".join(f"{role} TP{x.attn_tp} PP{x.pp}" for role, x in (("prefill", prefill), ("decode", decode)))
    return tuple(
        Violation(rule=rule.name, message=f"{rule.text} ({values}; source: {rule.source})")
        for rule in rules
        if rule.broken(arch, first, second)[0]
    )
