"""Pages on whole days and clusters: a day's plan, several models on one cluster, and what surviving failures takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.report.day import day_blocks, day_report, stretches_block
from autotune.report.division import division_report
from autotune.report.html.page_layout import Page, Section, Tile, assumed_section, block_section, render_page
from autotune.report.survival import survival_report
from autotune.report.svg.day_plot import attainment_chart, load_chart
from autotune.report.text_blocks import Block, Report
from autotune.report.verdict import Verdict
from autotune.report.vocabulary.words import count
from autotune.text.numbers import number, probability


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


def day_page(document: Mapping[str, Any], *, made_by: str = "", steps: Sequence[str] = ()) -> str:
    """The page of a document of `day_document`; `steps`: the commands that follow."""
    report, total = day_report(document), document["total"]
    _, plans, replay = day_blocks(document)
    charts = [attainment_chart(document, surges=surges) for surges in (False, True)]
    return render_page(
        Page(
            kind="day",
            title=document["study"],
            facts=[count(len(document["steps"]), "step"), f"{document['traffic']['requests']:,} requests"],
            verdict=Verdict(
                kind="good" if document["keeps"] else "bad",
                badge="ROOM" if document["keeps"] else "TOO SMALL",
                headline=report.reason,
                lines=report.lines,
            ),
            tiles=[
                Tile(title="GPU-hours", value=number(total["gpu_hours"]), small=f"{total['changes']} changes a day"),
                Tile(title="Saved", value=f"{document['saved_frac']:.0%}", small="of replicas that are enough all day"),
                Tile(
                    title="P(a limit breaks)",
                    value=probability(document["p_break"]["of_day"]),
                    small=f"{probability(document['p_break']['of_day_with_calibration'])} with the model's own errors",
                ),
            ],
            sections=[
                block_section(Block(title="Load and capacity"), [load_chart(document)]),
                block_section(stretches_block(document)),
                block_section(plans),
                block_section(replay, charts),
                assumed_section(document["assumptions"]),
            ],
            steps=steps,
            made_by=made_by,
        )
    )
