"""The rates of all kernels of a batch, gathered from the calibration of each (GPU generation, engine)."""

from __future__ import annotations

from dataclasses import dataclass

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

    def gemm(self, weights: str) -> Rate:
        """Rate of the plain GEMM over a weight kind named in `costmodel.plan.matrices`."""
        rate: Rate = getattr(self, weights)
        return rate
