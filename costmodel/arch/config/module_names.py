"""Names of modules in a checkpoint, and the patterns by which quantisation settings speak of them.

Files name a module in full under any wrapper (`model.language_model.layers.3.self_attn.q_proj`), by a tail (`lm_head`,
`mlp.gate`), with `*`, or as a regular expression after `re:`. What is asked of a module is asked under each name that
families give it, `layers.3.` in front.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from functools import lru_cache
from typing import Generic, TypeVar

from costmodel.arch.arch import Arch
from costmodel.arch.attention import Compressed, GroupedQuery, Latent
from costmodel.arch.block import Block
from costmodel.arch.ffn import Dense, Experts
from costmodel.arch.recurrent import Linear, StateSpace

V = TypeVar("V")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)(?:\.|$)")
_NOT_TEXT = re.compile(r"(^|[._])(vision|visual|vit|audio|mtp|mm|img|image|speech|sound|projector|eh_proj)([._]|$|_)")
_WRAPPERS = ("model.", "", "model.language_model.", "language_model.model.", "backbone.", "transformer.encoder.")
_MOST_CHARACTERS, _MOST_REPEATS = 2_000, 5
_GATE_UP = ("gate_proj", "up_proj", "gate_up_proj")
ATTENTION_PLACES = (
    "self_attn", "attn", "attention", "mixer", "self_attention", "linear_attn", "mamba", "norm_attn_norm.attn",
)  # fmt: skip
_EXPERT_PLACES = (
    "mlp.experts", "block_sparse_moe.experts", "feed_forward.experts", "ffn.experts", "mixer.experts", "moe.experts",
    "experts",
)  # fmt: skip
_SHARED_PLACES = (
    "mlp.shared_experts", "mlp.shared_expert", "mlp.shared_mlp", "block_sparse_moe.shared_experts",
    "feed_forward.shared_expert", "ffn.shared_experts", "mixer.shared_experts", "share_expert", "shared_mlp",
)  # fmt: skip
_DENSE_PLACES = ("mlp", "feed_forward", "ffn", "mixer", "mlps.0", "residual_mlp")


def _places(places: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{place}.{name}" for place in places for name in names)


def _attention(place: tuple[str, ...], *names: str) -> tuple[str, ...]:
    return _places(place, names)


@lru_cache(maxsize=256)
def module_names(kind: Hashable, matrix: str, own_place: str) -> tuple[str, ...]:
    """Names of the modules that a matrix of a block of class `kind` is made of, below `layers.N.`.

    `own_place` is where the family keeps such blocks, where it is not where most do: linear attention in `linear_attn`
    beside `self_attn`, experts beside `mlp`.
    """
    if kind is Linear:
        place: tuple[str, ...] = (own_place,) if own_place else ("self_attn", "attention")
        names = {
            "in_proj": ("in_proj_qkvz", "in_proj_qkv", "q_proj", "query_key_value"),
            "o_proj": ("out_proj", "o_proj", "dense"),
            "conv": ("conv1d", "q_conv1d"),
            "gate_a_proj": ("f_a_proj", "g_a_proj"),
            "gate_b_proj": ("f_b_proj", "g_b_proj"),
        }
        return _attention(place, *names[matrix])
    if kind is StateSpace:
        names = {"in_proj": ("in_proj",), "o_proj": ("out_proj",), "conv": ("conv1d",)}
        return _attention(("mamba", "mixer"), *names.get(matrix, (matrix,)))
    if kind in (GroupedQuery, Latent, Compressed):
        places = tuple(p for p in ATTENTION_PLACES if p not in ("linear_attn", "mamba"))
        return _attention(places, *_ATTENTION_MODULES[matrix])
    if kind is Dense:
        names = {
            "up_proj": (*_GATE_UP, "w1", "w3", "fc1", "dense_h_to_4h", "c_fc"),
            "down_proj": ("down_proj", "w2", "fc2"),
        }
        return _places(_DENSE_PLACES, names.get(matrix, (matrix,)))
    return _expert_modules(matrix, (own_place, f"moe.{own_place}") if own_place else _EXPERT_PLACES)


_ATTENTION_MODULES = {
    "qkv_proj": ("q_proj", "qkv_proj", "query_key_value", "Wqkv", "c_attn", "W_pack", "wq"),
    "o_proj": ("o_proj", "out_proj", "dense", "wo", "wo_b", "o_b_proj"),
    "o_a_proj": ("o_a_proj", "wo_a"),
    "qkv_a_proj": ("kv_a_proj_with_mqa", "q_a_proj", "fused_qkv_a_proj", "wq_a", "wkv", "kv_proj"),
    "q_b_proj": ("q_b_proj", "q_proj", "wq_b"),
    "kv_b_proj": ("kv_b_proj",),
    "index_q_proj": ("indexer.wq_b", "indexer.q_b_proj", "compressor.indexer.q_b_proj"),
    "index_k_proj": ("indexer.wk",),
    "index_proj": ("index_q_proj", "index_qkv_proj", "indexer.q_proj"),
    "compress_proj": ("compressor.wkv", "compressor.kv_proj"),
}


def _expert_modules(matrix: str, places: tuple[str, ...]) -> tuple[str, ...]:
    if matrix in ("experts", "other_experts"):
        inner = ("0.down_proj", "0.gate_proj", "0.up_proj", "0.w1", "0.w2", "down_proj", "gate_up_proj", "gate_proj")
        return (*_places(places, inner), *places)
    if matrix in ("up_proj", "down_proj"):
        return _places(_SHARED_PLACES, _GATE_UP if matrix == "up_proj" else ("down_proj",))
    if matrix.startswith("latent"):
        way = {"latent_down_proj": ("fc1_latent_proj", "routed_expert_down_proj")}
        way |= {"latent_up_proj": ("fc2_latent_proj", "routed_expert_up_proj")}
        return _places(("mixer", "mlp", "block_sparse_moe"), way[matrix])
    return ()


def is_plain_always(block: Block, matrix: str) -> bool:
    """Whether engines keep a matrix as it is whatever a checkpoint's settings say: routers and convolutions."""
    return matrix == "conv" or (isinstance(block, Experts) and matrix == "router")


def linear_place(arch: Arch) -> str:
    """Where the family keeps linear attention; empty: where it keeps attention."""
    return "linear_attn" if arch.model_type.startswith(("qwen3", "olmo_hybrid")) else ""


def expert_place(arch: Arch) -> str:
    """Where the family keeps its experts; empty: in its networks' place."""
    return "experts" if arch.model_type.startswith("gemma4") else ""


def split_name(name: str) -> tuple[int | None, str] | None:
    """Number of the layer and the rest of a module's name, None for a module that text serving does not load."""
    found = _LAYER.search(name)
    prefix = name if found is None else name[: found.start()]
    if _NOT_TEXT.search(prefix):
        return None
    if found is None:
        return None, name
    return int(found[1]), name[found.end() :]


@lru_cache(maxsize=4096)
def safe_pattern(text: str) -> re.Pattern[str] | None:
    """A regular expression of a file, None where it could take for ever: nested repeats, or too many of them."""
    text = re.sub(r"(\.\*\??)+", ".*", text)
    if len(text) > _MOST_CHARACTERS or len(re.findall(r"(?<!\\)[*+{]", text)) > _MOST_REPEATS:
        return None
    inside = re.sub(r"\\.|\[[^\]]*\]", "x", text)
    if re.search(r"[*+}][^()|]*\)[*+{?]", inside) or re.search(r"\([^()]*\|[^()]*\)[*+{]", inside):
        return None
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return None


class ModulePatterns(Generic[V]):
    """What is said of modules by name: the first entry that covers one counts."""

    def __init__(self) -> None:
        self._exact: dict[tuple[int | None, str], V] = {}
        self._tails: dict[str, V] = {}
        self._of_layer: dict[int, list[tuple[re.Pattern[str], V]]] = {}
        self._anywhere: list[tuple[re.Pattern[str], V]] = []
        self._regex: list[tuple[re.Pattern[str], V]] = []
        self._known: dict[tuple[int | None, tuple[str, ...]], V | None] = {}
        self._same_in_all_layers = True

    def add(self, entry: str, value: V) -> bool:
        """Note what an entry says; False where it is a pattern that cannot be used."""
        if entry.startswith("re:"):
            pattern = safe_pattern(entry[3:])
            if pattern is None:
                return False
            self._regex.append((pattern, value))
            self._same_in_all_layers &= re.search(r"\d", entry) is None and "\\d" not in entry
            return True
        if len(entry) > _MOST_CHARACTERS or entry.count("*") > _MOST_REPEATS:
            return False
        parts = split_name(entry)
        if parts is None:
            return True
        layer, rest = parts
        if "*" not in entry and "?" not in entry:
            if layer is None:
                self._tails.setdefault(rest, value)
            else:
                self._exact.setdefault((layer, rest), value)
        elif layer is not None and rest:
            self._of_layer.setdefault(layer, []).append((_wildcards(rest), value))
        else:
            self._same_in_all_layers &= re.search(r"\d", entry) is None
            at = entry.find("layers.")
            self._anywhere.append((_wildcards(entry if at < 0 else entry[at:]), value))
        return True

    def find(self, layer: int | None, names: tuple[str, ...]) -> V | None:
        """What is said of the module under any of its names, None where nothing is."""
        # entries that name a layer are looked up for it; all others give the same in every layer
        own = not self._same_in_all_layers or layer in self._of_layer
        exact = next(self._exactly(layer, names), None)
        if exact is not None:
            return exact
        key = (layer if own else (None if layer is None else -1), names)
        if key not in self._known:
            self._known[key] = next(self._by_pattern(layer, names), None)
        return self._known[key]

    def _exactly(self, layer: int | None, names: tuple[str, ...]) -> Iterator[V]:
        if not self._exact:
            return
        for name in names:
            for beginning in _beginnings(name):
                if (layer, beginning) in self._exact:
                    yield self._exact[layer, beginning]

    def _by_pattern(self, layer: int | None, names: tuple[str, ...]) -> Iterator[V]:
        for name in names:
            parts = name.split(".")
            for start in range(len(parts)):
                for end in range(len(parts), start, -1):
                    tail = ".".join(parts[start:end])
                    if tail in self._tails:
                        yield self._tails[tail]
            full = name if layer is None else f"layers.{layer}.{name}"
            for pattern, value in self._of_layer.get(-1 if layer is None else layer, ()):
                if pattern.search(name):
                    yield value
            for pattern, value in self._anywhere:
                if pattern.search(full) or pattern.search(f"model.{full}"):
                    yield value
            for pattern, value in self._regex:
                if any(pattern.match(wrapper + full) for wrapper in _WRAPPERS):
                    yield value


@lru_cache(maxsize=4096)
def _beginnings(name: str) -> tuple[str, ...]:
    """A name and the modules that hold it, the whole layer (empty) last."""
    parts = name.split(".")
    return tuple(".".join(parts[:end]) for end in range(len(parts), -1, -1))


@lru_cache(maxsize=65536)
def _wildcards(entry: str) -> re.Pattern[str]:
    """A name with `*` as a pattern over whole components at its end, and from a component's beginning."""
    text = re.sub(r"(\\\*)+", ".*", re.escape(entry)).replace(r"\?", ".")
    return re.compile(rf"(?:^|\.){text}(?:\.|$)")
