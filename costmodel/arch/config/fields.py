"""Reading typed fields out of a mapping, collecting every problem instead of stopping at the first.

A field is asked for by one name, Hugging Face's most common one, and found under any that files spell it with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from costmodel.errors import InputError, Problem

LIMITS: dict[str, int] = {
    "num_hidden_layers": 10_000,
    "vocab_size": 10_000_000,
    "num_experts": 100_000,
    "sliding_window": 1_000_000_000,
    "attention_chunk_size": 1_000_000_000,
    "max_position_embeddings": 1_000_000_000,
}
"""Largest value accepted per field; every other size is held to `SIZE_LIMIT`."""
SIZE_LIMIT = 10_000_000
SPELLINGS: dict[str, tuple[str, ...]] = {
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "hidden_size": ("n_embd", "n_embed", "d_model"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_kv_heads", "n_head_kv", "kv_n_heads", "num_attention_groups"),
    "head_dim": ("kv_channels", "attention_head_dim"),
    "intermediate_size": ("n_inner", "ffn_hidden_size", "ffn_dim"),
    "vocab_size": ("padded_vocab_size",),
    "max_position_embeddings": (
        "model_max_length",
        "seq_length",
        "max_seq_len",
        "max_sequence_length",
        "max_position_embedding",
        "n_positions",
        "n_ctx",
        "max_model_len",
    ),
    "sliding_window": ("sliding_window_size",),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts"),
    "num_experts_per_tok": (
        "num_experts_per_token",
        "experts_per_token",
        "moe_topk",
        "moe_top_k",
        "moe_k",
        "top_k_experts",
        "num_selected_experts",
    ),
    "moe_intermediate_size": ("expert_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"),
    "n_shared_experts": ("num_shared_experts", "moe_num_shared_experts", "num_shared_expert"),
    "shared_expert_intermediate_size": (
        "share_expert_dim",
        "shared_experts_intermediate_size",
        "shared_intermediate_size",
    ),
    "first_k_dense_replace": ("num_dense_layers",),
    "moe_latent_size": ("routed_expert_hidden_size",),
    "num_nextn_predict_layers": ("num_mtp_modules", "mtp_num_hidden_layers", "num_mtp_layers"),
}
"""Other names that files give a field, after its own."""


class Fields:
    """A mapping under a path, with the problems found while reading it."""

    def __init__(
        self, values: Mapping[str, Any], path: str, problems: list[Problem], read: set[str] | None = None
    ) -> None:
        self.values = values
        self.path = path
        self.problems = problems
        self.read: set[str] = set() if read is None else read
        """Names that were asked for, given or not."""

    def with_values(self, changes: Mapping[str, Any]) -> Self:
        """The same place with some values changed; what is read of either counts for both."""
        return type(self)({**self.values, **changes}, self.path, self.problems, self.read)

    def problem(self, name: str, message: str) -> None:
        """Note a problem of one field, once."""
        found = Problem(path=f"{self.path}.{name}", message=message)
        if found not in self.problems:
            self.problems.append(found)

    def given(self, *names: str) -> str | None:
        """First spelling of these names that is present and not null."""
        spelled = [s for n in names for s in (n, *SPELLINGS.get(n, ()))]
        self.read.update(spelled)
        return next((s for s in spelled if self.values.get(s) is not None), None)

    def integer(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """A whole number under the first of `names` that is given; a missing one without default is a problem."""
        name = self.given(*names)
        if name is None:
            if default is None:
                self.problem(names[0], self._missing(names[0]))
                return least
            return default
        value = self.values[name]
        if isinstance(value, list) and value and all(type(x) is int and x == value[0] for x in value):
            value = value[0]  # one entry per layer, all alike (Hunyuan)
        if isinstance(value, bool) or not isinstance(value, int):
            whole = isinstance(value, float) and math.isfinite(value) and value.is_integer()
            if not whole:
                self.problem(name, f"must be a whole number, got {value!r}")
                return least
            value = int(value)
        limit = LIMITS.get(names[0], SIZE_LIMIT)
        if not least <= value <= limit:
            self.problem(name, f"must lie between {least} and {limit}, got {value}")
            return least
        return value

    def _missing(self, name: str) -> str:
        others = ", ".join(SPELLINGS.get(name, ()))
        return f"is required{f' (or {others})' if others else ''}, got nothing"

    def number(self, *names: str, default: float) -> float:
        """A finite number, not below 0."""
        name = self.given(*names)
        if name is None:
            return default
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= SIZE_LIMIT:
            self.problem(name, f"must be a number between 0 and {SIZE_LIMIT}, got {value!r}")
            return default
        return float(value)

    def value(self, name: str) -> Any:
        """What stands under a name, of any type; None where nothing does."""
        self.read.add(name)
        return self.values.get(name)

    def _of_kind(self, name: str, kind: type[Any], words: str, default: Any = None) -> Any:
        """What stands under a name, where it is of a kind; `default` where nothing does, and where it is not."""
        value = self.value(name)
        if value is None or isinstance(value, kind):
            return default if value is None else value
        self.problem(name, f"must be {words}, got {value!r}")
        return default

    def flag(self, name: str, *, default: bool) -> bool:
        """A boolean."""
        return bool(self._of_kind(name, bool, "true or false", default))

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        return str(self._of_kind(name, str, "a string", default))

    def table(self, name: str) -> Mapping[str, Any] | None:
        """A nested object, or None."""
        return self._of_kind(name, Mapping, "an object")

    def items(self, name: str) -> list[Any] | None:
        """A list, or None."""
        return self._of_kind(name, list, "a list")

    def whole_numbers(self, name: str) -> frozenset[int] | None:
        """A list of whole numbers, or the same as text with commas between; None where nothing stands there."""
        value = self.value(name)
        if value is None:
            return None
        parts = [p.strip() for p in value.split(",")] if isinstance(value, str) else value
        if not isinstance(parts, list):
            self.problem(name, f"must be a list of whole numbers, got {value!r}")
            return frozenset()
        numbers = [int(p) if isinstance(p, str) and p.isascii() and p.isdigit() and len(p) < 8 else p for p in parts]
        if any(type(n) is not int for n in numbers):
            self.problem(name, f"must be a list of whole numbers, got {value!r}")
            return frozenset()
        return frozenset(numbers)

    def finish(self) -> None:
        """Raise `InputError` with everything noted so far, if anything was."""
        if self.problems:
            raise InputError(self.problems)
