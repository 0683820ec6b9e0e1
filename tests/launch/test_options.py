"""Options are those of the version: what does not exist there, or means something else, is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotune.engines import ENGINES
from autotune.engines.command_line import CommandLine
from autotune.engines.options import choose_version, option_list
from costmodel.arch import load_model
from costmodel.errors import InputError
from tests.launch.helpers import launched, plans, service


def test_known_facts_of_the_lists():
    """Defaults and spellings as the engines' own documentation has them."""
    vllm = option_list("vllm", "0.33.0")
    assert vllm.options["gpu_memory_utilization"].default == 0.92
    assert vllm.find("-tp") is vllm.find("--tensor_parallel_size") is vllm.options["tensor_parallel_size"]
    assert vllm.options["enable_expert_parallel"].off == ("--disable-expert-parallel",)
    assert option_list("vllm", "0.24.0").options["enable_expert_parallel"].off == ("--no-enable-expert-parallel",)
    assert vllm.default("max_num_batched_tokens", gpu_gib=80) == 8192
    assert vllm.default("max_num_batched_tokens", gpu_gib=180) == 16384
    assert vllm.default("max_num_batched_tokens", gpu_gib=80, gpu_name="a100_80_sxm") == 2048
    assert vllm.default("max_num_seqs", gpu_gib=80, gpu_name="a100_80_sxm") == 256
    assert vllm.default("max_num_batched_tokens", gpu_gib=180, backend="deepep_low_latency") == 256
    sglang = option_list("sglang", "0.5.23")
    assert sglang.find("--tensor-parallel-size") is sglang.options["tp_size"]
    assert sglang.options["enable_dp_attention"].deprecated
    assert not option_list("sglang", "0.5.9").options["enable_dp_attention"].deprecated


def test_an_option_that_does_not_exist_is_named():
    """0.5.9 has no --attn-dp-size: adding it fails, with engine and version."""
    line = CommandLine(option_list("sglang", "0.5.9"))
    with pytest.raises(InputError, match=r"sglang 0\.5\.9 has no option `attn_dp_size`"):
        line.value("attn_dp_size", 8)


def test_an_option_that_changed_its_meaning_is_named():
    """--dp-size counts attention groups in 0.5.9 with a flag, and servers in 0.5.23: never taken for each other."""
    with pytest.raises(InputError, match=r"--dp-size of sglang 0\.5\.23 means replicas, not attention_dp_if_enabled"):
        CommandLine(option_list("sglang", "0.5.23")).value("dp_size", 8, meaning="attention_dp_if_enabled")
    with pytest.raises(
        InputError, match=r"--tensor-parallel-size of vllm 0\.33\.0 means attention_tp, not stage_width"
    ):
        CommandLine(option_list("vllm", "0.33.0")).value("tensor_parallel_size", 8, meaning="stage_width")


def test_memory_fractions_are_of_different_things():
    """vLLM's and SGLang's are of total memory, TensorRT-LLM's of free memory: never one for the other."""
    with pytest.raises(InputError, match="means of_free, not of_total"):
        CommandLine(option_list("trtllm", "1.2.1")).value("free_gpu_memory_fraction", 0.9, meaning="of_total")


def test_a_deprecated_option_is_refused():
    """--enable-dp-attention is deprecated in 0.5.22 and not written for it."""
    with pytest.raises(InputError, match=r"sglang 0\.5\.22 deprecates --enable-dp-attention"):
        CommandLine(option_list("sglang", "0.5.22")).flag("enable_dp_attention")


def test_a_choice_outside_the_list_is_refused():
    """A backend that the version does not offer is an error with those it does."""
    with pytest.raises(InputError, match=r"--all2all-backend of vllm 0\.33\.0 must be one of allgather_reducescatter"):
        CommandLine(option_list("vllm", "0.33.0")).value("all2all_backend", "carrier-pigeon")


def test_versions_between_are_checked_against_the_older_one():
    """0.30.1 takes the list of 0.29.0 and says so; older than all, and nonsense, are errors."""
    options, said = choose_version("vllm", "0.30.1")
    assert options.version == "0.29.0"
    assert "0.29.0" in said[0]
    assert choose_version("vllm", "0.33.0") == (option_list("vllm", "0.33.0"), ())
    for bad in ("0.1.0", "latest", "", "../x"):
        with pytest.raises(InputError, match=r"must be vllm 0\.24\.0 or newer"):
            choose_version("vllm", bad)


def test_what_an_engine_cannot_store_is_an_error():
    """A cache or weights in a dtype without an option: an error that names the rule."""
    with pytest.raises(InputError, match="kv_dtype_support: trtllm keeps a KV cache in fp8, nvfp4, got int8"):
        ENGINES["trtllm"].kv_name("int8")
    made = service(plans("llama-3.1-70b", "vllm", 8)[0], load_model("llama-3.1-70b"))
    made = replace(made, knobs=replace(made.knobs, weight_dtype="nvfp4"))
    with pytest.raises(InputError, match="weight_dtype_support: vllm makes fp8 of a checkpoint"):
        ENGINES["vllm"].weight_name(made)
    assert ENGINES["vllm"].weight_name(replace(made, model_given=True)) is None


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("model", "own"),
    [("llama-3.1-8b", "bf16"), ("deepseek-v3", "fp8_block"), ("gpt-oss-120b", "mxfp4"), ("kimi-k2.5", "int4")],
)
def test_the_checkpoints_own_dtype_needs_no_option(engine, model, own):
    """A plan in the dtype that the checkpoint is stored in starts as one that names none."""
    made = service(plans(model, engine, 16)[0], load_model(model))
    asked = replace(made, knobs=replace(made.knobs, weight_dtype=own))
    assert launched(asked).processes == launched(made).processes


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("model", "other"),
    [("gpt-oss-120b", "fp8"), ("kimi-k2.5", "fp8"), ("deepseek-v3", "mxfp4"), ("gpt-oss-120b", "bf16")],
)
def test_a_quantised_checkpoint_is_not_quantised_otherwise(engine, model, other):
    """Weights in a dtype that no engine makes of a checkpoint that is quantised already are refused by name."""
    made = service(plans(model, engine, 16)[0], load_model(model))
    with pytest.raises(InputError, match="weight_dtype_support"):
        launched(replace(made, knobs=replace(made.knobs, weight_dtype=other)))


def test_a_plan_against_the_engines_rules_is_refused_by_name():
    """A layout of SGLang under vLLM: the rule's name and values."""
    arch = load_model("deepseek-v3")
    mixed = next(c for c in plans("deepseek-v3", "sglang", 16) if c.layout.moe_tp == 2 and c.layout.moe_ep == 8)
    with pytest.raises(InputError, match="moe_tp_or_ep: vLLM's expert parallelism is on or off"):
        launched(service(mixed, arch, engine="vllm", version="0.33.0"))


def test_replicas_that_would_share_nodes_unevenly_are_refused():
    """Replicas of 3 GPUs on nodes of 8 have no command: `whole_nodes`."""
    arch = load_model("qwen3-235b")
    odd = next(c for c in plans("qwen3-235b", "vllm", 24) if c.layout.pp * c.layout.width == 3)
    with pytest.raises(InputError, match=r"whole_nodes: a replica must fit a node .*got 3 GPUs per replica"):
        launched(service(odd, arch))


def test_kv_and_weight_dtypes_stand_in_the_command():
    """fp8 cache and weights made at load time, in each engine's own words."""
    arch = load_model("llama-3.1-70b")
    for engine, said in (("vllm", "fp8"), ("sglang", "fp8_e4m3")):
        candidate = plans("llama-3.1-70b", engine, 8)[0]
        made = service(candidate, arch)
        knobs = type(made.knobs)(
            concurrency=8, max_num_batched_tokens=2048, max_num_seqs=8, weight_dtype="fp8", kv_dtype="fp8"
        )
        argv = launched(service(candidate, arch, knobs=knobs)).processes[0].argv
        assert argv[argv.index("--kv-cache-dtype") + 1] == said
        assert argv[argv.index("--quantization") + 1] == "fp8"
