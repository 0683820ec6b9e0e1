"""Models that say for each layer what it is made of: a shape per block, one block per layer, several of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from costmodel.arch.arch import Layer
from costmodel.arch.attention import Attention
from costmodel.arch.config import ffn, layer_types
from costmodel.arch.config.attention import Model, attention_blocks, latent, layer_attention
from costmodel.arch.config.fields import Fields
from costmodel.arch.config.layer_fields import LayerFields
from costmodel.arch.ffn import Ffn

_FFN_MULTIPLE = 256
"""NVIDIA's Puzzle models round the widths of their networks up to it (DeciLM's code, `_find_multiple`)."""
_LETTERS = {"M": layer_types.SSM, "*": layer_types.FULL, "-": "mlp", "E": "moe", "|": ""}
"""Of Nemotron-H's `hybrid_override_pattern`."""
_SINGLE_BLOCK_WORDS = {**layer_types.WORDS, "mlp": "mlp", "moe": "moe", "linear_attention": layer_types.SSM}


def one_block_layers(fields: Fields) -> list[str] | None:
    """Of Nemotron-H: what each layer's only block is, a word of `layer_types` or `mlp` or `moe`; None elsewhere."""
    pattern = fields.value("hybrid_override_pattern")
    if pattern is not None:
        if not isinstance(pattern, str) or not pattern or set(pattern) - set(_LETTERS):
            known = ", ".join(f"{k} ({v})" for k, v in _LETTERS.items() if v)
            fields.problem("hybrid_override_pattern", f"must be a text of {known}, got {pattern!r:.80}")
            return [layer_types.FULL]
        return [_LETTERS[c] for c in pattern if _LETTERS[c]]
    types = fields.values.get("layers_block_type")
    if not isinstance(types, list) or not {"mlp", "moe"} & {t for t in types if isinstance(t, str)}:
        return None
    fields.read.add("layers_block_type")
    unknown = sorted({repr(t)[:60] for t in types if not isinstance(t, str) or t not in _SINGLE_BLOCK_WORDS})
    if unknown:
        known = ", ".join(w for w in _SINGLE_BLOCK_WORDS if len(w) > 1)
        fields.problem("layers_block_type", f"must hold only {known}, got {', '.join(unknown)}")
    return [_SINGLE_BLOCK_WORDS.get(t, layer_types.FULL) if isinstance(t, str) else layer_types.FULL for t in types]


def single_blocks(model: Model, words: list[str]) -> tuple[Layer, ...]:
    """Layers of one block each."""
    attention = attention_blocks(model, [layer_types.NOTHING if w in ("mlp", "moe") else w for w in words])
    out = []
    for i, word in enumerate(words):
        fields = model.by_layer.at(i)
        network: tuple[Ffn, ...] = ()
        if word == "mlp":
            network = (ffn.dense(model, fields, fields.integer("intermediate_size")),)
        elif word == "moe":
            network = (ffn.experts(model, fields),)
        out.append(Layer(attention=attention[i], ffn=network, norms=1))
    return tuple(out)


def blocks_of_their_own(model: Model, blocks: list[Any]) -> tuple[Layer, ...]:
    """NVIDIA's Puzzle models (Nemotron-Super, DeciLM): `block_configs` with a shape for each layer."""
    fields = model.fields
    if len(blocks) != model.layers:
        fields.problem("block_configs", f"must have one entry per layer, got {len(blocks)} for {model.layers} layers")
        return ()
    out, known = [], {}
    for i, block in enumerate(blocks):
        key = repr(block)
        if key not in known:
            known[key] = _block(model, block, i)
        out.append(known[key])
    return tuple(out)


def _block(model: Model, block: object, number: int) -> Layer:
    fields = model.fields
    parts = [block.get(n) if isinstance(block, Mapping) else None for n in ("attention", "ffn")]
    if not all(isinstance(p, Mapping) for p in parts):
        fields.problem(f"block_configs[{number}]", f"must hold `attention` and `ffn`, got {block!r:.80}")
        return Layer(attention=(), ffn=())
    attention, network = (
        Fields(p, f"{fields.path}.block_configs[{number}].{n}", fields.problems)
        for p, n in zip(parts, ("attention", "ffn"), strict=True)
        if isinstance(p, Mapping)
    )
    norms = 2
    mixers: tuple[Attention, ...] = ()
    feeds: tuple[Ffn, ...] = ()
    if attention.flag("no_op", default=False):
        norms -= 1
    elif attention.flag("replace_with_linear", default=False):
        feeds = (_one_matrix(model),)
    else:
        mixers = _attention(model, attention, number)
    if network.flag("no_op", default=False):
        norms -= 1
    elif network.flag("replace_with_linear", default=False):
        feeds = (*feeds, _one_matrix(model))
    else:
        feeds = (*feeds, *_network(model, network))
    return Layer(attention=mixers, ffn=feeds, norms=norms)


def _attention(model: Model, block: Fields, number: int) -> tuple[Attention, ...]:
    heads = model.fields.integer("num_attention_heads")
    changes: dict[str, Any] = {}
    if block.given("n_heads_in_group"):
        changes["num_key_value_heads"] = max(heads // block.integer("n_heads_in_group"), 1)
    elif block.given("num_key_value_heads"):
        changes["num_key_value_heads"] = block.integer("num_key_value_heads")
    window = block.given("window_length", "sliding_window")
    if window is not None:
        changes["sliding_window"] = block.integer(window)
    word = layer_types.WINDOW if window is not None else layer_types.FULL
    fields = model.fields.with_values(changes)
    alone = replace(model, fields=fields, by_layer=LayerFields(fields, model.layers))
    return layer_attention(alone, word, number)


def _network(model: Model, block: Fields) -> tuple[Ffn, ...]:
    moe = block.table("moe")
    if moe is not None:
        inner = Fields(moe, f"{block.path}.moe", block.problems)
        changes = {
            "num_experts": inner.integer("num_local_experts"),
            "num_experts_per_tok": inner.integer("num_experts_per_tok"),
            "moe_intermediate_size": inner.integer("expert_intermediate_dim", "moe_intermediate_size"),
            "shared_expert_intermediate_size": inner.integer(
                "shared_expert_intermediate_dim", "shared_expert_intermediate_size", default=0, least=0
            ),
        }
        return (ffn.experts(model, model.fields.with_values(changes)),)
    if block.given("ffn_mult"):
        wide = int(2 * block.number("ffn_mult", default=0.0) * model.hidden / 3)
        width = -(-wide // _FFN_MULTIPLE) * _FFN_MULTIPLE
    else:
        width = block.integer("intermediate_size")
    return (ffn.dense(model, model.fields, width),) if width else ()


def _one_matrix(model: Model) -> Ffn:
    """A linear layer in place of a block: as a network of half the hidden size without a gate, which is as large."""
    return replace(ffn.dense(model, model.fields, model.hidden // 2), projections=2)


def shortcut_layers(model: Model) -> tuple[Layer, ...]:
    """LongCat-Flash: two attentions and two dense networks in a layer, and experts beside them."""
    fields = model.fields
    attention = latent(model, fields, layer_types.FULL, 0)
    dense = ffn.dense(model, fields, fields.integer("ffn_hidden_size"))
    mixture = ffn.experts(model, fields)
    layer = Layer(attention=(attention, attention), ffn=(dense, dense, mixture), norms=4)
    return (layer,) * model.layers
