"""The rates of all kernels of a batch, gathered from the calibration of each (GPU generation, engine)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from costmodel.plan.columns import Columns
from costmodel.step.kernel_laws import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates(Columns):
    """One `Rate` per kind of kernel."""

    attention: Rate
    dense_ffn: Rate
    router: Rate
    shared_experts: Rate
    lm_head: Rate
    experts: Rate
    prefill: Rate
    decode: Rate
    mla_prefill: Rate
    mla_decode: Rate
    small: Rate
    """Norms, activations, rope: launch-bound kernels that stream the hidden states."""

    unusual: tuple[Rate, ...] = ()
    """Of the matrices whose dtype is not that of their weight kind."""
    unusual_at: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Group of layers and matrix -> its place in `unusual`."""

    def of_matrix(self, layer: str, name: str, weights: str) -> Rate:
        """Rate of the GEMM of a matrix, by its group of layers, its name and its weight kind."""
        place = self.unusual_at.get((layer, name))
        rate: Rate = getattr(self, weights) if place is None else self.unusual[place]
        return rate
