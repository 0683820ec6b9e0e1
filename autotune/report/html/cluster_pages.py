"""Pages on whole clusters: how several models divide one, and what a service needs to survive failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.report.division import division_report
from autotune.report.html.page_layout import Page, Section, block_section, render_page
from autotune.report.survival import survival_report
from autotune.report.text_blocks import Report
from autotune.report.verdict import Verdict


def division_page(document: Mapping[str, Any], *, made_by: str) -> str:
    """The page of a document of `division_document`."""
    badge = "Served whole" if document["serves_all"] else "Not all is served"
    return _page(division_report(document), "division", document, badge, made_by)


def survival_page(document: Mapping[str, Any], *, made_by: str) -> str:
    """The page of a document of `survival_document`."""
    badge = "Survives" if document["survives"] else "Too few GPUs"
    return _page(survival_report(document), "failures", document, badge, made_by)


def _page(report: Report, kind: str, document: Mapping[str, Any], badge: str, made_by: str) -> str:
    """The blocks of a report in their order; what was assumed is folded, and what follows stands at the top."""
    verdict = Verdict(kind=report.tone, badge=badge, headline=report.reason, lines=report.lines)
    sections: list[Section] = [block_section(block) for block in report.blocks if block.key != "next"]
    facts = [report.headline.partition(": ")[2]]
    return render_page(
        Page(
            kind=kind,
            title=document["study"],
            facts=facts,
            verdict=verdict,
            sections=sections,
            steps=document["next"],
            made_by=made_by,
        )
    )
