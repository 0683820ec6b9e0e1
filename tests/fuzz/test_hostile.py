"""What the fuzzers cannot reach: pipes, devices, names on a terminal, sizes."""

from __future__ import annotations

import io
import json
import os
import re
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.report.terminal import Terminal
from autotune.retuning import entry as entries
from autotune.retuning.ledger import LEDGER_NAME, read_ledger
from autotune.retuning.state import CURRENT_NAME, open_state
from autotune.study import load_study
from costmodel.errors import InputError, Problem, visible
from costmodel.files import read_file
from tests.fuzz.readers import CONFIGS, READERS
from tests.retuning.helpers import decide_once, decision
from tests.storage.helpers import store_at
from tests.studies import FOLDER

FILES = [
    name
    for name, reader in READERS.items()
    if name not in ("settings", "plan", "command", "script", "manifest", "python")
]
STUDY = FOLDER / "llama-70b-16xh100.toml"


@pytest.mark.parametrize("name", [n for n in FILES if n != "current"])
def test_a_pipe_that_nobody_writes_to(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reader of files says so instead of waiting."""
    monkeypatch.setattr("costmodel.files.PIPE_WAIT_S", 0.05)
    reader = READERS[name]
    pipe = tmp_path / (reader.suffix if "." in reader.suffix[1:] else f"pipe{reader.suffix}")
    os.mkfifo(pipe)
    with pytest.raises(InputError, match=r"is a pipe, and nothing came from it within 0\.05 s"):
        reader.read(pipe)


def test_a_pipe_that_is_written_to(tmp_path: Path) -> None:
    """A pipe with a writer is a file like any other."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"content",))
    writer.start()
    assert read_file(pipe, 100) == b"content"
    writer.join()


def test_files_without_an_end() -> None:
    """What says it is empty and never ends is read as far as allowed."""
    with pytest.raises(InputError, match="must be at most 1,000 bytes"):
        read_file(Path("/dev/zero"), 1_000)


@pytest.mark.parametrize("name", ["journal.log", "runs.db"])
def test_a_pipe_is_no_storage(name: str, tmp_path: Path) -> None:
    """A storage is a regular file."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="it is no regular file"):
        store_at(tmp_path / name)


def test_names_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model's name sends no sequence to the terminal and is no markup of the table."""
    config = json.loads((CONFIGS / "meta-llama--Meta-Llama-3.1-70B.json").read_text(encoding="utf-8"))
    config["_name_or_path"] = "\x1b[2J[/bold]\x9b31m\u202e[red]x"
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    cli(["model", str(file), "--table"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "\\x1b[2J[/bold]\\x9b31m\\u202e[red]x" in said
    assert said == visible(said)


def test_errors_on_a_terminal() -> None:
    """A message shows control characters as their escapes, and text of any script as it is."""
    assert str(Problem(path="a\x1b[1m", message="b\u202ec\x00 模型 ünï")) == "a\\x1b[1m: b\\u202ec\\x00 模型 ünï"


def test_cells_of_a_table() -> None:
    """Titles and cells go the same way."""
    file = io.StringIO()
    Terminal(file=file, width=80).print("one\x1b[2Jtwo")
    assert file.getvalue() == "one\\x1b[2Jtwo\n"


@pytest.mark.parametrize("name", ["a\x7fb", "a\x9b31m", "a/b", "../a", "a\\b", "a\nb"])
def test_names_of_studies(name: str) -> None:
    """No control characters, no slashes: a study's name becomes part of a storage and of file names."""
    with pytest.raises(InputError, match=r"\$\.name: must hold neither slashes nor control characters"):
        load_study(STUDY, [f"name={json.dumps(name)}"])


def test_sizes_are_bounded(tmp_path: Path) -> None:
    """A study of a billion GPUs or a million layers is refused with the limit named."""
    with pytest.raises(InputError, match=r"\$\.cluster\.gpus: must be at most 1,000,000, got 1000000000"):
        load_study(STUDY, ["cluster.gpus=1000000000"])
    config = json.loads((CONFIGS / "meta-llama--Meta-Llama-3.1-70B.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 10**6}), encoding="utf-8")
    with pytest.raises(InputError, match=r"num_hidden_layers: must lie between 1 and 10000, got 1000000"):
        load_study(STUDY, [f"model={tmp_path / 'config.json'}"])


def _deep(kind: str) -> str:
    """A study that nests far deeper than any table does."""
    return {
        "dotted key": "a" + ".a" * 20_000 + " = 1",
        "dotted key in a table": "x = {" + "a." * 500 + "a = 1}",
        "tables": "x = " + "{a = " * 600 + "1" + "}" * 600,
        "JSON": '{"a":' * 600 + "1" + "}" * 600,
    }[kind]


@pytest.mark.parametrize("kind", ["dotted key", "dotted key in a table", "tables", "JSON"])
def test_a_deep_study_is_an_error(kind: str, tmp_path: Path) -> None:
    """No recursion without end, and no memory by the square of the depth."""
    path = tmp_path / f"study.{'json' if kind == 'JSON' else 'toml'}"
    path.write_text(_deep(kind))
    with pytest.raises(InputError, match="nested too deeply"):
        load_study(path)


def test_a_name_that_is_too_long_for_a_file_is_no_model() -> None:
    """Of five thousand characters, with and without the ending of a file."""
    for name in ("x" * 5000, "x" * 5000 + ".json"):
        done = CliRunner().invoke(cli, ["model", name])
        assert isinstance(done.exception, InputError)
        assert len(str(done.exception)) < 3_000


def test_messages_are_bounded() -> None:
    """A value of a megabyte is not echoed, and ten thousand problems are not listed."""
    problem = Problem(path="$." + "p" * 5_000, message="m" * 1_000_000)
    many = InputError([problem] * 10_000)
    assert len(str(many)) < 300_000
    assert len(many.problems) == 10_000
    assert str(many).endswith("and 9,900 more problems of this kind")


HEAD = '{"schema":1,"kind":"decision","id":"a","decision":"switch","rule":"gain"'


@pytest.mark.parametrize(
    "line",
    [
        HEAD + "}",
        HEAD + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}",
        HEAD + ',"at":"t","at_s":1e999}',
        HEAD + ',"at":"t","at_s":1.0,"reason":"","inputs":{},"drift":{},"figures":{},"profile":{}}',
        HEAD.replace("decision", "applied", 1) + ',"at":"t","at_s":1.0,"from":{"plan":"a"},"to":{"plan":1}}',
        HEAD.replace("decision", "applied", 1)
        + ',"at":"t","at_s":1.0,"from":{"plan":"a"},"to":{"plan":"a","engine":"zzz","knobs":null}}',
    ],
    ids=range(6),
)
@pytest.mark.parametrize("command", ["history", "accept", "run"])
def test_a_crafted_ledger_ends_in_a_message(line: str, command: str, tmp_path: Path) -> None:
    """Good beginnings with anything behind them; what is wrong is told in few words."""
    (tmp_path / "ledger.jsonl").write_bytes(line.encode("latin-1") + b"\n")
    log = tmp_path / "log.csv"
    log.write_text("timestamp,prompt_tokens,completion_tokens\n" + "".join(f"{1.5e9 + k},9,9\n" for k in range(50)))
    words = [str(STUDY), "--traffic", str(log)] if command == "run" else [command]
    done = CliRunner().invoke(cli, ["retune", *words, "--state", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert len(str(done.exception)) < 3_000


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("candidate", "knobs", "kv_dtype"), "zzz", "candidate.kv_dtype: Input should be"),
        (("candidate", "knobs", "max_num_batched_tokens"), "8k", "candidate.max_num_batched_tokens: "),
        (("current", "plan"), "\ud800", "must be a line of JSON, got 'utf-8' codec"),
        (("figures", "net_gain_frac"), [], "figures.net_gain_frac: Input should be a valid number"),
        (("at_s",), 1e308, "at_s: Input should be less than"),
        ((), ',"rule":"other"}', "must have each field once"),
    ],
)
def test_an_entry_with_a_field_of_another_kind_names_it(
    place: tuple[str, ...], value: object, said: str, tmp_path: Path
) -> None:
    """What every reader of the ledger relies on is looked at when an entry is read."""
    entry = {**dict.fromkeys(entries.HEAD), **decision(1)}
    inner = entry
    for name in place[:-1]:
        inner = inner[name]
    if place:
        inner[place[-1]] = value
    text = json.dumps(entry, separators=(",", ":"))
    (tmp_path / LEDGER_NAME).write_text((text if place else f"{text[:-1]}{value}") + "\n")
    with pytest.raises(InputError, match=re.escape(said)):
        _ = read_ledger(tmp_path).entries


def test_current_json_with_half_a_character_is_written_again(tmp_path: Path) -> None:
    """What the ledger could not hold is not taken for a plan that was put there by hand."""
    decide_once(tmp_path, 1)
    (tmp_path / CURRENT_NAME).write_text('{"plan": "TP1", "engine": null, "knobs": {"x": "\\ud800"}}')
    assert not open_state(tmp_path).noticed
