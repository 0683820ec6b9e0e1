"""Kinds of recurrent layers: what each holds on a rank, and the state that a sequence has in its cache.

A kind is one class here and one function in `costmodel.step.attention_cores`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from costmodel.arch.attention import Attention, AttentionKind, CacheParts
from costmodel.arch.block import ATTENTION, Cut, Matrix, Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent(Attention):
    """Base of layers that keep a state of `heads` x `key_dim` x `value_dim` for a sequence, whatever its length."""

    EXTRA_KERNELS: ClassVar[str] = "linear_s"

    key_dim: Size
    value_dim: Size
    conv: Size = 0
    """Tokens of a short convolution over the projections; 0 where there is none."""
    state_bytes: Size = 2
    """Of a value of the state: engines keep it in the model's dtype unless the checkpoint says otherwise."""

    @property
    def conv_channels(self) -> Size:
        """Projections that the convolution runs over."""
        raise NotImplementedError

    def widest_activation(self, hidden: Size, cut: Cut) -> Size:  # noqa: ARG002  # of the base
        """Projections, what they become, and the output."""
        return self.heads * self.value_dim * 3.0 / cut.attn_tp

    def cache_parts(self, tokens: Size, cut: Cut, kv_bytes: Size, activation_bytes: Size) -> CacheParts:  # noqa: ARG002
        """The state, and the last projections for the convolution."""
        state = self.heads / cut.attn_tp * (self.key_dim * self.value_dim * self.state_bytes)
        conv = self.conv_channels / cut.attn_tp * np.maximum(self.conv - 1.0, 0.0) * activation_bytes
        return CacheParts(state=state + conv)

    def conv_matrix(self, cut: Cut) -> Matrix:
        """Weights of the convolution."""
        return Matrix(name="conv", weights=ATTENTION, n=self.conv_channels / cut.attn_tp, k=self.conv, multiplied=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Recurrent):
    """Linear attention: gated delta net (arXiv 2412.06464), Kimi delta attention, lightning attention.

    `heads` are those of values; keys may have fewer.
    """

    kind: AttentionKind = AttentionKind.LINEAR
    state_bytes: Size = 4
    """Delta rules keep their state in fp32 (Qwen3-Next: `mamba_ssm_dtype`)."""
    key_heads: Size
    gate: Size = 0
    """Width of all gates that are projected from the hidden size: output, decay, rate."""
    gate_rank: Size = 0
    """Rank of those that are projected in two steps (Kimi delta attention); 0 where there are none."""
    gate_factored: Size = 0
    """Width of those."""
    gate_pairs: Size = 0
    """How many there are."""

    @property
    def conv_channels(self) -> Size:
        """Queries, keys and values."""
        return 2.0 * self.key_heads * self.key_dim + self.heads * self.value_dim

    def matrices(self, hidden: Size, cut: Cut) -> tuple[Matrix, ...]:
        """Queries, keys, values and gates in one; output."""
        values = self.heads * self.value_dim
        projected = 2.0 * self.key_heads * self.key_dim + values + self.gate
        out = [
            Matrix(name="in_proj", weights=ATTENTION, n=projected / cut.attn_tp, k=hidden),
            self.conv_matrix(cut),
            Matrix(name="o_proj", weights=ATTENTION, n=hidden, k=values / cut.attn_tp),
        ]
        if np.any(self.gate_rank):
            out += [
                Matrix(name="gate_a_proj", weights=ATTENTION, n=self.gate_rank * self.gate_pairs, k=hidden),
                Matrix(name="gate_b_proj", weights=ATTENTION, n=self.gate_factored / cut.attn_tp, k=self.gate_rank),
            ]
        return tuple(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSpace(Recurrent):
    """Mamba-2 (arXiv 2405.21060), and Mamba-1 (arXiv 2312.00752), whose heads are single channels.

    `heads` x `value_dim` is the inner width, `key_dim` the size of the state.
    """

    kind: AttentionKind = AttentionKind.SSM
    groups: Size = 1
    """Of the state's inputs and outputs."""
    dt_rank: Size = 0
    """Mamba-1: rank of the step size's projection; 0 with Mamba-2, which projects it with the rest."""

    @property
    def conv_channels(self) -> Size:
        """The inner width, with Mamba-2 also the state's inputs and outputs."""
        inputs = np.where(np.asarray(self.dt_rank) > 0, 0.0, 2.0 * self.groups * self.key_dim)
        return self.heads * self.value_dim + inputs

    def matrices(self, hidden: Size, cut: Cut) -> tuple[Matrix, ...]:
        """Inputs, gate and steps in one; with Mamba-1 steps and the state's inputs of their own; output."""
        inner = self.heads * self.value_dim
        first = np.asarray(self.dt_rank) > 0
        projected = 2.0 * inner + np.where(first, 0.0, 2.0 * self.groups * self.key_dim + self.heads)
        out = [
            Matrix(name="in_proj", weights=ATTENTION, n=projected / cut.attn_tp, k=hidden),
            self.conv_matrix(cut),
            Matrix(name="o_proj", weights=ATTENTION, n=hidden, k=inner / cut.attn_tp),
        ]
        if np.any(self.dt_rank):
            steps = np.where(first, self.dt_rank + 2.0 * self.key_dim, 0.0)
            out += [
                Matrix(name="x_proj", weights=ATTENTION, n=steps, k=inner / cut.attn_tp),
                Matrix(name="dt_proj", weights=ATTENTION, n=inner / cut.attn_tp, k=self.dt_rank),
            ]
        return tuple(out)
