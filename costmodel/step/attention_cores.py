"""What each kind of attention does over the cache: FLOPs and HBM bytes of its kernels on one rank.

A kind is one class in `costmodel.arch.attention` and one function here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.arch.attention import INDEX_BYTES, AttentionKind, Compressed, GroupedQuery, Latent
from costmodel.arch.block import Block, Size
from costmodel.arch.recurrent import Linear, Recurrent, StateSpace
from costmodel.plan.columns import Floats
from costmodel.step.kernel_laws import Rate
from costmodel.step.step_inputs import Machine
from costmodel.step.step_work import StepWork, mean_chunk_context, mean_window_context

PROMPT_CORE, DECODE_CORE, INDEXER = "attention_prefill", "attention_decode", "sparse_index"
"""Names of the kernels; a step launches both of the first two, also where one has nothing to do."""
SCAN_CHUNK = 64.0
"""Tokens of a prompt that a recurrent layer takes at once (flash-linear-attention, Mamba-2's kernels)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionKernel:
    """One kernel of one layer. Arrays of shape `(num_plans,)` or `(1,)`."""

    name: str
    rate: Rate
    flops: Floats
    hbm_bytes: Floats
    present: NDArray[np.bool_] | None = None
    """Plans whose model has it; None: all."""


def attention_kernels(block: Block, machine: Machine, work: StepWork) -> Iterator[AttentionKernel]:
    """Kernels of one layer: of the step's prompts, of its decoding sequences, and of an index where there is one."""
    return _CORES[type(block)](block, machine, work)


def _grouped_query(block: GroupedQuery, machine: Machine, work: StepWork) -> Iterator[AttentionKernel]:
    """Every pair of tokens is multiplied twice; a prompt reads its cache once, decoding each sequence's."""
    layout, rates = machine.layout, machine.rates
    flops = 2.0 * (block.heads / layout.attn_tp) * (block.head_dim + block.value_dim)
    per_token_kv = block.cached_token_bytes(layout, machine.precision.kv)
    prompt, cached = work.prefill_context, np.asarray(block.seen(work.decode_context))
    if block.kind is AttentionKind.WINDOW:
        prompt = mean_window_context(work.prompt_tokens, np.asarray(block.window))
    elif block.kind is AttentionKind.CHUNKED:
        prompt = mean_chunk_context(work.prompt_tokens, np.asarray(block.window))
    elif block.kind is AttentionKind.SPARSE:
        prompt, cached = np.minimum(prompt, block.index_topk), np.minimum(cached, block.index_topk)
    pairs = work.prefill_tokens * prompt / layout.attn_cp
    yield _kernel(PROMPT_CORE, rates.prefill, pairs * flops, work.prefill_kv_tokens * per_token_kv)
    # once for all tokens of a sequence that a step verifies
    read = work.decode_sequences * cached / (layout.attn_cp * layout.dcp)
    yield _kernel(DECODE_CORE, rates.decode, read * work.decode_tokens * flops, read * per_token_kv)
    if block.kind is AttentionKind.SPARSE:
        yield _index(block.index_heads, block.index_dim, machine, work, 1.0)


def _latent(block: Latent, machine: Machine, work: StepWork) -> Iterator[AttentionKernel]:
    """Prompts expand keys and values per head, decoding attends to the latent (absorbed weights)."""
    layout, rates = machine.layout, machine.rates
    heads = block.heads / layout.attn_tp
    latent_bytes = block.latent_dim * machine.precision.kv
    seen_prompt, seen = work.prefill_context, work.decode_context
    if block.kind is AttentionKind.SPARSE_MLA:
        seen_prompt, seen = np.minimum(seen_prompt, block.index_topk), np.minimum(seen, block.index_topk)
    elif block.kind is AttentionKind.WINDOW_MLA:
        window = np.asarray(block.window)
        seen_prompt, seen = mean_window_context(work.prompt_tokens, window), np.minimum(seen, window)
    pairs = work.prefill_tokens * seen_prompt / layout.attn_cp
    flops = 2.0 * heads * (block.nope_dim + block.rope_dim + block.value_dim)
    yield _kernel(PROMPT_CORE, rates.mla_prefill, pairs * flops, work.prefill_kv_tokens * latent_bytes)
    read = work.decode_sequences * seen / (layout.attn_cp * layout.dcp)
    flops = 2.0 * heads * (2.0 * block.kv_rank + block.rope_dim)
    yield _kernel(DECODE_CORE, rates.mla_decode, read * work.decode_tokens * flops, read * latent_bytes)
    if np.any(block.index_heads):
        yield _index(block.index_heads, block.index_dim, machine, work, 1.0)


def _compressed(block: Compressed, machine: Machine, work: StepWork) -> Iterator[AttentionKernel]:
    """A window of tokens and the compressed entries, all of them or those that the index picks; keys are values."""
    layout, rates = machine.layout, machine.rates
    flops = 4.0 * (block.heads / layout.attn_tp) * block.head_dim
    token_bytes = block.head_dim * machine.precision.kv

    def entries(context: Floats) -> Floats:
        made = block.entries(context)
        return np.where(np.asarray(block.index_heads) > 0, np.minimum(made, block.index_topk), made)

    window = np.asarray(block.window)
    seen_prompt = mean_window_context(work.prompt_tokens, window) + entries(work.prefill_context)
    pairs = work.prefill_tokens * seen_prompt / layout.attn_cp
    read = work.prefill_kv_tokens / block.ratio * token_bytes
    yield _kernel(PROMPT_CORE, rates.mla_prefill, pairs * flops, read)
    seen = np.minimum(work.decode_context, window) + entries(work.decode_context)
    read = work.decode_sequences * seen / (layout.attn_cp * layout.dcp)
    yield _kernel(DECODE_CORE, rates.mla_decode, read * work.decode_tokens * flops, read * token_bytes)
    if np.any(block.index_heads):
        yield _index(block.index_heads, block.index_dim, machine, work, block.ratio)


def _recurrent(block: Recurrent, machine: Machine, work: StepWork) -> Iterator[AttentionKernel]:
    """A decode step reads and writes the state; prompts run in chunks of `SCAN_CHUNK` tokens."""
    arch, rates = machine.arch, machine.rates
    heads = block.heads / machine.layout.attn_tp
    state = block.key_dim * block.value_dim
    dims = block.key_dim + block.value_dim
    state_bytes = block.state_bytes
    tokens = work.prefill_tokens
    per_token = heads * (6.0 * state + 4.0 * SCAN_CHUNK * dims)
    moved = tokens * heads * dims * 2.0 * arch.activation_bytes
    moved = moved + tokens / SCAN_CHUNK * heads * state * state_bytes
    yield _kernel(PROMPT_CORE, rates.prefill, tokens * per_token, moved)
    moved = work.decode_sequences * (2.0 * heads * state * state_bytes)
    yield _kernel(DECODE_CORE, rates.decode, work.decoded * (6.0 * heads * state), moved)


def _index(heads: Size, dim: Size, machine: Machine, work: StepWork, ratio: Size) -> AttentionKernel:
    """Scores every cached token, or entry of `ratio` tokens, with each of its heads (DeepSeek-V3.2 report, 2.1)."""
    scored = work.prefill_tokens * work.prefill_context + work.decoded * work.decode_context
    read = work.prefill_kv_tokens + work.decode_sequences * work.decode_context
    return AttentionKernel(
        name=INDEXER,
        rate=machine.rates.decode,
        flops=np.asarray(scored / ratio * (2.0 * heads * dim)),
        hbm_bytes=np.asarray(read / ratio * dim * INDEX_BYTES),
        present=None if np.all(heads) else np.asarray(heads) > 0,
    )


def _kernel(name: str, rate: Rate, flops: Size, hbm_bytes: Size) -> AttentionKernel:
    return AttentionKernel(name=name, rate=rate, flops=np.asarray(flops), hbm_bytes=np.asarray(hbm_bytes))


_CORES: dict[type[Block], Callable[[Any, Machine, StepWork], Iterator[AttentionKernel]]] = {
    GroupedQuery: _grouped_query,
    Latent: _latent,
    Compressed: _compressed,
    Linear: _recurrent,
    StateSpace: _recurrent,
}
