"""`autotune simulate` end to end, and what it and `validate` say of input that cannot be simulated."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from autotune.cli.options import EXIT_INFEASIBLE
from autotune.simulation.simulate_plan import REQUESTS_OF_ONE, at_rate, simulate_plan, study_traffic
from autotune.traffic.load import load_study
from autotune.tuning.answer_study import score_plan
from tests.command import autotune
from tests.studies import FOLDER

STUDY = str(FOLDER / "llama-70b-16xh100.toml")


pytestmark = pytest.mark.usefixtures("few_requests")
STATISTICS = {"mean", "p50", "p90", "p95", "p99"}


def test_json_end_to_end(tmp_path: Path) -> None:
    """Percentiles rise, the likely range holds the figure, a limit is kept below the rate at which it breaks."""
    page = tmp_path / "page.html"
    limit = ("--set", "constraints.ttft_p99_ms=2000")
    done = autotune("simulate", STUDY, "--plan", "R4/TP4", "--rate", "2", *limit, "--json", "--html", str(page))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["traffic"]["rate_per_s"] == 2.0
    for latency in ("ttft", "tpot", "e2e"):
        figures = found["latencies"][latency]
        assert set(figures) == STATISTICS
        shares = [figures[p]["value"] for p in ("p50", "p90", "p95", "p99")]
        assert shares[0] > 0.0
        assert shares == sorted(shares)
        assert all(f["low"] <= f["value"] <= f["high"] for f in figures.values())
    assert [row["code"] for row in found["limits"]] == ["ttft_p99_ms", "ttft_ms", "tpot_ms"]
    row = found["limits"][0]
    assert (row["limit"], row["kept"]) == (2000.0, True)
    assert row["value"] == pytest.approx(1e3 * found["latencies"]["ttft"]["p99"]["value"])
    assert [load["code"] for load in found["breaking_loads"]] == [row["code"] for row in found["limits"]]
    assert all(load["rate_per_s"] > 2.0 for load in found["breaking_loads"])
    assert 0.0 < found["utilisation"] <= 1.0
    assert "<svg" in page.read_text(encoding="utf-8")


def test_a_rate_is_the_same_wherever_it_is_said() -> None:
    """With `--rate` a plan has the knobs that it has in a study of that rate: they were those of its closed loop."""
    shared = ["simulate", STUDY, "--plan", "R2/TP8", "--set", "workload.osl=20", "--json"]
    option, setting, closed = (
        json.loads(autotune(*shared, *own).stdout)
        for own in (
            ["--rate", "0.7"],
            ["--set", "workload.request_rate_per_s=0.7"],
            ["--set", "workload.request_rate_per_s=", "--set", "workload.concurrency=300", "--rate", "0.7"],
        )
    )
    assert option["knobs"] == setting["knobs"] == closed["knobs"]
    assert option["latencies"] == setting["latencies"] == closed["latencies"]
    assert closed["next"][0].endswith("--set workload.request_rate_per_s=0.7 --set workload.concurrency=")


def test_sessions_at_a_rate_are_those_of_a_study_of_it() -> None:
    """Caches drop what they have no room for, and in the sweep: what none ever drops was found at any rate."""
    sessions = "workload.sessions={turns=8,system_tokens=2000,pause_s=40}"
    shared = ["simulate", STUDY, "--plan", "R2/TP4", "--set", "cluster.gpus=8", "--set", sessions]
    shared += ["--set", "constraints.tpot_ms="]
    lengths = ["--set", "workload.isl={min=100,max=900}", "--set", "workload.osl={min=100,max=500}", "--json"]
    few, option, setting = (
        json.loads(autotune(*shared, *lengths, *own).stdout)
        for own in (["--rate", "2"], ["--rate", "8"], ["--set", "workload.request_rate_per_s=8"])
    )
    assert option == setting
    hits = [document["traffic"]["prefix_cache_hit_frac"] for document in (few, option)]
    assert hits[1] < 0.8 * hits[0]
    assert option["full"]
    assert all(0.0 < row["rate_per_s"] < 8.0 for row in option["breaking_loads"])
    assert all(row["rate_per_s"] < 9.0 for row in few["breaking_loads"])


def test_a_broken_limit_has_its_exit_code() -> None:
    """As of a study without a plan: the answer is there, and says no."""
    limit = ("--set", "constraints.ttft_p99_ms=1")
    done = autotune("simulate", STUDY, "--plan", "R4/TP4", "--rate", "2", *limit, "--json")
    assert done.returncode == EXIT_INFEASIBLE
    assert {row["code"]: row["kept"] for row in json.loads(done.stdout)["limits"]} == {
        "ttft_p99_ms": False,
        "ttft_ms": True,
        "tpot_ms": True,
    }


def test_a_full_plan_has_the_exit_code_of_a_broken_limit(tmp_path: Path) -> None:
    """More comes than is served, though what was simulated keeps every limit: the page and the JSON say no as well."""
    study, page = tmp_path / "full.toml", tmp_path / "page.html"
    study.write_text(
        'model = "llama-3.1-8b"\nengine = "vllm"\n[cluster]\ngpus = 4\ngpu = "h100_sxm"\n'
        "[workload]\nisl = 1000\nosl = 200\nrequest_rate_per_s = 120\n"
        "[constraints]\nttft_ms = 20000\ntpot_ms = 100\n",
        encoding="utf-8",
    )
    done = autotune("simulate", str(study), "--plan", "R4 TP1", "--json", "--html", str(page))
    assert done.returncode == EXIT_INFEASIBLE
    found = json.loads(done.stdout)
    assert all(row["kept"] for row in found["limits"])
    assert (found["full"], found["kept"]) == (True, False)
    assert ">FULL<" in page.read_text(encoding="utf-8")
    less = autotune("simulate", str(study), "--plan", "R4 TP1", "--rate", "90", "--json")
    assert (less.returncode, json.loads(less.stdout)["full"]) == (0, False)


def test_a_plan_that_cannot_run_is_infeasible(tmp_path: Path) -> None:
    """What does not fit in memory, of one kind of replica or in a pool, and what a rule forbids: no latency is said."""
    page = tmp_path / "page.html"
    asked = [(STUDY, plan, "kv_capacity memory_util_frac") for plan in ("R16 TP1", "P8:R8 TP1 + D8:TP8")]
    asked += [(str(FOLDER / "reference-128.toml"), "EP16/PP2/TP4/DP4", "attention_dp_all_or_nothing")]
    for study, plan, broken in asked:
        engine = ("--set", "engine=trtllm") if study != STUDY else ()
        done = autotune("simulate", study, "--plan", plan, "--rate", "2", *engine, "--json", "--html", str(page))
        assert (done.returncode, page.read_text(encoding="utf-8").count(">INFEASIBLE<")) == (EXIT_INFEASIBLE, 1)
        found = json.loads(done.stdout)
        assert (found["feasible"], found["kept"], "latencies" in found) == (False, False, False)
        assert [v["code"] for v in found["violations"]] + [r["rule"] for r in found["rules_broken"]] == broken.split()
        assert all(v["excess"] > 0.0 for v in found["violations"])
    shown = autotune("simulate", STUDY, "--plan", "R16 TP1", "--table").stdout
    assert "167.1% against 99.9%, over by 67%" in shown
    assert "keeps every limit" not in shown


def test_a_log_of_requests_none_of_which_fits_is_infeasible(tmp_path: Path) -> None:
    """The study's own requests do: the answer says how large those of the log are, and what room there is."""
    log = tmp_path / "log.csv"
    rows = "\n".join(f"2023-11-16 18:15:{i:02d}.000,3000000,50" for i in range(3))
    log.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}\n", encoding="utf-8")
    done = autotune("simulate", STUDY, "--plan", "R4/TP4", "--traffic", str(log), "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["feasible"]) == (EXIT_INFEASIBLE, False)
    assert [v["code"] for v in found["violations"]] == ["kv_capacity"]
    assert 0.0 < found["violations"][0]["value"] < 1.0
    assert "3,000,050 tokens" in found["export_refuses"]


def test_outputs_of_one_token_have_no_time_per_token(tmp_path: Path) -> None:
    """TTFT is told in text and page, and nothing of the tokens after the first, which no request has."""
    page = tmp_path / "page.html"
    lengths = ("--set", "workload.isl=4000", "--set", "workload.osl=1", "--set", "constraints.tpot_ms=")
    lengths += ("--set", "objective.minimize=", "--set", "objective.maximize=total_tokens_per_s_per_gpu")
    asked = ("simulate", STUDY, "--plan", "R4/TP4", "--rate", "2", *lengths)
    done = autotune(*asked, "--table", "--html", str(page))
    assert done.returncode == 0, done.stderr
    (mean,) = (line.split() for line in done.stdout.splitlines() if line.startswith("mean "))
    assert mean[3:5] == ["–", "–"]
    assert "<svg" in page.read_text(encoding="utf-8")
    figures = json.loads(autotune(*asked, "--json").stdout)["latencies"]
    assert figures["tpot"]["p99"]["value"] is None
    assert figures["ttft"]["p99"]["value"] == pytest.approx(figures["e2e"]["p99"]["value"])


def test_where_prompts_vary_it_is_said_which_ones_other_commands_hold_against_ttft() -> None:
    """Of prompts of one length nothing is said: all commands mean the same."""
    asked = ("simulate", STUDY, "--plan", "R4/TP4", "--rate", "1", "--set", "workload.osl=20", "--table")
    varied = autotune(*asked, "--set", "workload.isl={min=100,max=8000}", "--set", "workload.longest_prompt=")
    assert "longest prompt (8,000 tokens)" in varied.stdout
    assert "longest prompt" not in autotune(*asked, "--set", "workload.isl=4000").stdout


def test_a_closed_loop_of_one_length_says_that_it_stays_in_step(tmp_path: Path) -> None:
    """On terminal, page and in the JSON; not at a rate, where lengths vary, or where each replica has one request."""
    page = tmp_path / "page.html"
    closed = ("--set", "workload.request_rate_per_s=", "--set", "workload.isl=500", "--set", "workload.osl=50")
    closed += ("--set", "objective.minimize=", "--set", "constraints.ttft_ms=", "--set", "constraints.tpot_ms=")
    asked = ("simulate", STUDY, "--plan", "R2/TP8", "--set", "workload.concurrency={}", *closed)

    def said(*more: str, in_flight: int = 8) -> bool:
        shown = [word.format(in_flight) for word in asked]
        found = json.loads(autotune(*shown, *more, "--json").stdout)
        return any("stay in step" in text for text in found["assumptions"])

    table = autotune(*(word.format(8) for word in asked), "--table", "--html", str(page)).stdout
    assert "stay in step" in " ".join(table.split("Latencies")[0].split())
    assert "stay in step" in page.read_text(encoding="utf-8").split("Latencies")[0]
    assert said()
    assert not said(in_flight=2)
    assert not said("--rate", "2")
    assert not said("--set", "workload.osl={min=25,max=75}")


def test_a_trace_is_served_at_its_own_times(tmp_path: Path) -> None:
    """Three requests a second apart, one of them long."""
    log = tmp_path / "log.csv"
    rows = "\n".join(f"2023-11-16 18:15:{i:02d}.000,{1000 + 3000 * (i == 1)},50" for i in range(3))
    log.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}\n", encoding="utf-8")
    done = autotune("simulate", STUDY, "--plan", "R4/TP4", "--traffic", str(log), "--json")
    assert done.returncode in (0, EXIT_INFEASIBLE), done.stderr
    found = json.loads(done.stdout)
    assert (found["traffic"]["requests"], found["traffic"]["recorded"]) == (3, True)
    ttft = found["latencies"]["ttft"]
    assert ttft["p99"]["value"] > 1.5 * ttft["p50"]["value"]


def _part_of_a_log(tmp_path: Path) -> Path:
    lines = (FOLDER.parent / "tests" / "data" / "azure_llm_2023_conv.csv").read_text(encoding="utf-8").splitlines()
    log = tmp_path / "log.csv"
    log.write_text("\n".join(lines[:301]) + "\n", encoding="utf-8")
    return log


def test_a_log_is_the_same_wherever_it_is_said(tmp_path: Path) -> None:
    """With `--traffic`, as the study's own, and in `compare`, whatever the study's own rate is: it made TPOT p99 up to
    22 % longer."""
    log, study = _part_of_a_log(tmp_path), tmp_path / "logged.toml"
    own = Path(STUDY).read_text(encoding="utf-8").splitlines()
    replaced = [line for line in own if not line.startswith(("isl", "osl", "request_rate_per_s"))]
    text = "\n".join(replaced).replace("[workload]", f'[workload]\ntraffic = "{log}"')
    study.write_text(text, encoding="utf-8")
    budget = ("--set", "search.max_num_batched_tokens=[2048]", "--json")
    asked = ("simulate", STUDY, "--plan", "R2/TP8", "--traffic", str(log), *budget)
    little, much, longer, logged = (
        json.loads(done.stdout)
        for done in (
            autotune(*asked, "--set", "workload.request_rate_per_s=0.1"),
            autotune(*asked, "--set", "workload.request_rate_per_s=11.5"),
            autotune(*asked, "--set", "workload.isl=8000"),
            autotune("simulate", str(study), "--plan", "R2/TP8", *budget),
        )
    )
    parts = ("latencies", "limits", "breaking_loads", "attainment", "traffic", "knobs", "utilisation")
    for part in parts:
        assert little[part] == much[part] == longer[part] == logged[part]
    prompts = sorted(int(line.split(",")[1]) for line in log.read_text(encoding="utf-8").splitlines()[1:])
    assert prompts[-10] < little["traffic"]["longest_prompt"] <= prompts[-1]
    compared = autotune(
        "compare", STUDY, "--current", "R2/TP8", "--candidate", "R4/TP4", "--traffic", str(log), *budget
    )
    met = json.loads(compared.stdout)["simulated"]["current"]
    assert met["within_limits_frac"]["value"] == logged["attainment"]["value"]
    for name, figures in met["latencies_s"].items():
        for statistic, value in figures.items():
            assert logged["latencies"][name][statistic]["value"] == value


def test_a_plan_of_a_logged_study_is_scored_at_the_rate_asked_about(tmp_path: Path) -> None:
    """Its steps are as long as with what is in flight then: they were those of the log's own load."""
    log = _part_of_a_log(tmp_path)
    named = [f"workload.traffic={log}", *(f"workload.{key}=" for key in ("isl", "osl", "request_rate_per_s"))]
    named += ["search.max_num_batched_tokens=[2048]"]
    settings = [word for one in named for word in ("--set", one)]
    done = autotune("simulate", STUDY, "--plan", "R2/TP8", "--rate", "20", *settings, "--json")
    found = json.loads(done.stdout)
    own = at_rate(load_study(STUDY, named), 20.0)
    plan = score_plan(own, "R2/TP8").result
    assert plan is not None
    traffic = study_traffic(own, count=REQUESTS_OF_ONE)
    forecast = simulate_plan(own, plan, traffic).forecast
    for name, statistic in (("tpot", "mean"), ("ttft", "p99")):
        assert found["latencies"][name][statistic]["value"] == forecast.latency(name, statistic).value
    assert found["traffic"]["rate_per_s"] == 20.0
    assert not any("request_rate_per_s=20" in line for line in found["next"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rate", "0"], "--rate: must be above 0 and at most 1e9 requests per second"),
        (["--rate", "nan"], "--rate: must be above 0 and at most 1e9 requests per second"),
        (["--rate", "-3"], "--rate: must be above 0 and at most 1e9 requests per second"),
        (["--rate", "1", "--traffic", "x.csv"], "--rate: must not be given with --traffic"),
        (["--traffic", "{one}"], "all requests came at one instant: there is no rate"),
        (["--traffic", "{nan}"], "nan"),
        (["--set", "constraints.ttft_p99_ms=nan"], "$.constraints.ttft_p99_ms"),
        (["--set", "constraints.attainment_frac=1.5"], "$.constraints.attainment_frac"),
        (["--set", "workload.arrivals=sometimes"], "$.workload.arrivals"),
    ],
)
def test_bad_input_gets_one_clear_line(options: list[str], said: str, tmp_path: Path) -> None:
    """Exit code 2, nothing on stdout, one problem on stderr."""
    header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    logs = {"one": "2023-11-16 18:15:00.000,100,10\n", "nan": "2023-11-16 18:15:00.000,nan,10\n" * 2}
    for name, text in logs.items():
        (tmp_path / name).write_text(header + text, encoding="utf-8")
    options = [o.format(**{name: tmp_path / name for name in logs}) for o in options]
    done = autotune("simulate", STUDY, "--plan", "R4/TP4", *options)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


COLUMNS = (
    "id,gpu,engine,model,attn_tp,arrivals,request_rate_per_s,concurrency,requests,isl_mean,isl_p50,osl_mean,"
    "shared_prefix_tokens,ttft_mean_ms,ttft_p99_ms,e2e_mean_ms,tpot_mean_ms\n"
)


def test_validate_takes_runs_with_empty_columns(tmp_path: Path) -> None:
    """A measured open-loop run, and a closed one of which little is known: both are predicted, one is judged."""
    runs, out = tmp_path / "runs.csv", tmp_path / "predicted.csv"
    runs.write_text(
        COLUMNS
        + "a,h100_sxm,vllm,meta-llama/Llama-3.1-8B,1,constant,5,,300,592,591,194,100,25,46,1810,9.3\n"
        + "b,h100_sxm,sglang,meta-llama/Llama-3.1-8B,,,,4,,,,,,,,,\n",
        encoding="utf-8",
    )
    done = autotune("validate", str(runs), "--predictions", str(out), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["load_runs"] == 2
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["id"] for r in rows] == ["a", "b"]
    for row in rows:
        for name in (*(f"{n}_{s}" for n in ("ttft", "e2e") for s in sorted(STATISTICS)), "tpot_mean"):
            low, value, high = (float(row[f"pred_{name}{end}_ms"]) for end in ("_low", "", "_high"))
            assert math.isfinite(high)
            assert 0.0 < low <= value <= high
    assert float(rows[0]["pred_ttft_p99_ms"]) > float(rows[0]["pred_ttft_p50_ms"])
