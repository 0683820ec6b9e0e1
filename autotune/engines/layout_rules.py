"""Rules for layouts that engines share: what makes a layout one that the engine can be launched with.

Each rule says of columns of candidates which ones break it, so that explaining one plan and counting a million
candidates read the same lines. An engine lists the rules that are its own in `Engine.rules`, and nothing is a rule of
an engine that does not list it; a candidate is counted under the first rule of that list that it breaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from costmodel.arch import Arch, AttentionKind, FfnKind

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

BLOCKS = {"nvfp4": 16, "mxfp8": 32}
"""Elements that share a weight scale; a shard must hold whole ones (fp8_block: the checkpoint's own size).
MXFP4 experts are padded per shard by every engine measured: gpt-oss (2,880 wide) runs at moe_tp 8 in published runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Candidate layouts as columns of shape `(num_candidates,)`."""

    replicas: Ints
    pp: Ints
    attn_tp: Ints
    attn_dp: Ints
    attn_cp: Ints
    moe_tp: Ints
    moe_ep: Ints
    dcp: Ints
    redundant_experts: Ints

    @property
    def width(self) -> Ints:
        """GPUs of one stage."""
        return self.attn_tp * self.attn_dp * self.attn_cp


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One condition that a layout must hold."""

    name: str
    """Engines that have the same rule, or each their own form of it, call it the same."""
    text: str
    """The condition in words, completed by the values; the same under one name."""
    fields: tuple[str, ...]
    """Columns whose values are shown, and fields of the architecture."""
    broken: Callable[[Arch, Candidates], Bools]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One rule that a layout breaks."""

    rule: str
    message: str


def scale_block(arch: Arch, dtype: str) -> int:
    """Elements of a matrix of this storage dtype that share a scale; 1 where none do."""
    return arch.quant_block if dtype == "fp8_block" else BLOCKS.get(dtype, 1)


def cuts_badly(size: int, shards: Ints, block: int) -> Bools:
    """Whether a matrix of `size` rows cannot be cut into `shards` of whole blocks."""
    return np.asarray((size % shards != 0) | ((size // shards) % max(block, 1) != 0))


def nowhere(c: Candidates) -> Bools:
    """False for every candidate."""
    return np.zeros(c.pp.shape, dtype=bool)


def _kv_heads(arch: Arch, c: Candidates) -> Bools:
    if AttentionKind.MLA in arch.attention_kinds:
        return nowhere(c)
    kv = arch.num_key_value_heads
    return np.where(c.attn_tp <= kv, kv % c.attn_tp != 0, c.attn_tp % kv != 0)


def _linear_heads(arch: Arch, c: Candidates) -> Bools:
    if AttentionKind.LINEAR not in arch.attention_kinds:
        return nowhere(c)
    return np.asarray((arch.linear_num_key_heads % c.attn_tp != 0) | (arch.linear_num_value_heads % c.attn_tp != 0))


def _uneven_experts(arch: Arch, c: Candidates) -> Bools:
    return (arch.num_experts + c.redundant_experts) % c.moe_ep != 0 if arch.is_moe else nowhere(c)


def _expert_blocks(arch: Arch, c: Candidates) -> Bools:
    if not arch.is_moe:
        return nowhere(c)
    block = scale_block(arch, arch.dtypes.experts)
    size = -(-arch.moe_intermediate_size // block) * block  # engines pad a last short block
    return (c.moe_tp > 1) & cuts_badly(size, c.moe_tp, block)


def _dense_shards(arch: Arch, c: Candidates) -> Bools:
    if FfnKind.DENSE not in arch.ffn_kinds:
        return nowhere(c)
    return cuts_badly(arch.intermediate_size, c.attn_tp, scale_block(arch, arch.dtypes.dense_ffn))


def dense_shards_whole(arch: Arch, shards: int) -> bool:
    """Whether dense feed-forward layers can be cut into so many shards of whole scale blocks; true without any."""
    if FfnKind.DENSE not in arch.ffn_kinds:
        return True
    return not bool(cuts_badly(arch.intermediate_size, np.array([shards]), scale_block(arch, arch.dtypes.dense_ffn))[0])


STAGES_HAVE_LAYERS = Rule(
    name="pp_exceeds_layers",
    text="`pp` must be at most num_hidden_layers",
    fields=("pp", "num_hidden_layers"),
    broken=lambda arch, c: c.pp > arch.num_hidden_layers,
)
DENSE_HAS_NO_EXPERTS = Rule(
    name="dense_has_no_experts",
    text="a dense model has no experts, and its data parallelism is replicas: attn_dp, moe_tp, moe_ep must be 1",
    fields=("attn_dp", "moe_tp", "moe_ep"),
    broken=lambda arch, c: nowhere(c) if arch.is_moe else (c.attn_dp > 1) | (c.moe_ep > 1) | (c.moe_tp > 1),
)
ATTENTION_HEADS = Rule(
    name="attention_heads",
    text="`attn_tp` must divide num_attention_heads",
    fields=("attn_tp", "num_attention_heads"),
    broken=lambda arch, c: np.asarray(arch.num_attention_heads % c.attn_tp != 0),
)
KV_HEADS = Rule(
    name="kv_heads",
    text="`attn_tp` must divide num_key_value_heads, or be a multiple of it (heads are then replicated)",
    fields=("attn_tp", "num_key_value_heads"),
    broken=_kv_heads,
)
LINEAR_ATTENTION_HEADS = Rule(
    name="linear_attention_heads",
    text="`attn_tp` must divide the heads of linear attention",
    fields=("attn_tp", "linear_num_key_heads", "linear_num_value_heads"),
    broken=_linear_heads,
)
ENOUGH_EXPERTS = Rule(
    name="more_ranks_than_experts",
    text="`moe_ep` must be at most the number of experts, redundant ones included",
    fields=("moe_ep", "num_experts", "redundant_experts"),
    broken=lambda arch, c: c.moe_ep > arch.num_experts + c.redundant_experts if arch.is_moe else nowhere(c),
)
EXPERTS_DIVISIBLE = Rule(
    name="experts_divisible",
    text="`moe_ep` must divide the number of experts, redundant ones included",
    fields=("moe_ep", "num_experts", "redundant_experts"),
    broken=_uneven_experts,
)
REDUNDANT_EXPERTS_DIVISIBLE = replace(
    EXPERTS_DIVISIBLE, broken=lambda arch, c: _uneven_experts(arch, c) & (c.redundant_experts > 0)
)
"""Of engines that spread experts unevenly unless their load balancer keeps redundant ones."""
REDUNDANT_EXPERTS_NEED_EP = Rule(
    name="redundant_experts_need_ep",
    text="redundant experts need moe_ep > 1",
    fields=("redundant_experts", "moe_ep"),
    broken=lambda _, c: (c.redundant_experts > 0) & (c.moe_ep == 1),
)
EXPERT_SHARDS = Rule(
    name="moe_intermediate_divisible",
    text="`moe_tp` must divide moe_intermediate_size",
    fields=("moe_tp", "moe_intermediate_size"),
    broken=lambda arch, c: np.asarray(arch.moe_intermediate_size % c.moe_tp != 0) if arch.is_moe else nowhere(c),
)
EXPERT_BLOCKS = Rule(
    name="expert_quant_blocks",
    text="an expert's shard must hold whole scale blocks of its quantisation",
    fields=("moe_tp", "moe_intermediate_size", "quant_block"),
    broken=_expert_blocks,
)
DENSE_SHARDS = Rule(
    name="dense_ffn_shards",
    text="a dense layer's shard must be whole, in whole scale blocks: attn_tp against intermediate_size",
    fields=("attn_tp", "intermediate_size", "quant_block"),
    broken=_dense_shards,
)
DENSE_MODEL_SHARDS = replace(DENSE_SHARDS, broken=lambda arch, c: nowhere(c) if arch.is_moe else _dense_shards(arch, c))
"""Of engines that can keep the dense layers of a mixture of experts whole on every rank."""


def decode_context_parallel(broken: Callable[[Arch, Candidates], Bools]) -> Rule:
    """The rule for decode context parallelism, with what breaks it in an engine."""
    return Rule(
        name="decode_context_parallel",
        text="`dcp` must divide attn_tp, with GQA be at most attn_tp / num_key_value_heads; 1 where there is none",
        fields=("dcp", "attn_tp", "num_key_value_heads"),
        broken=broken,
    )


NO_DECODE_CONTEXT_PARALLEL = decode_context_parallel(lambda _, c: c.dcp > 1)


def explain(rule: Rule, arch: Arch, candidates: Candidates, index: int) -> Violation:
    """The rule with the values of one candidate."""
    values = []
    for name in rule.fields:
        value = getattr(candidates, name)[index] if hasattr(candidates, name) else getattr(arch, name)
        values.append(f"{name}={int(value)}")
    return Violation(rule=rule.name, message=f"{rule.text}, got {', '.join(values)}")
