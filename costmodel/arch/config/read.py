"""Reading a Hugging Face config.json (or a study's model table, which is the same content) as a list of layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from costmodel.arch.arch import Arch, Layer
from costmodel.arch.block import EXPERTS, ONE_RANK, Block, Matrix
from costmodel.arch.config import families, mistral, uneven
from costmodel.arch.config.attention import Model, attention_blocks
from costmodel.arch.config.ffn import ffn_blocks
from costmodel.arch.config.fields import Fields
from costmodel.arch.config.file_kind import description, family_refusal, head_refusal, refusal
from costmodel.arch.config.layer_fields import LayerFields
from costmodel.arch.config.layer_types import GO_ON, layer_words
from costmodel.arch.config.module_names import expert_place, is_plain_always, linear_place, module_names
from costmodel.arch.config.quantization import StoredDtypes, read_quantization
from costmodel.arch.config.unread import unread
from costmodel.arch.ffn import Experts
from costmodel.arch.recurrent import Linear
from costmodel.arch.weights import active_params, total_params
from costmodel.errors import InputError, Problem

_NESTED = ("text_config", "llm_config", "language_config", "text_model_config", "thinker_config")
_PLAIN_DTYPES = {
    **dict.fromkeys(("bfloat16", "bf16"), "bf16"),
    **dict.fromkeys(("float16", "fp16", "half"), "fp16"),
    **dict.fromkeys(("auto", "float32"), "bf16"),
}


def read_config(config: Mapping[str, Any], *, name: str, approximate: bool = False) -> Arch:
    """Understand a config's content.

    `approximate` takes the nearest that there are formulas for where the file asks for something else, and says so in
    the assumptions of every result.

    Raises:
        InputError: everything that is missing, malformed, or asked for and not modelled, by field.
    """
    problems: list[Problem] = []
    refused = refusal(config)
    if refused is not None:
        raise InputError.single("$", refused)
    if mistral.is_params(config):
        config = mistral.as_config(config)
    nested, text = _text_model(config)
    assumptions: list[str] = []
    if nested:
        assumptions.append(f"model: only the text model (`{nested}`) is served and counted; other towers are not")
    path = f"$.{nested}" if nested else "$"
    model_type = _model_type(Fields(text, path, problems), Fields(config, "$", problems))
    text = _with_defaults(_flat(text), model_type, assumptions)
    fields = Fields(text, path, problems)
    refused = family_refusal(text, model_type)
    if refused is not None:
        raise InputError.single(f"{path}.model_type", refused)
    refused = head_refusal(config, nested=bool(nested))
    if refused is not None:
        raise InputError.single("$.architectures", refused)
    approximated = _unmodelled(fields, model_type, approximate=approximate)
    try:
        arch, settings = _read(fields, model_type, name, assumptions, approximated if approximate else None)
    except InputError as error:
        raise InputError(_explained(p, fields, model_type) for p in error.problems) from error
    return _with_unread(arch, fields, {**unread(fields), **settings}, approximated, approximate=approximate)


def _read(
    fields: Fields, model_type: str, name: str, assumptions: list[str], approximated: list[str] | None
) -> tuple[Arch, Mapping[str, Any]]:
    """The model, and the settings of its quantisation that nothing has read."""
    modules = fields.given("num_nextn_predict_layers")
    if modules is not None and fields.values[modules]:
        assumptions.append(f"model: multi-token-prediction modules (`{modules}`) are neither loaded nor counted")
    plain = _activation_dtype(fields, assumptions)
    hidden = fields.integer("hidden_size")
    single = uneven.one_block_layers(fields)
    count = fields.integer("num_hidden_layers", default=None if single is None else len(single))
    if single is not None and len(single) != count:
        fields.problem("num_hidden_layers", f"must be the length of the pattern of blocks, {len(single)}, got {count}")
        count = len(single)
    model = Model(
        fields=fields, by_layer=LayerFields(fields, count), model_type=model_type, layers=count, hidden=hidden
    )
    layers = _layers(model, single, approximated)
    tied = fields.flag("tie_word_embeddings", default=model_type.startswith(families.TIED_BY_DEFAULT))
    stored = read_quantization(fields, plain)
    vocab = fields.integer("vocab_size")
    context = fields.integer("max_position_embeddings", default=1)
    side = fields.integer("hidden_size_per_layer_input", default=0, least=0)
    streams = fields.integer("hc_mult", default=1) + _residual_reads(fields, count)
    fields.finish()
    if not any(layer.blocks for layer in layers):
        raise InputError.single(f"{fields.path}.num_hidden_layers", "must be of layers that hold something, got none")
    if context <= 1:
        context = 0
        assumptions.append("model: max_position_embeddings not given: no limit on the context assumed")
    arch = Arch(
        name=name,
        model_type=model_type,
        hidden_size=hidden,
        vocab_size=vocab,
        tie_word_embeddings=tied,
        layers=layers,
        embedding_dtype=plain,
        lm_head_dtype=stored.of_head(),
        activation_dtype=plain,
        kv_dtype=stored.kv,
        side_embedding_width=side * count,
        residual_streams=streams,
        max_position_embeddings=context,
        assumptions=tuple(assumptions),
    )
    stored_so = replace(arch, layers=_stored(arch, stored))
    fields.finish()
    return stored_so, stored.unread


def _residual_reads(fields: Fields, layers: int) -> int:
    """Attention residuals (Kimi K3): each layer reads what the blocks of layers before it left, on average half of
    them and twice, beside the eight passes over the stream that its norms take."""
    if not fields.given("attn_res_block_size"):
        return 0
    blocks = -(-layers // fields.integer("attn_res_block_size"))
    return max(round(blocks / 8), 1)


def _layers(model: Model, single: list[str] | None, approximated: list[str] | None) -> tuple[Layer, ...]:
    blocks = model.fields.items("block_configs")
    if blocks is not None:
        return uneven.blocks_of_their_own(model, blocks)
    if single is not None:
        return uneven.single_blocks(model, single)
    if model.fields.given("zero_expert_num") and model.fields.given("expert_ffn_hidden_size"):
        return uneven.shortcut_layers(model)
    words = layer_words(model.fields, model.model_type, model.layers, approximate=approximated)
    norms = 4 if model.is_any(families.FOUR_NORMS) and model.model_type != "glm4_moe" else 2
    known: dict[tuple[int, int], Layer] = {}
    out = []
    for attention, network in zip(attention_blocks(model, words), ffn_blocks(model), strict=True):
        key = (id(attention), id(network))
        if key not in known:
            known[key] = Layer(attention=attention, ffn=network, norms=norms)
        out.append(known[key])
    return tuple(out)


def _stored(arch: Arch, stored: StoredDtypes) -> tuple[Layer, ...]:
    """The layers with the dtypes that the checkpoint stores each of their matrices in."""
    place, beside = linear_place(arch), expert_place(arch)
    known: dict[tuple[object, ...], Layer] = {}
    blocks: dict[Block, tuple[Matrix, ...]] = {}

    def dtypes(block: Block, layer: int) -> tuple[tuple[str, str], ...]:
        if block not in blocks:
            blocks[block] = block.matrices(1, ONE_RANK)
        kind: Any = type(block)
        own = place if isinstance(block, Linear) else beside if isinstance(block, Experts) else ""
        return tuple(
            (
                m.name,
                stored.plain
                if is_plain_always(block, m.name)
                else stored.of(layer, module_names(kind, m.name, own), expert=m.weights == EXPERTS),
            )
            for m in blocks[block]
        )

    out = []
    for i, layer in enumerate(arch.layers):
        found = tuple(dtypes(b, i) for b in layer.blocks)
        key = (id(layer), found)
        if key not in known:
            mixers = len(layer.attention)
            known[key] = replace(
                layer,
                attention=tuple(replace(b, dtypes=d) for b, d in zip(layer.attention, found[:mixers], strict=True)),
                ffn=tuple(replace(b, dtypes=d) for b, d in zip(layer.ffn, found[mixers:], strict=True)),
            )
        out.append(known[key])
    return tuple(out)


def _explained(problem: Problem, fields: Fields, model_type: str) -> Problem:
    """A field that is missing, with what the file is, and what of it is not known and may be that field's name."""
    if not problem.message.startswith("is required"):
        return problem
    unknown = unread(fields)
    named = f"; of its fields {', '.join(f'`{n}`' for n in list(unknown)[:8])} are not known" if unknown else ""
    said = f"{problem.message}; the file is read as {description(fields.values, model_type)}{named}"
    return Problem(path=problem.path, message=said)


def _with_unread(
    arch: Arch, fields: Fields, unknown: Mapping[str, Any], approximated: list[str], *, approximate: bool
) -> Arch:
    """The model with what it was approximated by; or an error that names what the reader does not know."""
    size = (
        f"{arch.num_hidden_layers} layers, {total_params(arch) / 1e9:,.2f} B parameters, "
        f"{active_params(arch) / 1e9:,.2f} B active"
    )
    if unknown and not approximate:
        for name, value in unknown.items():
            text = repr(value)
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            fields.problem(
                name,
                f"is not a field that is known, and may change what the model costs, got {shown}; without it the model "
                f"has {size}; {GO_ON} takes that",
            )
    fields.finish()
    approximated = [*approximated, *(f"`{n}` left out" for n in unknown)]
    if not approximated:
        return arch
    said = f"model: approximated by {size}: {'; '.join(approximated)}"
    return replace(arch, assumptions=(*arch.assumptions, said))


def _unmodelled(fields: Fields, model_type: str, *, approximate: bool) -> list[str]:
    """What the file asks for that there are no formulas for: problems, or sentences where it may be approximated."""
    said = []
    asked = {n: v for n, v in families.APPROXIMATED.items() if fields.value(n)}
    if model_type in families.APPROXIMATED_FAMILIES:
        asked["model_type"] = families.APPROXIMATED_FAMILIES[model_type]
    for name, (meaning, instead) in asked.items():
        if approximate:
            said.append(f"`{name}`, {meaning}, taken as {instead}")
        else:
            fields.problem(
                name, f"asks for {meaning}, which there are no formulas for; {GO_ON} takes {instead} instead"
            )
    return said


def _model_type(inner: Fields, outer: Fields) -> str:
    found = inner.text("model_type") or outer.text("model_type")
    names = outer.items("architectures") or inner.items("architectures") or []
    by_name = next((families.MODEL_TYPES[n] for n in names if isinstance(n, str) and n in families.MODEL_TYPES), "")
    return by_name if not found or found == "git" else found


def _text_model(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The text model nested in a config, at any depth, and its path; the config itself and "" where there is none.

    It takes from the outer config what only that says, and whether the embeddings are tied: the outer model has both.
    """
    nested = next((n for n in _NESTED if isinstance(config.get(n), Mapping)), None)
    if nested is None:
        return "", config
    shared = (
        "quantization_config", "compression_config", "tie_word_embeddings", "torch_dtype", "dtype", "expert_dtype",
    )  # fmt: skip
    inner = {**{k: config[k] for k in shared if config.get(k) is not None}, **config[nested]}
    if isinstance(config.get("tie_word_embeddings"), bool):
        inner["tie_word_embeddings"] = config["tie_word_embeddings"]
    below, text = _text_model(inner)
    return f"{nested}.{below}" if below else nested, text


def _flat(text: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields with those of DBRX's and MPT's tables of attention and networks among them, and no windows of -1."""
    off = {n for n in ("sliding_window", "sliding_window_size") if type(text.get(n)) is int and text[n] <= 0}
    if off:
        text = {k: v for k, v in text.items() if k not in off}
    inner: dict[str, Any] = {}
    for table in ("attn_config", "ffn_config"):
        values = text.get(table)
        if isinstance(values, Mapping):
            inner |= {k: v for k, v in values.items() if k in _INNER_FIELDS}
    return {**inner, **text} if inner else text


_INNER_FIELDS = frozenset(("kv_n_heads", "ffn_hidden_size", "moe_num_experts", "moe_top_k"))


def _with_defaults(text: Mapping[str, Any], model_type: str, assumptions: list[str]) -> Mapping[str, Any]:
    """The fields with what published files of this family leave to their reference code."""
    filled = {k: v for k, v in families.DEFAULTS.get(model_type, {}).items() if text.get(k) is None}
    if filled:
        values = ", ".join(f"{k} {v:,}" for k, v in filled.items())
        assumptions.append(f"model: left to the reference code's defaults for {model_type}: {values}")
    return {**text, **filled}


def _activation_dtype(fields: Fields, assumptions: list[str]) -> str:
    name = fields.given("torch_dtype", "dtype")
    if name is None:
        assumptions.append("model: torch_dtype not given: bf16")
        return "bf16"
    text = fields.text(name, "bfloat16").removeprefix("torch.")
    if text not in _PLAIN_DTYPES:
        fields.problem(name, f"must be one of {', '.join(_PLAIN_DTYPES)}, got {text!r}")
        return "bf16"
    if text == "float32":
        assumptions.append("model: float32 weights are served in bf16, as engines do by default")
    return _PLAIN_DTYPES[text]
