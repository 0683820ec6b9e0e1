"""What is written is read back as the plan it was written from: every valid plan, every engine and version."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.engines import ENGINES, split_layers
from autotune.files import OutFile
from autotune.launch.engines.options import option_list, versions
from autotune.launch.plan import LaunchPlan
from autotune.launch.reading.option_reader import Values
from autotune.launch.reading.plan_of_command import AXES, Axes, is_head, knobs_of, same_servers
from autotune.launch.reading.sources import Running, script_commands, with_config
from autotune.launch.targets.scripts import process_script, script_files
from costmodel.arch import Arch, load_model
from costmodel.errors import InputError
from costmodel.plan.layout import LAYOUT_AXES, Layout
from tests.launch.helpers import MODELS, launched, plans, service

NODE_RULES = ("whole_nodes", "dp_rank_nodes", "stages_per_node")


def read_back(plan: LaunchPlan, folder, arch: Arch, scripts: int | None = None) -> tuple[Axes, dict[str, object]]:
    """Layout and knobs that the scripts say, from their text alone."""
    for name, text in plan.files.items():
        (folder / name).write_text(text)
    commands = []
    for process in plan.processes[:scripts]:
        commands += script_commands(process_script(plan, process), plan.service.version)
    running = Running(commands=tuple((c, 1) for c in commands), assumptions=(), folder=folder)
    heads = [with_config(c, folder) for c, _ in running.commands if is_head(c)]
    same_servers(heads)
    assert not [u for c in commands for u in with_config(c, folder).unknown]
    values = Values(command=heads[0], gpu_gib=80.0)
    axes = AXES[plan.service.engine](values, arch, len(heads))
    knobs = knobs_of(values, axes)
    assert not values.problems
    return axes, knobs


def expressible(made) -> LaunchPlan | None:
    """The processes, or nothing where nodes are the reason; any other refusal fails the test."""
    try:
        return launched(made)
    except InputError as error:
        if any(rule in str(error) for rule in NODE_RULES):
            return None
        raise


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", MODELS)
def test_every_valid_plan_reads_back_to_itself(engine, model, tmp_path):
    """Every valid plan of 64 GPUs, written as scripts and parsed from their text, is the same layout with the knobs."""
    arch = load_model(model)
    read = 0
    for candidate in plans(model, engine, 64):
        plan = expressible(service(candidate, arch))
        if plan is None:
            continue
        axes, knobs = read_back(plan, tmp_path, arch)
        assert axes.layout(arch, engine) == candidate.layout, candidate.layout
        assert (knobs["max_num_seqs"], knobs["max_num_batched_tokens"], knobs["max_model_len"]) == (37, 2048, 5376)
        read += 1
    assert read >= 5


@pytest.mark.parametrize("engine", ENGINES)
def test_no_valid_plan_of_128_gpus_is_refused(engine):
    """On nodes of eight, every valid plan of DeepSeek-V3 on 128 GPUs can be placed, and uses every GPU once."""
    arch = load_model("deepseek-v3")
    for candidate in plans("deepseek-v3", engine, 128):
        plan = launched(service(candidate, arch))
        assert sorted((r.node, r.gpu) for replica in plan.replicas for r in replica.ranks) == [
            (n, g) for n in range(16) for g in range(8)
        ]


@settings(max_examples=60, deadline=None)
@given(
    engine=st.sampled_from(ENGINES),
    model=st.sampled_from(MODELS),
    gpus=st.sampled_from([1, 2, 3, 6, 8, 12, 16, 24, 32, 48, 72, 96]),
    per_node=st.sampled_from([1, 4, 6, 8]),
    data=st.data(),
)
def test_any_plan_on_any_nodes_and_version(engine, model, gpus, per_node, data, tmp_path_factory):
    """Odd GPU counts, nodes and engine versions, uneven stages too: read back the same, or refused by a named rule."""
    arch = load_model(model)
    found = plans(model, engine, gpus)
    if not found:
        return
    candidate = data.draw(st.sampled_from(found))
    version = data.draw(st.sampled_from(versions(engine)))
    made = service(candidate, arch, per_node=per_node, version=version)
    plan = expressible(made)
    if plan is not None:
        axes, _ = read_back(plan, tmp_path_factory.mktemp("launch"), arch)
        assert axes.layout(arch, engine) == candidate.layout


@pytest.mark.parametrize("engine", ENGINES)
def test_a_split_of_the_users_own_is_launched(engine, tmp_path):
    """A partition that the engine would not choose is written out and read back."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", engine, 32) if c.layout.pp == 4)
    own = (17, 15, 15, 14)
    assert split_layers(engine, 61, 4) != own
    layout = Layout(**{name: getattr(base.layout, name) for name in LAYOUT_AXES}, stage_layers=own)
    plan = launched(service(base, arch, layout=layout))
    axes, _ = read_back(plan, tmp_path, arch)
    assert axes.layout(arch, engine) == layout


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
    axes, _ = read_back(plan, tmp_path, arch)
    assert axes.layout(arch, "vllm") == layout


def test_redundant_experts_of_the_others_read_back(tmp_path):
    """SGLang's option and TensorRT-LLM's slots give the same redundant experts."""
    arch = load_model("deepseek-v3")
    for engine in ("sglang", "trtllm"):
        base = next(c for c in plans("deepseek-v3", engine, 16) if c.layout.moe_ep == 16)
        layout = Layout(
            **{name: getattr(base.layout, name) for name in LAYOUT_AXES} | {"redundant_experts": 16},
            stage_layers=base.layout.stage_layers,
        )
        axes, _ = read_back(launched(service(base, arch, layout=layout)), tmp_path, arch)
        assert axes.layout(arch, engine) == layout


def test_hybrid_load_balancing_is_the_same_plan(tmp_path):
    """With --data-parallel-hybrid-lb every node answers, none is headless, and the plan reads back the same."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", "vllm", 16) if c.layout.attn_dp == 8 and c.layout.moe_ep == 16)
    plan = launched(service(base, arch, hybrid_lb=True))
    assert [p.role for p in plan.processes] == ["head", "head"]
    assert all("--data-parallel-hybrid-lb" in p.argv and "--headless" not in p.argv for p in plan.processes)
    axes, _ = read_back(plan, tmp_path, arch)
    assert axes.layout(arch, "vllm") == base.layout


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


def test_option_lists_hold_what_every_engine_is_launched_with():
    """Every option of every script stands in the list of its version, found by its own spelling."""
    for engine in ENGINES:
        arch = load_model("deepseek-v3")
        candidate = max(plans("deepseek-v3", engine, 32), key=lambda c: (c.layout.pp, c.layout.attn_dp))
        for version in versions(engine):
            options = option_list(engine, version)
            for process in launched(service(candidate, arch, version=version)).processes:
                start = next(
                    i for i, a in enumerate(process.argv) if isinstance(a, str) and a in options.command.split()[-1:]
                )
                flags = [a for a in process.argv[start:] if isinstance(a, str) and a.startswith("--")]
                known = (
                    options if process.role != "router" else option_list("sglang_router", versions("sglang_router")[0])
                )
                assert flags
                assert [f for f in flags if known.find(f) is None] == []
