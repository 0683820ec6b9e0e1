"""Rules for layouts that engines share: what makes a layout one that the engine can be launched with.

Each rule says of columns of candidates which ones break it, so that explaining one plan and counting a million
candidates read the same lines. An engine lists the rules that are its own in `Engine.rules`, and nothing is a rule of
an engine that does not list it; a candidate is counted under the first rule of that list that it breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.engines.integer_groups import cut_inputs, cuts_groups, grouped_inputs
from autotune.engines.model_classes import has
from costmodel.arch import Arch
from costmodel.arch.attention import GroupedQuery, Latent
from costmodel.arch.block import DENSE, SHARED, Size
from costmodel.arch.recurrent import Linear, Recurrent, StateSpace
from costmodel.dtypes import storage

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

LEAST_BLOCK = 32
"""Elements that a block of scales is refined to at least (vLLM, `refine_fp8_moe_block_shape`)."""


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
    two_batch_overlap: Ints
    engine: str
    """By which they would be launched; empty: not said yet."""
    version: str | None = None
    """Of the engine that would be launched; None: the newest whose rules are known."""

    @property
    def width(self) -> Ints:
        """GPUs of one stage."""
        return self.attn_tp * self.attn_dp * self.attn_cp

    def has(self, feature: str, arch: Arch) -> bool:
        """Whether the engine's class of a model has a feature, in this version."""
        return has(self.engine, feature, arch, self.version)


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


def scale_block(dtype: str) -> int:
    """Elements of a matrix of this storage dtype that share a scale and must lie on one rank; 1 where none must.

    MXFP4 experts are padded per shard by every engine measured: gpt-oss (2,880 wide) runs at moe_tp 8 in published
    runs. Integers in groups are cut along the input, which is `integer_groups`' to say.
    """
    stored = storage(dtype)
    return stored.group if stored.base in ("fp8_block", "nvfp4", "mxfp8") else 1


def cuts_badly(sizes: Iterable[Size], shards: Ints, block: int = 1) -> Bools:
    """Whether a matrix of any of these numbers of rows cannot be cut into `shards` of whole blocks."""
    out = np.zeros(shards.shape, dtype=bool)
    for size in {int(s) for s in sizes}:
        out |= (size % shards != 0) | ((size // shards) % max(block, 1) != 0)
    return out


def nowhere(c: Candidates) -> Bools:
    """False for every candidate."""
    return np.zeros(c.pp.shape, dtype=bool)


def kv_head_counts(arch: Arch) -> set[int]:
    """KV heads of the attention layers that have any; none where all of them keep a latent or a state."""
    return {int(a.kv_heads) for a in arch.attentions if isinstance(a, GroupedQuery)}


def _heads(arch: Arch, c: Candidates) -> Bools:
    return cuts_badly((a.heads for a in arch.attentions if not isinstance(a, Recurrent)), c.attn_tp)


def _kv_heads(arch: Arch, c: Candidates) -> Bools:
    out = nowhere(c)
    for kv in kv_head_counts(arch):
        out |= np.where(c.attn_tp <= kv, kv % c.attn_tp != 0, c.attn_tp % kv != 0)
    return out


def _linear_heads(arch: Arch, c: Candidates) -> Bools:
    linear = [a for a in arch.attentions if isinstance(a, Linear)]
    states = [a.heads for a in arch.attentions if isinstance(a, StateSpace)]
    return cuts_badly((*(a.key_heads for a in linear), *(a.heads for a in linear), *states), c.attn_tp)


def _uneven_experts(arch: Arch, c: Candidates) -> Bools:
    return (arch.num_experts + c.redundant_experts) % c.moe_ep != 0 if arch.is_moe else nowhere(c)


def _expert_blocks(arch: Arch, c: Candidates) -> Bools:
    block = scale_block(arch.dtypes.experts) if arch.is_moe else 1
    padded = [-(-int(e.width) // block) * block for e in arch.expert_shapes]  # engines pad a last short block
    return (c.moe_tp > 1) & cuts_badly(padded, c.moe_tp, block)


def _refined_expert_blocks(arch: Arch, c: Candidates) -> Bools:
    """As `_expert_blocks`; where the version refines blocks of FP8 that a shard cuts, to as few as 32 elements."""
    refines = c.has("refined_expert_blocks", arch)
    if not refines or not arch.is_moe or storage(arch.dtypes.experts).base != "fp8_block":
        return _expert_blocks(arch, c)
    out, block = nowhere(c), scale_block(arch.dtypes.experts)
    for width in {int(e.width) for e in arch.expert_shapes}:
        shard = np.maximum(-(-width // block) * block // c.moe_tp, 1)
        out |= (shard % block != 0) & (np.gcd(np.gcd(shard, block), arch.hidden_size) < LEAST_BLOCK)
    return (c.moe_tp > 1) & out


def _more_ranks_than_experts(arch: Arch, c: Candidates) -> Bools:
    ranks = {
        "attention_tp_within_experts": c.attn_tp,
        "stage_within_experts": c.width,
        "expert_tp_within_experts": c.moe_tp,
    }
    wanting = [own for feature, own in ranks.items() if arch.is_moe and c.has(feature, arch)]
    return np.any([own > arch.num_experts for own in wanting], axis=0) if wanting else nowhere(c)


def _attention_blocks(arch: Arch, c: Candidates) -> Bools:
    """Outputs of the projections that are cut by heads, and the output projection's input."""
    block, out = scale_block(arch.dtypes.attention), nowhere(c)
    if block == 1:
        return out
    for a in arch.attentions:
        if isinstance(a, Latent):
            sizes = [a.heads * (a.nope_dim + a.rope_dim), a.heads * (a.nope_dim + a.value_dim), a.heads * a.value_dim]
            out |= cuts_badly(sizes, c.attn_tp, block)
        elif isinstance(a, GroupedQuery):
            heads = np.maximum(int(a.kv_heads) // c.attn_tp, 1)
            out |= cuts_badly((a.heads * a.head_dim, a.heads * a.value_dim), c.attn_tp, block)
            out |= (heads * int(a.head_dim) % block != 0) | (heads * int(a.value_dim) % block != 0)
    return (c.attn_tp > 1) & out


def shared_experts_cut(arch: Arch, shards: Ints) -> Bools:
    """Whether shared experts cannot be cut into so many shards of whole scale blocks; never without any."""
    widths = (e.shared_width for e in arch.expert_shapes if e.shared_width)
    return cuts_badly(widths, shards, scale_block(arch.dtypes.shared_experts))


def _dense_shards(arch: Arch, c: Candidates) -> Bools:
    return cuts_badly((d.width for d in arch.dense_shapes), c.attn_tp, scale_block(arch.dtypes.dense_ffn))


def dense_shards_whole(arch: Arch, shards: int) -> bool:
    """Whether dense feed-forward layers can be cut into so many shards of whole scale blocks; true without any."""
    block = scale_block(arch.dtypes.dense_ffn)
    return not bool(cuts_badly((d.width for d in arch.dense_shapes), np.array([shards]), block)[0])


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
    broken=_heads,
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
    broken=lambda arch, c: cuts_badly((e.width for e in arch.expert_shapes), c.moe_tp),
)
EXPERT_BLOCKS = Rule(
    name="expert_quant_blocks",
    text="an expert's shard must hold whole scale blocks of its quantisation",
    fields=("moe_tp", "moe_intermediate_size", "quant_block"),
    broken=_expert_blocks,
)
ATTENTION_BLOCKS = Rule(
    name="attention_quant_blocks",
    text="a shard of attention's projections must hold whole scale blocks of their quantisation",
    fields=("attn_tp", "num_attention_heads", "attention_quant_block"),
    broken=_attention_blocks,
)
DENSE_SHARDS = Rule(
    name="dense_ffn_shards",
    text="a dense layer's shard must be whole, in whole scale blocks: attn_tp against intermediate_size",
    fields=("attn_tp", "intermediate_size", "quant_block"),
    broken=_dense_shards,
)
DENSE_MODEL_SHARDS = replace(DENSE_SHARDS, broken=lambda arch, c: nowhere(c) if arch.is_moe else _dense_shards(arch, c))
"""Of engines that can keep the dense layers of a mixture of experts whole on every rank."""


PIPELINE_MODEL_CLASS = Rule(
    name="pipeline_model_class",
    text="the engine's class of this model has no pipeline stages: pp must be 1",
    fields=("pp", "model_type"),
    broken=lambda arch, c: (c.pp > 1) & c.has("no_pipeline_stages", arch),
)
KV_HEAD_COPIES = Rule(
    name="kv_head_copies",
    text="the engine's class of this model copies no KV heads: attn_tp must be at most num_key_value_heads",
    fields=("attn_tp", "num_key_value_heads", "model_type"),
    broken=lambda arch, c: (
        (c.attn_tp > min(kv_head_counts(arch), default=1_000_000)) & c.has("no_kv_head_copies", arch)
    ),
)
ATTENTION_DP_CLASS = Rule(
    name="attention_dp_class",
    text="the engine's class of this model cuts attention over the whole stage: attn_dp must be 1",
    fields=("attn_dp", "model_type"),
    broken=lambda arch, c: (c.attn_dp > 1) & c.has("no_attention_dp", arch),
)
REDUNDANT_EXPERTS_CLASS = Rule(
    name="redundant_experts_class",
    text="the engine balances no experts of this model's class or dtype: redundant_experts must be 0",
    fields=("redundant_experts", "model_type"),
    broken=lambda arch, c: (c.redundant_experts > 0) & c.has("no_redundant_experts", arch),
)
RANKS_WITHIN_EXPERTS = Rule(
    name="tp_exceeds_experts",
    text="the engine's class of this model wants no more tensor-parallel ranks than experts",
    fields=("attn_tp", "width", "moe_tp", "num_experts", "model_type"),
    broken=_more_ranks_than_experts,
)
REFINED_EXPERT_BLOCKS = replace(EXPERT_BLOCKS, broken=_refined_expert_blocks)
"""Of engines that refine blocks of FP8 experts in their newer versions."""


def shared_expert_shards(broken: Callable[[Arch, Candidates], Bools]) -> Rule:
    """The rule for shards of shared experts, with what breaks it in an engine."""
    return Rule(
        name="shared_expert_shards",
        text="the shared experts' shard must be whole, in whole scale blocks: of attention TP, or where the engine "
        "cuts them over the stage, of its width",
        fields=("attn_tp", "width", "shared_intermediate_size", "quant_block"),
        broken=broken,
    )


INTEGER_GROUPS = Rule(
    name="integer_groups",
    text="a shard must hold whole groups of integer weights: inputs that attn_tp or moe_tp cut, in elements",
    fields=("attn_tp", "moe_tp", "cut_inputs", "quant_group"),
    broken=lambda arch, c: cuts_groups(arch, c.attn_tp, c.moe_tp),
)
EXPERT_MODEL_INTEGER_GROUPS = replace(
    INTEGER_GROUPS,
    broken=lambda arch, c: cuts_groups(arch, c.attn_tp, c.moe_tp, (DENSE, SHARED) if arch.is_moe else ()),
)
"""Of engines that can keep the dense layers and shared experts of a mixture of experts whole on every rank."""


def decode_context_parallel(broken: Callable[[Arch, Candidates], Bools]) -> Rule:
    """The rule for decode context parallelism, with what breaks it in an engine."""
    return Rule(
        name="decode_context_parallel",
        text="`dcp` must divide attn_tp, with GQA be at most attn_tp / num_key_value_heads; 1 where there is none",
        fields=("dcp", "attn_tp", "num_key_value_heads"),
        broken=broken,
    )


OVERLAP_NEEDS_EXCHANGE = Rule(
    name="two_batch_overlap_exchange",
    text="two-batch overlap hides an all-to-all between attention-DP ranks and whole experts: attn_dp and moe_ep must "
    "be above 1, moe_tp 1",
    fields=("two_batch_overlap", "attn_dp", "moe_tp", "moe_ep"),
    broken=lambda _, c: (c.two_batch_overlap > 0) & ((c.attn_dp == 1) | (c.moe_ep == 1) | (c.moe_tp > 1)),
)
"""vLLM, docs/design/dbo.md; SGLang, srt/arg_groups: with `--moe-a2a-backend none` it is refused."""
NO_TWO_BATCH_OVERLAP = Rule(
    name="two_batch_overlap_engine",
    text="the engine runs a step as one batch: two_batch_overlap must be 0",
    fields=("two_batch_overlap",),
    broken=lambda _, c: c.two_batch_overlap > 0,
)
TWO_BATCH_OVERLAP_CLASS = Rule(
    name="two_batch_overlap_class",
    text="the engine's class of this model runs a step as one batch: two_batch_overlap must be 0",
    fields=("two_batch_overlap", "model_type"),
    broken=lambda arch, c: (c.two_batch_overlap > 0) & (not c.has("two_batch_overlap", arch)),
)
TWO_BATCH_OVERLAP_STAGES = Rule(
    name="two_batch_overlap_stages",
    text="the engine's class of this model overlaps two batches in a model of one stage alone: pp must be 1",
    fields=("two_batch_overlap", "pp", "model_type"),
    broken=lambda arch, c: (c.two_batch_overlap > 0) & (c.pp > 1) & c.has("two_batch_overlap_in_one_stage", arch),
)
NO_DECODE_CONTEXT_PARALLEL = decode_context_parallel(lambda _, c: c.dcp > 1)


def explain(rule: Rule, arch: Arch, candidates: Candidates, index: int) -> Violation:
    """The rule with the values of one candidate."""
    values = []
    for name in rule.fields:
        if hasattr(candidates, name):
            shown = str(int(getattr(candidates, name)[index]))
        else:
            shown = "/".join(str(v) for v in sorted(_MODEL_VALUES[name](arch))) or "none"
        values.append(f"{name}={shown}")
    return Violation(rule=rule.name, message=f"{rule.text}, got {', '.join(values)}")


_MODEL_VALUES: dict[str, Callable[[Arch], set[Any]]] = {
    "model_type": lambda a: {a.model_type},
    "cut_inputs": cut_inputs,
    "quant_group": lambda a: {group for _, _, group in grouped_inputs(a)},
    "num_hidden_layers": lambda a: {a.num_hidden_layers},
    "num_attention_heads": lambda a: {int(x.heads) for x in a.attentions if not isinstance(x, Recurrent)},
    "num_key_value_heads": kv_head_counts,
    "linear_num_key_heads": lambda a: {int(x.key_heads) for x in a.attentions if isinstance(x, Linear)},
    "linear_num_value_heads": lambda a: {int(x.heads) for x in a.attentions if isinstance(x, Recurrent)},
    "num_experts": lambda a: {int(e.experts) for e in a.expert_shapes},
    "moe_intermediate_size": lambda a: {int(e.width) for e in a.expert_shapes},
    "shared_intermediate_size": lambda a: {int(e.shared_width) for e in a.expert_shapes},
    "intermediate_size": lambda a: {int(d.width) for d in a.dense_shapes},
    "attention_quant_block": lambda a: {scale_block(a.dtypes.attention)},
    "quant_block": lambda a: {scale_block(d) for d in (a.dtypes.experts, a.dtypes.dense_ffn, a.dtypes.shared_experts)},
}
"""What a rule shows of a model: the values of all its layers."""
