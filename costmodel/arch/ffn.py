"""Feed-forward networks: dense ones, and mixtures of experts with what goes with them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import numpy as np

from costmodel.arch.block import DENSE, EXPERTS, ROUTER, SHARED, Block, Cut, Matrix, Size


class FfnKind(StrEnum):
    """What follows attention in a layer: a dense network, a mixture of experts, or one of each side by side."""

    DENSE = "dense"
    MOE = "moe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ffn(Block):
    """Base of the feed-forward networks."""

    projections: Size = 3
    """Matrices of a network: 3 when gated (SwiGLU), 2 when plain."""

    def network(self, hidden: Size, inner: Size, weights: str) -> tuple[Matrix, Matrix]:
        """Up, with its gate where there is one, and down, of a network of `inner` columns on a rank."""
        return (
            Matrix(name="up_proj", weights=weights, n=(self.projections - 1.0) * inner, k=hidden),
            Matrix(name="down_proj", weights=weights, n=hidden, k=inner),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense(Ffn):
    """One network for all tokens."""

    width: Size
    side_width: Size = 0
    """Columns of a second embedding that are gated, projected and added after it (Gemma 3n, Gemma 4)."""

    @property
    def group_name(self) -> str:
        """Its kind."""
        return FfnKind.DENSE.value

    def matrices(self, hidden: Size, cut: Cut) -> tuple[Matrix, ...]:
        """Cut over attention TP; what goes with a second embedding whole on every rank."""
        out = self.network(hidden, self.width / cut.attn_tp, DENSE)
        if not np.any(self.side_width):
            return out
        return (
            *out,
            Matrix(name="side_gate_proj", weights=DENSE, n=2.0 * self.side_width, k=hidden),
            Matrix(name="side_proj", weights=DENSE, n=hidden, k=self.side_width),
        )

    def widest_activation(self, hidden: Size, cut: Cut) -> Size:  # noqa: ARG002  # of the base
        """Both halves of the gated product, and the product."""
        return 1.5 * (self.projections - 1.0) * self.width / cut.attn_tp


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts(Ffn):
    """A router, its experts, and experts that all tokens share."""

    NOT_ZERO: ClassVar[frozenset[str]] = frozenset(("experts",))

    experts: Size
    """Routed ones."""
    top_k: Size
    """Of them for each token."""
    width: Size
    input_width: Size = 0
    """Width of what the experts take and give, where tokens are projected to it and back; 0: the hidden size."""
    zero_experts: Size = 0
    """Experts that do nothing (LongCat-Flash): of a token's `top_k` they take their share."""
    other_experts: Size = 0
    """Experts of other modalities, which are loaded and which text does not reach (ERNIE-4.5-VL)."""
    other_width: Size = 0
    shared_width: Size = 0
    """Of all shared experts together."""
    shared_gate: Size = 0
    """1 where a number for each token multiplies the shared experts (Qwen2-MoE and its line)."""

    @property
    def group_name(self) -> str:
        """Its kind."""
        return FfnKind.MOE.value

    @property
    def routed(self) -> Size:
        """Experts of a token that compute, mean: all it picks but those that do nothing."""
        return self.top_k * self.experts / (self.experts + self.zero_experts)

    def expert_input(self, hidden: Size) -> Size:
        """Width of an expert's input."""
        return np.where(np.asarray(self.input_width) > 0, self.input_width, hidden)

    def per_rank(self, cut: Cut) -> Size:
        """Routed experts that a rank holds, redundant copies included (the fullest rank)."""
        return np.ceil((self.experts + cut.redundant_experts) / cut.moe_ep)

    def matrices(self, hidden: Size, cut: Cut) -> tuple[Matrix, ...]:
        """The router whole on every rank, experts over the expert groups, shared ones over attention TP."""
        out = [
            Matrix(name="router", weights=ROUTER, n=self.experts + self.zero_experts, k=hidden),
            Matrix(
                name="experts",
                weights=EXPERTS,
                n=self.projections * self.width / cut.moe_tp,
                k=self.expert_input(hidden),
                count=self.per_rank(cut),
                multiplied=False,
            ),
        ]
        if np.any(self.other_experts):
            out.append(
                Matrix(
                    name="other_experts",
                    weights=EXPERTS,
                    n=self.projections * self.other_width / cut.moe_tp,
                    k=hidden,
                    count=np.ceil(self.other_experts / cut.moe_ep),
                    multiplied=False,
                )
            )
        if np.any(self.shared_width):
            out += self.network(hidden, self.shared_width / cut.attn_tp, SHARED)
        if np.any(self.input_width):
            out += [
                Matrix(name="latent_down_proj", weights=ROUTER, n=self.input_width, k=hidden),
                Matrix(name="latent_up_proj", weights=ROUTER, n=hidden, k=self.input_width),
            ]
        return tuple(out)

    def inputs(self, hidden: Size, cut: Cut) -> dict[str, Size]:
        """Of experts that of their down projection: what goes into the others is never cut."""
        experts = {"experts": self.width / cut.moe_tp, "other_experts": self.other_width / cut.moe_tp}
        return {**Block.inputs(self, hidden, cut), **experts}

    def vectors(self, hidden: Size) -> dict[str, Size]:
        """Biases of the experts, and the shared ones' gate."""
        return {EXPERTS: self.biases, ROUTER: self.shared_gate * hidden}

    def widest_activation(self, hidden: Size, cut: Cut) -> Size:
        """Of each row that an expert takes: its input, its output and the product inside."""
        return 2.0 * self.expert_input(hidden) + 1.5 * (self.projections - 1.0) * self.width / cut.moe_tp
