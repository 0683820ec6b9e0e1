"""What the model is: architectures, their readers and their parameter counts."""

from costmodel.arch.arch import Arch, AttentionKind, FfnKind, WeightDtypes
from costmodel.arch.catalog import load_model, model_names, with_dtypes
from costmodel.arch.hf import read_config, read_config_file
from costmodel.arch.params import active_params, kv_bytes_per_token, total_params, weight_bytes, weight_groups

__all__ = [
    "Arch",
    "AttentionKind",
    "FfnKind",
    "WeightDtypes",
    "active_params",
    "kv_bytes_per_token",
    "load_model",
    "model_names",
    "read_config",
    "read_config_file",
    "total_params",
    "weight_bytes",
    "weight_groups",
    "with_dtypes",
]
