"""The picture of the README: every plan of a study, throughput against latency."""

from __future__ import annotations

from autotune.metrics import METRICS
from autotune.report.svg.scatter import Marked, Scatter, ScatterLimit, scatter
from autotune.report.svg.shapes import svg_file
from autotune.scoring.plan_name import plan_name
from autotune.tuning import TuneResult

STYLE = """
text { font: 12px sans-serif; fill: #444; } .axis-title { fill: #222; } .grid { stroke: #e3e3e3; }
.axis { stroke: #444; } .front { fill: none; stroke: #00735c; stroke-width: 1.75; }
.limit { stroke: #a3195b; stroke-width: 1.5; stroke-dasharray: 6 4; } .limit-text { fill: #a3195b; font-weight: 600; }
.beyond { fill: #a3195b; fill-opacity: 0.07; } .mark { stroke: #fff; stroke-width: 1.5; }
.mark.first { fill: #0a5fb4; } .mark.base { fill: #b04a00; } .mark.plan { fill: #76808e; } .mark.out { fill: #b9bfc6; }
.dot-plan, .dot-out { fill: none; stroke-linecap: round; stroke-width: 5; }
.dot-plan { stroke: #76808e; } .dot-out { stroke: #b9bfc6; }
.whisker { stroke-width: 2; } .whisker.first { stroke: #0a5fb4; } .whisker.base { stroke: #b04a00; }
"""


def front_svg(result: TuneResult) -> str:
    """What `autotune tune STUDY --html` draws of TPOT, as a picture of its own."""
    study, best = result.study, result.ranked[0]
    marked = [Marked(plan=best, name=plan_name(best, dense=not study.arch.is_moe, several_engines=False), role="first")]
    if result.baseline is not None and result.baseline.result is not None:
        marked.append(Marked(plan=result.baseline.result, name="in production", role="base"))
    tpot = METRICS["tpot_s"]
    limit = study.constraints.tpot_s
    chart = scatter(
        Scatter(
            x=tpot,
            y=METRICS[study.objective.metric],
            marked=marked,
            feasible=result.ranked,
            infeasible=result.infeasible,
            most_x=None
            if limit is None
            else ScatterLimit(value=limit * tpot.factor, label=f"limit {limit * 1e3:g} ms"),
        )
    )
    return svg_file(chart, STYLE)
