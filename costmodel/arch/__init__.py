"""What the model is: architectures, their readers and their parameter counts."""

from costmodel.arch.arch import Arch, Group, Layer, WeightDtypes
from costmodel.arch.attention import AttentionKind
from costmodel.arch.catalog import (
    least_weight_bytes,
    load_model,
    model_names,
    short_names,
    stored_dtypes,
    stored_in,
    with_dtypes,
)
from costmodel.arch.config.checkpoint import read_config_file
from costmodel.arch.config.read import read_config
from costmodel.arch.ffn import FfnKind
from costmodel.arch.weights import (
    active_params,
    cache_bytes,
    checkpoint_dtype,
    kv_bytes_per_token,
    total_params,
    weight_bytes,
    weight_groups,
)

__all__ = [
    "Arch",
    "AttentionKind",
    "FfnKind",
    "Group",
    "Layer",
    "WeightDtypes",
    "active_params",
    "cache_bytes",
    "checkpoint_dtype",
    "kv_bytes_per_token",
    "least_weight_bytes",
    "load_model",
    "model_names",
    "read_config",
    "read_config_file",
    "short_names",
    "stored_dtypes",
    "stored_in",
    "total_params",
    "weight_bytes",
    "weight_groups",
    "with_dtypes",
]
