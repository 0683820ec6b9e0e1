"""Fields of a config.json that the reader makes no use of: those known to cost nothing, and the others, to be said."""

from __future__ import annotations

import re

from costmodel.arch.fields import Fields

MOST_NAMED = 12
_HARMLESS = re.compile(
    r"""_.* | .*token_id[sx]? | .*_token_ids | .*token_index | .*_(start|end)_token.* | .*dropout.* | .*drop
    | .*_eps | eps | .*_(act|activation) | hidden_act | .*norm_type | layer_norm_.* | rms_norm.*
    | norm_(bias|after_norm|reorder) | .*(loss|coef|alpha)(_.*)? | initial.* | rope_.* | rotary_.* | use_rope | mrope.*
    | alibi | attention_type | mtp_.* | use_mtp | num_nextn_predict_layers | num_mtp_modules | output_.* | return_.*
    | is_(decoder|causal|moe) | use_(cache|return_dict|bfloat16|routing_bias|qk_norm|flash_attn|bias|qkv_bias)
    | bias | (mlp|lm_head|qkv)_bias | attention_out_bias | clip_qkv | architectures | auto_map | transformers_version
    | model_type | torch_dtype | dtype | mamba_ssm_dtype | router_dtype | name | id2label | label2id | tokenizer_class
    | scoring_func | score_function | topk_(method|group) | n_group | norm_topk_prob | num_experts_per_token
    | moe_(router_.*|capacity|use_aux_free) | seq_aux | ep_size | pretraining_tp | .*tuning.* | task_specific_params
    | problem_type | pruned_heads | max_(sequence|seq)_len(gth)? | n_positions | n_ctx | model_max_length
    | original_max_.* | cache_implementation | attn_(config|implementation) | logits_.* | final_logit.* | attn_logit.*
    | .*(scale|scaling|scalar|multiplier|factor) | .*softcap.* | .*temperature.* | swiglu_limit
    | parallel_attn | new_decoder_architecture | use_parallel_.* | (vision|image|video|audio)_.*""",
    re.VERBOSE,
)
"""Names of training, tokens, positions, activations and scales: no sizes, no work."""
_UNDERSTOOD = frozenset(
    (
        "attention_chunk_size",
        "first_k_dense_replace",
        "full_attention_interval",
        "intermediate_size",
        "intermediate_size_mlp",
        "max_window_layers",
        "num_key_value_heads",
        "sliding_window",
        "sliding_window_pattern",
        "use_sliding_window",
    )
)
"""Fields that other fields of the same file may leave without a meaning."""


def unread(fields: Fields) -> tuple[str, ...]:
    """Fields that ask for something (not null, false, 0, empty or a fraction) and that nothing has read."""
    return tuple(
        name
        for name, value in fields.values.items()
        if name not in fields.read | _UNDERSTOOD and not _asks_nothing(value) and not _HARMLESS.fullmatch(name)
    )


def _asks_nothing(value: object) -> bool:
    return value in (None, False, 0, "", "none", "default") or value in ([], {}) or isinstance(value, float)


def unread_assumption(fields: Fields) -> tuple[str, ...]:
    """The sentence about them, or nothing."""
    names = unread(fields)
    if not names:
        return ()
    shown = ", ".join(f"`{n}`" for n in names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (f"model: not understood and taken to cost nothing: {shown}{more}",)
