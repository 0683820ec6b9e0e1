"""What differs between model families and is not written in their config files."""

from __future__ import annotations

NOT_CAUSAL_LM = frozenset(
    (
        "albert", "bart", "bert", "blip", "clip", "deberta", "deberta-v2", "dinov2", "distilbert", "electra",
        "longformer", "marian", "mbart", "mobilebert", "mpnet", "mt5", "pegasus", "roberta", "siglip", "t5", "umt5",
        "vit", "wav2vec2", "whisper", "xlm-roberta",
    )
)  # fmt: skip
NO_ATTENTION = frozenset(("mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv5", "rwkv6", "rwkv7", "xlstm"))
TIED_BY_DEFAULT = ("bloom", "cohere", "falcon", "gemma", "gpt2", "jais", "mpt", "opt")
PLAIN_FFN = frozenset(
    (
        "apertus", "arcee", "bert-generation", "biogpt", "bloom", "codegen", "falcon", "fuyu", "git", "gpt2",
        "gpt_bigcode", "gpt_neox", "gptj", "jais2", "mpt", "nanochat", "nemotron", "nemotron_h", "nemotron_h_puzzle",
        "opt", "persimmon", "phi", "starcoder2", "stablelm_epoch",
    )
)  # fmt: skip
"""Two matrices in a feed-forward network instead of three."""
FOUR_TIMES_WIDE = frozenset(("bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gptj", "mpt"))
"""Feed-forward networks of 4 x hidden_size where the file gives no width, as the families' reference code has it."""
DEFAULTS: dict[str, dict[str, int]] = {
    # Gemma3TextConfig of Transformers: the published files of Gemma 3 leave these out
    "gemma3_text": {
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
    }
}
"""What published files of a family leave to the reference code's defaults."""
QKV_BIAS = ("qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl", "dots1_qwen")
QK_NORM = (
    "qwen3", "minimax_m2", "minimax_m3", "gemma3", "gemma4", "olmo2", "olmo3", "olmoe", "glm4_moe", "afmoe", "dots1",
    "hunyuan_v1", "laguna", "step3p", "exaone4", "bailing_moe",
)  # fmt: skip
WIDE_QK_NORM = ("minimax_m2", "olmo2", "olmo3", "olmoe")
"""Norms of queries and keys over all heads at once."""
FOUR_NORMS = ("gemma2", "gemma3", "gemma4", "afmoe", "glm4", "grok")
"""Norms before and after each block; `glm4` stands for the dense model alone."""
GATED_SHARED_EXPERT = ("qwen2_moe", "qwen3_next", "qwen3_5_moe")
GATED_ATTENTION = ("qwen3_next", "qwen3_5", "afmoe", "hy_v4", "beam")
"""Every value of the attention's output is multiplied by a projection of the hidden state."""
HEAD_GATED_ATTENTION = ("laguna", "step3p", "dots3_note", "bailing_hybrid")
"""Every head's output is multiplied by one number, a projection of the hidden state."""
SINKS = ("gpt_oss",)
MODEL_TYPES = {
    "ArcticForCausalLM": "arctic",
    "ChatGLMModel": "chatglm",
    "ChatGLMForConditionalGeneration": "chatglm",
    "DeciLMForCausalLM": "nemotron-nas",
    "Grok1ForCausalLM": "grok",
    "Grok1ModelForCausalLM": "grok",
}
"""Family by the first of `architectures`, where a file has no `model_type`."""
APPROXIMATED = {
    "altup_num_inputs": ("alternating updates of several streams", "one stream"),
    "cross_attention_layers": ("cross-attention layers", "the text model without them"),
    "ngram_vocab_size_ratio": ("an embedding of n-grams", "the plain embedding"),
    "engram_config": ("a memory of n-grams", "the model without it"),
    "memory_config": ("a memory that is looked up", "the model without it"),
    "conv_L_cache": ("short convolutions in place of attention", "full attention in every layer"),
    "share_layers": ("layers that share their weights", "weights for each layer"),
    "num_loops": ("layers that run several times", "layers that run once"),
    "total_ut_steps": ("layers that run several times", "layers that run once"),
    "hash_vocab_sizes": ("hashed embeddings", "the plain embedding"),
    "ssm_cfg": ("state-space layers of a file that gives no sizes of them", "attention in every layer"),
}
"""Fields that change the cost in ways the model has no formula for: what they ask for, and what is taken instead."""
APPROXIMATED_FAMILIES = {"jetmoe": ("attention that is a mixture of experts", "plain attention")}
"""Families of which the file does not say what they ask for."""
