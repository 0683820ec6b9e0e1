"""What requests meet at a plan, as a page: the blocks of its report, with distributions and a timeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.report.html.page_layout import Legend, Page, Tile, assumed_section, block_section, render_page
from autotune.report.simulation import (
    likely_words,
    limit_title,
    simulated_words,
    simulation_blocks,
    simulation_report,
)
from autotune.report.svg.distribution import cumulative, over_time
from autotune.report.svg.shapes import Chart
from autotune.report.text_blocks import Block
from autotune.report.verdict import Verdict
from autotune.report.vocabulary.plan_names import name_of_key
from autotune.text.numbers import number

WAITING = Legend((("first", "decoding"), ("best", "waiting or prefilled")))


def simulation_page(document: Mapping[str, Any], *, made_by: str = "") -> str:
    """The page of a document of `simulation_document` with the commands that follow; `made_by`: the one before."""
    report, traffic = simulation_report(document), document["traffic"]
    kept, full = document["kept"], document["full"]
    return render_page(
        Page(
            kind="simulation",
            title=document["study"],
            facts=[name_of_key(document["plan"]), simulated_words(traffic)],
            verdict=Verdict(
                kind="good" if kept else "bad",
                badge="KEPT" if kept else "FULL" if full else "BROKEN",
                headline=report.reason,
                lines=(document["limited_by"],),
            ),
            tiles=_tiles(document),
            sections=[
                *(block_section(block) for block in simulation_blocks(document)),
                block_section(Block(title="Distributions"), _distributions(document)),
                block_section(Block(title="Over time"), _timeline(document), WAITING),
                assumed_section(document["assumptions"]),
            ],
            steps=document["next"],
            made_by=made_by,
        )
    )


def _tiles(document: Mapping[str, Any]) -> list[Tile]:
    return [
        Tile(
            title=limit_title(row["code"]),
            value=f"{value} {row['unit']}",
            small=f"limit {number(row['limit'])}; likely {likely}",
        )
        for row in document["limits"]
        for value, likely in [likely_words(row, " to ")]
    ]


def _distributions(document: Mapping[str, Any]) -> list[Chart]:
    titles = {"ttft": "TTFT", "tpot": "TPOT of a request"}
    return [cumulative(points, title=titles[name]) for name, points in document["cdf"].items() if points]


def _timeline(document: Mapping[str, Any]) -> list[Chart]:
    rows = document["timeline"]
    if not rows:
        return []
    return [
        over_time(
            rows,
            (("decoding", "trend first"), ("waiting", "trend best")),
            title="Requests at the plan",
            unit="requests",
        ),
        over_time(rows, (("kv_tokens", "trend first"),), title="KV cache in use", unit="tokens"),
    ]
