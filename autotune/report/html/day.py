"""A day's plan as a page: the blocks of its report, with the day's load and what the replay met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.report.day import day_blocks, day_report, stretches_block
from autotune.report.html.page_layout import Page, Tile, assumed_section, block_section, render_page
from autotune.report.svg.day_plot import attainment_chart, load_chart
from autotune.report.text_blocks import Block
from autotune.report.verdict import Verdict
from autotune.report.vocabulary.words import count, probability
from autotune.text.numbers import number


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
