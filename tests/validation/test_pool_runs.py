"""Files of measured disaggregated runs: recognised, read, predicted, judged by slice."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from autotune.engines import traits_by_name
from costmodel.disaggregated.closed_loop import settle
from costmodel.errors import InputError
from costmodel.measured.pool_runs import PoolRun, predict_pool_runs, run_pools, throughput_per_gpu
from costmodel.measured.pool_runs_csv import has_pools, read_pool_runs
from costmodel.measured.runs import BENCHMARK_WAVES
from tests.command import autotune
from tools.fit_calibration.pools import PoolFit

HEADER = (
    "id,gpu,engine,model,precision,gemm_dtype,moe_dtype,kv_dtype,isl,osl,lengths,concurrency,"
    "prefill_workers,prefill_attn_tp,prefill_attn_dp,prefill_moe_tp,prefill_moe_ep,prefill_max_num_batched_tokens,"
    "decode_workers,decode_attn_tp,decode_attn_dp,decode_moe_tp,decode_moe_ep,decode_redundant_experts,"
    "decode_max_num_seqs,ttft_ms,tpot_ms\n"
)
CELL = "gb200,{engine},deepseek-ai/DeepSeek-R1,fp4,nvfp4,nvfp4,fp8,1024,1024,uniform"
ROWS = (
    "a," + CELL.format(engine="trtllm") + ",4,1,4,1,4,1,4608,4,8,1,1,8,0,16,131,6.3\n"
    "b," + CELL.format(engine="trtllm") + ",64,1,4,1,4,1,4608,4,8,1,1,8,0,16,301,10\n"
    "c," + CELL.format(engine="trtllm") + ",128,1,4,1,4,1,4608,4,8,1,1,8,0,16,,\n"
    "d," + CELL.format(engine="vllm") + ",2048,1,1,4,1,4,16384,1,1,32,1,32,32,,1227,17\n"
)
MEASURED = Path(__file__).parents[3] / "shared" / "measurements" / "disagg_runs.csv"


def _file(tmp_path: Path, text: str = HEADER + ROWS) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_row_is_two_pools(tmp_path: Path) -> None:
    """Workers are replicas, limits are per rank, and what is not said is no limit."""
    path = _file(tmp_path)
    assert has_pools(path)
    first, *_, last = read_pool_runs(path, traits_by_name())
    assert (first.prefill.layout.gpus, first.decode.layout.gpus, first.gpus) == (4, 32, 36)
    assert (first.decode.layout.replicas, first.decode.layout.attn_tp, first.decode.layout.moe_ep) == (4, 8, 8)
    assert (first.mean_isl, first.mean_osl) == pytest.approx((921.6, 921.6))
    assert first.decode_max_num_seqs == 16.0
    assert math.isinf(last.decode_max_num_seqs)
    assert last.decode.layout.redundant_experts == 32


def test_every_load_has_its_own_decode_step(tmp_path: Path) -> None:
    """Four requests in flight decode far quicker than sixty-four, and what has no slot waits for one."""
    path = _file(tmp_path)
    runs = read_pool_runs(path, traits_by_name())
    few, some, many, _ = predict_pool_runs(runs).pair.tpot_s * 1e3
    assert few == pytest.approx(6.3, rel=0.2)
    assert few < 0.8 * some
    assert many > some
    slots = read_pool_runs(_file(tmp_path, (HEADER + ROWS).replace(",0,16,", ",0,8,")), traits_by_name())
    waits = predict_pool_runs(slots).pair.kv_wait_s
    assert waits[0] == pytest.approx(0.0, abs=1e-6)
    assert waits[2] > 2.0 * waits[1] > 2.0


def test_pools_are_fitted_on_what_is_read(tmp_path: Path) -> None:
    """The fit's quick pools are asked as the model asks its own: on three runs it comes nearer to them than without."""
    runs = read_pool_runs(_file(tmp_path), traits_by_name())
    measured = [run for run in runs if np.isfinite(run.tpot_s)]
    assert len(measured) == 3
    fit = PoolFit(measured)
    _, tpot_s = fit.predict(fit.fit(np.ones(len(measured), dtype=bool)))
    off = np.abs(np.log(tpot_s / fit.tpot))
    pools = run_pools(measured, formulas=True)
    formulas = settle(*pools, np.array([run.concurrency for run in measured]), waves=BENCHMARK_WAVES)
    alone = np.abs(np.log(formulas.pair.tpot_s / fit.tpot))
    assert off.mean() < alone.mean()


def test_the_command_prints_slices(tmp_path: Path) -> None:
    """Predictions hold an interval for each run, and the document errors by slice; a run not measured is predicted."""
    out = tmp_path / "predictions.csv"
    found = autotune("validate", str(_file(tmp_path)), "--predictions", str(out), "--json")
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout)
    assert document["disaggregated_runs"] == 4
    assert document["coverage"] == 1.0
    assert set(document["by_engine"]) == {"trtllm", "vllm"}
    assert document["overall"]["tpot"]["runs"] == 3
    assert document["overall"]["throughput_per_gpu"]["runs"] == 3
    assert set(document["by_decode_layout"]) == {"TP with EP", "attention-DP"}
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["a", "b", "c", "d"]
    for row in rows:
        for name in ("ttft", "tpot"):
            low, middle, high = (float(row[key]) for key in (f"{name}_p10_ms", f"pred_{name}_ms", f"{name}_p90_ms"))
            assert low < middle < high


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",4,8,1,1,8,0,16,131", ",4,8,1,1,3,0,16,131", "decode: attn_tp x attn_dp must equal moe_tp x moe_ep"),
        (",4,8,1,1,8,0,16,131", ",4.5,8,1,1,8,0,16,131", "decode: workers must be a whole number, got '4.5'"),
        (",uniform,", ",even,", "lengths must be fixed or uniform"),
        ("gb200,trtllm", "gb200,llamafile", "engine must be one of"),
        (",0,16,131", ",x,16,131", "decode_redundant_experts must be a whole number"),
        (",fp8,1024", ",fp5,1024", "kv_dtype must be one of"),
    ],
)
def test_wrong_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    """What cannot be read is named with its line."""
    with pytest.raises(InputError, match=message):
        read_pool_runs(_file(tmp_path, HEADER + ROWS.replace(old, new, 1)), traits_by_name())


def _errors(runs: tuple[PoolRun, ...]) -> tuple[float, float, float]:
    pair = predict_pool_runs(runs).pair
    ttft, tpot = np.array([r.ttft_s for r in runs]), np.array([r.tpot_s for r in runs])
    speed = throughput_per_gpu(runs, pair.ttft_s, pair.tpot_s) / throughput_per_gpu(runs, ttft, tpot)
    ratios = (pair.ttft_s / ttft, pair.tpot_s / tpot, speed)
    ttft_error, tpot_error, speed_error = (float(np.abs(ratio - 1.0).mean()) for ratio in ratios)
    return ttft_error, tpot_error, speed_error


@pytest.mark.skipif(not MEASURED.is_file(), reason="the measured runs are not part of the repository")
def test_measured_deployments() -> None:
    """Errors on the runs that the few constants were fitted on; those out of sample are in docs/accuracy-tables.md."""
    ttft, tpot, speed = _errors(read_pool_runs(MEASURED, traits_by_name()))
    assert ttft < 0.36
    assert tpot < 0.10
    assert speed < 0.12
