"""The calibration files: where they lie, which of them a plan's cost rests on, and which content they have."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files

DATA = files("costmodel.calibration") / "data"
BORROWED_FROM = {
    "hopper": "hopper",
    "blackwell": "blackwell",
    "ampere": "hopper",
    "ada": "hopper",
    "cdna3": "hopper",
    "blackwell_ultra": "blackwell",
    "cdna4": "blackwell",
}
"""Generation -> the measured generation whose efficiencies it takes."""


def kernel_file(generation: str, engine: str) -> str:
    """Name of the file of kernel laws and end-to-end parameters of an engine on GPUs of a generation."""
    return f"{BORROWED_FROM[generation]}-{engine}.json"


def residual_file(engine: str) -> str:
    """Name of the file of what the formulas miss of an engine."""
    return f"residual-{engine}.json"


@lru_cache(maxsize=32)
def data_digest(name: str) -> str | None:
    """SHA-256 of a file's content, its first 16 hex digits; None where there is no such file."""
    known = {entry.name: entry for entry in DATA.iterdir()}
    return hashlib.sha256(known[name].read_bytes()).hexdigest()[:16] if name in known else None
