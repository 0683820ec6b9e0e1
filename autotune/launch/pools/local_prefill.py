"""Conditional disaggregation: what a front, and servers behind it, are told so that prompts skip the prefill pool.

Read in docs.nvidia.com/dynamo/v1.6.2/advanced-customizations/conditional-disaggregation and lib/kv-router/src/
conditional_disagg.rs of ai-dynamo/dynamo, tensorrt_llm/serve/openai_disagg_service.py and llmapi/disagg_utils.py of
TensorRT-LLM, and pkg/epp/framework/plugins/scheduling/profilehandler/disagg of llm-d-router. Dynamo's router and
TensorRT-LLM's front send a prompt to the decode pool only where some of it is cached there: a share that is computed of
1 is not below a threshold of 1, and a match of no token does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.launch.quoting import to_yaml
from autotune.study.wider_search import LocalPrefill
from costmodel.errors import InputError

DECIDER_FILE = "pd-decider.yaml"
EVENT_BUFFER = 1024
"""Events that a TensorRT-LLM server keeps for its front, as its own tests have it."""


def check_front(engine: str, target: str, local: LocalPrefill | None) -> None:
    """Raises `InputError`, `local_prefill`: the target's front sends no such prompts to the decode pool."""
    if local is None:
        return
    if target == "vllm":
        raise InputError.single(
            "--target",
            "local_prefill: vLLM's toy proxy sends every prompt to the prefill pool, and the plan has "
            f"{local.frac:.0%} of them prefilled by the decode pool: take llm-d or disaggregatedset"
            + ("" if local.cold else ", or dynamo"),
        )
    if local.cold and target in ("dynamo", "trtllm"):
        front = "Dynamo's router" if target == "dynamo" else "TensorRT-LLM's front"
        also = ": take llm-d or disaggregatedset" if engine == "vllm" else ""
        raise InputError.single(
            "--target",
            f"local_prefill: {front} sends a prompt to the decode pool only where some of it is cached there, and of "
            f"some of the plan's nothing is{also}",
        )


def front_fields(local: LocalPrefill) -> dict[str, Any]:
    """What TensorRT-LLM's front is told."""
    return {"conditional_disagg_config": {"max_local_prefill_length": local.max_tokens}}


def decider(local: LocalPrefill) -> str:
    """The plugin of llm-d's router that decides, as its configuration has it."""
    plugin = {"type": "prefix-based-pd-decider", "parameters": {"nonCachedTokens": local.max_tokens + 1}}
    return to_yaml([plugin])


def with_events(content: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of a TensorRT-LLM generation server whose front knows what it has cached."""
    cache = {**content.get("kv_cache_config", {}), "enable_block_reuse": True, "event_buffer_max_size": EVENT_BUFFER}
    return {**content, "kv_cache_config": cache}
