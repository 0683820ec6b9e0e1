"""The studies that are shipped, and a small one."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "studies"
STUDIES = sorted(p for p in FOLDER.glob("*.toml") if not p.name.endswith(".claims.toml"))
"""Claims of a report lie beside the study that they are about."""
SMALL = """\
name = "small"
model = "llama-3.1-8b"
engine = "vllm"
cluster = { gpus = 8, gpu = "h100" }
workload = { isl = 1000, osl = 500, concurrency = 128 }
"""
"""An 8B model on eight GPUs, as a file."""
