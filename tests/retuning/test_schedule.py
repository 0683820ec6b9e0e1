"""Units that run `retune`: valid, quoted, and a loop that stops cleanly."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.retuning.scheduler_units import cron_fields, cron_line, job, kubernetes_manifest, systemd_units
from costmodel.errors import InputError
from tests.hostile import NAMES

ROOT = Path(__file__).resolve().parents[2]
STUDY = str(ROOT / "studies" / "llama-70b-16xh100.toml")
HOSTILE = "re q%'s $(touch x) \"a\\b.csv"


def made(word: str = HOSTILE):
    """A job with an argument that wants quoting everywhere."""
    command = ("autotune", "retune", "study.toml", "--traffic", word)
    return job(name="retune", command=command, every_s=3600, image="a/b:1", volume_claim="v", mount="/data")


@pytest.mark.parametrize(
    ("every_s", "fields"),
    [(60, "*/1 * * * *"), (900, "*/15 * * * *"), (3600, "0 * * * *"), (21600, "0 */6 * * *"), (86400, "0 0 * * *")],
)
def test_intervals_as_cron_says_them(every_s: int, fields: str) -> None:
    """Parts of an hour and of a day."""
    assert cron_fields(every_s) == fields


@pytest.mark.parametrize("every", ["30", "30s", "0.5s", "7m", "420", "5h", "2d"])
def test_intervals_that_cron_cannot_say(every: str) -> None:
    """What does not divide an hour or a day evenly is refused, not rounded, and told as it was given."""
    with pytest.raises(InputError, match=f"--every: must be .* evenly, got {every}$"):
        CliRunner().invoke(cli, ["schedule", STUDY, "--every", every, "--emit", "cron"], catch_exceptions=False)


@pytest.mark.parametrize("word", [HOSTILE, *(n for n in NAMES if n.isprintable())])
def test_cron_quotes(word: str) -> None:
    """The shell gets the words as they were; a bare % would end the line for cron."""
    line = cron_line(made(word=word))
    assert line.count("\n") == 1
    assert "%" not in line.replace("\\%", "")
    command = line.split(" ", 5)[5].replace("\\%", "%").replace("autotune", "printf %s\\\\0", 1)
    assert shlex.split(line.split(" ", 5)[5].replace("\\%", "%"))[-1] == word
    said = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert said.split("\0")[:-1] == ["retune", "study.toml", "--traffic", word]


def test_systemd_quotes() -> None:
    """Specifiers, variables, quotes and backslashes are escaped."""
    text = systemd_units(made())
    assert '"re q%%\'s $$(touch x) \\"a\\\\b.csv"' in text
    assert "OnUnitActiveSec=3600" in text


@pytest.mark.parametrize("word", [HOSTILE, *(n for n in NAMES if n.isprintable())])
def test_the_manifest_is_valid(word: str) -> None:
    """Against the API's schema; it never runs twice at once, and the hostile word is one argument."""
    manifest = yaml.safe_load(kubernetes_manifest(made(word=word)))
    kubernetes_validate.validate(manifest, "1.30", strict=True)
    assert manifest["spec"]["concurrencyPolicy"] == "Forbid"
    (container,) = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == word


@pytest.mark.parametrize("word", ["a\nb", "a\0b", *(n for n in NAMES if set(n) & set("\t\r\n\x7f"))])
def test_control_characters_are_refused(word: str) -> None:
    """A newline would begin another line of the unit."""
    with pytest.raises(InputError, match="no control characters"):
        made(word=word)


@pytest.mark.parametrize("target", ["systemd", "cron", "k8s"])
def test_the_command(target: str) -> None:
    """All targets name the study; what is not given is assumed aloud."""
    found = CliRunner().invoke(cli, ["schedule", STUDY, "--every", "1h", "--emit", target], catch_exceptions=False)
    assert found.exit_code == 0
    assert STUDY in found.stdout
    assert "--traffic not given: traffic.csv" in found.stderr


@pytest.mark.parametrize("target", ["systemd", "cron"])
def test_files_that_are_not_there(tmp_path: Path, target: str) -> None:
    """Where it would run on this machine, a study that lacks is an error and traffic that lacks is said."""
    missing = str(tmp_path / "no.toml")
    with pytest.raises(InputError, match=f"there is no {missing}"):
        CliRunner().invoke(cli, ["schedule", missing, "--emit", target], catch_exceptions=False)
    traffic = ["--traffic", str(tmp_path / "no.csv")]
    found = CliRunner().invoke(cli, ["schedule", STUDY, *traffic, "--emit", target])
    assert found.exit_code == 0
    assert f"--traffic {traffic[1]} is not there" in found.stderr
    assert CliRunner().invoke(cli, ["schedule", missing, *traffic, "--emit", "k8s"]).exit_code == 0


def test_what_retune_is_told_is_passed_on() -> None:
    """Options that say how to read traffic, and what runs today, are those of each run; what is not given is not."""
    words = [
        "--time-unit", "ms", "--match", "model=a", "--match", "route=b", "--max-bad", "0.1", "--min-cover", "0.2",
        "--block-tokens", "16", "--set", "constraints.ttft_ms=800", "--approximate", "--current", "vllm serve x",
        "--var", "TP=8",
    ]  # fmt: skip
    command = ["schedule", STUDY, "--traffic", "log.csv", "--state", "state", "--emit", "cron"]
    plain, told = (
        CliRunner().invoke(cli, given, catch_exceptions=False).stdout for given in (command, command + words)
    )
    line = told.replace("\\%", "%")
    before, after = shlex.split(plain), shlex.split(line)
    assert before == after[: len(before)]
    assert sorted(after[len(before) :]) == sorted(words)
    assert CliRunner().invoke(cli, [*command, "--time-unit", "weeks"]).exit_code == 2


def test_the_loop_stops_on_sigterm(tmp_path: Path) -> None:
    """A run at once, another after the interval; SIGTERM ends it with exit code 0 and no traceback."""
    log = tmp_path / "requests.csv"
    rows = [f"{1700000000 + 10 * i},{100 + i % 7},{50 + i % 5}" for i in range(400)]
    log.write_text("\n".join(["timestamp,input_tokens,output_tokens", *rows]) + "\n", encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "autotune", "schedule", STUDY, "--traffic", str(log), "--state", str(tmp_path / "state"),
         "--every", "1s", "--window", "1h", "--loop"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    ledger = tmp_path / "state" / "ledger.jsonl"
    for _ in range(300):
        if ledger.exists() and ledger.read_text(encoding="utf-8"):
            break
        time.sleep(0.1)
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert [line.split()[1] for line in out.splitlines() if "decided on before" not in line] == ["keep:"]
    assert len(ledger.read_text(encoding="utf-8").splitlines()) == 1


def test_a_file_in_a_setting_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cron starts in another folder: a model's config.json is given by its absolute path, a name as it stands."""
    monkeypatch.chdir(tmp_path)
    for file in ("own.json", "s.toml"):
        (tmp_path / file).write_text("{}", encoding="utf-8")
    for value, wanted in (("own.json", str(tmp_path / "own.json")), ("llama-3.1-8b", "llama-3.1-8b")):
        command = [
            "schedule",
            "s.toml",
            "--traffic",
            "t.csv",
            "--state",
            "s",
            "--emit",
            "cron",
            "--set",
            f"model={value}",
        ]
        line = CliRunner().invoke(cli, command, catch_exceptions=False).stdout
        assert f"--set model={wanted}" in line
