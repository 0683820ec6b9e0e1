"""What engines keep of a model's cache where that is not what each layer looks back at.

vLLM keeps just that, in groups of layers that share one memory (v1/core/kv_cache_utils.py), also with connectors that
hand caches over, of which NIXL's supports it (vllm-project/vllm#41847).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autotune.engines.model_classes import has
from costmodel.arch import Arch
from costmodel.arch.block import ONE_RANK
from costmodel.arch.recurrent import Recurrent
from costmodel.engine import SEEN_IS_KEPT, CacheRule

TRTLLM_CACHE = CacheRule(whole_windows=True)
"""Without `kv_cache_config.max_attention_window` every layer keeps `max_seq_len` tokens
(tensorrt_llm/_torch/pyexecutor/resource_manager.py). Exports leave it out: with it TensorRT-LLM cuts the memory into a
pool for each window, whose shares are fixed ("not optimal", its page on the KV cache), and windows went wrong beside
block reuse and chunked prefill (NVIDIA/TensorRT-LLM#5151; #13123 still in 1.2.0, there with its TensorRT backend)."""

WINDOW_RATIO, V4_WINDOW_RATIO = 0.8, 0.1
"""SGLang's `--swa-full-tokens-ratio` where it is not given (server_args.py of 0.5.9, later a fallback), and
what arg_groups/deepseek_v4_hook.py makes of it."""
STATE_RATIO = 0.9
"""SGLang's `--mamba-full-memory-ratio` where it is not given."""
STATES, BUFFERED_STATES = 3, 5
"""SGLang's states for each running request (`_calculate_mamba_ratio` of mem_cache/kv_cache_configurator.py): its own,
two for the prefixes that it goes on from and leaves, and two more where steps overlap, which write them in turn."""

FAR = 1 << 20
"""Tokens, beyond every window."""


def sglang_cache(arch: Arch, version: str | None) -> CacheRule:
    """Pools of fixed sizes for states, and for windows of the models that it lists; of others every layer keeps all."""
    recurrent = any(isinstance(a, Recurrent) for a in arch.attentions)
    states = BUFFERED_STATES if has("sglang", "buffered_states", arch, version) else STATES
    rule = CacheRule(state_ratio=STATE_RATIO, states=states) if recurrent else SEEN_IS_KEPT
    if not has("sglang", "window_pool", arch, version):
        return replace(rule, whole_windows=True)
    return replace(rule, window_ratio=V4_WINDOW_RATIO if arch.model_type == "deepseek_v4" else WINDOW_RATIO)


def cache_words(arch: Arch, rule: CacheRule) -> tuple[str, ...]:
    """What a server keeps of a model's cache beyond what its layers look back at, with the options that say so."""
    parts = [a.cache_parts(FAR, ONE_RANK, 1.0, 1.0) for a in arch.attentions]
    out = []
    if rule.whole_windows and any(np.any(p.seen) for p in parts):
        out.append("layers that look back at a window keep the whole context in the KV cache, as scored")
    if rule.window_ratio and any(np.any(p.seen) for p in parts):
        out.append(
            f"the KV cache is cut into pools of fixed sizes, {rule.window_ratio:g} tokens of the layers with a window "
            "for each token of the others (--swa-full-tokens-ratio, left as it is), as scored"
        )
    if rule.state_ratio and any(np.any(p.state) for p in parts):
        out.append(
            f"states of recurrent layers have {rule.state_ratio:g} times the memory of the other layers' cache "
            f"(--mamba-full-memory-ratio, left as it is), {rule.states} of them for each request that runs, as scored"
        )
    return tuple(out)
