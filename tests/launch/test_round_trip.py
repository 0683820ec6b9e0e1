"""What is written is read back as the plan it was written from: every valid plan, every engine and version."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.engines import ENGINES
from autotune.engines.options import versions
from autotune.files import OutFile
from autotune.launch.targets.scripts import script_files
from costmodel.arch import load_model
from costmodel.errors import InputError
from costmodel.plan.layout import LAYOUT_AXES, Layout
from tests.launch.helpers import LIMITS, MODELS, expressible, launched, plans, read_back, service


@settings(max_examples=40, deadline=None)
@given(
    engine=st.sampled_from(sorted(ENGINES)),
    model=st.sampled_from(MODELS),
    gpus=st.sampled_from([1, 2, 3, 6, 8, 12, 16, 24, 32, 48, 72, 96]),
    per_node=st.sampled_from([1, 4, 6, 8]),
    data=st.data(),
)
def test_any_plan_on_any_nodes_and_version(engine, model, gpus, per_node, data, tmp_path_factory):
    """Odd GPU counts, nodes and engine versions, uneven stages too: read back the same, or refused by a named rule."""
    arch = load_model(model)
    version = data.draw(st.sampled_from(ENGINES[engine].versions()))
    found = plans(model, engine, gpus, version)
    if not found:
        return
    candidate = data.draw(st.sampled_from(found))
    made = service(candidate, arch, per_node=per_node, version=version)
    plan = expressible(made)
    if plan is not None:
        read, _ = read_back(plan, tmp_path_factory.mktemp("launch"), arch)
        assert read == candidate.layout


def test_uneven_stages_are_always_written_out():
    """61 layers over two stages: the partition stands in the environment, as the engine would choose it or not."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", "vllm", 32) if c.layout.pp == 2)
    plan = launched(service(base, arch))
    assert {p.env["VLLM_PP_LAYER_PARTITION"] for p in plan.processes} == {"31,30"}


@pytest.mark.parametrize("version", versions("vllm"))
def test_redundant_experts_and_decode_context_read_back(version, tmp_path):
    """EPLB's redundant experts and decode context parallelism survive the round trip in both versions of vLLM."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", "vllm", 16) if c.layout.moe_ep == 16 and c.layout.attn_tp == 4)
    layout = Layout(
        **{name: getattr(base.layout, name) for name in LAYOUT_AXES} | {"redundant_experts": 32, "dcp": 2},
        stage_layers=base.layout.stage_layers,
    )
    plan = launched(service(base, arch, layout=layout, version=version))
    read, _ = read_back(plan, tmp_path, arch)
    assert read == layout


def test_redundant_experts_of_the_others_read_back(tmp_path):
    """SGLang's option and TensorRT-LLM's slots give the same redundant experts."""
    arch = load_model("deepseek-v3")
    for engine in ("sglang", "trtllm"):
        base = next(c for c in plans("deepseek-v3", engine, 16) if c.layout.moe_ep == 16)
        layout = Layout(
            **{name: getattr(base.layout, name) for name in LAYOUT_AXES} | {"redundant_experts": 16},
            stage_layers=base.layout.stage_layers,
        )
        read, _ = read_back(launched(service(base, arch, layout=layout)), tmp_path, arch)
        assert read == layout


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("tokens", [512, 8192])
def test_two_batch_overlap_reads_back(engine, tokens, tmp_path):
    """The overlap stands in the command with an all-to-all that takes the step's tokens, and reads back."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", engine, 16) if c.layout.moe_ep == c.layout.attn_dp == 16)
    layout = replace(base.layout, two_batch_overlap=1)
    limits = replace(LIMITS, kv_room_bytes=60e9, max_num_batched_tokens=tokens)
    plan = launched(service(base, arch, layout=layout, exchange="routed", limits=limits))
    assert {"--enable-dbo", "--enable-two-batch-overlap"} & set(plan.processes[0].argv)
    assert {"deepep", "deepep_low_latency", "deepep_high_throughput"} & set(plan.processes[0].argv)
    read, _ = read_back(plan, tmp_path, arch)
    assert read == layout


def test_sglang_overlaps_only_with_deepep():
    """Experts in 16 bits are not sent by DeepEP: the export is refused by the rule's name."""
    arch = load_model("qwen3-235b")
    base = next(c for c in plans("qwen3-235b", "sglang", 8) if c.layout.moe_ep == c.layout.attn_dp == 8)
    with pytest.raises(InputError, match="two_batch_overlap_exchange"):
        launched(service(base, arch, layout=replace(base.layout, two_batch_overlap=1), exchange="routed"))


def test_hybrid_load_balancing_is_the_same_plan(tmp_path):
    """With --data-parallel-hybrid-lb every node answers, none is headless, and the plan reads back the same."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", "vllm", 16) if c.layout.attn_dp == 8 and c.layout.moe_ep == 16)
    plan = launched(service(base, arch, hybrid_lb=True))
    assert [p.role for p in plan.processes] == ["head", "head"]
    assert all("--data-parallel-hybrid-lb" in p.argv and "--headless" not in p.argv for p in plan.processes)
    read, _ = read_back(plan, tmp_path, arch)
    assert read == base.layout


def test_old_and_new_sglang_spell_attention_dp_differently():
    """0.5.9 takes --dp-size with --enable-dp-attention, 0.5.23 --attn-dp-size; the global chunk is the same."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", "sglang", 16) if c.layout.attn_dp == 8)
    old = launched(service(base, arch, version="0.5.9")).processes[0].argv
    new = launched(service(base, arch)).processes[0].argv
    assert old[old.index("--dp-size") + 1] == "8"
    assert "--enable-dp-attention" in old
    assert new[new.index("--attn-dp-size") + 1] == "8"
    assert not {"--dp-size", "--enable-dp-attention"} & {a for a in new if isinstance(a, str)}
    for argv in (old, new):
        assert argv[argv.index("--chunked-prefill-size") + 1] == str(2048 * 8)
        assert argv[argv.index("--max-running-requests") + 1] == str(37 * 8)


def test_older_trtllm_has_no_partition_field():
    """A split that is not the engine's own needs `pp_partition`, which 1.1 lacks: an error naming field and version."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", "trtllm", 32) if c.layout.pp == 2)
    layout = Layout(**{name: getattr(base.layout, name) for name in LAYOUT_AXES}, stage_layers=(30, 31))
    with pytest.raises(InputError, match=r"trtllm 1\.1\.0 has no field of the LLM API `pp_partition`"):
        launched(service(base, arch, layout=layout, version="1.1.0"))
    assert "pp_partition" not in launched(service(base, arch, version="1.1.0")).files["llm_api.yaml"]


def test_script_files_name_what_every_process_needs():
    """The folder holds a script per process, nodes, ranks, endpoints and health, scripts executable."""
    arch = load_model("qwen3-235b")
    base = next(c for c in plans("qwen3-235b", "sglang", 32) if c.layout.replicas == 2 and c.layout.width == 16)
    plan = launched(service(base, arch))
    files = script_files(plan)
    assert {"router.sh", "nodes.env", "nodes.txt", "ranks.json", "endpoints.txt", "health.sh"} <= set(files)
    assert all(isinstance(f, OutFile) and f.executable == name.endswith(".sh") for name, f in files.items())


def test_an_exchange_that_would_change_the_plan_is_not_written(tmp_path):
    """SGLang's all-to-all backends set EP to the width of a stage: they are written for such plans alone."""
    arch = load_model("deepseek-v3")
    for shards in (1, 2):
        base = next(
            c for c in plans("deepseek-v3", "sglang", 16) if c.layout.attn_dp == 8 and c.layout.moe_tp == shards
        )
        room = replace(LIMITS, kv_room_bytes=8e9)
        plan = launched(service(base, arch, exchange="routed", limits=room))
        assert ("--moe-a2a-backend" in plan.processes[0].argv) is (shards == 1)
        read, _ = read_back(plan, tmp_path, arch)
        assert read == base.layout
