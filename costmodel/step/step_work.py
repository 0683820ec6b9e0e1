"""What one engine step has to do, per plan: tokens, contexts, sequences."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from costmodel.plan.columns import ArchColumns, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """One forward pass of one micro-batch through one replica. Arrays of shape `(num_plans,)`."""

    prefill_tokens: Floats
    """New prompt tokens on the busiest attention rank."""
    prefill_tokens_group: Floats
    """New prompt tokens on all attention-DP ranks together."""
    prefill_context: Floats
    """Cached or earlier tokens that a prompt token attends to, mean, in a full-attention layer."""
    prefill_context_window: Floats
    """The same in a window layer."""
    prefill_kv_tokens: Floats
    """KV entries that the prompts' attention reads at least once."""
    decode_sequences: Floats
    """Sequences that decode, per attention rank."""
    decode_context: Floats
    """Their mean context, tokens."""
    sampled: Floats
    """Tokens whose logits are computed, per attention rank."""
    decode_tokens: Floats = field(default_factory=lambda: np.ones(1))
    """Tokens of each decoding sequence in a step: 1, or with speculative decoding all that are verified."""

    @property
    def decoded(self) -> Floats:
        """Tokens of all decoding sequences of an attention rank."""
        return self.decode_sequences * self.decode_tokens


def decode_work(sequences_per_rank: Floats, context: Floats, tokens: Floats | None = None) -> StepWork:
    """A pure decode step; `tokens` of each sequence, default 1."""
    each = np.ones(1) if tokens is None else tokens
    zero = np.zeros(1)
    return StepWork(
        prefill_tokens=zero,
        prefill_tokens_group=zero,
        prefill_context=zero,
        prefill_context_window=zero,
        prefill_kv_tokens=zero,
        decode_sequences=sequences_per_rank,
        decode_context=context,
        sampled=sequences_per_rank * each,
        decode_tokens=each,
    )


def prompt_work(
    *,
    prompts: Floats,
    tokens: Floats,
    cached: Floats,
    chunks: Floats,
    arch: ArchColumns,
    ranks: Floats,
) -> StepWork:
    """A pure prefill step of one chunk each of `prompts` prompts on each of `ranks` attention ranks.

    A prompt has `tokens` new tokens in `chunks` equal chunks behind `cached` ones; the step is the mean chunk.
    """
    chunk = tokens / chunks
    return StepWork(
        prefill_tokens=chunk * prompts,
        prefill_tokens_group=chunk * prompts * ranks,
        prefill_context=mean_context(tokens, cached),
        prefill_context_window=mean_window_context(cached + tokens, arch.window, arch.window_is_chunked),
        prefill_kv_tokens=(cached + tokens * (chunks + 1.0) / 2.0 / chunks) * prompts,
        decode_sequences=np.zeros(1),
        decode_context=cached + tokens,
        sampled=prompts / chunks,
    )


def joint_work(prompts: StepWork, decode: StepWork, *, beside: Floats) -> StepWork:
    """One step of the chunks of `prompts` and, where `beside` is 1, a token of every sequence of `decode`."""
    return StepWork(
        prefill_tokens=prompts.prefill_tokens,
        prefill_tokens_group=prompts.prefill_tokens_group,
        prefill_context=prompts.prefill_context,
        prefill_context_window=prompts.prefill_context_window,
        prefill_kv_tokens=prompts.prefill_kv_tokens,
        decode_sequences=decode.decode_sequences * beside,
        decode_context=decode.decode_context,
        sampled=prompts.sampled + decode.sampled * beside,
        decode_tokens=decode.decode_tokens,
    )


def mean_context(new_tokens: Floats, cached_tokens: Floats) -> Floats:
    """Mean keys seen by the tokens of a prompt of `cached + new`, causally: cached + (new + 1) / 2."""
    return cached_tokens + (new_tokens + 1.0) / 2.0


def mean_window_context(tokens: Floats, window: Floats, chunked: Floats) -> Floats:
    """Mean keys seen in a layer of `window` tokens by the tokens of a prompt of `tokens`.

    Sliding: position `i` sees `min(i, window)`, so the mean is `w - w (w - 1) / (2 n)` with `w = min(window, n)`.
    Chunked: whole chunks see `(window + 1) / 2` on average.
    """
    capped = np.maximum(np.minimum(window, tokens), 1.0)
    sliding = capped - capped * (capped - 1.0) / (2.0 * np.maximum(tokens, 1.0))
    return np.where(chunked > 0, (capped + 1.0) / 2.0, sliding)
