"""What one engine step has to do, per plan: tokens, contexts, sequences."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from costmodel.plan.columns import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """One forward pass of one micro-batch through one replica. Arrays of shape `(num_plans,)`."""

    prefill_tokens: Floats
    """New prompt tokens on the busiest attention rank."""
    prefill_tokens_group: Floats
    """New prompt tokens on all attention-DP ranks together."""
    prefill_context: Floats
    """Cached or earlier tokens that a prompt token attends to, mean, in a full-attention layer."""
    prompt_tokens: Floats
    """Length of a prompt, cached tokens included: how far a prompt token can look back in a window."""
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

    def part(self, batches: Floats) -> StepWork:
        """One of so many equal batches of it."""
        return replace(
            self,
            prefill_tokens=self.prefill_tokens / batches,
            prefill_tokens_group=self.prefill_tokens_group / batches,
            prefill_kv_tokens=self.prefill_kv_tokens / batches,
            decode_sequences=self.decode_sequences / batches,
            sampled=self.sampled / batches,
        )


def decode_work(sequences_per_rank: Floats, context: Floats, tokens: Floats | None = None) -> StepWork:
    """A pure decode step; `tokens` of each sequence, default 1."""
    each = np.ones(1) if tokens is None else tokens
    zero = np.zeros(1)
    return StepWork(
        prefill_tokens=zero,
        prefill_tokens_group=zero,
        prefill_context=zero,
        prompt_tokens=zero,
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
        prompt_tokens=cached + tokens,
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
        prompt_tokens=prompts.prompt_tokens,
        prefill_kv_tokens=prompts.prefill_kv_tokens,
        decode_sequences=decode.decode_sequences * beside,
        decode_context=decode.decode_context,
        sampled=prompts.sampled + decode.sampled * beside,
        decode_tokens=decode.decode_tokens,
    )


def mean_context(new_tokens: Floats, cached_tokens: Floats) -> Floats:
    """Mean keys seen by the tokens of a prompt of `cached + new`, causally: cached + (new + 1) / 2."""
    return cached_tokens + (new_tokens + 1.0) / 2.0


def mean_window_context(tokens: Floats, window: Floats) -> Floats:
    """Mean keys seen in a sliding window by the tokens of a prompt of `tokens`.

    Position `i` sees `min(i, window)`, so the mean is `w - w (w - 1) / (2 n)` with `w = min(window, n)`.
    """
    capped = np.maximum(np.minimum(window, tokens), 1.0)
    return capped - capped * (capped - 1.0) / (2.0 * np.maximum(tokens, 1.0))


def mean_chunk_context(tokens: Floats, chunk: Floats) -> Floats:
    """The same where attention restarts at each multiple of `chunk`: whole chunks see `(chunk + 1) / 2` on average."""
    return (np.maximum(np.minimum(chunk, tokens), 1.0) + 1.0) / 2.0
