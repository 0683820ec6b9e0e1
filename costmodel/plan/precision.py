"""Dtypes as columns: bytes of a weight by weight kind, of a cached value, of an activation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.arch.arch import Arch
from costmodel.dtypes import BYTES_PER_WEIGHT, KV_BYTES
from costmodel.plan.columns import Columns, Floats
from costmodel.plan.matrices import ATTENTION, DENSE, EXPERTS, HEAD, ROUTER, SHARED


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionColumns(Columns):
    """Bytes per element, scales of quantised formats included. Shape `(num_plans,)` or `(1,)`."""

    attention: Floats
    dense_ffn: Floats
    experts: Floats
    shared_experts: Floats
    router: Floats
    embedding: Floats
    lm_head: Floats
    kv: Floats

    @classmethod
    def of(cls, archs: Sequence[Arch], kv_dtypes: Sequence[str]) -> PrecisionColumns:
        """One row per architecture; `kv_dtypes[i]` is the dtype of its cache."""

        def column(weights: str) -> Floats:
            return np.array([BYTES_PER_WEIGHT[getattr(a.dtypes, weights)] for a in archs])

        return cls(
            attention=column(ATTENTION),
            dense_ffn=column(DENSE),
            experts=column(EXPERTS),
            shared_experts=column(SHARED),
            router=np.array([BYTES_PER_WEIGHT[a.activation_dtype] for a in archs]),
            embedding=column("embedding"),
            lm_head=column(HEAD),
            kv=np.array([KV_BYTES[d] for d in kv_dtypes]),
        )

    def bytes_of(self, weights: str) -> Floats:
        """Bytes per weight of a kind named in `costmodel.plan.matrices`."""
        values: dict[str, Floats] = {
            ATTENTION: self.attention,
            DENSE: self.dense_ffn,
            EXPERTS: self.experts,
            SHARED: self.shared_experts,
            ROUTER: self.router,
            HEAD: self.lm_head,
        }
        return values[weights]
