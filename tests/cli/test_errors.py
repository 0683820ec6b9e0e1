"""Wrong input of every kind: one clear message per problem, exit code 2, nothing on stdout, no half-written file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autotune.cli.main import COMMANDS
from tests import command
from tests.command import Done

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = str(ROOT / "studies" / "reference-128.toml")
DEEPSEEK = str(ROOT / "studies" / "deepseek-v3-128xh200.toml")


def autotune(*arguments: str, data: Path, code: int) -> Done:
    """Run the command with a data folder of its own, and see how it ends."""
    done = command.autotune(*arguments, data=data)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["workload.ils=5"], ["workload.ils"]),
        (["constraints.ttft_ms=-1", "cluster.gpus=0"], ["$.constraints.ttft_ms", "$.cluster.gpus"]),
        (["constraints.tpot_ms=nan"], ["$.constraints.tpot_ms"]),
        (["cluster.gpus=1000000000"], ["$.cluster.gpus"]),
        (["model=no-such-model"], ["no-such-model"]),
        (["cluster.gpu=h9000"], ["h9000"]),
        (["engine=tgi"], ["$.engine"]),
        (["baseline.plan=PP2/TP4/ATP4/ADP4/EP16/R2"], ["$.baseline.plan"]),
        (["baseline.plan=QQ7"], ["cannot read 'qq7'"]),
        (["nonsense"], ["nonsense"]),
        (["workload.isl=true"], ["$.workload.isl"]),
    ],
)
def test_wrong_studies(overrides: list[str], messages: list[str], tmp_path: Path) -> None:
    """Fields that do not exist or cannot be."""
    options = [x for o in overrides for x in ("--set", o)]
    done = autotune("tune", DEEPSEEK, *options, "--out", str(tmp_path / "out"), data=tmp_path, code=2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for message in messages:
        assert message in done.stderr
    assert not (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["tun", DEEPSEEK], "'tune'"),
        (["tune", DEEPSEEK, "--pareot"], "'--pareto'"),
        (["tune"], "STUDY"),
        (["tune", DEEPSEEK, "--top", "many"], "--top"),
        (["dag", DEEPSEEK, "--format", "svg"], "'perfetto'"),
        (["retune", DEEPSEEK], "--traffic"),
        (["retune", "history"], "--state"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], near: str, tmp_path: Path) -> None:
    """What cannot be read as a command is an error like any other: one line, what is nearest or missing, and a hint."""
    done = autotune(*arguments, data=tmp_path, code=2)
    first, hint = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert near in first
    assert hint.startswith("try: ")
    shown = hint.partition("autotune ")[2].split()
    assert autotune(*shown, data=tmp_path, code=0).stdout.startswith("Usage: ")


@pytest.mark.parametrize("content", ["x = ", "[1]", "\x00", "name = 'x'\n"])
def test_files_that_are_no_study(content: str, tmp_path: Path) -> None:
    """A file of something else is named."""
    file = tmp_path / "study.toml"
    file.write_text(content, encoding="utf-8")
    done = autotune("tune", str(file), data=tmp_path, code=2)
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_file_and_folder_for_file(tmp_path: Path) -> None:
    """What cannot be read says so."""
    assert "cannot be read" in autotune("tune", str(tmp_path / "no.toml"), data=tmp_path, code=2).stderr
    assert autotune("tune", str(tmp_path), data=tmp_path, code=2).stdout == ""


def test_config_that_is_no_model(tmp_path: Path) -> None:
    """A JSON file of something else is refused by every command that takes a model."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "bert", "hidden_size": 768}), encoding="utf-8")
    assert "decoder-only" in autotune("model", str(file), data=tmp_path, code=2).stderr
    done = autotune("tune", REFERENCE, "--set", f"model={file}", data=tmp_path, code=2)
    assert "decoder-only" in done.stderr


def test_storage_that_is_none(tmp_path: Path) -> None:
    """A file of something else is left as it was."""
    file = tmp_path / "journal.log"
    file.write_text("this is a shopping list\n", encoding="utf-8")
    done = autotune("tune", REFERENCE, "--storage", str(file), data=tmp_path, code=2)
    assert str(file) in done.stderr
    assert file.read_text(encoding="utf-8") == "this is a shopping list\n"


def test_passwords_stay_out_of_messages(tmp_path: Path) -> None:
    """A database that cannot be opened is named without its password."""
    url = "postgresql://tuner:sesame@127.0.0.1:1/none"
    done = autotune("tune", REFERENCE, "--storage", url, data=tmp_path, code=2)
    assert "sesame" not in done.stderr + done.stdout


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("chattr") is None, reason="root writes everywhere")
def test_output_folder_that_is_a_file(tmp_path: Path) -> None:
    """A result that cannot be written is an error."""
    file = tmp_path / "out"
    file.write_text("x", encoding="utf-8")
    done = autotune("tune", REFERENCE, "--out", str(file), data=tmp_path, code=2)
    assert "Traceback" not in done.stderr
    assert file.read_text(encoding="utf-8") == "x"


def test_nothing_feasible_exits_with_three(tmp_path: Path) -> None:
    """The nearest plan and the binding constraint are shown."""
    study = str(ROOT / "studies" / "infeasible-example.toml")
    done = autotune("tune", study, "--table", data=tmp_path, code=3)
    assert "ttft_ms" in done.stdout
    document = json.loads(autotune("tune", study, data=tmp_path, code=3).stdout)
    assert document["plans"][0]["violations"][0]["code"] == "ttft_ms"
    assert document["counts"]["feasible"] == 0


def test_output_folder(tmp_path: Path) -> None:
    """Result, table of plans and storage, and nothing temporary."""
    out = tmp_path / "out"
    autotune("tune", REFERENCE, "--out", str(out), data=tmp_path, code=0)
    names = {p.name for p in out.iterdir()}
    assert {"result.json", "plans.csv", "journal.log"} <= names
    assert not [n for n in names if n.startswith(".")]
    document = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert document["complete"]
    assert document["counts"]["valid"] == len(document["plans"])
    again = json.loads(autotune("tune", REFERENCE, "--out", str(out), data=tmp_path, code=0).stdout)
    assert again["scored_now"] == 0


@pytest.mark.parametrize("arguments", [["space", DEEPSEEK], ["model", "deepseek-v3"], ["catalog"], ["schema"]])
def test_json_in_a_pipe(arguments: list[str], tmp_path: Path) -> None:
    """Programs get JSON without asking."""
    document = json.loads(autotune(*arguments, data=tmp_path, code=0).stdout)
    if arguments[0] == "space":
        assert document["counts"]["valid"] == len(document["layouts"]) == 201
        assert {"plan", "replicas", "pp", "stage_layers", "attn_tp", "attn_dp", "attn_cp", "moe_tp", "moe_ep"} <= set(
            document["layouts"][0]
        )
    if arguments[0] == "model":
        assert {"total_params", "active_params", "kv_bytes_per_token"} <= set(document)


@pytest.mark.parametrize("name", ["tune", "space", "model", "catalog", "schema", "validate"])
def test_help_teaches(name: str, tmp_path: Path) -> None:
    """Each command says what it is for."""
    assert len(autotune(name, "--help", data=tmp_path, code=0).stdout) > 100


def test_help_is_immediate(tmp_path: Path) -> None:
    """The list of commands, which reads every definition, loads none of the libraries that commands work with."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "importtime", "-m", "autotune", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path)},
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "click" in loaded
    assert not loaded & {"numpy", "rich", "pydantic", "optuna", "jinja2", "costmodel"}
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


SLOW = """
import signal, time
from autotune.cli.main import main
from autotune.storage import Store
from autotune.tuning import batches
batches.BATCH_CANDIDATES = 8
add = Store.add
def add_slowly(self, records):
    added = add(self, records)
    time.sleep(1.0)
    return added
Store.add = add_slowly
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""A command that takes its time after every few plans, so that it can be interrupted between two of them.

A shell that starts the tests in the background has them ignore Ctrl-C, which is passed on: it is heard again."""


def test_interrupt(tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and a word, and the next run finishes the study without scoring what is stored again."""
    arguments = ["tune", DEEPSEEK, "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path)},
    )
    journal = tmp_path / "out" / "journal.log"
    while process.poll() is None and not (journal.exists() and b"plan_key" in journal.read_bytes()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert out == ""
    document = json.loads(autotune(*arguments, "--json", data=tmp_path, code=0).stdout)
    assert 0 < document["scored_now"] < document["counts"]["valid"]


def test_another_kind_of_system_is_told_and_nothing_more() -> None:
    """Windows has no POSIX locks: a sentence, exit code 2."""
    code = "import os; from autotune.cli import main; os.name = 'nt'; main.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
