"""Launch files of plans whose front sends some prompts straight to the decode pool, and how they are read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from autotune.launch.reading.front import setting_of_front
from autotune.launch.reading.import_plan import import_plan
from tests.command import autotune
from tests.launch.manifests import check, documents
from tests.studies import FOLDER

STUDY = FOLDER / "llama-70b-16xh100.toml"
PLAN = "P8:TP8+D8:R2/TP4"
VARIABLE = "- name: DYN_ROUTER_CONDITIONAL_DISAGG"
TOKENS = 600


def export(out: Path, target: str, engine: str, *settings: str) -> str:
    """Write the files of the plan; what went wrong, empty if nothing did."""
    asked = (f"engine={engine}", "workload.request_rate_per_s=1", "workload.isl={min=100,max=4000}", *settings)
    words = [word for text in asked for word in ("--set", text)]
    found = autotune(
        "export", str(STUDY), *words, "--set", f"disaggregation.max_local_prefill_tokens=[{TOKENS}]",
        "--plan", PLAN, "--target", target, "--out", str(out), "--json",
    )  # fmt: skip
    return "" if found.returncode == 0 else found.stderr


CACHED = "workload.prefix_cache_hit_frac=0.3"


@pytest.mark.parametrize(
    ("target", "engine", "settings"),
    [
        ("dynamo", "vllm", (CACHED,)),
        ("dynamo", "trtllm", (CACHED,)),
        ("trtllm", "trtllm", (CACHED,)),
        ("llm-d", "vllm", ()),
        ("disaggregatedset", "vllm", ()),
    ],
)
def test_a_front_is_told_and_read_back(tmp_path: Path, target: str, engine: str, settings: tuple[str, ...]) -> None:
    """Each kind of front has the setting in its own words, and importing the folder finds it again."""
    out = tmp_path / "out"
    assert not export(out, target, engine, *settings)
    found = import_plan(str(out))
    assert found.max_local_prefill_tokens == TOKENS
    assert found.baseline().max_local_prefill_tokens == TOKENS
    assert "600 tokens to compute" in (out / "README.md").read_text(encoding="utf-8").replace(",", "")


def test_dynamos_router_is_told_and_its_workers_tell_it(tmp_path: Path) -> None:
    """Prompts below a threshold that is one more skip the prefill pool, whatever share of them is computed."""
    assert not export(tmp_path / "out", "dynamo", "vllm", CACHED)
    graph = documents((tmp_path / "out" / "dynamographdeployment.yaml").read_text(encoding="utf-8"))[-1]
    check(graph)
    front, *workers = graph["spec"]["components"]
    env = {e["name"]: e.get("value") for e in front["podTemplate"]["spec"]["containers"][0]["env"]}
    assert env["DYN_ROUTER_MODE"] == "kv"
    assert env["DYN_ROUTER_CONDITIONAL_DISAGG"] == "true"
    config = json.loads(str(env["DYN_ROUTER_CONDITIONAL_DISAGG_CONFIG"]))
    assert config == {"policy": "isl_bounding", "eff_isl_threshold": TOKENS + 1, "eff_isl_ratio_threshold": 1.0}
    for worker in workers:
        args = worker["podTemplate"]["spec"]["containers"][0]["args"]
        assert json.loads(args[args.index("--kv-events-config") + 1])["enable_kv_cache_events"] is True


def test_tensorrt_llms_servers_say_what_they_have_cached(tmp_path: Path) -> None:
    """Its front asks a router that knows caches, of servers that decode and keep events."""
    assert not export(tmp_path / "out", "trtllm", "trtllm", CACHED)
    front = (tmp_path / "out" / "front.sh").read_text(encoding="utf-8")
    told = yaml.safe_load(front.partition("<<FRONT\n")[2].partition("\nFRONT\n")[0])
    assert told["generation_servers"]["router"] == {"type": "kv_cache_aware"}
    assert told["conditional_disagg_config"] == {"max_local_prefill_length": TOKENS}
    held = {p.name.partition("-")[0]: yaml.safe_load(p.read_text()) for p in (tmp_path / "out").glob("*.y*ml")}
    assert held["decode"]["kv_cache_config"]["event_buffer_max_size"] > 0
    assert "event_buffer_max_size" not in held["prefill"]["kv_cache_config"]


@pytest.mark.parametrize(("target", "also"), [("vllm", "dynamo"), ("dynamo", "llm-d")])
def test_a_front_that_cannot_is_refused(tmp_path: Path, target: str, also: str) -> None:
    """vLLM's toy proxy never does, Dynamo's router not with uncached prompts; one line says who can."""
    said = export(tmp_path / "out", target, "vllm", *([CACHED] if target == "vllm" else []))
    assert said.startswith("error: --target: local_prefill: ")
    assert also in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("python3 -m dynamo.frontend --router-mode kv --router-conditional-disagg", 2047),
        ("--router-conditional-disagg --router-conditional-disagg-eff-isl-threshold 513", 512),
        ('--router-conditional-disagg-config \'{"policy":"isl_bounding","eff_isl_threshold":4096}\'', 4095),
        (f'{VARIABLE}\n  value: "true"\n{VARIABLE}_EFF_ISL_THRESHOLD\n  value: "129"', 128),
        (f'{VARIABLE}\n  value: "false"\n{VARIABLE}_EFF_ISL_THRESHOLD\n  value: "129"', None),
        ("export DYN_ROUTER_CONDITIONAL_DISAGG=0", None),
        ("python3 -m dynamo.frontend --no-router-conditional-disagg", None),
        ("# --router-conditional-disagg is off\nnonCachedTokens: 32 # nonCachedTokens: 16", 31),
        ("  # nonCachedTokens: 16", None),
        ("conditional_disagg_config:\n  max_local_prefill_length: 100\n", 100),
        ("- type: prefix-based-pd-decider\n  parameters:\n    nonCachedTokens: 16\n", 15),
        ("python3 -m dynamo.frontend --router-mode kv", None),
    ],
)
def test_settings_in_others_words(text: str, tokens: int | None) -> None:
    """As Dynamo, TensorRT-LLM and llm-d have it in their guides."""
    assert setting_of_front([text]) == tokens


def test_the_next_command_is_one_that_can() -> None:
    """`evaluate` suggests a target whose front sends such prompts to the decode pool."""
    found = autotune(
        "evaluate", str(STUDY), "--plan", PLAN, "--set", "engine=vllm", "--set", "workload.request_rate_per_s=1",
        "--set", "workload.isl={min=100,max=4000}",
        "--set", f"disaggregation.max_local_prefill_tokens=[{TOKENS}]", "--json",
    )  # fmt: skip
    document = json.loads(found.stdout)
    assert document["export_refuses"] == ""
    assert any("--target disaggregatedset" in line for line in document["next"])
    assert document["max_local_prefill_tokens"] == TOKENS
    assert document["pools"]["decode"]["prompts_frac"] == pytest.approx(500 / 3900, abs=0.01)
    assert "prompts prefilled by the decode pool" in document["never_measured"]
