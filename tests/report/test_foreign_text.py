"""Hostile names in everything that is written: CSV, Markdown, pages, plots, metrics and profiles keep them as text."""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from prometheus_client.parser import text_string_to_metric_families

from autotune.comparison import compare
from autotune.launch.reading.parse import parse_command, split_command
from autotune.launch.targets.registry import find_target, target_files
from autotune.report.comparison import comparison_document
from autotune.report.comparison_text import comparison_report
from autotune.report.document import plans_csv, tune_document
from autotune.report.evaluation_text import evaluation_report
from autotune.report.files import table_csv
from autotune.report.html.comparison import comparison_page
from autotune.report.markdown import markdown_report
from autotune.report.pareto_front import front_document
from autotune.report.replay import replay_markdown
from autotune.report.svg.replay_plot import replay_svg
from autotune.retuning.metrics import metrics_text
from autotune.retuning.replay import STRATEGIES
from autotune.retuning.retune_once import Outcome
from autotune.study import load_study
from autotune.tuning.pareto_front import pareto
from autotune.validation.report import predictions_csv
from costmodel.arch import load_model
from costmodel.calibration.profile import VALUES, Profile, ProfileCell, profile_text, read_profile
from costmodel.estimate.result import Estimate
from costmodel.measured.runs import Run
from tests.hostile import NAMES
from tests.launch.helpers import launched, plans, service
from tests.report.conftest import STUDIES, answered
from tests.report.documents import evaluation_document
from tests.report.helpers import Outline, outline

SMALL = ("search.max_num_batched_tokens=[8192]",)


def assert_no_formula(text: str) -> None:
    """No cell begins like a formula, as spreadsheets see it that drop blanks before it."""
    assert "\r" not in text
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            assert not cell.lstrip(" ").startswith(("=", "+", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")), cell
            assert not cell.startswith("-") or (cell.removeprefix("-")[:1].isdigit() and float(cell) < 0.0), cell


def assert_only_text(written: Callable[[str], str], name: str) -> None:
    """Markdown as CommonMark with tables and raw HTML renders it has the elements that it has with a plain name."""
    render = MarkdownIt("commonmark", {"html": True}).enable("table").render
    seen, plain = outline(render(written(name))), outline(render(written("plain")))
    assert seen.seen == plain.seen, name
    words = "".join(c if c.isprintable() else " " for c in name).split()
    assert all(word.replace("\\", "") in seen.text.replace("\\", "") for word in words), name


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_no_formulas(name: str) -> None:
    """Every CSV that is written: trials of a storage, predictions for runs, plans of a ranking and of a front."""
    assert_no_formula(table_csv([{name: name, "b": 1.5}]))
    run = cast("Run", SimpleNamespace(id=name))
    figures = {n: np.ones(1) for n in ("ttft_s", "tpot_s", "ttft_log_sd", "tpot_log_sd")}
    text = predictions_csv([run], cast("Estimate", SimpleNamespace(**figures)))
    assert_no_formula(text)
    assert list(csv.reader(io.StringIO(text)))[1][0].removeprefix("'") == name.replace("\r", "\n")
    document = tune_document(answered("llama-70b-16xh100", *SMALL), top=2)
    for plan in document["plans"]:
        plan |= {"plan": name, "engine": name, "violations": [{"code": name}]}
    assert_no_formula(plans_csv(document, gpu=name))


def test_a_front_goes_through_the_same_writer() -> None:
    """`pareto.csv` holds the document that `plans_csv` takes."""
    study = load_study(STUDIES / "llama-70b-16xh100.toml", SMALL)
    document = front_document(pareto(replace(study, baseline=None)), top=2)
    document["plans"][0]["plan"] = "=1"
    assert_no_formula(plans_csv(document, gpu="=h100"))


@pytest.fixture(scope="module")
def compared() -> dict[str, Any]:
    """A comparison of the plain study."""
    return comparison_document(compare(load_study(STUDIES / "llama-70b-16xh100.toml", SMALL), scenarios=False))


def replayed(name: str) -> dict[str, Any]:
    """A replay of one step with names everywhere."""
    move = {"at_s": 0.0, "decision": "switch", "rule": name, "reason": name, "plan": name}
    figures = dict.fromkeys(
        ("slo_attainment_frac", "goodput_requests", "goodput_of_oracle_frac", "lost_in_switches_requests", "gpu_hours",
         "gpu_hours_restarting", "gpu_hours_per_million_requests"), 1.0,
    )  # fmt: skip
    strategies = [
        {"strategy": s, "is": said, "switches": 1, "switches_by_traffic": [1], **figures, "goodput_per_s": [1.0, 2.0],
         "moves": [move]}
        for s, said in STRATEGIES.items()
    ]  # fmt: skip
    return {
        "study": name, "traffic": [{"source": f"/logs/{name.replace('/', ':')}", "ends_s": 120.0}], "step_s": 60.0,
        "window_s": 60.0, "load_frac": None,
        "counted": False, "first_plan": name, "requests": 9.0, "starts_s": [0.0, 60.0],
        "offered_per_s": [1.0, 2.0], "strategies": strategies,
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_markdown_is_text(name: str, compared: dict[str, Any]) -> None:
    """Comparisons, evaluations and replays bring no element along that a name asks for."""

    def comparison(name: str) -> str:
        named = dict.fromkeys(("study", "model", "traffic", "reason"), name)
        return markdown_report(comparison_report(compared | named | {"assumptions": [name], "where_from": [name]}))

    def evaluation(name: str) -> str:
        claim = dict.fromkeys(("claim", "status", "claimed", "computed", "reason"), name)
        named = {"study": name, "plan_text": name, "claims": [claim], "assumptions": [name]}
        return markdown_report(evaluation_report(evaluation_document() | named))

    for written in (comparison, evaluation, lambda name: replay_markdown(replayed(name))):
        assert_only_text(written, name)


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("-")])
@pytest.mark.parametrize("target", ["vllm", "compose", "k8s"])
def test_a_readme_is_text(name: str, target: str) -> None:
    """What an export explains of a study and a model, and of a command whose flags it does not know."""

    def written(name: str) -> str:
        arch = load_model("llama-3.1-70b")
        made = service(plans("llama-3.1-70b", "vllm", 8)[0], arch, model=name, name=name)
        flags = tuple(f"--from: flag {flag} is not known" for flag in (name, f"--{name}"))
        current = replace(made, assumptions=flags, knobs=replace(made.knobs, max_num_batched_tokens=1024))
        files = target_files(find_target(target), launched(replace(made, assumptions=(name,))), current=current)
        assert all(Path(file).name == file for file in files)
        return files["README.md"].text

    assert_only_text(written, name)


@pytest.mark.parametrize("name", NAMES)
def test_flags_of_an_engine_are_read_and_not_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that is no engine's is an unknown one, by its name."""
    monkeypatch.chdir(tmp_path)
    found = parse_command([*split_command("vllm serve m -tp 8"), f"--{name}"])
    assert any(name in flag for flag in found.unknown)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_pages_and_plots_are_text(name: str, compared: dict[str, Any]) -> None:
    """A comparison's page has the elements that it has with a plain name, a plot is well-formed XML."""

    def page(name: str) -> Outline:
        named = dict.fromkeys(("study", "model", "traffic", "reason"), name) | {"assumptions": [name]}
        return outline(comparison_page(compared | named))

    seen = page(name)
    assert seen.seen == page("plain").seen
    assert seen.text.count(name) >= 3
    drawn, plain = ([e.tag for e in ElementTree.fromstring(replay_svg(replayed(n))).iter()] for n in (name, "plain"))  # noqa: S314  # our own
    assert drawn == plain


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_labels(name: str) -> None:
    """A Prometheus parser gets the study's name and the plan's back as they were."""
    side = {"plan": name, "value_per_s": 1.0, "p_meets": 0.5}
    entry = {
        "study_name": name, "decision": "keep", "rule": name, "drift": {"drifted": True}, "at_s": 1.0, "p_better": 0.5,
        "figures": {"net_gain_frac": 0.1, "payback_s": 1.0}, "current": side, "candidate": side,
    }  # fmt: skip
    outcome = SimpleNamespace(entry=entry, applied=False, ledger=SimpleNamespace(decisions=(), applied=()))
    text = metrics_text(cast("Outcome", outcome), duration_s=1.0, written_s=1.0)
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    assert {s.labels["study"] for s in samples} == {name}
    assert {s.labels["plan"] for s in samples if "plan" in s.labels} == {name}


@pytest.mark.parametrize("name", [*NAMES, 'x"]\n[cells."y', "\U0001f600"])
def test_profiles_keep_their_cells(name: str, tmp_path: Path) -> None:
    """A cell's name is one quoted TOML key, whatever it holds."""
    cell = ProfileCell(runs=3, tpot=(0.0,) * VALUES, ttft=(0.0,) * VALUES)
    text = profile_text(Profile(cells={name: cell}))
    assert list(tomllib.loads(text)["cells"]) == [name]
    (tmp_path / "profile.toml").write_text(text, encoding="utf-8", newline="")
    assert read_profile(tmp_path / "profile.toml").cells == {name: cell}
