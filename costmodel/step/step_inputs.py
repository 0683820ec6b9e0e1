"""What every step of a batch of plans runs on: matrices, rates, links, and what follows from them once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from costmodel.arch.block import EXPERTS
from costmodel.arch.ffn import Experts
from costmodel.plan.columns import ArchColumns, Floats, LayoutColumns
from costmodel.plan.exchange_backend import ANY_BACKEND, ExchangeBackend
from costmodel.plan.matrices import RankMatrix
from costmodel.plan.placement import Placement
from costmodel.plan.precision import PrecisionColumns
from costmodel.step.collectives import Exchange, Law, Links, all_reduce, pipeline_send
from costmodel.step.kernel_rates import Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """A plain GEMM of one layer over a step's rows: what of it does not change from step to step."""

    name: str
    layer: str
    weights: str
    """Weight kind, which decides the rate."""
    flops_per_row: Floats
    weight_bytes: Floats
    row_bytes: Floats
    """Inputs and outputs of one row."""
    present: NDArray[np.bool_] | None
    """Plans whose model has it; None: all."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Everything about a batch that a step needs and that does not change from step to step."""

    arch: ArchColumns
    layout: LayoutColumns
    precision: PrecisionColumns
    placement: Placement
    links: Links
    rates: Rates
    matrices: tuple[RankMatrix, ...]
    popularity_cv2: Floats
    """Squared coefficient of variation of the experts' popularity; 0 is balanced (`costmodel.step.expert_routing`)."""

    backend: ExchangeBackend = ANY_BACKEND
    """How tokens may be sent to the ranks of their experts."""

    @cached_property
    def gemms(self) -> tuple[Gemm, ...]:
        """`2 m n k` FLOPs; weights, inputs and outputs through HBM once."""
        return tuple(self._gemm(m) for m in self.matrices if m.multiplied)

    @cached_property
    def tp_reduce(self) -> Law:
        """All-reduce over the ranks of a tensor-parallel group."""
        return all_reduce(self.links, self.layout.attn_tp, self.placement.tp_domains)

    @cached_property
    def exchanges(self) -> dict[str, Exchange]:
        """Of the routed experts' tokens, by group of layers."""
        return {group.name: self._exchange(group.name, block) for group, block in self.arch.experts}

    def _exchange(self, layer: str, experts: Experts) -> Exchange:
        token_bytes = np.asarray(experts.expert_input(self.arch.hidden_size) * self.arch.activation_bytes)
        # fp8 experts take fp8 activations, so tokens are dispatched in fp8 and combined in bf16 (DeepEP)
        stored = self.precision.bytes_at(layer, EXPERTS, EXPERTS)
        narrow = np.where(stored < 1.5, 0.5, 1.0)
        picked = np.asarray(experts.routed)
        narrowed = token_bytes * narrow
        return Exchange.of(self.links, self.layout, self.placement, picked, token_bytes, narrowed, self.backend)

    @cached_property
    def send(self) -> Law:
        """From a stage to the next."""
        return pipeline_send(self.links, self.layout, self.placement)

    def _gemm(self, m: RankMatrix) -> Gemm:
        weights = np.asarray(m.n * m.k)
        present = None if weights.all() else weights > 0.0
        row_bytes = np.asarray((m.n + m.k) * self.arch.activation_bytes)
        return Gemm(
            name=m.name,
            layer=m.layer,
            weights=m.weights,
            flops_per_row=2.0 * weights,
            weight_bytes=weights * self.precision.bytes_of(m),
            row_bytes=row_bytes if present is None else row_bytes * present,
            present=present,
        )
