"""Columns and cells of files of measured runs: what is read, what is passed over and said, and what is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotune.engines import traits_by_name
from costmodel.errors import InputError
from costmodel.measured import load_runs_csv, pool_runs_csv, runs_csv
from costmodel.measured.csv_columns import read_columns
from costmodel.measured.load_runs_csv import has_percentiles, read_load_runs
from costmodel.measured.runs_csv import read_runs
from tests.command import autotune
from tests.conftest import DATA

COLUMNS = "id,gpu,engine,engine_version,model,precision,isl,osl,lengths,concurrency,pp,attn_tp,ttft_ms,tpot_ms"
SERVER = "h200_sxm,vllm,0.12.0,meta-llama/Llama-3.1-70B,fp8"
ROW = f"a,{SERVER},1024,1024,fixed,16,1,4,120,12"
LOAD_COLUMNS = "id,gpu,engine,model,attn_tp,request_rate_per_s,isl_mean,osl_mean"
LOAD_ROW = "l,h100_sxm,vllm,codellama/CodeLlama-34b-Instruct-hf,2,5,590,200"
POOL_COLUMNS = (
    "id,gpu,engine,model,precision,gemm_dtype,moe_dtype,kv_dtype,isl,osl,lengths,concurrency,prefill_workers,"
    "prefill_attn_tp,prefill_moe_ep,decode_workers,decode_attn_tp,decode_moe_ep,decode_max_num_seqs,ttft_ms,tpot_ms"
)
POOL_ROW = "p,gb200,trtllm,deepseek-ai/DeepSeek-R1,fp4,nvfp4,nvfp4,fp8,1024,1024,uniform,64,1,4,4,1,8,8,16,{},{}"


def _file(tmp_path: Path, columns: str, *rows: str) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([columns, *rows, ""]), encoding="utf-8")
    return path


def _document(path: Path) -> dict[str, Any]:
    done = autotune("validate", str(path), "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_rate_beside_means_drops_no_measurement(tmp_path: Path) -> None:
    """A file of means may have the rate too, as it may have other columns: what is not read is named."""
    path = _file(tmp_path, f"{COLUMNS},request_rate_per_s,notes,date,num_prompts", f"{ROW},3,x,2026-01-02,160")
    document = _document(path)
    assert document["overall"]["tpot"]["runs"] == document["overall"]["ttft"]["runs"] == 1
    assert "columns that are not read: request_rate_per_s, notes, date, num_prompts" in document["assumptions"]


def test_what_was_measured_says_which_kind_a_file_is(tmp_path: Path) -> None:
    """Percentiles make it one with percentiles; with means alone one of means, if it can be; else its load says."""
    for columns, expected in (
        (f"{COLUMNS},request_rate_per_s", False),
        (f"{COLUMNS},ttft_p99_ms", True),
        (f"{LOAD_COLUMNS},ttft_ms,tpot_ms", True),
        (COLUMNS.removesuffix(",ttft_ms,tpot_ms"), False),
        (LOAD_COLUMNS, True),
    ):
        assert has_percentiles(_file(tmp_path, columns)) == expected


def test_means_without_a_statistic_are_read_beside_percentiles(tmp_path: Path) -> None:
    """`ttft_ms` is the mean where there is no `ttft_mean_ms`."""
    path = _file(tmp_path, f"{LOAD_COLUMNS},ttft_ms,tpot_ms,ttft_p99_ms", f"{LOAD_ROW},45,14.4,90")
    (run,) = read_load_runs(path, traits_by_name())
    assert run.measured == pytest.approx({("ttft", "mean"): 0.045, ("ttft", "p99"): 0.09, ("tpot", "mean"): 0.0144})


def test_blanks_around_names_of_columns_are_none_of_them(tmp_path: Path) -> None:
    """A header with blanks after its commas is read as one without."""
    (run,) = read_runs(_file(tmp_path, COLUMNS.replace(",", ", "), ROW), traits_by_name())
    assert (run.ttft_s, run.tpot_s) == pytest.approx((0.12, 0.012))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tpot_ms", "tpot", "column tpot is not known: must be tpot_ms"),
        ("tpot_ms", "TPOT (s)", r"column TPOT \(s\) is not known: must be tpot_ms"),
        ("ttft_ms", "mean_ttft_ms", "column mean_ttft_ms is not known: must be ttft_ms"),
        ("engine_version", "engine_verison", "column engine_verison is not known: must be engine_version"),
        ("precision", "tpot_ms", "must have the column tpot_ms once, has it 2 times"),
    ],
)
def test_columns_that_look_like_one_that_lacks_are_an_error(tmp_path: Path, old: str, new: str, message: str) -> None:
    """They were passed over, and nothing was said of a file without a measured figure."""
    with pytest.raises(InputError, match=message):
        read_runs(_file(tmp_path, COLUMNS.replace(old, new), ROW), traits_by_name())


def test_columns_of_a_benchmark_s_own_table_are_passed_over(tmp_path: Path) -> None:
    """Other statistics, other settings and other degrees are no misspelling of what lacks."""
    more = "tpot_std_ms,ttft_note,attn_cp,max_model_len,num_gpus,output_tokens_per_s,itl_ms,e2e_s,isl_std,source"
    path = _file(tmp_path, f"{COLUMNS},{more}", f"{ROW}{',1' * 10}")
    assert len(read_runs(path, traits_by_name())) == 1
    more = "isl_p90,tpot_p99_ms,tpot_median_ms,completed"
    path = _file(tmp_path, f"{LOAD_COLUMNS},ttft_p99_ms,isl_p95,{more}", f"{LOAD_ROW},90,600{',1' * 4}")
    assert len(read_load_runs(path, traits_by_name())) == 1


def test_a_file_without_a_measured_column_says_so(tmp_path: Path) -> None:
    """Runs can be predicted without: that nothing was compared is said, and nothing can be learnt."""
    path = _file(tmp_path, COLUMNS.removesuffix(",ttft_ms,tpot_ms"), ROW.removesuffix(",120,12"))
    assert any(said.startswith("nothing is compared") for said in _document(path)["assumptions"])
    done = autotune("calibrate", str(path), "--out", str(tmp_path / "profile.toml"))
    assert done.returncode == 2
    assert "must have the column tpot_ms" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",fixed,", ",gaussian,", "lengths must be fixed or uniform, or empty, got 'gaussian'"),
        (",1,4,120", ",1,2.7,120", "attn_tp must be a whole number, got '2.7'"),
        (",1,4,120", ",1,0.5,120", "attn_tp must be a whole number, got '0.5'"),
        (",1,4,120", ",1.5,4,120", "pp must be a whole number, got '1.5'"),
        (",1,4,120", ",1,1e30,120", "attn_tp must be a whole number of at most 10,000,000, got '1e30'"),
    ],
)
def test_wrong_cells(tmp_path: Path, old: str, new: str, message: str) -> None:
    """No degree is rounded, and no unknown word is taken for nothing."""
    with pytest.raises(InputError, match=message):
        read_runs(_file(tmp_path, COLUMNS, ROW.replace(old, new)), traits_by_name())


def test_a_wrong_setting_is_told_once(tmp_path: Path) -> None:
    """One cell, one problem."""
    with pytest.raises(InputError) as error:
        read_runs(_file(tmp_path, f"{COLUMNS},max_num_batched_tokens", f"{ROW},many"), traits_by_name())
    assert [p.message for p in error.value.problems] == ["max_num_batched_tokens must be a positive number, got 'many'"]


def test_words_are_read_in_any_case(tmp_path: Path) -> None:
    """`Uniform` is `uniform`: lengths of which nine tenths are the mean."""
    (run,) = read_runs(_file(tmp_path, COLUMNS, ROW.replace("fixed", "Uniform")), traits_by_name())
    assert run.mean_isl == pytest.approx(0.9 * 1024)


@pytest.mark.parametrize("command", ["validate", "calibrate"])
def test_a_table_of_something_else_says_what_lacks(command: str, tmp_path: Path) -> None:
    """However long it is: a log of requests is not told to have fewer repeats."""
    path = _file(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens", *["2023-11-16 18:17:03,4808,10"] * 6000)
    out = ["--out", str(tmp_path / "profile.toml")] if command == "calibrate" else []
    done = autotune(command, str(path), *out)
    assert done.returncode == 2
    assert "lacks gpu, engine, model" in done.stderr


def test_runs_in_seconds_are_named_in_files_of_every_kind(tmp_path: Path) -> None:
    """Percentiles and pools too are held against what physics allows; runs in milliseconds are not named."""
    columns = f"{LOAD_COLUMNS},ttft_p50_ms,e2e_mean_ms,tpot_mean_ms"
    for figures, named in (("45,2905,14.4", ""), ("0.045,2905,14.4", "ttft_p50_ms"), ("45,2.905,14.4", "e2e_mean_ms")):
        said = _document(_file(tmp_path, columns, f"{LOAD_ROW},{figures}"))["assumptions"]
        assert [text.split()[1] for text in said if text.startswith("l: ")] == [named] * bool(named)
    for (ttft, tpot), named in (((301, 10), ""), ((0.0301, 10), "ttft_ms"), ((301, 0.01), "tpot_ms")):
        said = _document(_file(tmp_path, POOL_COLUMNS, POOL_ROW.format(ttft, tpot)))["assumptions"]
        assert [text.split()[1] for text in said if text.startswith("p: ")] == [named] * bool(named)


def test_runs_of_servers_in_the_fit_are_said_to_be(tmp_path: Path) -> None:
    """Where model, precision, GPU, engine and version are those of the fit, errors may be what it leaves."""
    read = read_runs(DATA / "measured_runs.csv", traits_by_name())
    row = next(r for r in read if r.engine_version and r.precision == "bf16")
    cells = f"b,{row.gpu},{row.engine},{row.engine_version},{row.model},,1024,1024,fixed,16,1,4,,12"
    own = cells.replace(row.engine_version, "99.0").replace("b,", "c,", 1)
    said = _document(_file(tmp_path, COLUMNS, cells, own))["assumptions"]
    assert any(text.startswith("1 of 2 runs are of servers") for text in said)
    assert not _document(_file(tmp_path, COLUMNS, own))["assumptions"]


def test_the_columns_of_measured_runs_are_known() -> None:
    """Every column of the runs that this repository keeps is read, and required and measured ones are known."""
    assert set(read_columns(DATA / "measured_runs.csv")) <= set(runs_csv.COLUMNS.known)
    for module in (runs_csv, load_runs_csv, pool_runs_csv):
        columns = module.COLUMNS
        assert {*columns.required, *columns.measured} <= set(columns.known)
        assert len(set(columns.known)) == len(columns.known)
