"""A run from traffic to ledger: idempotent, quick without drift, applied only when told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotune.comparison import best
from autotune.report.retuning import history_document, history_table, repeated_line, retune_document, retune_paragraph
from autotune.retuning import decide_window as judging
from autotune.retuning import retune_once as flow
from autotune.retuning.entry import digest
from autotune.retuning.ledger import open_ledger, read_ledger
from autotune.retuning.metrics import metrics_text, write_metrics
from autotune.retuning.retune_once import Outcome, accept, retune
from autotune.retuning.window import Drift, Window
from autotune.study import Baseline, OwnOptions, Study, study_from_document
from autotune.traffic.options import ReadOptions
from costmodel.errors import InputError
from tests.remembered import asked_once

HOUR_S = 3600.0


def question(**tables: Any) -> Study:
    """An 8B model on 16 GPUs, spread over two nodes for no reason."""
    document: dict[str, Any] = {
        "name": "small",
        "engine": "vllm",
        "model": "llama-3.1-8b",
        "cluster": {"gpus": 16, "gpu": "h100_sxm", "gpus_per_node": 8},
        "workload": {"isl": 1000, "osl": 200},
        "constraints": {"ttft_ms": 1000, "tpot_ms": 30},
        "search": {"max_num_batched_tokens": [4096]},
        "baseline": {"plan": "TP8/PP2"},
        **tables,
    }
    return study_from_document(document, Path("small.toml"))


@pytest.fixture(scope="module", autouse=True)
def _answered_once() -> Iterator[None]:
    """Windows of the same traffic ask for the same plan and put the same two beside each other."""
    with asked_once((best, "tune"), (judging, "compare")):
        yield


class Traffic:
    """Windows made up: a rate and a prompt length for the end of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rate, self.isl, self.refusal = 150.0, 1000, None
        self.reads = self.tunes = 0
        monkeypatch.setattr(flow, "read_window", self._read)
        monkeypatch.setattr(flow, "compare_profiles", self._drift)
        tune = judging.best_plan

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.tunes += 1
            return tune(*args, **kwargs)

        monkeypatch.setattr(judging, "best_plan", counted)

    def _read(
        self,
        study: Study,
        traffic: str,
        *,
        window_s: float,
        now_s: float | None,
        warm_from_s: float | None,
        clock_s: float | None,
        timeout_s: float,
        options: ReadOptions,  # noqa: ARG002  # nothing is read
    ) -> Window:
        self.warm_from_s, self.clock_s, self.timeout_s = warm_from_s, clock_s, timeout_s
        self.reads += 1
        end = 1e9 if now_s is None else now_s
        profile = {"rate": self.rate, "isl": self.isl}
        work = study.workload
        lengths = replace(work.isl, min=self.isl, max=self.isl)
        work = replace(work, isl=lengths, longest_prompt=self.isl, request_rate_per_s=self.rate)
        return Window(
            start_s=end - window_s,
            end_s=end,
            at_s=end,
            refusal=self.refusal,
            fingerprint=digest(profile),
            document={"source": traffic},
            profile=profile,
            study=replace(study, workload=work, search=replace(study.search, concurrency=None)),
        )

    def _drift(self, window: Window, reference: Mapping[str, Any] | None) -> Drift:
        if reference is None:
            return Drift(drifted=True, reason="no earlier profile", document={})
        drifted = reference != window.profile
        return Drift(drifted=drifted, reason="drifted" if drifted else "no drift", document={})


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Traffic:
    """Traffic that a test sets."""
    return Traffic(monkeypatch)


def once(folder: Path, hour: float = 0.0, study: Study | None = None, **options: Any) -> Outcome:
    """A run on the window that ends at an hour."""
    now = 1e9 + hour * HOUR_S
    return retune(study or question(), "log.csv", folder, window_s=HOUR_S, now_s=now, **options)


def test_the_same_window_decides_once(tmp_path: Path, traffic: Traffic) -> None:
    """The second run returns the recorded decision, tunes nothing and adds no line."""
    first = once(tmp_path)
    content = (tmp_path / "ledger.jsonl").read_bytes()
    second = once(tmp_path)
    assert (first.already_decided, second.already_decided) == (False, True)
    assert second.entry == json.loads(content)
    assert (tmp_path / "ledger.jsonl").read_bytes() == content
    assert traffic.tunes == 1


@pytest.mark.usefixtures("traffic")
def test_a_changed_policy_decides_anew(tmp_path: Path) -> None:
    """The policy is one of the inputs: with another horizon the window is decided on again."""
    once(tmp_path)
    assert not once(tmp_path, study=question(retune={"horizon_h": 1.0})).already_decided
    assert len(read_ledger(tmp_path).entries) == 2


@pytest.mark.usefixtures("traffic")
def test_a_recommended_switch_changes_nothing_until_it_is_accepted(tmp_path: Path) -> None:
    """current.json appears with accept, says the candidate, and a second accept is told that it is done."""
    found = once(tmp_path)
    assert (found.entry["decision"], found.applied) == ("switch", False)
    assert not (tmp_path / "current.json").exists()
    taken = accept(tmp_path, None, now_s=1e9 + 60.0)
    assert (taken.applied, taken.already_decided) == (True, False)
    current = json.loads((tmp_path / "current.json").read_text())
    assert current["plan"] == found.entry["candidate"]["plan"]
    assert current["since"] == "2001-09-09T01:47:40Z"
    assert accept(tmp_path, found.entry["id"][:8], now_s=2e9).already_decided
    assert len(read_ledger(tmp_path).applied) == 1


def test_apply_puts_the_switch_into_production_at_once(tmp_path: Path, traffic: Traffic) -> None:
    """With --apply the next window's current plan is the candidate; a run that was cut off before is completed."""
    once(tmp_path)
    found = once(tmp_path, apply=True)
    assert (found.already_decided, found.applied) == (True, True)
    traffic.rate = 160.0
    after = once(tmp_path, hour=3.0)
    assert after.entry["current"]["plan"] == found.entry["candidate"]["plan"]
    assert after.entry["decision"] == "keep"


def test_without_drift_nothing_is_tuned(tmp_path: Path, traffic: Traffic) -> None:
    """After the switch the same traffic an hour later is kept without tuning, with that as its reason."""
    once(tmp_path, apply=True)
    found = once(tmp_path, hour=1.0)
    assert (found.entry["decision"], found.entry["rule"], found.entry["candidate"]) == ("keep", "no_drift", None)
    assert traffic.tunes == 1


def test_new_calibration_is_a_reason_to_look_again(tmp_path: Path, traffic: Traffic) -> None:
    """The same traffic under a study with another answer is tuned again although nothing drifted."""
    once(tmp_path, apply=True)
    found = once(tmp_path, hour=1.0, study=question(constraints={"ttft_ms": 1000, "tpot_ms": 29}))
    assert found.entry["rule"] != "no_drift"
    assert found.entry["drift"]["study_changed"] is True
    assert traffic.tunes == 2


def test_a_window_that_cannot_be_judged_is_refused_and_recorded(tmp_path: Path, traffic: Traffic) -> None:
    """Too many unreadable lines: refused, with the reader's reason, also when it is read again; nothing is tuned."""
    traffic.refusal = "7 % of the lines cannot be read"
    found = once(tmp_path)
    assert (found.entry["decision"], found.entry["reason"]) == ("refuse", traffic.refusal)
    assert traffic.tunes == 0
    assert traffic.refusal in repeated_line(retune_document(once(tmp_path))).text
    with pytest.raises(InputError, match=r"is refuse \(input\): nothing to accept"):
        accept(tmp_path, None, now_s=1e9)


@pytest.mark.usefixtures("traffic")
def test_a_decision_that_was_overtaken_cannot_be_accepted(tmp_path: Path) -> None:
    """A switch away from a plan that does not run any more would go unnoticed by the ledger's arithmetic."""
    first = once(tmp_path)
    second = once(tmp_path, study=question(retune={"horizon_h": 12.0}), apply=True)
    assert second.applied
    with pytest.raises(InputError, match="was to leave vllm:R1/PP2"):
        accept(tmp_path, first.entry["id"][:10], now_s=1e9)
    with pytest.raises(InputError, match="holds no decision whose id begins with 'zzz'"):
        accept(tmp_path, "zzz", now_s=1e9)


@pytest.mark.usefixtures("traffic")
def test_a_study_without_a_plan_in_production_is_wrong_input(tmp_path: Path) -> None:
    """There is nothing to keep or to leave, and nothing is written."""
    study = replace(question(), baseline=None)
    with pytest.raises(InputError, match=r"\$\.baseline: must name the plan in production"):
        once(tmp_path, study=study)
    assert open_ledger(tmp_path).entries == ()


@pytest.mark.usefixtures("traffic")
def test_metrics_are_valid_text_exposition(tmp_path: Path) -> None:
    """Every sample has a HELP and a TYPE before it, labels are quoted, and exactly one decision is 1."""
    found = once(tmp_path, study=question(name='odd "name"'))
    text = metrics_text(found, duration_s=0.5, written_s=1e9)
    typed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert {line.partition("{")[0] for line in samples} == typed
    chosen = [line for line in samples if line.startswith("autotune_retune_decision{") and line.endswith(" 1.0")]
    assert len(chosen) == 1
    assert 'study="odd \\"name\\""' in chosen[0]
    write_metrics(tmp_path / "m.prom", found, duration_s=0.5)
    assert (tmp_path / "m.prom").read_text().count("\n") == text.count("\n")
    with pytest.raises(InputError, match="--metrics: must lie in a folder that exists"):
        write_metrics(tmp_path / "no" / "m.prom", found, duration_s=0.5)


@pytest.mark.usefixtures("traffic")
def test_the_ratio_of_pools_is_tuned_again(tmp_path: Path, traffic: Traffic) -> None:
    """Longer prompts ask for more prefill workers: these start, and the commands say how many; then pools run on."""
    study = question(
        search={"max_num_batched_tokens": [4096], "disaggregated": "only"},
        disaggregation={"pool_gpus_multiple_of": 8},
        baseline={"plan": "P8:R8/TP1+D8:R1/TP8"},
    )
    found = once(tmp_path, study=study, apply=True)
    assert (found.entry["decision"], found.applied) == ("switch", True)
    assert found.entry["candidate"]["plan"].startswith("vllm:P8:")
    assert found.entry["switch"]["gpus_restarted"] <= 16
    assert any(line.startswith("+# decode pool") or "pool" in line for line in found.entry["launch_difference"])
    assert found.current_plan == json.loads((tmp_path / "current.json").read_text())["plan"]
    traffic.rate *= 0.5
    again = once(tmp_path, 1.0, study=study)
    assert again.entry["current"]["plan"] == found.entry["candidate"]["plan"]
    assert again.entry["decision"] == "keep"


def test_slots_of_a_decode_pool_are_tuned_again(tmp_path: Path, traffic: Traffic) -> None:
    """Too few are a switch that says how many; more requests within the slots that were started are none."""
    study = question(
        search={"max_num_batched_tokens": [4096], "disaggregated": "only"},
        disaggregation={"pool_gpus_multiple_of": 4},
        baseline={"plan": "P8:R4/TP2+D8:TP8", "decode_max_num_seqs": 8},
    )
    traffic.rate = 52.0
    found = once(tmp_path, study=study, apply=True)
    assert (found.entry["decision"], found.entry["rule"]) == ("switch", "limit_broken")
    assert "the candidate keeps every limit; better with probability" in found.entry["reason"]
    document = history_document(read_ledger(tmp_path))
    assert document["entries"][0]["net_gain_frac"] is not None
    table = history_table(document)
    assert table is not None
    gain = next(i for i, column in enumerate(table.columns) if "net gain" in str(column))
    assert table.rows[0].cells[gain].text == ""
    slots = found.entry["candidate"]["knobs"]["decode_max_num_seqs"]
    changed = [line for line in found.entry["launch_difference"] if "--max-num-seqs" in line]
    assert [line[0] for line in changed] == ["-", "+"]
    assert ("8" in changed[0], str(slots) in changed[1]) == (True, True)
    assert found.entry["switch"]["gpus_restarted"] == 8
    assert f"with decode_max_num_seqs {slots} for 8" in retune_paragraph(retune_document(found))
    traffic.rate = 62.0  # of 136 that it serves: with less to spare another plan keeps the limits more surely
    again = once(tmp_path, 1.0, study=study)
    assert (again.entry["decision"], again.entry["rule"]) == ("keep", "same_plan")
    assert again.entry["current"]["knobs"]["decode_max_num_seqs"] == slots


def test_a_window_read_again_after_its_switch_is_kept(tmp_path: Path, traffic: Traffic) -> None:
    """`already_applied`: a cron job that acts on a switch acts once, and the switch is made once."""
    first = once(tmp_path, apply=True)
    again = once(tmp_path, apply=True)
    assert (first.entry["decision"], first.applied, first.already_decided) == ("switch", True, False)
    assert (again.entry["decision"], again.entry["rule"]) == ("keep", "already_applied")
    assert (again.applied, again.already_decided) == (True, True)
    assert again.current_plan == first.entry["candidate"]["plan"]
    assert again.entry["decided_before"]["decision"] == "switch"
    assert len(read_ledger(tmp_path).lines) == 2
    assert traffic.tunes == 1


def test_a_recommendation_that_was_overtaken_is_not_applied(tmp_path: Path, traffic: Traffic) -> None:
    """Read again with --apply after a later window was decided on, or when another plan runs, it changes nothing."""
    first = once(tmp_path)
    assert first.entry["decision"] == "switch"
    traffic.rate, traffic.isl = 5.0, 900
    second = once(tmp_path, hour=2.0, apply=True)
    traffic.rate, traffic.isl = 150.0, 1000
    late = once(tmp_path, apply=True)
    assert (late.entry["decision"], late.entry["rule"]) == ("keep", "overtaken")
    assert late.current_plan == second.current_plan
    assert len(read_ledger(tmp_path).applied) == int(second.applied)
    assert once(tmp_path, hour=1.0).already_decided is False


def test_a_plan_changed_in_current_json_is_what_runs(tmp_path: Path, traffic: Traffic) -> None:
    """It is said, becomes a line of the ledger, and is what the next window's plan is compared with."""
    once(tmp_path, apply=True)
    current = tmp_path / "current.json"
    document = json.loads(current.read_text())
    traffic.rate = 160.0
    once(tmp_path, hour=2.0)
    current.write_text(json.dumps({**document, "plan": "vllm:R4/PP1/ATP4/ADP1/MTP1/EP1", "knobs": None}))
    traffic.rate = 170.0
    found = once(tmp_path, hour=4.0)
    assert found.entry["current"]["plan"] == "vllm:R4/PP1/ATP4/ADP1/MTP1/EP1"
    (said,) = found.entry["noticed"]
    assert "vllm:R4/PP1/ATP4" in said
    assert read_ledger(tmp_path).applied[-1]["by"] == "hand"
    current.write_text(json.dumps({**document, "plan": "nonsense"}))
    with pytest.raises(InputError, match=r"current\.json: .* or remove the file to go on with vllm:R4/PP1/ATP4"):
        once(tmp_path, hour=5.0)
    current.unlink()
    assert once(tmp_path, hour=5.0).current_plan == found.current_plan


def test_a_plan_changed_in_the_study_is_what_runs(tmp_path: Path, traffic: Traffic) -> None:
    """After a switch the study's baseline counts again once it is written anew, and not when it follows the switch."""
    first = once(tmp_path, apply=True)
    follows = question(baseline={"plan": first.entry["candidate"]["plan"]})
    traffic.rate = 160.0
    assert once(tmp_path, hour=2.0, study=follows).entry.get("noticed") is None
    assert len(read_ledger(tmp_path).applied) == 1
    traffic.rate = 170.0
    found = once(tmp_path, hour=4.0, study=question(baseline={"plan": "TP4"}))
    assert found.entry["current"]["plan"] == "vllm:R4/PP1/ATP4/ADP1/MTP1/EP1"
    assert "baseline was changed by hand" in found.entry["noticed"][0]
    assert once(tmp_path, hour=5.0, study=question(baseline={"plan": "TP4"})).entry.get("noticed") is None


@pytest.mark.usefixtures("traffic")
def test_a_plan_told_beside_the_study_counts_from_then_on(tmp_path: Path) -> None:
    """Whether it is told again or not; another one is seen, and the study's baseline is no change by hand."""
    told = Baseline(plan="TP4/PP4")
    plans = [
        once(tmp_path, hour=hour, current=current).entry["current"]["plan"]
        for hour, current in ((1.0, told), (2.0, None), (3.0, told), (4.0, Baseline(plan="TP4")))
    ]
    assert plans == ["vllm:R1/PP4/ATP4/ADP1/MTP1/EP1"] * 3 + ["vllm:R4/PP1/ATP4/ADP1/MTP1/EP1"]
    said = [line.entry.get("noticed") for line in read_ledger(tmp_path).decisions]
    assert [text is None for text in said] == [True, True, True, False]


@pytest.mark.usefixtures("traffic")
def test_a_switch_from_a_plan_that_was_told_is_accepted(tmp_path: Path) -> None:
    """What was told has no token budget, and what the decision leaves has one: they are one launch."""
    found = once(tmp_path, current=Baseline(plan="TP8/PP2"), study=question(baseline={"plan": "TP4"}))
    assert found.entry["decision"] == "switch"
    assert accept(tmp_path, None, now_s=2e9).applied


@pytest.mark.usefixtures("traffic")
def test_a_switch_from_a_plan_written_into_current_json_is_accepted(tmp_path: Path) -> None:
    """It is written in short there, and the decision has it in full: nothing else was put into production since."""
    (tmp_path / "current.json").write_text('{"plan": "vllm:TP8/PP2", "engine": "vllm", "knobs": null}')
    assert once(tmp_path).entry["decision"] == "switch"
    assert accept(tmp_path, None, now_s=2e9).applied


def test_another_number_of_gpus_after_a_switch_goes_on_from_the_baseline(tmp_path: Path, traffic: Traffic) -> None:
    """The plan of the ledger cannot run there: the study's counts, which is said once."""
    once(tmp_path, apply=True)
    traffic.rate = 170.0
    wider = question(cluster={"gpus": 24, "gpu": "h100_sxm", "gpus_per_node": 8}, baseline={"plan": "TP8"})
    ledger = read_ledger(tmp_path)
    assert "R8/PP1/ATP2" in ledger.applied[-1]["to"]["plan"]
    found = once(tmp_path, hour=2.0, study=wider)
    assert found.entry["current"]["plan"] == "vllm:R3/PP1/ATP8/ADP1/MTP1/EP1"
    assert len(found.entry["noticed"]) == 1
    assert once(tmp_path, hour=3.0, study=wider).entry.get("noticed") is None


@pytest.mark.usefixtures("traffic")
def test_a_state_belongs_to_one_model(tmp_path: Path) -> None:
    """Another model's study decides nothing on it, and leaves it as it was."""
    once(tmp_path, apply=True)
    content = (tmp_path / "ledger.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"is the state of .*8B.*, and the study is about .*Mixtral"):
        once(tmp_path, hour=2.0, study=question(model="mixtral-8x7b"))
    assert (tmp_path / "ledger.jsonl").read_bytes() == content


def test_a_switch_under_a_wrong_clock_does_not_stop_the_next(tmp_path: Path, traffic: Traffic) -> None:
    """Dated days ahead of the clock and of the log, it counts as made long ago: the next window is decided on."""
    once(tmp_path, hour=120.0, apply=True, clock_s=1e9)
    traffic.rate, traffic.isl = 20.0, 6000
    found = once(tmp_path, hour=1.0, clock_s=1e9 + HOUR_S)
    assert found.entry["rule"] not in ("input", "max_switches", "cooldown")


def log_of(path: Path, start_s: float, *, count: int = 4500, isl: int = 1000) -> str:
    """A CSV log of 150 requests a second."""
    lines = ["timestamp,prompt_tokens,completion_tokens"]
    lines += [f"{start_s + k / 150.0:.3f},{isl + k % 7},{200 + k % 5}" for k in range(count)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_logs_whose_times_have_no_date_go_on_after_a_switch(tmp_path: Path) -> None:
    """Times that count from each log's own start say nothing of when the last switch was."""
    first = retune(question(), log_of(tmp_path / "a.csv", 0.0), tmp_path / "s", window_s=30.0, clock_s=2e9, apply=True)
    assert (first.entry["decision"], first.entry["at_s"]) == ("switch", 2e9)
    second = retune(
        question(), log_of(tmp_path / "b.csv", 0.0, isl=1010), tmp_path / "s", window_s=30.0, clock_s=2e9 + 3600.0
    )
    assert second.entry["decision"] == "keep"
    assert second.current_plan == first.entry["candidate"]["plan"]


def test_a_log_dated_ahead_of_the_clock_is_refused_until_it_is_mended(tmp_path: Path) -> None:
    """A day ahead nothing is decided, so that nothing is dated then; the next log with good times is."""
    ahead = retune(
        question(), log_of(tmp_path / "a.csv", 1.5e9 + 86400.0), tmp_path / "s", window_s=30.0, clock_s=1.5e9
    )
    assert (ahead.entry["decision"], "ahead of the clock" in ahead.entry["reason"]) == ("refuse", True)
    good = retune(question(), log_of(tmp_path / "b.csv", 1.5e9), tmp_path / "s", window_s=30.0, clock_s=1.5e9 + 30.0)
    assert good.entry["decision"] == "switch"


@pytest.mark.usefixtures("traffic")
def test_what_the_engine_is_started_with_is_remembered(tmp_path: Path) -> None:
    """Told once, it counts in every window until another plan runs, which is started as the study says."""
    few = Baseline(plan="TP8/PP2", engine_options=OwnOptions(max_num_seqs=2, not_priced=("--x 1",)))
    usual, told = once(tmp_path / "usual").entry, once(tmp_path / "told", current=few).entry
    own = {"max_num_seqs": 2, "not_priced": ["--x 1"]}
    assert told["current"]["knobs"]["engine_options"] == own
    assert told["current"]["capacity_requests_per_s"] < 0.5 * usual["current"]["capacity_requests_per_s"]
    assert told["candidate"]["metrics"] == usual["candidate"]["metrics"]
    assert "engine_options" not in usual["current"]["knobs"]
    later = once(tmp_path / "told", hour=1.0, study=question(retune={"horizon_h": 1.0}))
    assert later.entry["current"]["knobs"]["engine_options"] == own
    accept(tmp_path / "told", None, now_s=1e9 + 2 * HOUR_S)
    after = once(tmp_path / "told", hour=30.0, study=question(retune={"horizon_h": 2.0}))
    assert "engine_options" not in (after.entry["current"]["knobs"] or {})


@pytest.mark.usefixtures("traffic")
def test_another_start_of_the_same_plan_is_another_launch(tmp_path: Path) -> None:
    """Who tells that the plan runs with fewer sequences now is heard; who tells the same again changes nothing."""
    once(tmp_path, current=Baseline(plan="TP8/PP2"))
    few = Baseline(plan="TP8/PP2", engine_options=OwnOptions(max_num_seqs=2))
    found = once(tmp_path, hour=1.0, current=few)
    assert "max_num_seqs 2" in found.ledger.noticed[0]
    assert found.entry["current"]["knobs"]["engine_options"] == {"max_num_seqs": 2}
    assert once(tmp_path, hour=2.0, current=few).ledger.noticed == ()


@pytest.mark.usefixtures("traffic")
def test_a_ledger_without_engine_options_is_gone_on_from(tmp_path: Path) -> None:
    """A study's baseline that is as it was is not taken for one that was changed by hand."""
    first = once(tmp_path, apply=True)
    assert "engine_options" not in first.entry["baseline"]
    assert once(tmp_path, hour=1.0).ledger.noticed == ()


@pytest.mark.usefixtures("traffic")
def test_settings_of_one_layout_are_named(tmp_path: Path) -> None:
    """A switch to the same layout says what is started otherwise."""
    best = once(tmp_path / "usual").entry["candidate"]["plan"]
    few = Baseline(plan=best, engine_options=OwnOptions(max_num_seqs=1))
    found = once(tmp_path / "few", current=few)
    assert found.entry["candidate"]["plan"] == best
    assert found.entry["decision"] == "switch"
    assert "max_num_seqs as in the study for 1" in retune_paragraph(retune_document(found))
