"""Quantisation settings of a checkpoint, by any published way: the dtype of every module, and of the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from costmodel.arch.config.cache_format import kv_dtype
from costmodel.arch.config.fields import Fields
from costmodel.arch.config.module_names import ModulePatterns
from costmodel.arch.config.unread import unread_settings
from costmodel.arch.config.weight_formats import (
    PLAIN,
    UNSAID,
    auto_round_dtype,
    compressed_tensors_dtype,
    fp8_blocks,
    integer_dtype,
    integers,
    modelopt_dtype,
    quark_dtype,
    torchao_dtype,
)

_EXCLUDED = (
    "modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers", "exclude", "llm_int8_skip_modules",
    "ignored_modules",
)  # fmt: skip
"""Lists of modules that are not quantised."""
HEADS = ("lm_head", "output", "head")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDtypes:
    """What a checkpoint stores its weights and its cache in."""

    plain: str
    """Of what is not quantised."""
    kv: str
    is_quantised: bool = False
    default: str = PLAIN
    """Of linear layers of which nothing else is said."""
    experts: str | None = None
    """Of routed experts of which nothing else is said; None: as other linear layers."""
    said: ModulePatterns[str] = field(default_factory=ModulePatterns)
    unread: Mapping[str, Any] = field(default_factory=dict)
    """Settings that ask for something which nothing here knows, by the path of their field."""

    def of(self, layer: int | None, names: tuple[str, ...], *, expert: bool = False) -> str:
        """Of a module of a layer, known by any of `names`."""
        if not self.is_quantised:
            return self.plain
        found = self.said.find(layer, names)
        if found is None:
            found = self.experts if expert and self.experts is not None else self.default
        return self.plain if found == PLAIN else found

    def of_head(self) -> str:
        """Of the LM head, which engines leave as it is unless it is named."""
        found = self.said.find(None, HEADS) if self.is_quantised else None
        return self.plain if found in (None, PLAIN) else str(found)


@dataclass(slots=True, kw_only=True)
class _Settings:
    """Settings while they are read."""

    quant: Fields
    default: str = PLAIN
    said: ModulePatterns[str] = field(default_factory=ModulePatterns)

    def say(self, entry: object, dtype: str) -> None:
        """Of the modules that an entry covers."""
        if not isinstance(entry, str) or not self.said.add(entry, dtype):
            self.quant.problem("ignore", f"must name modules, or give a pattern that can be matched, got {entry!r:.80}")


def read_quantization(fields: Fields, plain: str) -> StoredDtypes:
    """Dtypes of a config whose weights are `plain` where nothing is said of them."""
    table = fields.table("quantization_config") or fields.table("compression_config")
    if not table:
        return StoredDtypes(plain=plain, kv=plain)
    nested = table.get("quantization")
    if isinstance(nested, Mapping):  # ModelOpt's own file, whole
        table = {**nested, **{name: value for name, value in table.items() if name != "quantization"}}
    quant = Fields(table, f"{fields.path}.quantization_config", fields.problems)
    settings = _Settings(quant=quant)
    method = quant.text("quant_method").lower().replace("_", "-")
    reader = _METHODS.get(method)
    if reader is None and quant.given("quant_algo", "quantized_layers"):
        reader = _modelopt
    if reader is None and quant.given("config_groups"):
        reader = _compressed_tensors
    if reader is None:
        known = ", ".join(m for m in _METHODS if m)
        quant.problem("quant_method", f"must be one of {known}, got {method!r:.80}")
    else:
        reader(settings)
    expert = fields.text("expert_dtype")
    return StoredDtypes(
        plain=plain,
        default=settings.default,
        experts="mxfp4" if expert in ("fp4", "mxfp4") else None,
        said=settings.said,
        kv=kv_dtype(quant, plain),
        is_quantised=True,
        unread={} if reader is None else unread_settings(quant),
    )


def _exclude(settings: _Settings) -> None:
    for name in _EXCLUDED:
        for entry in settings.quant.items(name) or ():
            settings.say(entry, PLAIN)


def _fp8(settings: _Settings) -> None:
    quant = settings.quant
    size = quant.items("weight_block_size")
    settings.default = "fp8"
    if size is not None:
        if len(size) != 2 or not all(type(x) is int and 0 < x <= 65_536 for x in size):
            quant.problem("weight_block_size", f"must be two positive whole numbers, got {size!r:.80}")
            return
        settings.default = fp8_blocks(size[0], size[1])
    if quant.given("quantized_layers"):
        _modules(settings, "quantized_layers")  # experts in FP4 over a checkpoint in FP8 (DeepSeek-V4, NVIDIA)
        quant.read.update(("quant_algo", "group_size", *_EXCLUDED))  # said of the layers in FP4 alone
        return
    _exclude(settings)


def _mxfp4(settings: _Settings) -> None:
    settings.default = "mxfp4"
    _exclude(settings)


def _modelopt(settings: _Settings) -> None:
    quant = settings.quant
    algorithm = quant.text("quant_algo").upper()
    quant.read.update(("group_size", "config_groups"))
    if quant.given("quantized_layers"):
        _modules(settings, "quantized_layers")
        _exclude(settings)
        return
    groups = quant.table("config_groups") or {}
    dtype = modelopt_dtype(algorithm, quant.value("group_size")) if algorithm else None
    if len(groups) > 1 or dtype is None:
        if groups:
            _compressed_tensors(settings)
            return
        quant.problem("quant_algo", f"is not a format of ModelOpt that is known, got {algorithm!r:.80}")
        return
    weights_alone = bool(groups) and all(
        isinstance(g, Mapping) and "input_activations" in g and g["input_activations"] is None for g in groups.values()
    )
    settings.default = "nvfp4_a16" if dtype == "nvfp4" and weights_alone else dtype
    _exclude(settings)


def _modules(settings: _Settings, name: str) -> None:
    """ModelOpt: an algorithm for each module."""
    for module, entry in (settings.quant.table(name) or {}).items():
        algorithm = entry.get("quant_algo") if isinstance(entry, Mapping) else entry
        dtype = modelopt_dtype(algorithm, entry.get("group_size") if isinstance(entry, Mapping) else None)
        if dtype is None:
            settings.quant.problem(f"{name}.{str(module)[:80]}", f"is not a known format, got {algorithm!r:.80}")
            return
        settings.say(module, dtype)


def _compressed_tensors(settings: _Settings) -> None:
    quant = settings.quant
    groups = quant.table("config_groups") or {}
    _exclude(settings)
    sparsity = quant.values.get("sparsity_config")
    if isinstance(sparsity, Mapping) and sparsity.get("format") == "dense":
        quant.read.add("sparsity_config")
    found = []
    for name, group in groups.items():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if not isinstance(weights, Mapping):
            continue
        dtype = compressed_tensors_dtype(weights, group.get("input_activations", UNSAID))
        if dtype is None:
            bits, kind = weights.get("num_bits"), weights.get("type")
            quant.problem(
                f"config_groups.{name}.weights",
                f"must be 2 to 8 bits of int, or 4 or 8 of float, got num_bits={bits!r:.40}, type={kind!r:.40}",
            )
            return
        targets = group.get("targets")
        found.append((targets if isinstance(targets, list) else ["Linear"], dtype))
    if not found:
        quant.problem("config_groups", f"must hold a group with weights, got {str(dict(groups))[:80]}")
    for targets, dtype in found:
        for target in targets:
            if isinstance(target, str) and target[:1].isupper() and "." not in target:
                settings.default = dtype  # of a class of modules (`Linear`), not of one by its name
            else:
                settings.say(target, dtype)


_OF_INTEGERS = (
    "group_size", "q_group_size", "sym", "zero_point", "data_type", "act_bits", "act_data_type", "act_dynamic",
    "act_group_size", "act_sym",
)  # fmt: skip


def _grouped_integers(settings: _Settings) -> None:
    """GPTQ, AWQ, AutoRound."""
    quant = settings.quant
    bits = quant.integer("bits", "w_bit", "weight_bits", default=4)
    if bits not in (2, 3, 4, 5, 6, 8, 16):
        quant.problem("bits", f"must be 2 to 8, got {bits}")
        return
    settings.default = auto_round_dtype(quant.values) or integer_dtype(quant.values, bits)
    quant.read.update(_OF_INTEGERS)
    _exclude(settings)
    dynamic = quant.table("dynamic") or {}  # GPTQModel: + a pattern otherwise, - one left as it is
    for entry, change in dynamic.items():
        text = str(entry)
        if text.startswith("-:"):
            settings.say(f"re:{text[2:]}", PLAIN)
        elif isinstance(change, Mapping):
            settings.say(f"re:{text.removeprefix('+:')}", _changed(quant, change, bits))
    for entry, change in (quant.table("extra_config") or {}).items():  # AutoRound
        if isinstance(change, Mapping):
            text = str(entry)
            settings.say(f"re:{text}" if "*" in text and ".*" in text else text, _changed(quant, change, bits))
    if quant.value("lm_head") is True:
        settings.say("lm_head", settings.default)


def _changed(quant: Fields, change: Mapping[str, Any], bits: int) -> str:
    own = change.get("bits", bits)
    if type(own) is not int or own >= 16:
        return PLAIN
    merged = {**quant.values, **change}
    return auto_round_dtype(merged) or integer_dtype(merged, min(max(own, 2), 8))


def _bitsandbytes(settings: _Settings) -> None:
    quant = settings.quant
    four = quant.value("load_in_4bit") or quant.value("_load_in_4bit")
    doubled = quant.value("bnb_4bit_use_double_quant") is True
    settings.default = ("nf4_dq" if doubled else "nf4") if four else "int8"
    _exclude(settings)


def _quark(settings: _Settings) -> None:
    quant = settings.quant

    def dtype(path: str, entry: object) -> str:
        weight = entry.get("weight") if isinstance(entry, Mapping) else None
        found = quark_dtype(weight, entry.get("input_tensors") if isinstance(entry, Mapping) else None)
        if found is None:
            quant.problem(path, f"is not a format of Quark that is known, got {str(weight)[:80]}")
        return found or PLAIN

    _exclude(settings)
    for pattern, entry in (quant.table("layer_quant_config") or {}).items():
        settings.say(pattern, dtype(f"layer_quant_config.{str(pattern)[:80]}", entry))
    by_type = quant.table("layer_type_quant_config") or {}
    linear = next((v for k, v in by_type.items() if str(k).lower().endswith("linear")), None)
    base = linear if linear is not None else quant.table("global_quant_config")
    settings.default = dtype("global_quant_config", base)


def _torchao(settings: _Settings) -> None:
    quant = settings.quant
    kind = quant.value("quant_type")
    if isinstance(kind, str):  # of releases that wrote a name, and its arguments beside it
        kind = {
            "_type": kind,
            "_data": {"group_size": quant.value("group_size")} | dict(quant.table("quant_type_kwargs") or {}),
        }
    if isinstance(kind, Mapping) and "default" in kind:
        kind = kind["default"]
    inner = kind.get("_data") if isinstance(kind, Mapping) else None
    by_name = None
    if isinstance(inner, Mapping):
        by_name = inner.get("module_fqn_to_config") or inner.get("fqn_to_config")
    _exclude(settings)
    if isinstance(by_name, Mapping):
        for module, entry in by_name.items():
            dtype = PLAIN if entry is None else torchao_dtype(entry)
            if dtype is None:
                quant.problem("quant_type", f"is not a format of torchao that is known, got {str(entry)[:80]}")
            elif module == "_default":
                settings.default = dtype
            else:
                settings.say(module, dtype)
        return
    dtype = torchao_dtype(kind)
    if dtype is None:
        quant.problem("quant_type", f"is not a format of torchao that is known, got {str(kind)[:80]}")
        return
    settings.default = dtype


def _fp_quant(settings: _Settings) -> None:
    settings.default = "nvfp4" if settings.quant.text("forward_dtype", "nvfp4").lower() == "nvfp4" else "mxfp4"
    _exclude(settings)


def _hqq(settings: _Settings) -> None:
    quant = settings.quant
    table = quant.table("quant_config") or {}
    weights = table.get("weight_quant_params")
    inner = Fields(weights if isinstance(weights, Mapping) else {}, f"{quant.path}.quant_config", quant.problems)
    bits, group = inner.integer("nbits", default=4), inner.integer("group_size", default=64)
    settings.default = integers(min(max(bits, 2), 8), group, zero=True)
    for entry in quant.items("skip_modules") or ():
        settings.say(entry, PLAIN)


def _named(dtype: str) -> Callable[[_Settings], None]:
    def read(settings: _Settings) -> None:
        settings.default = dtype
        settings.quant.read.add("weights")  # EETQ's, which has but one format
        _exclude(settings)

    return read


_METHODS: dict[str, Callable[[_Settings], None]] = {
    "fp8": _fp8,
    "fbgemm-fp8": _fp8,
    "deepseek-v4-fp8": _fp8,
    "finegrained-fp8": _fp8,
    "mxfp4": _mxfp4,
    "gpt-oss-mxfp4": _mxfp4,
    "mxfp8": _named("mxfp8"),
    "nvfp4": _named("nvfp4"),
    "modelopt": _modelopt,
    "modelopt-fp4": _modelopt,
    "modelopt-mxfp8": _modelopt,
    "modelopt-mixed": _modelopt,
    "compressed-tensors": _compressed_tensors,
    "gptq": _grouped_integers,
    "auto-gptq": _grouped_integers,
    "gptq-marlin": _grouped_integers,
    "awq": _grouped_integers,
    "auto-awq": _grouped_integers,
    "awq-marlin": _grouped_integers,
    "auto-round": _grouped_integers,
    "autoround": _grouped_integers,
    "intel/auto-round": _grouped_integers,
    "inc": _grouped_integers,
    "moe-wna16": _grouped_integers,
    "bitsandbytes": _bitsandbytes,
    "quark": _quark,
    "torchao": _torchao,
    "fp-quant": _fp_quant,
    "hqq": _hqq,
    "eetq": _named("int8_a16"),
    "experts-int8": _named("int8_a16"),
}
