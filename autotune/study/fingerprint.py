"""A short name for a question and for the model that answers it: equal exactly where the answer must be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from autotune.engines import ENGINES, engines_of
from autotune.study.question import Study
from costmodel.calibration.data_files import data_digest, kernel_file, residual_file
from costmodel.version import MODEL_VERSION

_NOT_ASKED = (
    "path",
    "overrides",
    "assumptions",
    "operation_assumptions",
    "resilience_assumptions",
    "sources",
    "switch",
    "retune",
    "resilience",
    "recorded",
    "turn",
    "traffic",
    "product",
)
"""Fields that say nothing about the answer, of a study and of what it holds."""
_WHERE_GIVEN = ("engine_options",)
"""Fields that studies had not always: where they are not given, the question is the one that it was without them."""


def study_fingerprint(study: Study) -> str:
    """SHA-256, hex, of all that decides a study's results: the question and the model that answers it."""
    return _digest({"question": question_digest(study), "model": model_stamp(study)})


def question_digest(study: Study) -> str:
    """SHA-256, hex, of every resolved value but the study's name and the assumptions.

    A value that is given and the same value filled in are one question. A user's calibration counts by its content.
    """
    return _digest(_plain(replace(study, name="")))


def model_stamp(study: Study) -> dict[str, Any]:
    """What a study is scored with, as JSON content: `version` of the model, and `data`, file -> digest of its content.

    The files are those that the study's engines and GPUs use, so that an edit of others leaves stored trials valid.
    """
    baseline = study.baseline.engine if study.baseline else None
    engines = {ENGINES[e].traits.calibration for e in (*engines_of(study.engine), baseline) if e is not None}
    clusters = (study.cluster, *study.axes.gpu_types, *study.axes.other_gpus)
    names = {residual_file(e) for e in engines}
    names |= {kernel_file(c.gpu.generation, e) for c in clusters for e in engines}
    return {"version": MODEL_VERSION, "data": {name: data_digest(name) for name in sorted(names)}}


def model_age(stamp: object) -> str | None:
    """Why trials with this stamp are not the present model's; None: they are.

    Args:
        stamp: from `model_stamp`, as a storage gave it back.
    """
    if not isinstance(stamp, Mapping) or stamp.get("version") != MODEL_VERSION:
        return f"model version {stamp.get('version') if isinstance(stamp, Mapping) else None}, now {MODEL_VERSION}"
    data = stamp.get("data")
    if not isinstance(data, Mapping):
        return "unknown calibration data"
    changed = sorted(str(name) for name, digest in data.items() if data_digest(str(name)) != digest)
    return f"other calibration data: {', '.join(changed)}" if changed else None


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """JSON content of a value, without what is not asked."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {f.name: getattr(value, f.name) for f in fields(value) if f.init and f.name not in _NOT_ASKED}
        return {n: _plain(held) for n, held in named.items() if held is not None or n not in _WHERE_GIVEN}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
