"""The rules of the engines: what makes a layout one that the engine can be launched with.

Each rule is a function over columns of candidates that says which ones break it, so that explaining one
plan and counting a million candidates read the same lines. A candidate is counted under the first rule, in
the order of `RULES`, that it breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.engines.model_rules import (
    WITHOUT_KV_COPIES,
    WITHOUT_STAGES,
    cut_inputs,
    cuts_groups,
    grouped_inputs,
    is_of,
)
from costmodel.arch import Arch
from costmodel.arch.attention import GroupedQuery, Linear, Recurrent, StateSpace
from costmodel.arch.block import Size
from costmodel.dtypes import storage

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


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
    text: str
    """The condition in words, completed by the values."""
    fields: tuple[str, ...]
    """Columns whose values are shown, and fields of the architecture."""
    broken: Callable[[Arch, str, Candidates], Bools]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One rule that a layout breaks."""

    rule: str
    message: str


def _scale_block(dtype: str) -> int:
    stored = storage(dtype)
    return stored.group if stored.base in ("fp8_block", "nvfp4", "mxfp8") else 1


def _any_uneven(sizes: Iterable[Size], shards: Ints) -> Bools:
    """Whether any of these cannot be cut into so many equal shards."""
    out = np.zeros(shards.shape, dtype=bool)
    for size in {int(s) for s in sizes}:
        out |= size % shards != 0
    return out


def _shard_broken(size: int, shards: Ints, block: int) -> Bools:
    """Whether a matrix of `size` rows cannot be cut into `shards` of whole blocks."""
    return np.asarray((size % shards != 0) | ((size // shards) % max(block, 1) != 0))


def _none(c: Candidates) -> Bools:
    return np.zeros(c.pp.shape, dtype=bool)


def _stages(arch: Arch, engine: str, c: Candidates) -> Bools:  # noqa: ARG001
    return c.pp > arch.num_hidden_layers


def _dense_axes(arch: Arch, engine: str, c: Candidates) -> Bools:  # noqa: ARG001
    return _none(c) if arch.is_moe else (c.attn_dp > 1) | (c.moe_ep > 1) | (c.moe_tp > 1)


def _heads(arch: Arch, engine: str, c: Candidates) -> Bools:  # noqa: ARG001
    return _any_uneven((a.heads for a in arch.attentions if not isinstance(a, Recurrent)), c.attn_tp)


def _kv_heads(arch: Arch, engine: str, c: Candidates) -> Bools:  # noqa: ARG001
    out = _none(c)
    for kv in {int(a.kv_heads) for a in arch.attentions if isinstance(a, GroupedQuery)}:
        out |= np.where(c.attn_tp <= kv, kv % c.attn_tp != 0, c.attn_tp % kv != 0)
    return out


def _staged_class(arch: Arch, engine: str, c: Candidates) -> Bools:
    return (c.pp > 1) & is_of(arch, WITHOUT_STAGES[engine])


def _kv_copies(arch: Arch, engine: str, c: Candidates) -> Bools:
    fewest = min((int(a.kv_heads) for a in arch.attentions if isinstance(a, GroupedQuery)), default=0)
    return (c.attn_tp > fewest) & (fewest > 0) & is_of(arch, WITHOUT_KV_COPIES[engine])


def _integer_groups(arch: Arch, engine: str, c: Candidates) -> Bools:
    return cuts_groups(arch, engine, c.attn_tp, c.moe_tp)


def _linear_heads(arch: Arch, engine: str, c: Candidates) -> Bools:  # noqa: ARG001
    linear = [a for a in arch.attentions if isinstance(a, Linear)]
    states = [a.heads for a in arch.attentions if isinstance(a, StateSpace)]
    return _any_uneven((*(a.key_heads for a in linear), *(a.heads for a in linear), *states), c.attn_tp)


def _attention_dp(arch: Arch, engine: str, c: Candidates) -> Bools:  # noqa: ARG001
    if engine != "trtllm":
        return _none(c)
    return (c.attn_dp > 1) & (c.attn_dp != c.width)


def _pure_experts(arch: Arch, engine: str, c: Candidates) -> Bools:
    if engine != "vllm" or not arch.is_moe:
        return _none(c)
    return (c.moe_tp > 1) & (c.moe_ep > 1)


def _enough_experts(arch: Arch, engine: str, c: Candidates) -> Bools:  # noqa: ARG001
    return (c.moe_ep > arch.num_experts + c.redundant_experts) if arch.is_moe else _none(c)


def _even_experts(arch: Arch, engine: str, c: Candidates) -> Bools:
    if not arch.is_moe:
        return _none(c)
    uneven = (arch.num_experts + c.redundant_experts) % c.moe_ep != 0
    # vLLM spreads experts unevenly unless its load balancer (EPLB) keeps redundant ones
    return uneven & (c.redundant_experts > 0) if engine == "vllm" else np.asarray(uneven)


def _redundant(arch: Arch, engine: str, c: Candidates) -> Bools:  # noqa: ARG001
    return (c.redundant_experts > 0) & (c.moe_ep == 1)


def _expert_shards(arch: Arch, engine: str, c: Candidates) -> Bools:  # noqa: ARG001
    if not arch.is_moe:
        return _none(c)
    return _any_uneven((e.width for e in arch.expert_shapes), c.moe_tp)


def _expert_blocks(arch: Arch, engine: str, c: Candidates) -> Bools:  # noqa: ARG001
    if not arch.is_moe:
        return _none(c)
    block = _scale_block(arch.dtypes.experts)
    out = _none(c)
    for width in {int(e.width) for e in arch.expert_shapes}:
        size = -(-width // block) * block  # engines pad a last short block
        out |= (c.moe_tp > 1) & _shard_broken(size, c.moe_tp, block)
    return out


def _dense_shards(arch: Arch, engine: str, c: Candidates) -> Bools:
    if engine != "vllm" and arch.is_moe:
        return _none(c)  # SGLang, TensorRT-LLM: --moe-dense-tp-size 1 or attention-DP keep dense layers whole
    out = _none(c)
    for width in {int(d.width) for d in arch.dense_shapes}:
        out |= _shard_broken(width, c.attn_tp, _scale_block(arch.dtypes.dense_ffn))
    return out


def dense_shards_whole(arch: Arch, shards: int) -> bool:
    """Whether dense feed-forward layers can be cut into so many shards of whole scale blocks; true without any."""
    block, cut = _scale_block(arch.dtypes.dense_ffn), np.array([shards])
    return not any(bool(_shard_broken(int(d.width), cut, block)[0]) for d in arch.dense_shapes)


def _shared_shards(arch: Arch, engine: str, c: Candidates) -> Bools:
    out = _none(c)
    for width in {int(e.shared_width) for e in arch.expert_shapes if e.shared_width and engine == "vllm"}:
        out |= _shard_broken(width, c.attn_tp, _scale_block(arch.dtypes.shared_experts))
    return out


def _context_parallel(arch: Arch, engine: str, c: Candidates) -> Bools:  # noqa: ARG001
    return (c.attn_cp > 1) & (engine == "trtllm")


def _dcp(arch: Arch, engine: str, c: Candidates) -> Bools:
    on = c.dcp > 1
    if engine != "vllm":
        return on
    kv = max((int(a.kv_heads) for a in arch.attentions if isinstance(a, GroupedQuery)), default=1)
    most = c.attn_tp // kv
    return on & ((c.attn_tp % c.dcp != 0) | (c.dcp > most))


RULES: tuple[Rule, ...] = (
    Rule(
        name="pp_exceeds_layers",
        text="`pp` must be at most num_hidden_layers",
        fields=("pp", "num_hidden_layers"),
        broken=_stages,
    ),
    Rule(
        name="pipeline_model_class",
        text="the engine's class of this model has no pipeline stages: pp must be 1",
        fields=("pp", "model_type"),
        broken=_staged_class,
    ),
    Rule(
        name="dense_has_no_experts",
        text="a dense model has no experts, and its data parallelism is replicas: attn_dp, moe_tp, moe_ep must be 1",
        fields=("attn_dp", "moe_tp", "moe_ep"),
        broken=_dense_axes,
    ),
    Rule(
        name="attention_heads",
        text="`attn_tp` must divide num_attention_heads",
        fields=("attn_tp", "num_attention_heads"),
        broken=_heads,
    ),
    Rule(
        name="kv_heads",
        text="`attn_tp` must divide num_key_value_heads, or be a multiple of it (heads are then replicated)",
        fields=("attn_tp", "num_key_value_heads"),
        broken=_kv_heads,
    ),
    Rule(
        name="kv_head_copies",
        text="the engine's class of this model copies no KV heads: attn_tp must be at most num_key_value_heads",
        fields=("attn_tp", "num_key_value_heads", "model_type"),
        broken=_kv_copies,
    ),
    Rule(
        name="linear_attention_heads",
        text="`attn_tp` must divide the heads of linear attention",
        fields=("attn_tp", "linear_num_key_heads", "linear_num_value_heads"),
        broken=_linear_heads,
    ),
    Rule(
        name="attention_dp_all_or_nothing",
        text="TensorRT-LLM's attention-DP takes all ranks of a stage: attn_dp must be 1 or attn_tp * attn_dp",
        fields=("attn_tp", "attn_dp"),
        broken=_attention_dp,
    ),
    Rule(
        name="moe_tp_or_ep",
        text="vLLM's expert parallelism is on or off: moe_tp or moe_ep must be 1",
        fields=("moe_tp", "moe_ep"),
        broken=_pure_experts,
    ),
    Rule(
        name="more_ranks_than_experts",
        text="`moe_ep` must be at most the number of experts, redundant ones included",
        fields=("moe_ep", "num_experts", "redundant_experts"),
        broken=_enough_experts,
    ),
    Rule(
        name="experts_divisible",
        text="`moe_ep` must divide the number of experts, redundant ones included",
        fields=("moe_ep", "num_experts", "redundant_experts"),
        broken=_even_experts,
    ),
    Rule(
        name="redundant_experts_need_ep",
        text="redundant experts need moe_ep > 1",
        fields=("redundant_experts", "moe_ep"),
        broken=_redundant,
    ),
    Rule(
        name="moe_intermediate_divisible",
        text="`moe_tp` must divide moe_intermediate_size",
        fields=("moe_tp", "moe_intermediate_size"),
        broken=_expert_shards,
    ),
    Rule(
        name="expert_quant_blocks",
        text="an expert's shard must hold whole scale blocks of its quantisation",
        fields=("moe_tp", "moe_intermediate_size", "quant_block"),
        broken=_expert_blocks,
    ),
    Rule(
        name="dense_ffn_shards",
        text="a dense layer's shard must be whole, in whole scale blocks: attn_tp against intermediate_size",
        fields=("attn_tp", "intermediate_size", "quant_block"),
        broken=_dense_shards,
    ),
    Rule(
        name="shared_expert_shards",
        text="the shared experts' shard must be whole, in whole scale blocks: attn_tp against their width",
        fields=("attn_tp", "shared_intermediate_size", "quant_block"),
        broken=_shared_shards,
    ),
    Rule(
        name="integer_groups",
        text="a shard must hold whole groups of integer weights: inputs that attn_tp or moe_tp cut, in elements",
        fields=("attn_tp", "moe_tp", "cut_inputs", "quant_group"),
        broken=_integer_groups,
    ),
    Rule(
        name="context_parallel_support",
        text="TensorRT-LLM's context parallelism is not modelled: attn_cp must be 1",
        fields=("attn_cp",),
        broken=_context_parallel,
    ),
    Rule(
        name="decode_context_parallel",
        text="`dcp` is vLLM's, must divide attn_tp, and with GQA be at most attn_tp / num_key_value_heads",
        fields=("dcp", "attn_tp", "num_key_value_heads"),
        broken=_dcp,
    ),
)


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
    "num_key_value_heads": lambda a: {int(x.kv_heads) for x in a.attentions if isinstance(x, GroupedQuery)},
    "linear_num_key_heads": lambda a: {int(x.key_heads) for x in a.attentions if isinstance(x, Linear)},
    "linear_num_value_heads": lambda a: {int(x.heads) for x in a.attentions if isinstance(x, Recurrent)},
    "num_experts": lambda a: {int(e.experts) for e in a.expert_shapes},
    "moe_intermediate_size": lambda a: {int(e.width) for e in a.expert_shapes},
    "shared_intermediate_size": lambda a: {int(e.shared_width) for e in a.expert_shapes},
    "intermediate_size": lambda a: {int(d.width) for d in a.dense_shapes},
    "quant_block": lambda a: {_scale_block(d) for d in (a.dtypes.experts, a.dtypes.dense_ffn, a.dtypes.shared_experts)},
}
"""What a rule shows of a model: the values of all its layers."""
