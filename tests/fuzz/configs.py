"""Model files with fields changed, taken from other files or made up: JSON that parses, and asks for strange things."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from autotune.report.model import model_document
from costmodel.arch import read_config
from costmodel.errors import InputError
from tests.fuzz.readers import CONFIGS

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 3, 7, 8, 64, 128, 4096, -1, 0.5, 1e308, 10**12, 10**30, "", "bf16", "fp8", "auto", "x",
    [], [0], [1, 2], [[1]], [None], ["full_attention"], ["mamba", "attention"], {}, {"0": 1}, {"a": {"b": []}},
    {"type": "float", "num_bits": 8, "group_size": 32}, "re:.*", "*.experts.*", "[", "(a+)+$", "nan", "M*E-M",
)  # fmt: skip
"""Values of every kind that a field may have, and some that none may."""


@lru_cache(maxsize=1)
def configs() -> tuple[Mapping[str, Any], ...]:
    """Every file of the catalog."""
    return tuple(json.loads(p.read_text(encoding="utf-8")) for p in sorted(CONFIGS.glob("*.json")))


@lru_cache(maxsize=1)
def fields() -> tuple[tuple[str, Any], ...]:
    """Every field of all of them, at any depth, with its value."""
    found: dict[str, tuple[str, Any]] = {}
    for config in configs():
        pending = [config]
        while pending:
            node = pending.pop()
            for key, value in node.items():
                found.setdefault(f"{key}={value}"[:200], (key, value))
                if isinstance(value, Mapping):
                    pending.append(value)
    return tuple(found.values())


def changed(rng: random.Random) -> dict[str, Any]:
    """A file with up to six fields removed, taken from others, or set to something strange."""
    config: dict[str, Any] = json.loads(json.dumps(rng.choice(configs())))
    for _ in range(rng.randint(1, 6)):
        node = config
        while (inner := [v for v in node.values() if isinstance(v, dict)]) and rng.random() < 0.5:
            node = rng.choice(inner)
        kind = rng.random()
        if kind < 0.25 and node:
            del node[rng.choice(sorted(node))]
        elif kind < 0.55:
            key, value = rng.choice(fields())
            node[key] = json.loads(json.dumps(value))
        elif node:
            node[rng.choice(sorted(node))] = rng.choice(STRANGE)
    return config


def refusal_of(config: Mapping[str, Any], *, approximate: bool) -> str | None:
    """Read a file and write all of it out; the message where it is refused."""
    try:
        model_document(read_config(config, name="x", approximate=approximate))
    except InputError as error:
        return str(error)
    return None
