"""What a plan decides about parallelism, in the terms all engines share.

W (width of one pipeline stage, GPUs) = attn_tp * attn_dp * attn_cp = moe_tp * moe_ep
GPUs                                  = replicas * pp * W
"""

from __future__ import annotations

from dataclasses import dataclass

LAYOUT_AXES = (
    "replicas", "pp", "attn_tp", "attn_dp", "attn_cp", "moe_tp", "moe_ep", "dcp", "redundant_experts",
    "two_batch_overlap",
)  # fmt: skip
"""Fields of a layout that are whole numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Layout:
    """One way to lay a model over GPUs. Dense models: `attn_dp = moe_tp = moe_ep = 1`, so W is `attn_tp`."""

    replicas: int
    pp: int
    attn_tp: int
    attn_dp: int
    moe_tp: int
    moe_ep: int
    attn_cp: int = 1
    dcp: int = 1
    redundant_experts: int = 0
    two_batch_overlap: int = 0
    """1: a step runs as two batches, the exchange of one's tokens with experts behind the other's computation."""
    stage_layers: tuple[int, ...]
    """Layers on each pipeline stage, first to last; its sum is the model's layers."""

    @property
    def width(self) -> int:
        """GPUs of one pipeline stage of one replica."""
        return self.attn_tp * self.attn_dp * self.attn_cp

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.replicas * self.pp * self.width
