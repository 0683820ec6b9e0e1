"""Documents of other parts of the product."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from autotune.evaluation import evaluate, read_claims
from autotune.report.evaluation import evaluation_document as document_of
from autotune.study import load_study

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@lru_cache(maxsize=8)
def _evaluated(study: str, plan: str | None, *, claims: bool) -> dict[str, Any]:
    found = load_study(STUDIES / f"{study}.toml", ["search.max_num_batched_tokens=[8192]"])
    known = read_claims(STUDIES / f"{study}.claims.toml") if claims else None
    return document_of(evaluate(found, plan, known))


def evaluation_document(
    study: str = "reference-128", plan: str | None = None, *, claims: bool = True, **changes: Any
) -> dict[str, Any]:
    """What `autotune evaluate` says of a shipped study's baseline, or of `plan`; with some fields changed."""
    return deepcopy(_evaluated(study, plan, claims=claims)) | changes
