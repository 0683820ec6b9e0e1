"""The fields of a file as one layer has them: lists with an entry per layer, tables of what single layers change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costmodel.arch.config.fields import Fields

RENAMED = {
    "num_attention_heads_per_layer": "num_attention_heads",
    "num_key_value_heads_per_layer": "num_key_value_heads",
    "intermediate_size_per_layer": "intermediate_size",
}
"""Lists with an entry per layer -> the field that they give."""
LISTED = (
    *RENAMED, "num_attention_heads", "num_key_value_heads", "num_kv_heads", "head_dim", "intermediate_size",
    "num_experts", "num_experts_per_tok", "moe_intermediate_size", "moe_topk", "num_shared_expert",
)  # fmt: skip
"""Fields that some files give as a list with an entry per layer."""


class LayerFields:
    """A model's fields, layer by layer."""

    def __init__(self, fields: Fields, layers: int) -> None:
        self.fields = fields
        self._lists = self._read_lists(layers)
        self._changes = self._read_changes(layers)
        self._known: dict[tuple[Any, ...], Fields] = {}

    def _read_lists(self, layers: int) -> dict[str, list[Any]]:
        found = {}
        for name in LISTED:
            values = self.fields.values.get(name)
            if not isinstance(values, list) or not values:
                continue
            self.fields.read.add(name)
            if len(values) == layers:
                found[RENAMED.get(name, name)] = values
            elif name not in ("moe_intermediate_size", "num_experts"):  # those may be lists per modality
                self.fields.problem(name, f"must have one entry per layer, got {len(values)} for {layers} layers")
        return found

    def _read_changes(self, layers: int) -> dict[int, Mapping[str, Any]]:
        """`per_layer_config` of Transformers: the layer's number, with zeros before it, and what it changes."""
        table = self.fields.table("per_layer_config")
        found: dict[int, Mapping[str, Any]] = {}
        for key, change in (table or {}).items():
            number = int(key) if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 8 else -1
            if not 0 <= number < layers or not isinstance(change, Mapping):
                self.fields.problem(
                    "per_layer_config", f"must map numbers of layers below {layers} to objects, got {key!r}"
                )
                continue
            found[number] = change
        return found

    def changes(self, layer: int) -> Mapping[str, Any]:
        """What this layer has otherwise than the model at large."""
        listed = {name: values[layer] for name, values in self._lists.items()}
        return {**listed, **self._changes.get(layer, {})}

    def key(self, layer: int) -> tuple[Any, ...]:
        """Equal for layers with the same fields."""
        return tuple(sorted((name, repr(value)) for name, value in self.changes(layer).items()))

    def at(self, layer: int) -> Fields:
        """The fields of one layer."""
        key = self.key(layer)
        if key not in self._known:
            changes = self.changes(layer)
            self._known[key] = self.fields.with_values(changes) if changes else self.fields
        return self._known[key]
