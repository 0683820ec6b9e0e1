"""Configurations of models as the engines' classes want them: the catalog's, with the class that each asks for."""

from __future__ import annotations

import json
from pathlib import Path

import costmodel.arch

CATALOG = Path(costmodel.arch.__file__).parent / "catalog_data"
ARCHITECTURES = {
    "deepseek-ai--DeepSeek-V3": "DeepseekV3ForCausalLM",
    "moonshotai--Kimi-K2-Instruct": "DeepseekV3ForCausalLM",
    "Qwen--Qwen3-235B-A22B-FP8": "Qwen3MoeForCausalLM",
    "openai--gpt-oss-120b": "GptOssForCausalLM",
    "mistralai--Mixtral-8x22B-v0.1": "MixtralForCausalLM",
    "meta-llama--Meta-Llama-3.1-70B": "LlamaForCausalLM",
}
"""The class that each file asks for: the catalog keeps no word of it."""
MODEL_TYPES = {"moonshotai--Kimi-K2-Instruct": "deepseek_v3"}
"""Where the repository's own configuration class is another's under a new name, and no engine runs it here."""


def write_config(folder: Path, name: str, *, one_of_each: bool = False) -> int:
    """Writes a model's `config.json` and returns its number of layers; `one_of_each` keeps one layer of each kind."""
    config = json.loads((CATALOG / f"{name}.json").read_text(encoding="utf-8"))
    config |= {"architectures": [ARCHITECTURES[name]]}
    if name in MODEL_TYPES:
        config["model_type"] = MODEL_TYPES[name]
    layers = int(config["num_hidden_layers"])
    if one_of_each:
        kinds = list(dict.fromkeys(config.get("layer_types", ["full_attention"])))
        dense = min(int(config.get("first_k_dense_replace", 0)), 1)
        config |= {"num_hidden_layers": dense + len(kinds)}
        config |= {"first_k_dense_replace": dense} if "first_k_dense_replace" in config else {}
        config |= {"layer_types": kinds} if "layer_types" in config else {}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return layers
