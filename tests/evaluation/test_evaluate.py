"""The report on a plan: sums by hand, verdicts, and every shipped study."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import autotune
from autotune.cli.main import cli, main
from autotune.comparison import compare
from autotune.evaluation import Evaluation, evaluate, read_claims
from autotune.evaluation.compatibility import compatibility
from autotune.evaluation.values import Sections
from autotune.report.evaluation import evaluation_document
from autotune.report.evaluation_text import evaluation_report
from autotune.report.markdown import markdown_report
from autotune.scoring.gpu_time import OPERATORS
from autotune.scoring.unsure_means import ALIKE, BURSTS, UNSURE, unsure_means
from autotune.study import load_study, study_from_document
from autotune.text.numbers import number, room_words
from autotune.tuning.answer_study import score_plan
from costmodel.errors import InputError
from tests.comparison.helpers import dense

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "studies" / "reference-128.toml"
CLAIMS = ROOT / "studies" / "reference-128.claims.toml"


@pytest.fixture(scope="module")
def reference() -> Evaluation:
    """The reference plan under its report's claims."""
    return evaluate(load_study(REFERENCE), claims=read_claims(CLAIMS))


def _sections(found: Evaluation) -> Sections:
    assert isinstance(found.sections, Sections)
    return found.sections


def test_tensor_parallelism_crosses_pairs_within_a_host() -> None:
    """NVLink bridges join pairs: TP8 leaves them over what `scaleout_gb_per_s` says, TP2 does not."""

    def tpot_s(plan: str, *, pairs: bool, gb_per_s: float) -> float:
        gpu = {"base": "h100_pcie", "scaleup_gb_per_s": 300, "scaleout_gb_per_s": gb_per_s}
        study = study_from_document(
            {
                "engine": "vllm",
                "model": "llama-3.1-70b",
                "cluster": {"gpus": 8, "gpu": gpu | ({"scaleup_gpus": 2} if pairs else {})},
                "workload": {"isl": 2000, "osl": 500, "concurrency": 32},
            },
            Path("pairs.toml"),
        )
        text = f"its other GPUs are reached at scaleout_gb_per_s, {gb_per_s} GB/s"
        assert any(text in said for said in study.assumptions) == pairs
        found = score_plan(study, plan)
        assert found.result is not None
        axes = compatibility(study, found.resolution.candidate)["axes"]
        tier = next(row["tier"] for row in axes if row["axis"] == "TP")
        crosses = pairs and plan == "TP8"
        assert tier == ("scale-up inside, scale-out between 4 domains of 2 GPUs" if crosses else "scale-up")
        return found.result.metrics["tpot_s"]

    joined, apart, slower = (tpot_s("TP8", pairs=p, gb_per_s=w) for p, w in ((False, 64), (True, 64), (True, 16)))
    assert joined < apart < slower
    assert tpot_s("R4 TP2", pairs=True, gb_per_s=16) == tpot_s("R4 TP2", pairs=False, gb_per_s=64)


def test_no_plan_does_more_at_its_load_than_at_saturation() -> None:
    """A cache that holds eleven requests: powers of two in flight ended at eight, a fifth below the load's figure."""
    study = study_from_document(
        {
            "engine": "vllm",
            "model": "llama-3.1-70b",
            "cluster": {"gpus": 2, "gpu": "h100"},
            "workload": {"isl": 2000, "osl": 1000, "concurrency": 12},
            "constraints": {"tpot_ms": 100},
            "baseline": {"plan": "TP2"},
        },
        Path("full.toml"),
    )
    found = _sections(evaluate(study)).performance
    assert found["tokens_per_ms_at_saturation"]["in_all"] >= found["tokens_per_ms"]["in_all"]


def command(*arguments: str) -> tuple[int, str]:
    """Exit code and output of `autotune evaluate`."""
    found = CliRunner().invoke(cli, ["evaluate", *arguments])
    return found.exit_code, found.output


def test_the_reference_fails_for_its_throughput(reference: Evaluation) -> None:
    """The plan that was declared optimal misses the report's own target, and nothing else of its limits."""
    assert (reference.passed, reference.verdict) == (False, "FAILED")
    assert evaluation_document(reference)["verdict"] == reference.verdict
    assert reference.binding == "min_stage_tokens_per_s_per_gpu"
    failed = {c.name for c in reference.checks if not c.passed}
    assert failed == {"min_stage_tokens_per_s_per_gpu", "min_p_meets"}
    assert reference.conclusion.startswith("Do not proceed: throughput per GPU of a stage")
    assert "Instead: " in reference.conclusion


def test_modules_of_the_reference_by_hand(reference: Evaluation) -> None:
    """16 layers of 16 experts: 256 modules, four times that in four replicas, 8 per GPU, one per GPU and layer."""
    experts = _sections(reference).compatibility["expert_modules"]
    assert experts == {
        "distinct": 256,
        "instances": 1024,
        "instances_per_gpu": 8.0,
        "per_gpu_per_layer": 1.0,
        "distinct_per_gpu": 2.0,
    }
    assert _sections(reference).compatibility["stage_layers"] == [8, 8]
    assert _sections(reference).compatibility["heads_per_rank"] == 4.0
    launches = {e["engine"]: e["launches"] for e in _sections(reference).compatibility["engines"]}
    assert launches == {"vllm": True, "sglang": True, "trtllm": False}


def test_tokens_per_ms_multiply(reference: Evaluation) -> None:
    """A pipeline is 16 GPUs of a stage, all are four pipelines; saturation is at least the load's figure."""
    for place in ("tokens_per_ms", "tokens_per_ms_at_saturation", "tokens_per_ms_target"):
        part = _sections(reference).performance[place]
        assert part["per_pipeline"] == pytest.approx(16 * part["per_gpu_of_a_stage"])
        assert part["in_all"] == pytest.approx(4 * part["per_pipeline"])
    assert _sections(reference).performance["tokens_per_ms_target"]["in_all"] == 6400.0
    full, load = (
        _sections(reference).performance["tokens_per_ms_at_saturation"],
        _sections(reference).performance["tokens_per_ms"],
    )
    assert full["in_all"] >= load["in_all"]


def test_memory_of_each_stage_adds_up(reference: Evaluation) -> None:
    """Kinds of a stage sum to the GPU's 64 GB; experts are 8 x 3 x 2048 x 6144 x 2 bytes; the fullest is tune's."""
    for stage in (0, 1):
        kinds = {m.kind: m.bytes for m in _sections(reference).memory if m.stage == stage}
        assert sum(kinds.values()) == pytest.approx(64e9)
        assert kinds["experts"] == 8 * 3 * 2048 * 6144 * 2
    used = [sum(m.bytes for m in _sections(reference).memory if m.stage == s and m.kind != "free") for s in (0, 1)]
    assert reference.result is not None
    assert max(used) / 64e9 == pytest.approx(reference.result.metrics["memory_util_frac"], rel=1e-6)


@pytest.mark.parametrize(("plan", "isl", "rate"), [("R4 TP4", 12_000, 3), ("PP2 TP8", 2000, 8)])
def test_the_cache_at_a_rate_is_the_plans_own(plan: str, isl: int, rate: float) -> None:
    """What runs of what is in flight: all in flight counted, so that a plan with 47.1 % of memory in use had 48.0 %."""
    asked = [f"workload.isl={isl}", "workload.osl=100", f"workload.request_rate_per_s={rate}"]
    asked += ["constraints.ttft_ms=8000", "constraints.tpot_ms=200", "search.max_num_batched_tokens=[1024]"]
    found = evaluate(load_study(ROOT / "studies" / "llama-70b-16xh100.toml", asked), plan)
    assert found.result is not None
    held = _sections(found).memory
    in_use = {
        stage: sum(row.bytes for row in held if row.stage == stage and row.kind != "free")
        for stage in {row.stage for row in held}
    }
    total = sum(row.bytes for row in held if row.stage == 0)
    assert max(in_use.values()) / total == pytest.approx(found.result.metrics["memory_util_frac"], rel=1e-9)
    fullest = max(in_use, key=lambda stage: in_use[stage])
    (cache,) = (row.bytes for row in held if row.stage == fullest and row.kind == "kv_cache")
    assert cache == pytest.approx(found.result.breakdown["memory_bytes"]["kv_cache"], rel=1e-9)


def test_largest_batch_and_longest_prompt(reference: Evaluation) -> None:
    """One token more than the longest prompt does not fit; the batch is what there is KV room for."""
    assert reference.result is not None
    chunk = reference.result.knobs.max_num_batched_tokens
    longest = _sections(reference).capacity["longest_prompt_tokens"]
    for tokens, fits in ((longest, True), (longest + 1, False)):
        overrides = [f"workload.longest_prompt={tokens}", f"search.max_num_batched_tokens=[{chunk}]"]
        changed = load_study(REFERENCE, overrides)
        found = {c.name: c.passed for c in evaluate(changed).checks}
        assert found["kv_capacity"] is fits
    assert _sections(reference).capacity["largest_batch_requests"] % 4 == 0


def test_claims_of_the_report(reference: Evaluation) -> None:
    """What the report says is confirmed, refuted or undecidable, each with our figure."""
    status = {c.claim: c.status for c in _sections(reference).claims}
    assert status["uses 128 GPUs"] == "confirmed"
    assert status["256 expert modules"] == "confirmed"
    assert status["2:1, two expert modules per GPU"] == "refuted"
    assert status["100 tokens/ms through one GPU of a stage"] == "refuted"
    assert status["TTFT below 8 s"] == "confirmed"
    assert status["about 20 GB of FP16 weights"] == "undecidable"
    assert status["1.44 TB/s of effective memory bandwidth"] == "undecidable"
    assert status["PASSED"] == "refuted"
    assert status["100 tokens/ms for each of the 128 GPUs"] == "refuted"
    assert status["one expert per GPU gives every GPU the same load"] == "refuted"
    assert status["8 layers each give both stages the same load"] == "confirmed"
    assert status["can be deployed with TensorRT-LLM"] == "refuted"
    assert all(c.reason and c.computed is not None for c in _sections(reference).claims)


def test_quantities_by_hand(reference: Evaluation) -> None:
    """Weights with their copies, Little's law, and tokens over all GPUs, written out."""
    found = _sections(reference).quantities
    attention, experts, vocabulary, router = 16 * 4 * 2048**2, 256 * 3 * 2048 * 6144, 2 * 32000 * 2048, 16 * 16 * 2048
    norms = 16 * 2 * 2048
    one_tp_group = 2 * (attention + vocabulary) + 2 * 4 * (router + norms)
    assert found["weight_bytes_on_all_gpus"] == pytest.approx(4 * (4 * one_tp_group + 2 * experts), rel=1e-9)
    assert reference.result is not None
    served = 128 / found["e2e_s"] * (10240 + 128)
    assert served / 128 / 1e3 == pytest.approx(found["tokens_per_ms_per_gpu"], rel=1e-6)
    assert found["tokens_per_ms_per_gpu"] * 2 == pytest.approx(found["tokens_per_ms_per_gpu_of_a_stage"])
    assert found["attention_dp_exchange_s"] == reference.result.breakdown["decode_s"]["ep_exchange"]


def test_the_conclusion_says_what_the_other_plan_costs() -> None:
    """The plan that keeps the limit serves fewer tokens; by how much stands there, and why that can be."""
    found = evaluate(load_study(REFERENCE), "R16/TP8/EP8")
    assert found.best is not None
    assert found.result is not None
    best, mine = (p.metrics["total_tokens_per_s_per_gpu"] for p in (found.best, found.result))
    assert best < mine
    assert f"serves {1.0 - best / mine:.0%} fewer tokens" in found.conclusion
    assert f"into {found.best.layout.pp} stages" in found.conclusion


@pytest.mark.parametrize(
    ("study", "plan", "heads", "copies"),
    [
        ("deepseek-v3-128xh200", "TP16/DP8", 1.0, 16.0),
        ("qwen3-235b-64xh100", "TP8/EP8", 1.0, 2.0),
        ("llama-70b-16xh100", "TP4", 2.0, 1.0),
    ],
)
def test_heads_of_the_cache(study: str, plan: str, heads: float, copies: float) -> None:
    """MLA's latent lies on every rank of a TP group; 4 KV heads on 8 ranks lie there twice; 8 on 4 are split."""
    loaded = load_study(ROOT / "studies" / f"{study}.toml")
    candidate = score_plan(loaded, plan).resolution.candidate
    found = compatibility(loaded, candidate)
    assert (found["kv_heads_per_rank"], found["kv_copies"]) == (heads, copies)
    alone = [a["tier"] for a in found["axes"] if a["value"] == 1 and a["axis"] not in ("R", "PP")]
    assert all(tier.startswith("none") for tier in alone)


def test_a_plan_that_does_not_fit() -> None:
    """1 TB of weights on eight H100: no room at all is 0, not less; its performance is said to be of nothing real."""
    study = load_study(ROOT / "studies" / "qwen3-235b-64xh100.toml", ["model=kimi-k2", "cluster.gpus=8"])
    found = evaluate(study, "TP8")
    checks = {c.name: c for c in found.checks}
    assert (checks["kv_capacity"].value, checks["kv_capacity"].margin_frac) == (0.0, -1.0)
    memory = checks["memory_util_frac"].value
    assert memory is not None
    assert memory > 1.0
    assert (
        _sections(found).capacity["largest_batch_requests"],
        _sections(found).capacity["longest_prompt_tokens"],
    ) == (0.0, 0)
    assert markdown_report(evaluation_report(evaluation_document(found)))
    assert "KV room for the longest request" in found.conclusion


def test_harm_at_a_given_rate() -> None:
    """All plans serve the same requests/s: one that is slower to the first and to each further token does harm."""
    study = load_study(ROOT / "studies" / "llama-70b-16xh100.toml")
    report = evaluate(study, "TP4")
    assert report.binding == "tpot_ms"  # the load is solved to serve just the rate: that is no limit that binds
    found = {v.axis: v for v in _sections(report).strategy}
    assert found["TP"].verdict == "HARMFUL"
    assert found["PP"].verdict == "OPTIMAL"


def test_the_best_plan_is_optimal_on_every_axis() -> None:
    """Evaluating the winner of a study finds nothing better."""
    study = load_study(ROOT / "studies" / "qwen3-235b-64xh100.toml", ["cluster.gpus=16", "baseline="])
    best = autotune.tune(study).ranked[0]
    found = evaluate(study, best.plan)
    assert found.passed
    assert {v.verdict for v in _sections(found).strategy} == {"OPTIMAL"}
    assert found.distance is not None
    assert found.distance.frac == pytest.approx(0.0, abs=1e-9)
    assert found.conclusion.startswith("Proceed: ")


def test_a_forbidden_plan_fails_by_its_rule() -> None:
    """TP128 of 16 heads has no figures, but a rule, and the engines that forbid it."""
    found = evaluate(load_study(REFERENCE), "TP32/PP1/EP32")
    assert not found.passed
    assert found.result is None
    assert {c.name for c in found.checks} >= {"attention_heads"}
    document = evaluation_document(found)
    assert document["memory"] == []
    reasons = {v.axis: v.reason for v in _sections(found).strategy}
    assert "more_ranks_than_experts" in reasons["EP"]
    assert "attention_heads" in reasons["TP"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("claims = 3", r"\$\.claims: Input should be a valid list"),
        ('[[claims]]\nclaim = "x"\nquantity = "gpus"', r"\$\.claims\[0\]: must hold exactly one of"),
        ('[[claims]]\nclaim = "x"\nquantity = "gpu"\nequals = 1', r"\$\.claims\[0\]\.quantity: 'gpu' is none of"),
        ('[[claims]]\nclaim = "x"\nquantity = "gpus"\nequals = "many"', r"\.equals: must be a number, got 'many'"),
        ("[[claims", "is not TOML"),
    ],
)
def test_claims_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    """Each problem with its path."""
    path = tmp_path / "claims.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        evaluate(load_study(REFERENCE), claims=read_claims(path))


def test_the_command(tmp_path: Path) -> None:
    """Exit code 3 for FAILED, 0 for PASSED; JSON in a pipe; the same verdict in every format."""
    code, text = command(str(REFERENCE))
    assert (code, json.loads(text)["verdict"]) == (3, "FAILED")
    code, text = command(str(ROOT / "studies" / "llama-70b-16xh100.toml"), "--table")
    assert code == 0
    assert "PASSED" in text
    for form, mark in (("markdown", "**FAILED**"), ("html", "<!doctype html>"), ("terminal", "FAILED.")):
        out = tmp_path / form
        code, _ = command(str(REFERENCE), "--claims", str(CLAIMS), "--format", form, "--out", str(out))
        assert code == 3
        assert mark in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "flags", "start"),
    [
        ("page.html", (), "<!doctype html>"),
        ("report.MD", (), "# infeasible-example"),
        ("report.json", ("--table",), "infeasible-example: tp8"),
        ("report", (), "{"),
    ],
)
def test_the_name_of_the_file_says_its_form(name: str, flags: tuple[str, ...], start: str, tmp_path: Path) -> None:
    """Without `--format` a page is a page; a flag counts more than a name, and a pipe's JSON is the last resort."""
    out = tmp_path / name
    code, _ = command(str(ROOT / "studies" / "infeasible-example.toml"), *flags, "--out", str(out))
    assert code == 3
    assert out.read_text(encoding="utf-8").startswith(start)


def test_figures_and_room_in_words() -> None:
    """No exponent below a billion; room of ten limits or more as a multiple."""
    said = [number(x, 4) for x in (0.0, 0.30412, 999.96, 26152.2, 20.13e9, -1.44e12, 999.96e9)]
    assert said == ["0", "0.3041", "1,000", "26,152", "20.13e9", "-1.44e12", "1e12"]
    assert [room_words(x) for x in (0.237, -0.738, 320.67, -153.1)] == ["+23.7%", "-73.8%", "+321x", "-153x"]


def test_nonsense_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan string without a reading is wrong input: exit code 2 and no traceback."""
    monkeypatch.setattr("sys.argv", ["autotune", "evaluate", str(REFERENCE), "--plan", "nonsense"])
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr().err
    assert "--plan" in said
    assert "Traceback" not in said


def test_a_baseline_of_another_count_is_left_out_and_said() -> None:
    """A plan on 44 GPUs is evaluated beside no `tp8`; a baseline that is no plan at all stays an error."""
    file, count = ROOT / "studies" / "llama-70b-16xh100.toml", "cluster.gpus=44"
    found = evaluate(load_study(file, [count]), "R11 TP4")
    assert found.tuned.baseline is None
    assert any(text.startswith("baseline left out: 'tp8'") for text in found.assumptions)
    with pytest.raises(InputError, match=r"\$\.baseline\.plan: cannot read 'zz'"):
        evaluate(load_study(file, [count, "baseline.plan=zz"]), "R11 TP4")


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.usefixtures("few_requests")
def test_limits_on_percentiles_are_checked(named: bool) -> None:
    """Each has its row, of a plan that is named as of the baseline, and the one that is broken binds."""
    study = dense(
        baseline={"plan": "TP8"},
        workload={"isl": 1009, "osl": 211, "request_rate_per_s": 20.0},
        constraints={"itl_p99_ms": 12.0, "ttft_p95_ms": 5000.0},
    )
    found = evaluate(study, "TP8" if named else None)
    checks = {c.name: c for c in found.checks}
    assert (found.passed, found.binding) == (False, "itl_p99_ms")
    assert found.result is not None
    broken = checks["itl_p99_ms"]
    assert (broken.passed, broken.limit, broken.unit) == (False, 12.0, "ms")
    assert broken.value == found.result.breakdown["simulated"]["itl_p99_ms"]["value"]
    assert broken.margin_frac == pytest.approx(1.0 - broken.value / 12.0)
    assert checks["ttft_p95_ms"].passed


def test_at_a_given_rate_the_time_of_a_request_is_what_a_plan_loses() -> None:
    """A plan that serves what comes, but takes much longer for it, is not among the best: the ranking says so too."""
    study = dense(workload={"isl": 1009, "osl": 211, "request_rate_per_s": 20.0})
    ranked = autotune.tune(study).ranked
    best, slow = ranked[0], next(p for p in ranked if p.layout.attn_tp == 1 and p.layout.pp == 1)
    assert slow.metrics["requests_per_s"] == pytest.approx(best.metrics["requests_per_s"], rel=1e-3)
    longer = slow.metrics["e2e_s"] / best.metrics["e2e_s"] - 1.0
    assert longer > 0.05
    found = evaluate(study, slow.plan)
    assert found.passed
    assert found.distance is not None
    assert (found.distance.frac, found.distance.metric) == (pytest.approx(longer, rel=0.02), "e2e_s")
    assert "Instead: " in found.conclusion
    losses = {v.axis: v for v in _sections(found).strategy}
    assert losses["TP"].loss_frac == pytest.approx(longer, rel=0.02)
    assert losses["TP"].verdict == "HARMFUL"
    assert any(operator.lower() in losses["TP"].reason for operator in OPERATORS.values())


def test_a_plan_that_prompts_fill_says_how_sure_its_means_are() -> None:
    """Long prompts and short outputs: the ranking's caveat stands in the evaluation's answer and the comparison's."""
    study = dense(workload={"isl": 8000, "osl": 80, "concurrency": 96})
    found = evaluate(study, "TP1")
    (caveat,) = unsure_means(study, found.result)
    assert caveat.count(ALIKE) == 1
    (varied,) = unsure_means(dense(workload={"isl": {"min": 7000, "max": 9000}, "osl": 80}), found.result)
    assert ALIKE not in varied
    document = evaluation_document(found)
    assert caveat in document["assumptions"]
    assert any(caveat[1:] in line for line in evaluation_report(document).lines)
    said = compare(study, "TP1", "TP8", scenarios=False)
    assert f"current plan: {caveat}" in said.assumptions
    bursts = dense(workload={"isl": 800, "osl": 800, "request_rate_per_s": 1.0, "arrivals": {"cv": 3.0}})
    assert any(text.startswith(BURSTS) for text in evaluate(bursts, "TP1").assumptions)
    roomy = evaluate(dense(workload={"isl": 800, "osl": 800, "concurrency": 16}), "TP1")
    assert not any(text.startswith(UNSURE) for text in roomy.assumptions)
