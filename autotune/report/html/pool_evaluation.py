"""The page of a disaggregated plan's evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.report.html.evaluation import evaluation_verdict
from autotune.report.html.page_layout import Page, assumed_section, block_section, render_page
from autotune.report.pool_evaluation import pool_evaluation_blocks
from autotune.space.pool_plan import ROLES


def pool_evaluation_page(document: Mapping[str, Any]) -> str:
    """The page of a document of `pool_evaluation_document`."""
    pools = document["pools"]
    return render_page(
        Page(
            kind="evaluation",
            title=document["study"],
            facts=[*(f"{pools[role]['gpus']:,} GPUs that {role}" for role in ROLES)],
            verdict=evaluation_verdict(document),
            steps=document["next"],
            sections=[
                *(block_section(block) for block in pool_evaluation_blocks(document)),
                assumed_section(document["assumptions"]),
            ],
            made_by=document["command"],
        )
    )
