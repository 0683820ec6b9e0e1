"""Pages as text: what stands in them, what is escaped, what is left out and said so."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.comparison import compare
from autotune.report.comparison import comparison_document
from autotune.report.html.comparison import comparison_page
from autotune.report.html.evaluation import evaluation_page
from autotune.report.html.tune import TABLE_ROWS, tune_page
from autotune.report.html.tune_sections import limits_table
from autotune.report.svg.scatter import pareto
from autotune.study import load_study
from autotune.text.numbers import number
from autotune.tuning import TuneResult, tune
from autotune.tuning.sensitivity import sensitivity
from costmodel.errors import InputError
from tests.report.conftest import EVIL, STUDIES, answered
from tests.report.documents import evaluation_document
from tests.report.helpers import outline


def test_the_verdict_says_what_the_answer_is() -> None:
    """A baseline that breaks a limit, one that is best, and no plan at all read differently."""
    assert "Broken now: Throughput per GPU of a stage" in tune_page(answered("reference-128"))
    first = answered("llama-70b-16xh100").ranked[0].plan.split(":")[1]
    assert "Keep the plan in production" in tune_page(answered("llama-70b-16xh100", f"baseline.plan={first}"))
    nothing = tune_page(answered("infeasible-example"))
    assert "No plan keeps every limit." in nothing
    assert "--set constraints.ttft_ms=" in nothing


def test_nothing_is_fetched_and_only_our_script_runs() -> None:
    """No address stands in the page, and the policy allows the style and script that it holds, by their hash."""
    page = tune_page(answered("reference-128"))
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"\son\w+=", page)
    assert "style=" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    allowed = policy[1].replace("&#39;", "'")
    assert "default-src 'none'" in allowed
    assert "unsafe" not in allowed
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in allowed


def test_times_of_passes_are_said_to_be_of_operators() -> None:
    """`evaluate` and `dag` have the host's time in theirs: of one plan 13.2 ms stood beside 12.9 of the same name."""
    result = answered("llama-70b-16xh100")
    best = result.ranked[0]
    page = outline(tune_page(result)).text
    assert f"{1e3 * sum(best.breakdown['decode_s'].values()):,.1f}" in page
    assert "Decode step" not in page
    assert "Decode operators" in page


def test_names_are_text() -> None:
    """A study, a model and an assumption that are called like markup stand in the page as they are called."""
    result = answered("reference-128")
    study = replace(
        result.study, name=EVIL, arch=replace(result.study.arch, name=EVIL), assumptions=(EVIL, "second & last")
    )
    seen = outline(tune_page(replace(result, study=study)))
    assert seen.seen["script"] == 1
    assert "img" not in seen.seen
    assert seen.text.count(EVIL) >= 3


def many(result: TuneResult, count: int) -> TuneResult:
    """The same answer with so many feasible plans."""
    ranked = tuple(
        replace(result.ranked[i % len(result.ranked)], plan=f"{result.ranked[i % len(result.ranked)].plan}#{i}")
        for i in range(count)
    )
    known = result.confidence[result.ranked[0].plan]
    return replace(result, ranked=ranked, confidence={p.plan: known for p in ranked})


def test_ten_thousand_plans_are_a_page_that_opens() -> None:
    """The table holds the first plans and says of how many; the file stays small."""
    page = tune_page(many(answered("reference-128"), 12_000))
    assert len(page) < 1_500_000
    assert f"The first {TABLE_ROWS + 1} of 12,000 are listed" in page
    rows = re.findall(r'<tr class="[^"]*" data-plan', page)
    assert TABLE_ROWS <= len(rows) < TABLE_ROWS + 200


def test_one_plan_is_enough() -> None:
    """A single GPU has a single plan; the page has its table, its charts, and a sensitivity that cannot flip."""
    result = answered(
        "llama-70b-16xh100", "cluster.gpus=1", "model=qwen3-8b", "workload.request_rate_per_s=1", "baseline.plan=tp1"
    )
    assert len(result.ranked) == 1
    page = tune_page(result, sensitivity(result, factors=(0.8, 1.0, 1.25)))
    seen = outline(page)
    assert "1 plan that" in seen.text or "1 plans" not in seen.text
    assert "first of 1 plan" in seen.text


def test_without_a_baseline_nothing_is_compared() -> None:
    """A study that names no baseline gets its best plan, and no column against production."""
    result = answered("reference-128")
    page = tune_page(replace(result, study=replace(result.study, baseline=None), baseline=None))
    seen = outline(page)
    assert "The study names no baseline." in seen.text
    assert "vs now" not in seen.text.partition("How to read it")[0]
    assert "in production" not in seen.text


def test_a_baseline_that_cannot_be_launched_is_said() -> None:
    """The rule that forbids the plan in production stands in the verdict."""
    result = answered("reference-128", "baseline.plan=R4/PP2/ATP4/ADP4/MTP2/EP8")
    assert result.baseline is not None
    assert result.baseline.result is None
    seen = outline(tune_page(result))
    assert "the plan in production cannot be launched" in seen.text
    assert result.baseline.resolution.violations[0].message in seen.text


def test_the_front_holds_what_nothing_beats() -> None:
    """Of five points, two are beaten on both axes; what remains rises."""
    assert pareto([(1.0, 5.0), (2.0, 4.0), (2.0, 9.0), (3.0, 9.0), (4.0, 11.0)]) == [
        (1.0, 5.0),
        (2.0, 9.0),
        (4.0, 11.0),
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (2331.4, "2,331"),
        (99.96, "100"),
        (1.30, "1.3"),
        (20.13e9, "20.1e9"),
        (47.25, "47.2"),
        (0.0432, "0.0432"),
        (3.0e-7, "3e-07"),
        (float("inf"), "–"),
        (float("nan"), "–"),
        (None, "–"),
        (-12.34, "-12.3"),
    ],
)
def test_figures_have_three_digits(value: float | None, shown: str) -> None:
    """Three significant digits, thousands apart, a dash for what is no number."""
    assert number(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(50.0, "50"), (0.05, "0.05"), (100000.0, "100,000"), (2.5, "2.5")])
def test_limits_stand_as_they_were_written(value: float, shown: str) -> None:
    """No zeros are added to a limit, and none are lost."""
    assert number(value, 6) == shown


@pytest.mark.usefixtures("few_requests")
def test_limits_on_percentiles_have_their_rows() -> None:
    """Each with its bound and what is left of it, as limits on means have, and a share as per cent."""
    overrides = ("constraints.ttft_p95_ms=1234", "constraints.attainment_frac=0.75", "workload.request_rate_per_s=1")
    result = tune(load_study(STUDIES / "llama-70b-16xh100.toml", overrides))
    rows = {row.cells[0].text: row for row in limits_table(result.study, [("first", "first", result.ranked[0])]).rows}
    assert "1,234 ms" in rows["TTFT p95"].cells[0].small
    assert "75%" in rows["within limits"].cells[0].small
    for name in ("TTFT p95", "within limits"):
        assert rows[name].cells[1].tone == "good"
    unseen = replace(result.ranked[0], breakdown={}, margins={})
    assert {row.cells[1].text for row in limits_table(result.study, [("first", "first", unseen)]).rows} == {""}


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    """`tune --html` writes the page with its sensitivity, beside what it prints anyway."""
    file = tmp_path / "page.html"
    done = CliRunner().invoke(
        cli, ["tune", str(STUDIES / "reference-128.toml"), "--no-storage", "--json", "--html", str(file)]
    )
    assert done.exit_code == 0, done.output
    seen = outline(file.read_text(encoding="utf-8"))
    assert "Does the choice flip?" in seen.text
    assert done.stdout.startswith("{")


def test_a_page_is_written_only_into_a_folder_that_exists(tmp_path: Path) -> None:
    """A path below a file, or below a folder that a slip made up, is wrong input before anything is computed."""
    (tmp_path / "file").write_text("")
    for folder in ("file", "folder"):
        words = ["tune", str(STUDIES / "reference-128.toml"), "--html", str(tmp_path / folder / "page.html")]
        done = CliRunner().invoke(cli, words)
        assert isinstance(done.exception, InputError)
        assert "--html: must lie in a folder that exists" in str(done.exception)
    assert not (tmp_path / "folder").exists()


def test_an_evaluation_shows_every_part() -> None:
    """Checks, axes, memory by stage, balance, claims and assumptions stand on the page, failures first."""
    document = evaluation_document()
    page = evaluation_page(document)
    seen = outline(page)
    assert "5 of 7 checks pass" in seen.text
    counts = [sum(c["status"] == s for c in document["claims"]) for s in ("confirmed", "refuted", "undecidable")]
    assert "{} confirmed, {} refuted, {} undecidable".format(*counts) in seen.text
    for words in ("OPTIMAL", "INFEASIBLE", "expert modules: 256 distinct", "Expert weights", "one pipeline (x 16)"):
        assert words in seen.text
    for text in [document["conclusion"], *document["assumptions"], *(v["reason"] for v in document["strategy"])]:
        assert text in seen.text
    assert seen.text.index("✗ fails") < seen.text.index("✓ passes")
    assert seen.seen["svg"] == 3
    assert not re.search(r"\bnan\b|None|Undefined", seen.text)


@pytest.mark.parametrize(
    ("study", "plan", "headline"),
    [
        ("llama-70b-16xh100", None, "vllm:R2 TP8: 7 of 7 checks pass"),
        ("deepseek-v3-128xh200", "TP4/PP32", "vllm:PP32 TP4"),
        ("infeasible-example", None, "vllm:TP8 ETP8"),
        ("reference-128", "TP32/PP1/EP32", "0 of"),
    ],
)
def test_an_evaluation_of_any_plan_is_whole(study: str, plan: str | None, headline: str) -> None:
    """Dense, of 32 stages, under no feasible plan, forbidden by a rule: each is a page; claims only where given."""
    page = evaluation_page(evaluation_document(study, plan, claims=False))
    seen = outline(page)
    assert headline in seen.text
    assert 'id="claims"' not in page
    assert not re.search(r"\bnan\b|\binf\b|None|Undefined", seen.text)


def test_names_in_an_evaluation_are_text() -> None:
    """Claims come from a file of anybody's: they are shown and not run."""
    claim = {"claim": EVIL, "status": EVIL, "claimed": EVIL, "computed": EVIL, "reason": EVIL}
    seen = outline(evaluation_page(evaluation_document() | {"study": EVIL, "claims": [claim], "assumptions": [EVIL]}))
    assert seen.seen["script"] == 1
    assert "img" not in seen.seen
    assert seen.text.count(EVIL) >= 7


@pytest.mark.parametrize("name", ["reference-128", "llama-70b-16xh100", "infeasible-example"])
def test_a_comparison_is_a_whole_page(name: str) -> None:
    """A switch, a plan compared with itself and two that break limits: each is a page with its reason."""
    document = comparison_document(
        compare(load_study(STUDIES / f"{name}.toml", ("search.max_num_batched_tokens=[8192]",)))
    )
    seen = outline(comparison_page(document))
    assert document["reason"][1:] in seen.text
    assert document["current"]["name"] in seen.text
    assert not re.search(r"\bnan\b|\binf\b|None|Undefined", seen.text)
