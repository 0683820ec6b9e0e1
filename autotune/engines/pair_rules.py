"""Rules for pairs of pools: attention TP degrees between which an engine hands a prompt's cache over.

A rule is an interval of the decode pool's degree that follows from the prefill pool's. A prefill pool whose interval
holds another's can thus be joined with whatever the other can, which is what lets a search leave points out by proof.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autotune.engines.layout_rules import Bools, Ints, Violation, kv_head_counts
from costmodel.arch import Arch
from costmodel.arch.attention import GroupedQuery, Recurrent, StateSpace

ANY_DEGREE = 2**40
"""Above every degree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRule:
    """What one connector of an engine asks of the two pools' attention TP."""

    name: str
    text: str
    source: str
    """Where it was read."""
    least: Callable[[Arch, Ints], Ints]
    """Least degree of a decode pool for each degree of a prefill pool."""
    most: Callable[[Arch, Ints], Ints]
    """The same, most."""

    def broken(self, arch: Arch, prefill_tp: Ints, decode_tp: Ints) -> Bools:
        """Whether pools of these degrees, which broadcast, cannot be joined."""
        return np.asarray((decode_tp < self.least(arch, prefill_tp)) | (decode_tp > self.most(arch, prefill_tp)))


def _has_states(arch: Arch) -> bool:
    return any(isinstance(a, Recurrent | StateSpace) for a in arch.attentions)


def _copied_heads(arch: Arch, prefill_tp: Ints) -> Ints:
    """The prefill pool's degree where it keeps copies of KV heads, else 1."""
    if not all(isinstance(a, GroupedQuery) for a in arch.attentions):
        return np.ones_like(prefill_tp)
    return np.where(prefill_tp > min(kv_head_counts(arch)), prefill_tp, 1)


def _unbounded(_: Arch, prefill_tp: Ints) -> Ints:
    return np.full_like(prefill_tp, ANY_DEGREE)


NIXL_KV_HEAD_COPIES = PairRule(
    name="nixl_kv_head_copies",
    text="vLLM's NIXL connector hands copied KV heads to no fewer ranks: where the prefill pool's attn_tp is above "
    "num_key_value_heads, the decode pool's must be at least as large",
    source="vLLM 0.25 and 0.26, distributed/kv_transfer/kv_connector/v1/nixl/base_worker.py",
    least=_copied_heads,
    most=_unbounded,
)
NIXL_EQUAL_STATES = PairRule(
    name="nixl_equal_states",
    text="vLLM's NIXL connector hands recurrent states over between equal ranks alone: both pools' attn_tp must be the "
    "same",
    source="vLLM, docs/features/nixl_connector_compatibility.md",
    least=lambda arch, tp: tp if _has_states(arch) else np.ones_like(tp),
    most=lambda arch, tp: tp if _has_states(arch) else np.full_like(tp, ANY_DEGREE),
)


def pair_violations(rules: tuple[PairRule, ...], arch: Arch, prefill_tp: int, decode_tp: int) -> tuple[Violation, ...]:
    """Every rule that a pair of pools breaks, with its source."""
    first, second = np.array([prefill_tp]), np.array([decode_tp])
    return tuple(
        Violation(
            rule=rule.name, message=f"{rule.text} (prefill {prefill_tp}, decode {decode_tp}; source: {rule.source})"
        )
        for rule in rules
        if rule.broken(arch, first, second)[0]
    )
