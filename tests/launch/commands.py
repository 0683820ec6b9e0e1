"""Commands that servers of one small model are started with."""

from __future__ import annotations

from pathlib import Path

from autotune.launch.reading.import_plan import Imported, import_plan

NAME = "meta-llama/Llama-3.1-8B-Instruct"
VLLM = f"vllm serve {NAME} --port 9000 --served-model-name x"
SGLANG = f"python -m sglang.launch_server --model-path {NAME} --port 9000"


def trtllm(folder: Path, text: str) -> Imported:
    """A server of TensorRT-LLM with a file of the LLM API."""
    (folder / "llm.yaml").write_text(text, encoding="utf-8")
    return import_plan(f"trtllm-serve {NAME} --extra_llm_api_options {folder / 'llm.yaml'}")
