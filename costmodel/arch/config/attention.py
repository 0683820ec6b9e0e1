"""Shapes of attention and recurrent blocks of a layer, from its fields."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.arch.attention import Attention, AttentionKind, Compressed, GroupedQuery, Latent
from costmodel.arch.config import families, layer_types
from costmodel.arch.config.fields import Fields
from costmodel.arch.config.layer_fields import LayerFields
from costmodel.arch.recurrent import Linear, StateSpace

_GROUPED = {
    layer_types.FULL: AttentionKind.FULL,
    layer_types.WINDOW: AttentionKind.WINDOW,
    layer_types.CHUNKED: AttentionKind.CHUNKED,
    layer_types.SPARSE: AttentionKind.SPARSE,
}
COMPRESS_RATES = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128, "sliding_attention": 0}
"""DeepSeek-V4: tokens to an entry by kind of layer, where `compress_rates` does not say otherwise."""
_HYPER_CONNECTIONS = 2
"""Of a layer with several residual streams: before attention and before what follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What all layers of a model have in common."""

    fields: Fields
    by_layer: LayerFields
    model_type: str
    layers: int
    hidden: int

    def is_any(self, families_: tuple[str, ...]) -> bool:
        """Whether the model's family is one of these, by the beginning of its name."""
        return self.model_type.startswith(families_)


def attention_blocks(model: Model, words: list[str]) -> list[tuple[Attention, ...]]:
    """What mixes the tokens of each layer."""
    known: dict[tuple[object, ...], tuple[Attention, ...]] = {}
    out = []
    for i, word in enumerate(words):
        key = (word, model.by_layer.key(i), _shares_keys(model, i), _index_is_shared(model, i), _ratio(model, i))
        if key not in known:
            known[key] = layer_attention(model, word, i)
        out.append(known[key])
    return out


def layer_attention(model: Model, word: str, layer: int) -> tuple[Attention, ...]:
    """What mixes the tokens of one layer."""
    fields = model.by_layer.at(layer)
    if word == layer_types.NOTHING:
        return ()
    if word == layer_types.SSM:
        return (_state_space(model, fields),)
    if word == layer_types.SSM_BESIDE:
        return (_grouped_query(model, fields, layer_types.FULL, layer), _state_space(model, fields))
    if word == layer_types.LINEAR:
        return (_linear(model, fields),)
    if word == layer_types.COMPRESSED or fields.given("o_groups"):
        return (_compressed(model, fields, layer),)
    if fields.given("kv_lora_rank"):
        return (latent(model, fields, word, layer),)
    return (_grouped_query(model, fields, word, layer),)


def _heads(fields: Fields, word: str) -> tuple[int, Fields]:
    """Query heads, and the fields with what window layers have of their own."""
    other = fields.table("attention_other_setting")  # Step 3.5
    if word == layer_types.WINDOW and other is not None:
        kind = other.get("attention_type", "sliding_attention")
        if layer_types.WORDS.get(kind if isinstance(kind, str) else "") == layer_types.WINDOW:
            fields = fields.with_values({k: v for k, v in other.items() if k != "attention_type"})
    if word == layer_types.WINDOW:
        heads = fields.given("swa_num_attention_heads", "num_sliding_attention_heads")
        if heads is not None:
            return fields.integer(heads), fields
    return fields.integer("num_attention_heads"), fields


def _kv_heads(fields: Fields, word: str, heads: int) -> int:
    own = {layer_types.WINDOW: "swa_num_key_value_heads", layer_types.FULL: "num_global_key_value_heads"}.get(word)
    if own and fields.given(own):
        return fields.integer(own)
    if fields.flag("multi_query_attention", default=False) and fields.given("multi_query_group_num"):
        return fields.integer("multi_query_group_num")
    # Falcon: the new architecture groups its heads, the old one has one head of keys where it says multi_query
    if fields.flag("multi_query", default=False) and not fields.flag("new_decoder_architecture", default=False):
        return 1
    return fields.integer("num_key_value_heads", default=heads)


def _grouped_query(model: Model, fields: Fields, word: str, layer: int) -> GroupedQuery:
    heads, fields = _heads(fields, word)
    kv_heads = _kv_heads(fields, word, heads)
    usual = max(model.hidden // max(fields.integer("num_attention_heads"), 1), 1)
    own = {layer_types.WINDOW: ("swa_head_dim",), layer_types.FULL: ("global_head_dim",)}.get(word, ())
    dim = fields.integer(*own, "head_dim", default=usual)
    own = ("swa_v_head_dim",) if word == layer_types.WINDOW else ()
    value_dim = fields.integer(*own, "v_head_dim", default=dim)
    if heads % kv_heads and not fields.problems:
        fields.problem(
            fields.given("num_key_value_heads") or "num_key_value_heads",
            f"must divide num_attention_heads, got {kv_heads} and {heads}",
        )
    if not fields.given("head_dim") and model.hidden % heads and dim == usual and not fields.problems:
        fields.problem(
            "num_attention_heads",
            f"must divide hidden_size where head_dim is not given, got {heads} and {model.hidden}",
        )
    window = 0
    if word in (layer_types.WINDOW, layer_types.CHUNKED):
        window = fields.integer("attention_chunk_size" if word == layer_types.CHUNKED else "sliding_window")
    own_keys = 0 if _shares_keys(model, layer) else 1
    same = word == layer_types.FULL and fields.flag("attention_k_eq_v", default=False)
    norms = model.is_any(families.QK_NORM) or fields.flag("use_qk_norm", default=False)
    norms = norms or fields.flag("qk_layernorm", default=False)
    wide = model.is_any(families.WIDE_QK_NORM)
    gains = (heads + kv_heads * own_keys) * dim if wide else dim * (1 + own_keys)
    index = _block_index(fields) if word == layer_types.SPARSE else (0, 0, 0)
    return GroupedQuery(
        kind=_GROUPED[word],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        value_dim=value_dim,
        window=window,
        gate=_gate(model, fields, heads, value_dim),
        q_rank=fields.integer("share_q_dim", default=0, least=0),
        own_keys=own_keys,
        own_values=0 if same else 1,
        qk_norm=1 if norms else 0,
        norm_gains=gains if norms else 0,
        biases=_biases(model, fields, heads * dim, kv_heads * (dim + value_dim) * own_keys, heads),
        index_heads=index[0],
        index_dim=index[1],
        index_topk=index[2],
    )


def _biases(model: Model, fields: Fields, queries: int, keys_and_values: int, heads: int) -> int:
    """Of the projections, and attention sinks."""
    everywhere = fields.flag("attention_bias", default=False) or fields.flag("use_bias", default=False)
    inputs = everywhere or model.model_type in families.QKV_BIAS
    for name in ("qkv_bias", "add_qkv_bias", "use_qkv_bias"):
        inputs = inputs or fields.flag(name, default=False)
    sinks = model.is_any(families.SINKS) or fields.flag("add_swa_attention_sink_bias", default=False)
    return (queries + keys_and_values) * inputs + model.hidden * everywhere + heads * sinks


def _gate(model: Model, fields: Fields, heads: int, value_dim: int) -> int:
    """Width of the output's gate."""
    whole = fields.given("attn_output_gate", "attention_output_gate", "mla_use_output_gate", "use_output_gate")
    if whole is not None and fields.flag(whole, default=False):
        return heads * value_dim
    if whole is None and model.is_any(families.GATED_ATTENTION):
        return heads * value_dim
    by_head = fields.given("use_head_wise_attn_gate", "gating")
    if by_head is not None and fields.value(by_head) == "per-element":
        return heads * value_dim
    asked = None if by_head is None else fields.value(by_head) not in (False, "none", "")
    return heads if (model.is_any(families.HEAD_GATED_ATTENTION) if asked is None else asked) else 0


def _block_index(fields: Fields) -> tuple[int, int, int]:
    """MiniMax-M3: an index over blocks of the cache: its heads, their size, tokens that it picks."""
    table = fields.table("sparse_attention_config")
    if table is not None:
        inner = Fields(table, f"{fields.path}.sparse_attention_config", fields.problems)
        picked = inner.integer("sparse_topk_blocks") * inner.integer("sparse_block_size")
        return inner.integer("sparse_num_index_heads"), inner.integer("sparse_index_dim"), picked
    picked = fields.integer("index_topk_blocks") * fields.integer("index_block_size")
    return fields.integer("index_n_heads"), fields.integer("index_head_dim"), picked


def _shares_keys(model: Model, layer: int) -> bool:
    """Whether a layer attends to another one's cache: the last ones (Gemma 3n and 4), or all but each n-th (CLA)."""
    shared = model.fields.integer("num_kv_shared_layers", default=0, least=0)
    if layer >= model.layers - shared:
        return True
    if not model.fields.flag("use_cla", default=False):
        return False
    return layer % model.fields.integer("cla_share_factor", default=1) != 0


def _index_is_shared(model: Model, layer: int) -> bool:
    """Whether a layer takes the tokens that the index of one before it picked (GLM-5.2)."""
    types = model.fields.items("indexer_types")
    if types is not None:
        if len(types) < model.layers:
            model.fields.problem(
                "indexer_types", f"must have one entry per layer, got {len(types)} for {model.layers} layers"
            )
            return False
        return bool(types[layer] == "shared")
    pattern = model.fields.value("index_topk_pattern")
    if isinstance(pattern, str) and layer < len(pattern):
        return pattern[layer] == "S"
    every = model.fields.integer("index_topk_freq", default=1)
    offset = model.fields.integer("index_skip_topk_offset", default=2, least=0)
    return max(layer - offset + 1, 0) % every != 0


def latent(model: Model, fields: Fields, word: str, layer: int) -> Latent:
    """Multi-head latent attention; with `index_topk` sparse, in window layers over the window."""
    heads, value_dim = fields.integer("num_attention_heads"), fields.integer("v_head_dim")
    q_rank = fields.integer("q_lora_rank", default=0, least=0)
    kv_rank = fields.integer("kv_lora_rank")
    window = word == layer_types.WINDOW
    sparse = not window and fields.given("index_topk") is not None
    indexed = sparse and not _index_is_shared(model, layer)
    kind = AttentionKind.WINDOW_MLA if window else AttentionKind.SPARSE_MLA if sparse else AttentionKind.MLA
    dim = fields.integer("index_head_dim") if sparse else 0
    return Latent(
        kind=kind,
        heads=heads,
        q_rank=q_rank,
        kv_rank=kv_rank,
        nope_dim=fields.integer("qk_nope_head_dim"),
        rope_dim=fields.integer("qk_rope_head_dim"),
        value_dim=value_dim,
        gate=_gate(model, fields, heads, value_dim),
        window=fields.integer("sliding_window") if window else 0,
        index_heads=fields.integer("index_n_heads") if indexed else 0,
        index_dim=dim if indexed else 0,
        index_topk=fields.integer("index_topk") if sparse else 0,
        norm_gains=q_rank + kv_rank,
    )


def _ratio(model: Model, layer: int) -> int:
    """DeepSeek-V4: tokens to a compressed entry of a layer; 0 or 1 where nothing is compressed."""
    ratios = model.fields.items("compress_ratios")
    if ratios is not None:
        if len(ratios) < model.layers or any(type(r) is not int or not 0 <= r <= 1_000_000 for r in ratios):
            model.fields.problem(
                "compress_ratios", f"must be a whole number for each of {model.layers} layers, got {str(ratios)[:80]}"
            )
            return 0
        return int(ratios[layer])
    types = model.fields.items("layer_types")
    if types is None or layer >= len(types) or not isinstance(types[layer], str):
        return 0
    given = model.fields.table("compress_rates") or {}
    rate = given.get(types[layer], COMPRESS_RATES.get(types[layer], 0))
    if type(rate) is not int or not 0 <= rate <= 1_000_000:
        model.fields.problem("compress_rates", f"must map kinds of layers to whole numbers, got {rate!r}")
        return 0
    return rate


def _compressed(model: Model, fields: Fields, layer: int) -> Compressed:
    ratio = max(_ratio(model, layer), 1)
    # DeepSeek-V4's code: entries of few tokens overlap and are picked by an index, entries of many are all seen
    fine = 1 < ratio < 16
    dim, heads = fields.integer("head_dim"), fields.integer("num_attention_heads")
    q_rank = fields.integer("q_lora_rank")
    index = fields.integer("index_head_dim") if fine else 0
    streams = model.fields.integer("hc_mult", default=1)
    mixed = _HYPER_CONNECTIONS * (streams * model.hidden) * (streams * (streams + 2)) if streams > 1 else 0
    return Compressed(
        heads=heads,
        head_dim=dim,
        q_rank=q_rank,
        output_groups=fields.integer("o_groups"),
        output_rank=fields.integer("o_lora_rank"),
        window=fields.integer("sliding_window"),
        ratio=ratio,
        overlap=1 if fine else 0,
        index_heads=fields.integer("index_n_heads") if fine else 0,
        index_dim=index,
        index_topk=fields.integer("index_topk") if fine else 0,
        norm_gains=q_rank + dim * (2 if ratio > 1 else 1) + index,
        biases=heads + mixed + (ratio * (dim + index) * (2 if fine else 1) if ratio > 1 else 0),
    )


def _linear(model: Model, fields: Fields) -> Linear:
    if fields.given("linear_num_value_heads"):  # gated delta net
        heads, value_dim = fields.integer("linear_num_value_heads"), fields.integer("linear_value_head_dim")
        return Linear(
            heads=heads,
            value_dim=value_dim,
            key_heads=fields.integer("linear_num_key_heads"),
            key_dim=fields.integer("linear_key_head_dim"),
            conv=fields.integer("linear_conv_kernel_dim"),
            gate=heads * value_dim + 2 * heads,
            norm_gains=value_dim,
            biases=2 * heads,
        )
    table = fields.table("linear_attn_config")
    if table is not None or fields.given("linear_num_heads"):
        return _kimi_delta(fields, table)
    # lightning attention (MiniMax-01, Ling 2.5): an output gate, no convolution
    heads = fields.integer("num_attention_heads")
    dim = fields.integer("linear_head_dim", "head_dim", default=max(model.hidden // heads, 1))
    if fields.given("short_conv_kernel_size"):
        return _kimi_delta(fields.with_values({"linear_num_heads": heads, "linear_head_dim": dim}), None)
    return Linear(
        heads=heads, value_dim=dim, key_heads=heads, key_dim=dim, gate=heads * dim, norm_gains=heads * dim, biases=heads
    )


def _kimi_delta(fields: Fields, table: object) -> Linear:
    """Kimi delta attention: a decay for each channel and an output gate, both through a rank or not."""
    if isinstance(table, dict):
        inner = Fields(table, f"{fields.path}.linear_attn_config", fields.problems)
        heads, dim = inner.integer("num_heads"), inner.integer("head_dim")
        conv = inner.integer("short_conv_kernel_size")
        whole = inner.flag("use_full_rank_gate", default=False)
        ranked = 1 if whole else 2
    else:
        heads, dim = fields.integer("linear_num_heads"), fields.integer("linear_head_dim")
        conv = fields.integer("linear_conv_kernel_dim", "short_conv_kernel_size", default=4)
        # Ling 3 has both gates whole; Kimi-Linear has both through a rank
        ranked = 0 if fields.given("kda_safe_gate", "layer_group_size") and not fields.value("use_kda_lora") else 2
    width = heads * dim
    return Linear(
        heads=heads,
        value_dim=dim,
        key_heads=heads,
        key_dim=dim,
        conv=conv,
        gate=heads + (2 - ranked) * width,
        gate_rank=dim if ranked else 0,
        gate_pairs=ranked,
        gate_factored=ranked * width,
        norm_gains=dim,
        biases=heads + width,
    )


def _state_space(model: Model, fields: Fields) -> StateSpace:
    """Mamba-2, or Mamba-1 where the step size has a rank."""
    state = fields.integer("mamba_d_state", "ssm_state_size")
    conv = fields.integer("mamba_d_conv", "conv_kernel", "d_conv", default=4)
    expand = fields.integer("mamba_expand", "expand", default=2)
    wide = fields.text("mamba_ssm_cache_dtype", fields.text("mamba_ssm_dtype")) == "float32"
    inner = fields.integer("mamba_d_ssm", default=expand * model.hidden)
    bias = 1 if fields.flag("mamba_conv_bias", default=fields.flag("use_conv_bias", default=True)) else 0
    if fields.given("mamba_dt_rank"):
        rank = -(-model.hidden // 16) if fields.value("mamba_dt_rank") == "auto" else fields.integer("mamba_dt_rank")
        return StateSpace(
            heads=inner,
            value_dim=1,
            key_dim=state,
            conv=conv,
            state_bytes=4 if wide else 2,
            dt_rank=rank,
            norm_gains=rank + 2 * state,
            biases=inner * (state + 2 + bias),
        )
    heads = fields.integer("mamba_n_heads", "mamba_num_heads", default=0, least=0)
    dim = fields.integer("mamba_d_head", "mamba_head_dim", default=max(inner // max(heads, 1), 1))
    heads = heads or max(inner // dim, 1)
    groups = fields.integer("mamba_n_groups", "n_groups", "mamba_ngroups", default=1)
    channels = heads * dim + 2 * groups * state
    return StateSpace(
        heads=heads,
        value_dim=dim,
        key_dim=state,
        groups=groups,
        conv=conv,
        state_bytes=4 if wide else 2,
        norm_gains=0 if fields.value("mamba_rms_norm") is False else heads * dim,
        biases=3 * heads + bias * channels,
    )
