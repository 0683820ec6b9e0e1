"""Values with which an engine starts and keeps running: they fit the memory model, with a stated margin."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StartLimits:
    """Lengths, counts and memory that a server is started with."""

    max_model_len: int
    """Tokens of the longest request, prompt and output."""
    max_num_seqs: int
    """Sequences that run at once, per attention-DP rank."""
    max_num_batched_tokens: int
    """Token budget of a step, per attention-DP rank."""
    gpu_memory_utilization: float
    """Share of total memory that the engine may fill (vLLM, SGLang)."""
    kv_free_fraction: float
    """Share of the memory that weights and activations leave free, for KV (TensorRT-LLM)."""
    kv_room_bytes: float
    """KV room on the fullest GPU with these values, by the memory model."""
    kv_needed_bytes: float
    """Of `max_num_seqs` sequences, one of them the longest; at least the longest alone."""
    weight_bytes: float
    """On the fullest GPU."""
    margin_frac: float
    """Room left over what is needed: `kv_room_bytes / kv_needed_bytes - 1`."""
