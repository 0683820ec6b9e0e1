"""Feed-forward networks of a layer, from its fields: dense, experts, both side by side, or none."""

from __future__ import annotations

from costmodel.arch.config import families
from costmodel.arch.config.attention import Model
from costmodel.arch.config.fields import Fields
from costmodel.arch.ffn import Dense, Experts, Ffn

DENSE_WORDS = frozenset(("dense", "mlp"))
SPARSE_WORDS = frozenset(("sparse", "moe", "hash_moe"))


def ffn_blocks(model: Model) -> list[tuple[Ffn, ...]]:
    """What follows attention in each layer."""
    sparse = _sparse_layers(model)
    known: dict[tuple[object, ...], tuple[Ffn, ...]] = {}
    out = []
    for i in range(model.layers):
        key = (i in sparse, model.by_layer.key(i), _is_double(model, i))
        if key not in known:
            known[key] = _blocks(model, model.by_layer.at(i), i, sparse=i in sparse)
        out.append(known[key])
    return out


def _blocks(model: Model, fields: Fields, layer: int, *, sparse: bool) -> tuple[Ffn, ...]:
    if not sparse:
        return (dense(model, fields, _dense_width(model, fields, alone=True) * (2 if _is_double(model, layer) else 1)),)
    mixture = experts(model, fields)
    if fields.flag("enable_moe_block", default=False) or fields.flag("residual_moe", default=False):
        return (dense(model, fields, fields.integer("intermediate_size")), mixture)
    if fields.flag("parallel_attn_mlp_res", default=False):  # Arctic: a network as wide as the hidden state
        return (dense(model, fields, model.hidden), mixture)
    return (mixture,)


def projections(model: Model) -> int:
    """Matrices of a feed-forward network."""
    return 2 if model.model_type in families.PLAIN_FFN else 3


def dense(model: Model, fields: Fields, width: int) -> Dense:
    """A dense network."""
    biased = fields.flag("mlp_bias", default=False) or fields.flag("add_bias_linear", default=False)
    count = projections(model)
    return Dense(
        width=width,
        projections=count,
        side_width=_side_width(fields),
        norm_gains=model.hidden if _side_width(fields) else 0,
        biases=((count - 1) * width + model.hidden) * biased,
    )


def _side_width(fields: Fields) -> int:
    """Columns of a second embedding that each layer adds (Gemma 3n, Gemma 4)."""
    return fields.integer("hidden_size_per_layer_input", default=0, least=0)


def experts(model: Model, fields: Fields) -> Experts:
    """A mixture of experts."""
    count, others = _modalities(fields, "num_experts")
    width, other_width = _modalities(fields, "moe_intermediate_size", "intermediate_size")
    top_k = fields.integer("num_experts_per_tok")
    if top_k > count:
        name = fields.given("num_experts_per_tok") or "num_experts_per_tok"
        fields.problem(name, f"must be at most the number of experts, got {top_k} of {count}")
    total = fields.integer("shared_expert_intermediate_size", default=0, least=0)
    if not total:
        each = fields.integer("moe_shared_expert_intermediate_size", default=width)
        total = fields.integer("n_shared_experts", default=0, least=0) * each
    if model.is_any(("llama4",)):
        total = width
    if fields.flag("use_mixed_mlp_moe", default=False) and not total:  # Hunyuan
        total = width * fields.integer("num_shared_expert", default=1)
    biased = model.is_any(families.SINKS)
    latent = fields.integer("moe_latent_size", default=0, least=0)
    count_of = projections(model)
    return Experts(
        experts=count,
        top_k=top_k,
        width=width,
        projections=count_of,
        input_width=latent,
        zero_experts=fields.integer("zero_expert_num", default=0, least=0),
        other_experts=others,
        other_width=other_width if others else 0,
        shared_width=total,
        shared_gate=1 if total and model.is_any(families.GATED_SHARED_EXPERT) else 0,
        norm_gains=latent if fields.flag("latent_moe_use_norm", default=False) else 0,
        biases=count * ((count_of - 1) * width + (latent or model.hidden)) * biased,
    )


def _modalities(fields: Fields, *names: str) -> tuple[int, int]:
    """A size of the text's experts, and of those of other modalities: ERNIE-4.5-VL lists one for each."""
    name = fields.given(*names)
    value = None if name is None else fields.values[name]
    if name is not None and isinstance(value, list) and len(value) == 2 and fields.given("moe_k", "moe_num_experts"):
        sizes = []
        for part in value:
            alone = Fields({name: part}, fields.path, fields.problems)
            sizes.append(alone.integer(names[0] if name not in names else name, name))
        return sizes[0], sizes[1]
    size = fields.integer(*names)
    # one width for both, where only the number of experts is listed
    return size, size if names[0] == "moe_intermediate_size" else 0


def num_experts(fields: Fields) -> int:
    """Routed experts of a layer with any; 0 or 1 in a dense model."""
    name = fields.given("num_experts")
    value = None if name is None else fields.values[name]
    if isinstance(value, list):
        numbers = [v for v in value if type(v) is int]
        return max(numbers, default=0)
    return fields.integer("num_experts", default=0, least=0)


def _dense_width(model: Model, fields: Fields, *, alone: bool) -> int:
    """Width of a dense layer's network."""
    ratio = fields.integer("expansion_ratio", default=4)  # MPT's name for what others fix at four
    usual = ratio * model.hidden if model.model_type in families.FOUR_TIMES_WIDE else None
    if alone and model.is_any(("granitemoehybrid",)) and fields.given("shared_intermediate_size"):
        return fields.integer("shared_intermediate_size")  # without experts what all tokens share is what there is
    own = fields.given("dense_intermediate_size", "intermediate_size_mlp")
    return fields.integer(own or "intermediate_size", default=usual)


def _is_double(model: Model, layer: int) -> bool:
    """Gemma 4: layers that take another one's keys have a network twice as wide."""
    shared = model.fields.integer("num_kv_shared_layers", default=0, least=0)
    doubled = model.fields.flag("use_double_wide_mlp", default=False)
    return doubled and layer >= model.layers - shared


def _sparse_layers(model: Model) -> frozenset[int]:
    """Layers with experts."""
    fields, layers = model.fields, model.layers
    if num_experts(fields) <= 1:
        return frozenset()
    everything = frozenset(range(layers))
    types = fields.items("mlp_layer_types")
    if types is not None:
        words = [t if isinstance(t, str) else "" for t in types]
        if len(types) != layers or not set(words) <= DENSE_WORDS | SPARSE_WORDS:
            fields.problem(
                "mlp_layer_types", f"must hold `dense` or `sparse` for each of {layers} layers, got {str(types)[:80]}"
            )
            return everything
        return frozenset(i for i, w in enumerate(words) if w in SPARSE_WORDS)
    for name in ("moe_layers_enum", "moe_layers"):
        listed = fields.whole_numbers(name)
        if listed is not None:
            return listed & everything
    for name in ("is_moe_layer", "moe_layer_freq"):
        if isinstance(fields.value(name), list):
            return _flagged(fields, name, layers)
    return frozenset(i for i in range(layers) if _has_experts(fields, i, layers))


def _flagged(fields: Fields, name: str, layers: int) -> frozenset[int]:
    """Layers that a list with an entry for each says to have experts."""
    flags = fields.items(name) or []
    fields.read.add("first_last_k_dense_replace")  # says no more of the same (K-EXAONE)
    if len(flags) != layers:
        fields.problem(name, f"must have one entry per layer, got {len(flags)} for {layers} layers")
    return frozenset(i for i, flag in enumerate(flags[:layers]) if flag)


def _has_experts(fields: Fields, layer: int, layers: int) -> bool:
    """By the leading dense layers, the last one with experts, and what lies between."""
    first = fields.integer("first_k_dense_replace", default=0, least=0)
    first = max(first, fields.integer("moe_layer_start_index", default=0, least=0))
    last = fields.value("moe_layer_end_index")
    last = last if type(last) is int and last >= 0 else layers - 1
    if not first <= layer <= last or layer in (fields.whole_numbers("mlp_only_layers") or frozenset()):
        return False
    period = fields.integer("expert_layer_period", default=1)
    if layer % period != fields.integer("expert_layer_offset", default=0, least=0) % period:
        return False
    step = fields.integer(
        "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval", "moe_layer_frequency", default=1
    )
    return layer % fields.integer("moe_layer_freq", default=1) == 0 and (layer + 1) % step == 0
