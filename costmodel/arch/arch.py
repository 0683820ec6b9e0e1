"""What a model is: the numbers of its architecture, engine-neutral, one value per model.

Names are Hugging Face's. Nothing here knows a file format; `costmodel.arch.hf` reads config.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AttentionKind(StrEnum):
    """How one layer attends. `WINDOW` sees the last `sliding_window` tokens (chunked attention: its chunk)."""

    FULL = "full"
    WINDOW = "window"
    MLA = "mla"
    LINEAR = "linear"


class FfnKind(StrEnum):
    """What follows attention in a layer: a dense feed-forward network, or a mixture of experts."""

    DENSE = "dense"
    MOE = "moe"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDtypes:
    """Storage dtype of each group of weights: a key of `costmodel.dtypes.BYTES_PER_WEIGHT`."""

    attention: str = "bf16"
    dense_ffn: str = "bf16"
    experts: str = "bf16"
    shared_experts: str = "bf16"
    embedding: str = "bf16"
    lm_head: str = "bf16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arch:
    """Architecture of a decoder-only language model. Zero means "this model has none of it"."""

    name: str
    model_type: str
    hidden_size: int
    vocab_size: int
    tie_word_embeddings: bool
    attention_kinds: tuple[AttentionKind, ...]
    """One entry per layer, first to last."""
    ffn_kinds: tuple[FfnKind, ...]
    """One entry per layer, first to last."""

    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    """Of queries, keys and values in full and window layers."""
    attn_output_gate: bool = False
    """The query projection also produces a gate of the same width (Qwen3-Next, Qwen3.5)."""
    attention_bias: bool = False
    qk_norm: bool = False
    sliding_window: int = 0
    """Tokens seen by a window layer, itself included."""
    window_is_chunked: bool = False
    """The window restarts at each multiple of `sliding_window` (Llama 4) instead of sliding."""

    q_lora_rank: int = 0
    """MLA: rank of the query projection; 0 with MLA means an unfactored query projection."""
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    """MLA: dimension of one head's values."""
    index_n_heads: int = 0
    """Sparse MLA (DeepSeek-V3.2): heads of the indexer that picks `index_topk` cached tokens."""
    index_head_dim: int = 0
    index_topk: int = 0

    linear_num_key_heads: int = 0
    linear_num_value_heads: int = 0
    linear_key_head_dim: int = 0
    linear_value_head_dim: int = 0
    linear_conv_kernel_dim: int = 0

    intermediate_size: int = 0
    """Width of a dense layer's feed-forward network (of the dense layers, in a mixture-of-experts model)."""
    num_experts: int = 0
    """Routed experts of a MoE layer."""
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    shared_intermediate_size: int = 0
    """Width of all shared experts of a MoE layer together."""
    shared_expert_gate: bool = False
    """A hidden-to-1 gate multiplies the shared expert (Qwen2-MoE and its line)."""
    expert_bias: bool = False
    ffn_matrices: int = 3
    """Matrices of a feed-forward network: 3 when gated (SwiGLU), 2 when plain."""

    dtypes: WeightDtypes = WeightDtypes()
    activation_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    """What the checkpoint asks for; engines may be told otherwise."""
    max_position_embeddings: int = 0
    quant_block: int = 0
    """Block of the checkpoint's weight scales along both axes (128 in fp8_block); 0 when there is none."""
    params_not_served: int = 0
    """Parameters of the checkpoint that text serving does not load (vision towers); out of every total."""
    assumptions: tuple[str, ...] = ()
    """What the source left open and was filled in, in plain sentences."""

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the model."""
        return len(self.attention_kinds)

    @property
    def is_moe(self) -> bool:
        """Whether any layer has routed experts."""
        return FfnKind.MOE in self.ffn_kinds
