"""The page of a disaggregated plan's evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.report.evaluation_text import CHECKS
from autotune.report.html.page_layout import Page, assumed_section, block_section, render_page
from autotune.report.pool_evaluation import pool_evaluation_blocks
from autotune.report.verdict import Verdict
from autotune.report.vocabulary.titles import TONES
from autotune.space.pool_plan import ROLES


def pool_evaluation_page(document: Mapping[str, Any]) -> str:
    """The page of a document of `pool_evaluation_document`."""
    checks, verdict, binding = document["checks"], document["verdict"], document["summary"]["binding"]
    kept = f"{sum(c['passed'] for c in checks)} of {len(checks)} checks pass"
    pools = document["pools"]
    return render_page(
        Page(
            kind="evaluation",
            title=document["study"],
            facts=[document["plan"], *(f"{pools[role]['gpus']:,} GPUs that {role}" for role in ROLES)],
            verdict=Verdict(
                kind=TONES[verdict],
                badge=verdict,
                headline=f"{document['plan_text']}: {verdict}, {kept}.",
                lines=(document["conclusion"], f"What binds: {CHECKS.get(binding, binding)}."),
            ),
            sections=[
                *(block_section(block) for block in pool_evaluation_blocks(document)),
                assumed_section(document["assumptions"]),
            ],
        )
    )
