"""What mixes tokens in each layer of a model: one word per layer, by any of the ways that files say it."""

from __future__ import annotations

from typing import Any

from costmodel.arch.config.fields import Fields

FULL, WINDOW, CHUNKED, SPARSE, COMPRESSED = "full", "window", "chunked", "sparse", "compressed"
LINEAR, SSM, SSM_BESIDE, NOTHING = "linear", "ssm", "ssm_beside", "nothing"
"""`ssm_beside`: attention and a state-space block side by side (Falcon-H1)."""
_SPELLINGS = {
    FULL: ("full_attention", "attention", "full", "global", "global_attention", "*"),
    WINDOW: (
        "sliding_attention", "sliding_window_attention", "sliding", "sliding_window", "local", "local_attention", "swa",
    ),
    CHUNKED: ("chunked_attention",),
    SPARSE: ("indexed_attention", "sparse_attention", "deepseek_sparse_attention", "minimax_m3_sparse"),
    COMPRESSED: ("compressed_sparse_attention", "heavily_compressed_attention"),
    LINEAR: ("linear_attention", "lightning_attention", "gated_deltanet", "kda"),
    SSM: ("mamba", "mamba2", "ssm", "M"),
    SSM_BESIDE: ("hybrid",),
}  # fmt: skip
WORDS = {spelling: word for word, spellings in _SPELLINGS.items() for spelling in spellings}
"""Words of `layer_types`, `layers_block_type` and their like."""
GO_ON = "--approximate (in a study: approximate = true)"
"""How to go on where a file asks for something that is not modelled."""
_PATTERNS = ("sliding_window_pattern", "_sliding_window_pattern")


def has_state_space(fields: Fields) -> bool:
    """Whether the file gives the sizes of state-space blocks."""
    return fields.given("mamba_d_state", "ssm_state_size", "mamba_d_ssm") is not None


def layer_words(fields: Fields, model_type: str, layers: int, *, approximate: list[str] | None) -> list[str]:
    """One word for each layer.

    `approximate` collects sentences about words that are not known, whose layers then attend to everything; where it
    is None such a word is a problem.
    """
    words = (
        _listed(fields, layers, approximate) or _by_pattern(fields, layers) or _by_period(fields, model_type, layers)
    )
    return _by_window(fields, model_type, layers) if words is None else _as_the_file_has_sizes(fields, words)


def _as_the_file_has_sizes(fields: Fields, words: list[str]) -> list[str]:
    """Transformers calls state-space layers `linear_attention` too; a window that is switched off sees everything."""
    if has_state_space(fields) and not fields.given("linear_num_value_heads", "linear_num_heads", "linear_attn_config"):
        words = [SSM if w == LINEAR else w for w in words]
    if fields.value("use_sliding_window") is False or fields.value("is_sliding_window_disabled") is True:
        words = [FULL if w == WINDOW else w for w in words]
    return words


def _listed(fields: Fields, layers: int, approximate: list[str] | None) -> list[str] | None:
    name = fields.given("layer_types", "layers_block_type", "attention_layer_types", "block_types")
    types = None if name is None else fields.items(name)
    if name is None or not types:
        return None
    own = 0 if not fields.given("num_nextn_predict_layers") else fields.integer("num_nextn_predict_layers", least=0)
    if layers < len(types) <= layers + own:
        types = types[:layers]  # the list has the multi-token-prediction modules too (Step 3.5)
    if len(types) != layers:
        fields.problem(name, f"must have one entry per layer, got {len(types)} for {layers} layers")
        return [FULL] * layers
    unknown = sorted({repr(t)[:60] for t in types if not isinstance(t, str) or t not in WORDS})
    if unknown and approximate is None:
        known = ", ".join(w for w in WORDS if len(w) > 1)
        fields.problem(
            name,
            f"asks for {', '.join(unknown)}, which there are no formulas for; {GO_ON} takes full attention in those "
            f"layers instead (known are {known})",
        )
    elif unknown and approximate is not None:
        approximate.append(f"`{name}` {', '.join(unknown)} taken as full attention")
    return [WORDS.get(t, FULL) if isinstance(t, str) else FULL for t in types]


def _by_pattern(fields: Fields, layers: int) -> list[str] | None:
    """Patterns of numbers or letters, one for each layer."""
    for name, meaning in (("hybrid_layer_pattern", {1: WINDOW, 0: FULL}), ("attn_type_list", {1: FULL, 0: LINEAR})):
        if fields.given(name):
            return _numbered(fields, name, meaning, layers)
    ratios = fields.items("compress_ratios")
    if ratios is not None:
        return [COMPRESSED] * layers
    table = fields.table("linear_attn_config")
    if table is not None:
        inner = Fields(table, f"{fields.path}.linear_attn_config", fields.problems)
        attends = inner.whole_numbers("full_attn_layers")
        if attends is None:
            linear = inner.whole_numbers("kda_layers") or frozenset()
            attends = frozenset(range(1, layers + 1)) - linear
        return [FULL if i + 1 in attends else LINEAR for i in range(layers)]
    return None


def _numbered(fields: Fields, name: str, meaning: dict[int, str], layers: int) -> list[str]:
    values = fields.items(name) or []
    if len(values) != layers or any(type(v) is not int or v not in meaning for v in values):
        known = ", ".join(f"{k} ({v})" for k, v in meaning.items())
        fields.problem(name, f"must have one of {known} for each of {layers} layers, got {str(values)[:80]}")
        return [FULL] * layers
    return [meaning[v] for v in values]


def _by_period(fields: Fields, model_type: str, layers: int) -> list[str] | None:
    """Attention every so many layers, or in listed ones, and something recurrent between."""
    if fields.given("layer_group_size"):
        every = fields.integer("layer_group_size")
        rest = layers // every * every  # what is left over at the end attends to everything (Ling 2.5)
        return [FULL if (i + 1) % every == 0 or i >= rest else LINEAR for i in range(layers)]
    if has_state_space(fields):
        if model_type == "falcon_h1" or fields.given("mamba_d_ssm"):
            return [SSM_BESIDE] * layers
        listed = fields.whole_numbers("attn_layer_indices")
        if listed is not None:
            return [FULL if i in listed else SSM for i in range(layers)]
        if fields.given("attn_layer_period"):
            every = fields.integer("attn_layer_period")
            offset = fields.integer("attn_layer_offset", default=0, least=0)
            return [FULL if i % every == offset else SSM for i in range(layers)]
        fields.problem(
            "layer_types",
            "must say which layers attend and which are state-space layers (or layers_block_type, "
            "hybrid_override_pattern, attn_layer_period, attn_layer_indices): the file gives sizes of both",
        )
        return [FULL] * layers
    if fields.given("linear_num_value_heads"):
        every = fields.integer("full_attention_interval", default=4)
        return [FULL if (i + 1) % every == 0 else LINEAR for i in range(layers)]
    if fields.table("sparse_attention_config") is not None:
        return _sparse(fields, layers)
    return None


def _sparse(fields: Fields, layers: int) -> list[str]:
    """MiniMax-M3: a flag for each layer, where blocks are picked at all."""
    table = fields.table("sparse_attention_config") or {}
    inner = Fields(table, f"{fields.path}.sparse_attention_config", fields.problems)
    if inner.value("use_sparse_attention") is False:
        return [FULL] * layers
    flags: Any = inner.items("sparse_attention_freq")
    if flags is None:
        return [SPARSE] * layers
    if len(flags) != layers:
        inner.problem("sparse_attention_freq", f"must have one entry per layer, got {len(flags)} for {layers} layers")
        return [FULL] * layers
    return [SPARSE if f else FULL for f in flags]


def _by_window(fields: Fields, model_type: str, layers: int) -> list[str]:
    """No list at all: what the family does with its window."""
    if model_type.startswith("llama4"):
        return _llama4(fields, layers)
    if not fields.given("sliding_window") or fields.value("use_sliding_window") is False:
        return [FULL] * layers
    context = fields.integer("max_position_embeddings", default=0, least=0)
    if 0 < context <= fields.integer("sliding_window"):
        return [FULL] * layers  # no context is longer than the window (Phi-4-mini)
    pattern = fields.given(*_PATTERNS)
    if pattern is not None or model_type.startswith(("gemma3", "cohere2")):
        letters = fields.value(pattern) if pattern is not None else None
        if isinstance(letters, str) and letters and set(letters) <= {"L", "G"}:  # EXAONE 4: local and global layers
            return [WINDOW if letters[i % len(letters)] == "L" else FULL for i in range(layers)]
        default = 6 if model_type.startswith("gemma3") else 4
        return _every(layers, fields.integer(*_PATTERNS, default=default))
    every = fields.given("global_attn_every_n_layers", "global_attn_every_n")
    if every is not None:
        return _every(layers, fields.integer(every))
    if model_type.startswith(("gemma2", "gpt_oss")):
        return _every(layers, 2)
    if model_type.startswith(("qwen2", "qwen3")):
        first = fields.integer("max_window_layers", default=0, least=0)
        return [FULL if i < first else WINDOW for i in range(layers)]
    return [WINDOW] * layers


def _llama4(fields: Fields, layers: int) -> list[str]:
    """Llama 4: layers without rotary embedding (0 in `no_rope_layers`, else each fourth) attend to everything."""
    if not fields.given("attention_chunk_size"):
        return [FULL] * layers
    rotary = fields.items("no_rope_layers") or []
    if not rotary:
        every = fields.integer("no_rope_layer_interval", default=4)
        return [FULL if (i + 1) % every == 0 else CHUNKED for i in range(layers)]
    if len(rotary) != layers:
        fields.problem("no_rope_layers", f"must have one entry per layer, got {len(rotary)} for {layers} layers")
        return [FULL] * layers
    return [CHUNKED if x else FULL for x in rotary]


def _every(layers: int, every: int) -> list[str]:
    return [FULL if (i + 1) % every == 0 else WINDOW for i in range(layers)]
