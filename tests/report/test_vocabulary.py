"""One name for each thing: every code has a title, and terminal, Markdown and page use the same."""

from __future__ import annotations

import csv
import io
import itertools
import re
from io import StringIO

import pytest

from autotune.engines import ENGINES, engine_title
from autotune.metrics import METRICS, OBJECTIVES
from autotune.report.answer import tune_report
from autotune.report.document import plans_csv, tune_document
from autotune.report.evaluation_text import evaluation_report
from autotune.report.html.evaluation import evaluation_page
from autotune.report.html.tune import tune_page
from autotune.report.markdown import markdown_report
from autotune.report.svg.scale import linear
from autotune.report.terminal import Terminal, print_report
from autotune.report.vocabulary.plan_names import name_of_key
from autotune.report.vocabulary.titles import LIMITS, MEMORY, TONES, TTFT_PARTS, memory_parts
from autotune.report.vocabulary.words import measure, percent, signed
from autotune.scoring.gpu_time import OPERATORS
from autotune.scoring.limits import study_limits
from autotune.scoring.plan_name import plan_name
from autotune.study import load_study
from autotune.text.numbers import probability
from autotune.tuning import tune
from costmodel.estimate.result import MEMORY_KINDS
from costmodel.estimate.result import TTFT_PARTS as PARTS
from costmodel.plan.layout import LAYOUT_AXES
from costmodel.step.operators import GROUPS
from tests.report.conftest import STUDIES, answered
from tests.report.documents import evaluation_document
from tests.report.helpers import outline

LIMITED = [
    f"constraints.{name}={value}"
    for name, value in (
        ("ttft_ms", 5000),
        ("tpot_ms", 50),
        ("memory_util_frac", 0.9),
        ("min_total_tokens_per_s_per_gpu", 1),
        ("min_output_tokens_per_s_per_gpu", 1),
        ("min_stage_tokens_per_s_per_gpu", 1),
        ("min_gpu_util_frac", 0.1),
    )
]


def test_every_code_has_a_title() -> None:
    """What the model and the search name is named for people: nothing is missing and nothing is left over."""
    assert set(OPERATORS) == {*GROUPS, "rest"}
    assert set(TTFT_PARTS) == set(PARTS)
    assert set(MEMORY) == {*MEMORY_KINDS, "free"}
    assert set(OBJECTIVES) <= set(METRICS)
    assert len({engine_title(name) for name in ENGINES}) == len(ENGINES)
    study = load_study(STUDIES / "llama-70b-16xh100.toml", [*LIMITED, "workload.request_rate_per_s=1"])
    percentiles = {
        f"{metric}_{share}_ms" for metric in ("ttft", "tpot", "itl", "e2e") for share in ("p50", "p90", "p95", "p99")
    }
    means = {f"{metric}_mean_ms" for metric in ("ttft", "tpot", "e2e")}
    of_means = {limit.code for limit in study_limits(study)} | {"e2e_ms"}
    assert set(LIMITS) == of_means | percentiles | means | {"attainment_frac", "served_within_limits"}
    titles = [(m.title, m.unit) for m in METRICS.values()]
    assert len(set(titles)) == len(titles)


def test_memory_parts_are_the_whole() -> None:
    """What is summed up for a bar is what was there, but for what is free."""
    kinds = {kind: 2.0**i for i, kind in enumerate(MEMORY)}
    assert sum(memory_parts(kinds).values()) == sum(kinds.values()) - kinds["free"]


@pytest.mark.parametrize("study", ["deepseek-v3-128xh200", "infeasible-example"])
def test_terminal_and_page_show_the_same_table(study: str) -> None:
    """Every cell of the ranked (or of the nearest) plans that a terminal shows stands on the page."""
    result = answered(study)
    table = next(b.table for b in tune_report(result, top=3).blocks if b.table is not None)
    page = outline(tune_page(result)).text
    out = StringIO()
    print_report(Terminal(file=out, width=300), tune_report(result, top=3))
    for row in table.rows:
        for cell in row.cells:
            assert cell.text in page
            assert cell.text in out.getvalue()


def test_an_evaluation_has_one_wording() -> None:
    """Titles of checks, operators and memory, and the colours of verdicts, are those of the vocabulary everywhere."""
    document = evaluation_document()
    report = evaluation_report(document)
    out = StringIO()
    print_report(Terminal(file=out, width=300), report)
    shown = (out.getvalue(), markdown_report(report), outline(evaluation_page(document)).text)
    wanted = {LIMITS[c["name"]] for c in document["checks"] if c["name"] in LIMITS}
    wanted |= {MEMORY[m["kind"]] for m in document["memory"]}
    assert len(wanted) > 10
    assert all(title in text for title in wanted for text in shown)
    assert all(OPERATORS[t["operator"]] in text for t in document["time"] for text in shown)
    assert {v["verdict"] for v in document["strategy"]} | {document["verdict"]} <= set(TONES)


def test_a_mark_says_what_its_chart_plots() -> None:
    """Pointed at, a plan on a chart of output throughput says its output throughput, and the latency across."""
    result = answered("deepseek-v3-128xh200")
    page = tune_page(result)
    charts = re.findall(r'<svg viewBox="0 0 560 384".*?</svg>', page, flags=re.DOTALL)
    assert [re.findall(r'aria-label="([^.]*)\.', chart) for chart in charts] == [
        ["Output throughput against TPOT"],
        ["Output throughput against TTFT"],
    ]
    best = result.ranked[0].metrics
    plotted = METRICS["output_tokens_per_s_per_gpu"].text(best["output_tokens_per_s_per_gpu"])
    for chart in charts:
        tips = re.findall(r'data-tip="([^"]*)"', chart)
        assert len(tips) > 50
        assert all("\nOutput throughput: " in tip and "\nTPOT: " in tip and "\nTTFT at" in tip for tip in tips)
        (first,) = [tip for tip in tips if tip.startswith("rank 1: ")]
        assert f"\nOutput throughput: {plotted} tok/s/GPU" in first


@pytest.mark.parametrize(
    ("overrides", "pooled"),
    [
        (["search.redundant_experts=[0,32]", "search.dcp=[1,2]", "search.attn_cp=[1,2]"], False),
        (["search.disaggregated=auto", "cluster.also=[{gpus=16, gpu='h200'}]"], True),
    ],
)
def test_no_axis_is_missing_in_the_table_of_plans(overrides: list[str], pooled: bool) -> None:
    """Rows of `plans.csv` differ in their layout and GPU type wherever the plans do."""
    quick = ["cluster.gpus=16", "search.max_num_batched_tokens=[8192]", "baseline.plan=TP8"]
    name = "deepseek-v3-128xh200" if not pooled else "llama-70b-16xh100"
    result = answered(name, *quick, *overrides)
    document = tune_document(result, top=0)
    rows = list(csv.DictReader(io.StringIO(plans_csv(document, gpu=result.study.cluster.gpu.name))))
    layout = ["engine", "gpu", "stage_layers", *LAYOUT_AXES]
    sides = [*layout, *(f"prefill_{n}" for n in layout if n != "engine")] if pooled else layout
    assert len({tuple(row[n] for n in sides) for row in rows}) == len({p["plan"] for p in document["plans"]}) > 50
    wide = {n for n in LAYOUT_AXES if len({row[n] for row in rows}) > 1}
    assert wide >= ({"replicas", "pp", "attn_tp"} if pooled else {"dcp", "redundant_experts", "attn_dp", "moe_ep"})
    assert len({row["gpu"] for row in rows}) == 1 + pooled
    for row, plan in zip(rows, document["plans"], strict=True):
        assert row["plan"] == plan["plan"]
        assert (float(row["ttft_s"]) if row["ttft_s"] else None) == plan["metrics"]["ttft_s"]


def test_shares_and_differences() -> None:
    """A share close to the whole is not the whole, a probability is never quite one, a minus is a minus."""
    assert [percent(x) for x in (0.5, 0.995, 1.0, None)] == ["50%", "99.5%", "100%", "–"]
    assert [probability(x) for x in (0.0, 0.005, 0.0051, 0.994)] == ["< 1%", "< 1%", "1%", "99%"]
    assert [probability(x) for x in (0.0, 0.5, 0.995, 1.0, None)] == ["< 1%", "50%", "> 99%", "> 99%", "–"]
    assert [signed(x) for x in (0.1, -0.041, 0.0, 12.0, None)] == ["+10.0%", "−4.1%", "0.0%", "+1,200%", "–"]
    assert [measure(x, u) for x, u in ((0.067, "of time"), (0.001, "probability"), (25904.2, "ms"))] == [
        "6.7%",
        "< 1%",
        "25,904",
    ]


@pytest.mark.parametrize(
    ("top", "count", "step"), [(374.0, 5, 100.0), (170.0, 12, 20.0), (0.03, 5, 0.01), (5.0, 5, 1.0)]
)
def test_axes_have_round_ticks(top: float, count: int, step: float) -> None:
    """From zero in steps of 1, 2, 2.5 or 5 times a power of ten, beyond the highest value."""
    ticks = linear(0.0, top, start=0.0, end=100.0, count=count).ticks
    assert ticks[0] == 0.0
    assert ticks[-1] >= top
    assert [b - a for a, b in itertools.pairwise(ticks)] == pytest.approx([step] * (len(ticks) - 1))


@pytest.mark.parametrize("study", ["llama-70b-16xh100", "qwen3-235b-64xh100"])
def test_a_full_string_is_read_as_its_plan_is_called(study: str) -> None:
    """What is shown of a document's plan is what the table calls the plan."""
    unsolved = ["search.stage_layers=balanced", "search.max_num_batched_tokens=[2048]", "workload.concurrency=64"]
    result = tune(load_study(STUDIES / f"{study}.toml", [*unsolved, "workload.request_rate_per_s="]))
    plans = (*result.ranked, *result.infeasible)
    assert plans
    for plan in plans:
        assert name_of_key(plan.plan) == plan_name(plan, dense=not result.study.arch.is_moe, several_engines=True)
