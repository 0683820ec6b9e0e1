"""What scripts, lists of resources and Compose files say by variables: defaults, words of calls, ConfigMaps, `.env`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.launch.reading.compose import filled_in, variables_of_file
from autotune.launch.reading.functions import written_out
from autotune.launch.reading.import_plan import import_plan
from autotune.launch.reading.quotes import commands_of
from autotune.launch.reading.shell import read_script
from costmodel.errors import InputError

MODEL = "meta-llama/Llama-3.1-70B-Instruct"
SERVE = f"vllm serve {MODEL}"
IMAGE = "vllm/vllm-openai:v0.30.0"


def plan(text: str, tmp_path: Path, name: str = "start.sh", **given: str) -> tuple[int, str]:
    """GPUs and plan string of a source."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    found = import_plan(str(path), given=given)
    return found.gpus, found.plan


def tp(degree: int, servers: int = 1) -> tuple[int, str]:
    """Equal servers of so many GPUs each."""
    return degree * servers, f"vllm:R{servers}/PP1/ATP{degree}/ADP1/MTP1/EP1"


@pytest.mark.parametrize(
    ("script", "servers"),
    [
        (f"TP=${{TP_SIZE:=4}}\n{SERVE} --tensor-parallel-size $TP\n", tp(4)),
        (f': "${{TP_SIZE:=4}}"\n{SERVE} -tp ${{TP_SIZE}}\n', tp(4)),
        (f"TP=2\n: ${{TP=4}} ${{N:=8}}\n{SERVE} -tp $TP\n", tp(2)),
        (f"echo '${{TP:=4}}'\nTP=2\n{SERVE} -tp $TP\n", tp(2)),
        (f"TP=2; {SERVE} -tp $TP\n", tp(2)),
        (f"TP=${{1:-4}}\n{SERVE} -tp $TP\n", tp(4)),
        (f'launch() {{ local tp=$1; {SERVE} -tp "$tp"; }}; launch 4\n', tp(4)),
        (
            f"launch()\n{{\n  {SERVE} -tp ${{1}} &\n}}\nlaunch 4\nX=1 launch 4 &\nif ! launch 4; then exit; fi\n",
            tp(4, 3),
        ),
        (f"function f {{\n {SERVE} -tp ${{2:-4}}\n}}\nf a\n", tp(4)),
        (f'f() {{\n shift\n {SERVE} "$@"\n}}\nf x -tp 4\n', tp(4)),
        (f"g() {{\n {SERVE} -tp $1\n}}\nf() {{\n g $2\n}}\nf 1 4\n", tp(4)),
        (f"f() {{\n {SERVE} -tp $1 &\n}}\nfor i in 1 2; do f 4; done\n", tp(4, 2)),
        (f"f() {{\n {SERVE} -tp $1\n sleep 1\n f $1\n}}\nf 4\n", tp(4)),
        (f"f() {{\n {SERVE} -tp 4\n}}\ntrap f EXIT\n", tp(4)),
    ],
)
def test_variables_that_bash_sets(script: str, servers: tuple[int, str], tmp_path: Path) -> None:
    """Defaults that are assigned, and what functions are called with, are known without running anything."""
    assert plan(script, tmp_path) == servers


def test_each_call_has_its_own_words(tmp_path: Path) -> None:
    """Two calls with different words start two servers, each with what it was called with."""
    serve = f'{SERVE} -tp "$1" --disaggregation-mode'
    script = f"f() {{\n {serve}\n}}\nf 2\nf 4\n".replace(SERVE, f"python -m sglang.launch_server --model {MODEL}")
    script = script.replace("-tp", "--tp").replace("--disaggregation-mode", '--disaggregation-mode "$2"')
    script = script.replace("f 2\n", "f 2 prefill\n").replace("f 4\n", "f 4 decode\n")
    assert plan(script, tmp_path) == (6, "sglang:P2:R1/PP1/ATP2/ADP1/MTP1/EP1+D4:R1/PP1/ATP4/ADP1/MTP1/EP1")


def test_a_variable_in_quotes_is_that_of_its_line() -> None:
    """What is set later changes no line above; single quotes and unknown names keep what stands there."""
    script = 'A=1\nrun "$A" x$A \'$A\' "\\$A" "$B" ${C:?is not set}\nA=2\nB=\'"q"\'\nrun "$A$B"\n'
    first, second = (line.text for line in read_script(script, {}).lines)
    assert first == 'run "1" x1 \'$A\' "\\$A" "$B" ${C}'
    assert second == 'run "2\\"q\\""'


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("a; b & c", ["a", " b &", " c"]),
        ("a && b || c 2>&1 &> d", ["a && b || c 2>&1 &> d"]),
        ("a 'x; y' \"z & w\" \\; (u; v) &", ["a 'x; y' \"z & w\" \\; (u; v) &"]),
        ("for i in 1; do a; done", ["for i in 1; do a; done"]),
        ("x) a;;", ["x) a;;"]),
    ],
)
def test_commands_of_a_line(line: str, commands: list[str]) -> None:
    """A line is parted where a command ends; quotes, braces, loops and conditions stay whole."""
    assert commands_of(line) == commands


@pytest.mark.parametrize(
    "script",
    ["f() {\n" * 5_000, "f() {\n" * 5_000 + "}\n" * 5_000, "f() { a; }; " * 5_000, "f() {\nf; f\n}\nf\n"],
)
def test_functions_without_end_end(script: str) -> None:
    """Braces that are never closed, thousands within each other, and calls of itself."""
    assert len(written_out(script.split("\n"))) <= 5_001


def test_functions_that_multiply_are_refused() -> None:
    """Ten calls each, five deep, are a hundred thousand lines."""
    script = "".join(f"f{i}() {{\n" + f"f{i + 1}\n" * 10 + "}\n" for i in range(5))
    with pytest.raises(InputError, match="at most 50,000 lines"):
        written_out(f"{script}f0".split("\n"))


def test_words_of_a_script_are_given_by_number(tmp_path: Path) -> None:
    """What a script is called with is asked for as `--var 1=`, and taken so."""
    path = tmp_path / "start.sh"
    path.write_text(f"{SERVE} -tp $1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"--var 1: is required"):
        import_plan(str(path))
    done = CliRunner().invoke(cli, ["import", str(path), "--var", "1=4", "--table"], catch_exceptions=False)
    assert "4 GPUs" in done.output


def _deployment(*args: str, **container: Any) -> dict[str, Any]:
    server = {"name": "vllm", "image": IMAGE, "args": ["--model", MODEL, *args], **container}
    return {"kind": "Deployment", "spec": {"replicas": 2, "template": {"spec": {"containers": [server]}}}}


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(
    ("data", "deployment"),
    [
        ({"config.yaml": "tensor-parallel-size: 4\n"}, _deployment("--config", "/etc/vllm/config.yaml")),
        ({"TP": "4"}, _deployment("-tp", "$(TP)", envFrom=[{"configMapRef": {"name": "x"}}])),
    ],
)
def test_a_list_of_resources_is_its_documents(
    as_list: bool, data: dict[str, str], deployment: dict[str, Any], tmp_path: Path
) -> None:
    """ConfigMaps in what `kubectl get cm,deploy -o yaml` prints are those of documents one by one."""
    documents = [{"kind": "ConfigMap", "metadata": {"name": "x"}, "data": data}, deployment]
    text = yaml.safe_dump({"kind": "List", "items": documents}) if as_list else yaml.safe_dump_all(documents)
    assert plan(text, tmp_path, "all.yaml") == tp(4, 2)


COMPOSE = f"""
services:
  llm:
    image: vllm/vllm-openai:${{TAG}}
    command: --model {MODEL} -tp ${{TP}} --port ${{PORT:-8000}}
    environment: {{TP: 1}}
    deploy: {{replicas: "${{N}}"}}
"""


def test_compose_takes_variables_of_its_file(tmp_path: Path) -> None:
    """`.env` beside the file fills it in, numbers included, which is said; what is given goes before it."""
    (tmp_path / ".env").write_text("# servers\nTAG=v0.30.0\nTP=4 # each\nexport N='2'\nHF_TOKEN\n", encoding="utf-8")
    assert plan(COMPOSE, tmp_path, "compose.yaml") == tp(4, 2)
    assert plan(COMPOSE, tmp_path, "compose.yaml", TP="8") == tp(8, 2)
    said = [text for text in import_plan(str(tmp_path / "compose.yaml")).assumptions if ".env" in text]
    assert len(said) == 1
    assert said[0].startswith("N, TAG, TP of")


def test_a_file_of_variables_beside_no_compose_file_is_left_alone(tmp_path: Path) -> None:
    """Scripts do not read `.env` by themselves."""
    (tmp_path / ".env").write_text("TP=4\n", encoding="utf-8")
    with pytest.raises(InputError, match="--var TP: is required"):
        plan(f"{SERVE} -tp $TP\n", tmp_path)


def test_values_of_variables() -> None:
    """Quotes, comments, variables before them; every line that is none is named."""
    text = "A=1\nB=\"${A}2 # x\"\nC='${A}'\nD=$A$X # y\nE=\n"
    assert variables_of_file(text, ".env", {"X": "9"}) == {"A": "1", "B": "12 # x", "C": "${A}", "D": "19", "E": ""}
    with pytest.raises(InputError, match=r"\.env:2: must read NAME=VALUE(.|\n)*\.env:3: "):
        variables_of_file("A=1\n=2\n- x: y z\n", ".env", {})


def test_dollar_signs_of_the_container_stay() -> None:
    """Compose takes `$$` for a dollar sign, which the container's shell reads; aliases may hold themselves."""
    looped: list[Any] = ["$A$$A"]
    looped.append(looped)
    filled = filled_in({"x": looped, "n": "$A", "t": "v$A"}, {"A": "4"})
    assert filled["x"][0] == "4$$A"
    assert filled["x"][1] is filled["x"]
    assert (filled["n"], filled["t"]) == (4, "v4")
