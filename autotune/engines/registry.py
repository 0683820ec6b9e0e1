"""Which engines there are, in the order in which ties between their plans are resolved."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from autotune.engines.engine import Engine
from autotune.engines.sglang import SGLANG
from autotune.engines.trtllm import TRTLLM
from autotune.engines.vllm import VLLM
from costmodel.engine import EngineTraits

if TYPE_CHECKING:
    from costmodel.simulation.policies import Policy

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (VLLM, SGLANG, TRTLLM)}
"""Every engine by name: studies, plan strings, storages, files of measured runs and exports know these. Whoever adds an
engine at run time does so before reading a study."""
ANY = "any"
"""A study's engine where plans of all of them compete; names joined by `+` stand for some of them."""


def engines_of(engine: str) -> tuple[str, ...]:
    """Names of the engines that a study's `engine` stands for."""
    return tuple(ENGINES) if engine == ANY else tuple(engine.split("+"))


def engine_title(engine: str) -> str:
    """What a study's `engine` is called in a heading: `vLLM`, `vLLM or SGLang`, `any engine`."""
    return "any engine" if engine == ANY else listed([ENGINES[name].title for name in engines_of(engine)], "or")


def listed(words: list[str], joint: str = "and") -> str:
    """Words as a sentence lists them: `a, b and c`."""
    return f" {joint} ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def prefills_no_prompts(engine: Engine) -> str:
    """Says of an engine whose decode pool prefills no prompts that it does not, and which engines' do."""
    able = listed([f"{other.title}'s" for other in ENGINES.values() if other.decode_pool_prefills])
    return f"{engine.title}'s decode pool prefills no prompts, unlike {able}"


def traits_by_name() -> dict[str, EngineTraits]:
    """The engines as the cost model takes them."""
    return {name: engine.traits for name, engine in ENGINES.items()}


def policies_by_name() -> dict[str, Policy]:
    """Schedulers of the engines, as simulations run them."""
    return {name: engine.policy for name, engine in ENGINES.items()}


def rule_texts() -> dict[str, str]:
    """Every rule of every engine: name -> what it demands."""
    return {rule.name: rule.text for engine in ENGINES.values() for rule in engine.rules_of(None, drafts=True)}


@lru_cache(maxsize=8192)
def split_layers(engine: str, num_hidden_layers: int, pp: int) -> tuple[int, ...]:
    """As `Engine.split_layers`, of an engine by name."""
    return ENGINES[engine].split_layers(num_hidden_layers, pp)


def split_name(text: str) -> tuple[str | None, str]:
    """The engine that a plan string begins with (`vllm:…`), and the rest of it."""
    name, colon, rest = text.partition(":")
    name = name.strip().lower()
    return (name, rest) if colon and name in ENGINES else (None, text)
