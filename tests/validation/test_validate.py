"""Metrics by hand on groups of a few runs, and the command on real ones."""

from __future__ import annotations

import csv
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from autotune.engines import traits_by_name
from autotune.validation import errors_of, kendall_tau, published_points, slo_task
from autotune.validation.metrics import comparison_reliability
from autotune.validation.published import published_pools
from autotune.validation.report import validation_document
from autotune.validation.slo import SloRuns, reliability
from costmodel.disaggregated.pool_calibration import DECODE_FEATURES, EngineFit, pool_calibration
from costmodel.errors import InputError
from costmodel.measured.runs import prepare_runs
from costmodel.measured.runs_csv import read_runs
from tests.command import autotune
from tests.conftest import DATA

HEADER = "id,gpu,engine,model,precision,isl,osl,concurrency,attn_tp,moe_tp,ttft_ms,tpot_ms,remark\n"
ROWS = (
    "a,h200_sxm,vllm,meta-llama/Llama-3.1-70B,fp8,1024,1024,16,4,,120,12,x\n"
    "b,h200_sxm,vllm,openai/gpt-oss-120b,fp4,1024,1024,16,1,1,,,y\n"
    "c,mi300x,sglang,Qwen/Qwen3-30B-A3B,,1024,256,8,1,1,200,9,z\n"
)


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_errors_by_hand() -> None:
    """Mean, median and bias of three ratios; a run without a measurement does not count."""
    predicted, measured = np.array([1.1, 2.0, 0.7, 5.0]), np.array([1.0, 2.0, 1.0, np.nan])
    found = errors_of(predicted, np.array([0.1, 0.1, 0.1, 0.1]), measured)
    assert found is not None
    assert (found.runs, found.mape, found.median) == (3, pytest.approx(0.4 / 3), pytest.approx(0.1))
    assert found.bias == pytest.approx(0.0)
    assert found.inside_p10_p90 == pytest.approx(2 / 3)
    assert errors_of(predicted, predicted, np.full(4, np.nan)) is None


def test_kendall_by_hand() -> None:
    """One swapped pair of six; ties as tau-b counts them."""
    assert kendall_tau(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])) == pytest.approx(4 / 6)
    assert kendall_tau(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(2 / np.sqrt(2 * 3))
    assert np.isnan(kendall_tau(np.ones(3), np.array([1.0, 2, 3])))


def test_slo_task_by_hand() -> None:
    """Four runs, a limit of 25: the pick of each way, and what it loses."""
    runs = SloRuns(
        tpot_s=np.array([10.0, 20.0, 30.0, 40.0]),
        throughput=np.array([1.0, 2.0, 3.0, 4.0]),
        predicted_tpot_s=np.array([10.0, 21.0, 24.0, 41.0]),
        predicted_throughput=np.array([1.0, 2.0, 3.0, 4.0]),
        tpot_log_sd=np.full(4, 0.5),
    )
    scores = slo_task(runs, [[0, 1, 2, 3]])
    # the point estimate takes the third, which breaks the limit by a fifth
    assert (scores["point"].strict_regret, scores["point"].lenient_regret, scores["point"].over_by_a_tenth) == (1, 1, 1)
    # 3 x P(ln 24 -> ln 25) = 3 x 0.53 is still the most that can be expected
    assert scores["expected"].strict_regret == 1.0
    sure = slo_task(
        SloRuns(
            tpot_s=runs.tpot_s,
            throughput=runs.throughput,
            predicted_tpot_s=np.array([10.0, 15.0, 24.9, 41.0]),
            predicted_throughput=runs.predicted_throughput,
            tpot_log_sd=np.array([0.1, 0.1, 0.5, 0.5]),
        ),
        [[0, 1, 2, 3]],
    )
    assert sure["expected"].strict_regret == 0.0
    assert sure["random"].strict_regret == pytest.approx((0.5 + 0 + 1 + 1) / 4)
    forgiven = slo_task(
        SloRuns(
            tpot_s=np.array([10.0, 20.0, 21.0]),
            throughput=np.array([1.0, 2.0, 3.0]),
            predicted_tpot_s=np.array([9.0, 18.0, 19.0]),
            predicted_throughput=np.array([1.0, 2.0, 3.0]),
            tpot_log_sd=np.full(3, 1e-3),
        ),
        [[0, 1, 2]],
    )["point"]
    assert (forgiven.strict_regret, forgiven.lenient_regret, forgiven.over_by_a_tenth) == (1.0, 0.0, 0.0)


def test_reliability_by_hand() -> None:
    """Two runs, five limits: what is said surely and truly, and what is a toss-up."""
    runs = SloRuns(
        tpot_s=np.array([10.0, 30.0]),
        throughput=np.array([1.0, 2.0]),
        predicted_tpot_s=np.array([10.0, 30.0]),
        predicted_throughput=np.array([1.0, 2.0]),
        tpot_log_sd=np.full(2, 1e-3),
    )
    (sure,) = reliability(runs, [[0, 1]])
    assert (sure.statements, sure.mean_p, sure.share_true) == (10, pytest.approx(1.0), 1.0)
    wrong = replace(runs, predicted_tpot_s=np.array([30.0, 10.0]))
    assert reliability(wrong, [[0, 1]])[0].share_true == 0.0
    assert reliability(runs, [[0]]) == []


def test_repeated_runs_are_one_statement(tmp_path: Path) -> None:
    """Of three plans two were measured again: three comparisons, judged by the repeats' mean."""
    line = "h200_sxm,vllm,meta-llama/Llama-3.1-70B,fp8,1024,1024,{c},{tp},,120,12,x\n"
    text = "".join(
        f"{i},{line.format(c=c, tp=tp)}" for i, (c, tp) in enumerate([(8, 2), (64, 2), (64, 8), (8, 2), (64, 2)])
    )
    batch = prepare_runs(read_runs(_file(tmp_path, HEADER + text), traits_by_name()))
    estimate = batch.evaluate()

    def statements(throughput: list[float]) -> tuple[int, float]:
        found = comparison_reliability(batch, estimate, np.array(throughput), [[0, 1, 2, 3, 4]])
        return sum(r.statements for r in found), sum(r.statements * r.share_true for r in found)

    predicted = estimate.output_tokens_per_s / estimate.gpus
    assert predicted[1] > predicted[2] > predicted[0]
    assert statements([1.0, 3.0, 2.0, 1.0, 3.0]) == (3, pytest.approx(3.0))
    # the second plan's mean falls below the third's by its repeat
    assert statements([1.0, 3.0, 2.0, 1.0, 0.9]) == (3, pytest.approx(2.0))


def test_every_row_is_predicted(tmp_path: Path) -> None:
    """Rows without measurements, dtypes or optional columns, and a GPU without calibration, have a prediction."""
    runs = read_runs(_file(tmp_path, HEADER + ROWS), traits_by_name())
    e = prepare_runs(runs).evaluate()
    assert np.isfinite(e.ttft_s).all()
    assert np.isfinite(e.tpot_s).all()
    assert (e.tpot_log_sd > 0).all()
    assert e.tpot_log_sd[2] > e.tpot_log_sd[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,gpu\na,b\n", "lacks engine"),
        (HEADER, "at least one run"),
        (HEADER + ROWS.replace("vllm", "llamacpp", 1), "engine must be one of"),
        (HEADER + ROWS.replace("1024", "-3", 1), "isl must be a positive number, got '-3'"),
        (HEADER + ROWS.replace("h200_sxm", "h2000", 1), r"runs\.csv:2: gpu: 'h2000' is not in the catalog"),
        (HEADER + ROWS.replace("openai/gpt-oss-120b", "acme/secret-9b"), r"runs\.csv:3: .*'acme/secret-9b'.*--models"),
        (HEADER + ROWS.replace("fp8", "awq"), r"runs\.csv:2: precision must be one of fp4, .*, got 'awq'"),
        (HEADER + ROWS.replace("mi300x", ""), r"runs\.csv:4: gpu must not be empty"),
        (HEADER + ROWS.replace("openai/gpt-oss-120b", ""), r"runs\.csv:3: model must not be empty"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    """What is wrong is named, with its line."""
    with pytest.raises(InputError, match=message):
        read_runs(_file(tmp_path, text), traits_by_name())


LAYOUTS = "id,gpu,engine,model,precision,isl,osl,lengths,concurrency,attn_tp,ttft_ms,tpot_ms\n"


@pytest.mark.parametrize("command", ["validate", "calibrate"])
def test_a_layout_that_no_engine_starts(command: str, tmp_path: Path) -> None:
    """64 heads do not go into three shards: one line for each rule that is broken, with the runs that have it."""
    rows = "".join(
        f"r{i},h100_sxm,vllm,Qwen/Qwen3-32B,,1024,256,fixed,{2**i},{3 if i < 2 else 4},120,12\n" for i in range(7)
    )
    words = [command, str(_file(tmp_path, LAYOUTS + rows))]
    found = autotune(*words, *(["--out", str(tmp_path / "mine.toml")] if command == "calibrate" else []))
    assert found.returncode == 2
    assert "attn_tp=3, num_attention_heads=64" in found.stderr
    assert all(line.endswith("runs r0, r1") for line in found.stderr.strip().splitlines())
    assert not (tmp_path / "mine.toml").exists()


def test_a_gpu_of_one_s_own(tmp_path: Path) -> None:
    """Rows name the GPU of a study that is given; without it the error says that one can be."""
    study = tmp_path / "own.toml"
    study.write_text(OWN_GPU, encoding="utf-8")
    rows = "".join(f"r{i},big_card,vllm,Qwen/Qwen3-32B,,1024,256,fixed,{2**i},4,120,12\n" for i in range(5))
    runs = str(_file(tmp_path, LAYOUTS + rows))
    without = autotune("validate", runs)
    assert (without.returncode, "[cluster.gpu] of a study, and give that with --study" in without.stderr) == (2, True)
    assert json.loads(autotune("validate", runs, "--study", str(study)).stdout)["runs"] == 5
    profile = tmp_path / "mine.toml"
    assert autotune("calibrate", runs, "--study", str(study), "--out", str(profile)).returncode == 0
    assert "vllm|big_card|" in profile.read_text(encoding="utf-8")


OWN_GPU = """
model = "qwen3-32b"
[cluster]
gpus = 4
[cluster.gpu]
name = "big_card"
generation = "blackwell"
peak_tflops = { bf16 = 500, fp8 = 1000 }
hbm_gib = 94
hbm_tb_per_s = 1.8
scaleup_gb_per_s = 64
scaleout_gb_per_s = 25
[workload]
isl = 1000
osl = 200
"""


def test_models_of_the_user(tmp_path: Path) -> None:
    """A folder of config files goes before the catalog."""
    folder = tmp_path / "models"
    folder.mkdir()
    config = {
        "model_type": "llama",
        "hidden_size": 1024,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "intermediate_size": 4096,
        "vocab_size": 32000,
    }
    (folder / "acme--secret-9b_config.json").write_text(json.dumps(config), encoding="utf-8")
    runs = read_runs(
        _file(tmp_path, HEADER + ROWS.replace("openai/gpt-oss-120b", "acme/secret-9b")), traits_by_name(), folder
    )
    assert runs[1].entry.arch.hidden_size == 1024


def test_the_command(tmp_path: Path) -> None:
    """JSON on stdout, a prediction per row in order, intervals around it."""
    path, out = _file(tmp_path, HEADER + ROWS), tmp_path / "pred.csv"
    done = autotune("validate", str(path), "--predictions", str(out), "--json", "--published")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["coverage"] == 1.0
    assert document["overall"]["tpot"]["runs"] == 2
    assert len(document["published"]) == 4
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["id"] for r in rows] == ["a", "b", "c"]
    assert list(rows[0]) == [
        "id", "pred_ttft_ms", "pred_tpot_ms", "ttft_p10_ms", "ttft_p90_ms", "tpot_p10_ms", "tpot_p90_ms",
    ]  # fmt: skip
    for r in rows:
        assert float(r["tpot_p10_ms"]) < float(r["pred_tpot_ms"]) < float(r["tpot_p90_ms"])


@pytest.mark.parametrize(
    ("precision", "gemm", "dtype"),
    [("fp8", "", "fp8"), ("fp8", "bf16", "bf16"), ("bf16", "", "bf16"), ("fp16", "", "bf16"), ("fp4", "", "nvfp4")],
)
def test_a_quantised_precision_is_that_of_the_weights(precision: str, gemm: str, dtype: str, tmp_path: Path) -> None:
    """A row whose columns say no dtypes has weights as its precision says; one with columns of their own has those."""
    text = (
        "gpu,engine,model,precision,gemm_dtype,isl,osl,concurrency,attn_tp,tpot_ms\n"
        f"h200_sxm,vllm,meta-llama/Llama-3.1-70B,{precision},{gemm},1024,1024,16,4,12\n"
    )
    (run,) = read_runs(_file(tmp_path, text), traits_by_name())
    assert run.entry.arch.dtypes.dense_ffn == dtype


def test_runs_that_cannot_be_are_named(tmp_path: Path) -> None:
    """Their errors stay in the tables, and which runs contradict physics is among what is said."""
    read = read_runs(_file(tmp_path, HEADER + ROWS.replace("120,12,x", "0.12,0.012,x")), traits_by_name())
    batch = prepare_runs(read)
    document = validation_document(batch, batch.evaluate())
    assert document["overall"]["tpot"]["runs"] == 2
    (said,) = [text for text in document["assumptions"] if "at least" in text]
    assert said.startswith("a: tpot_ms")


def test_profiled_steps_of_deepseek() -> None:
    """The two profiled steps come out within 25 %, with nothing fitted on them."""
    prefill, decode, *_ = published_points()
    assert prefill.ratio == pytest.approx(1.0, abs=0.25)
    assert decode.ratio == pytest.approx(1.0, abs=0.25)


def test_published_pools() -> None:
    """Pools with two-batch overlap run the published steps: to 1 % with a calibration that changes no formula."""
    neutral = replace(
        pool_calibration(),
        decode_log=np.zeros(len(DECODE_FEATURES)),
        prefill_log=0.0,
        prefill_moe_tp=0.0,
        engines={"other": EngineFit(**dict.fromkeys((f.name for f in fields(EngineFit)), 0.0))},
    )
    steps, pools = published_points(), published_pools(neutral)
    assert [p.published for p in steps] == [p.published for p in pools]
    ratios = [pool.predicted / step.predicted for step, pool in zip(steps, pools, strict=True)]
    assert ratios == pytest.approx([1.0] * 4, rel=0.02)


def test_pools_as_calibrated_are_near_what_deepseek_published() -> None:
    """Nothing is fitted on the four figures; each comes out within a fifth or a quarter, but for one that does not.

    That one is an average over a day's uneven prompts and routing, which the prediction has even: a known miss.
    """
    missed = {point.name for point in published_pools() if not 0.8 < point.ratio < 1.25}
    assert missed == {"production prefill pool EP32, without cache hits"}


ERRORS = {  # of the extract as the shipped calibration has it: mean and median, TPOT and then TTFT
    "vllm": (0.0304, 0.0203, 0.0744, 0.0384),
    "sglang": (0.0503, 0.0275, 0.1047, 0.0404),
    "trtllm": (0.0314, 0.0227, 0.0900, 0.0691),
}


@pytest.mark.parametrize("engine", ERRORS)
def test_measured_runs(engine: str) -> None:
    """On runs of every cell that it was fitted on, the model is as close as recorded, to a tenth of the error."""
    runs = [r for r in read_runs(DATA / "measured_runs.csv", traits_by_name()) if r.engine == engine]
    assert len(runs) >= 14
    e = prepare_runs(runs).evaluate()
    tpot = errors_of(e.tpot_s, e.tpot_log_sd, np.array([r.tpot_s for r in runs]))
    ttft = errors_of(e.ttft_s, e.ttft_log_sd, np.array([r.ttft_s for r in runs]))
    assert tpot is not None
    assert ttft is not None
    found = (tpot.mape, tpot.median, ttft.mape, ttft.median)
    assert all(x <= 1.1 * recorded for x, recorded in zip(found, ERRORS[engine], strict=True)), found


def test_intervals_of_measured_runs() -> None:
    """Of the extract's runs at least three quarters lie inside their 80 % intervals."""
    runs = read_runs(DATA / "measured_runs.csv", traits_by_name())
    assert len(runs) == 60
    e = prepare_runs(runs).evaluate()
    for target in ("tpot", "ttft"):
        real = np.array([getattr(r, f"{target}_s") for r in runs])
        found = errors_of(getattr(e, f"{target}_s"), getattr(e, f"{target}_log_sd"), real)
        assert found is not None
        assert found.inside_p10_p90 >= 0.75
