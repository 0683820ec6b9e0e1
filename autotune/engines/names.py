"""The engines: which there are, and how each splits layers over pipeline stages."""

from __future__ import annotations

from functools import lru_cache

ENGINES = ("vllm", "sglang", "trtllm")
ANY = "any"


def engines_of(engine: str) -> tuple[str, ...]:
    """The engines that a study's `engine` stands for."""
    return ENGINES if engine == ANY else tuple(engine.split("+"))


@lru_cache(maxsize=8192)
def split_layers(engine: str, num_hidden_layers: int, pp: int) -> tuple[int, ...]:
    """Layers per stage, first to last, as the engine splits them when it is not told otherwise.

    vLLM gives the remainder to the stages before the last (`get_pp_indices`: one layer more for the stages
    `pp - remainder - 1 … pp - 2`), SGLang to the last stages, TensorRT-LLM to the first.

    Raises:
        ValueError: `pp` does not lie between 1 and `num_hidden_layers`.
    """
    if not 1 <= pp <= num_hidden_layers:
        raise ValueError(f"`pp` must lie between 1 and num_hidden_layers, got {pp=}, {num_hidden_layers=}")
    base, remainder = divmod(num_hidden_layers, pp)
    stages = [base] * pp
    if engine == "vllm":
        more = range(pp - remainder - 1, pp - 1)
    elif engine == "sglang":
        more = range(pp - remainder, pp)
    else:
        more = range(remainder)
    for stage in more:
        stages[stage] += 1
    return tuple(stages)
