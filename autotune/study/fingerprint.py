"""A short name for a question: equal exactly where the answer must be."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from autotune.study.values import Study

_NOT_ASKED = ("path", "calibration", "assumptions", "sources", "switch", "retune")
"""Fields that say nothing about the answer, of a study and of what it holds."""
_MODEL_PARTS = (
    "costmodel",
    "autotune.engines",
    "autotune.space",
    "autotune.scoring",
    "autotune.disaggregated",
    "autotune.tuning",
)


def study_fingerprint(study: Study) -> str:
    """SHA-256, hex, of all that decides a study's results.

    That is every resolved value but the study's name and the assumptions (a value given and the same value
    filled in are one question), the content of the calibration profile, and the cost model's own code and
    data: a storage written by another version of the model answers another question.
    """
    question = {"study": _plain(replace(study, name="")), "cost_model": model_digest()}
    if study.calibration is not None:
        question["calibration"] = hashlib.sha256(study.calibration.read_bytes()).hexdigest()
    text = json.dumps(question, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1)
def model_digest() -> str:
    """SHA-256, hex, of the code and data that score a plan: same sources, same digest, on any machine."""
    digest = hashlib.sha256()
    for package in _MODEL_PARTS:
        for name, entry in sorted(_sources(files(package), package)):
            content = entry.read_bytes()
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def _sources(folder: Traversable, name: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            # the catalogs are out: what a study uses of them is in its resolved values
            if entry.name not in ("__pycache__", "catalog_data"):
                found += _sources(entry, f"{name}/{entry.name}")
        elif entry.name.endswith((".py", ".toml", ".json")):
            found.append((f"{name}/{entry.name}", entry))
    return found


def _plain(value: Any) -> Any:
    """JSON content of a value, without what is not asked."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.init and f.name not in _NOT_ASKED}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
