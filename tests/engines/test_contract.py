"""What every engine must hold, so that the rest of the program needs no name of one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

from autotune.engines import ENGINES, Engine
from autotune.graph.program import ReplicaRanks
from autotune.launch.files import write_export
from autotune.launch.reading.import_plan import import_plan
from autotune.launch.reading.parse import find_engine
from autotune.launch.targets import compose, kubernetes
from autotune.launch.targets.registry import find_target, target_files, targets
from autotune.launch.targets.scripts import script_command
from autotune.space import enumerate_space, format_plan, parse_plan, resolve, violations
from costmodel.arch import load_model
from costmodel.calibration.load import load_calibration
from costmodel.errors import InputError
from costmodel.hardware import load_gpu
from costmodel.plan.columns import ClusterColumns, LayoutColumns
from costmodel.plan.layout import Layout
from costmodel.plan.placement import Placement
from tests.launch.helpers import LOAD, MODELS, cluster, expressible, launched, plans, read_back, run_script, service
from tests.launch.manifests import check, schema, understood

LIMITS_SAID = (37, 2048, 5376)
"""Sequences, token budget and length that the hand-made services are started with."""


def limits_of(knobs: dict[str, object]) -> tuple[object, ...]:
    """The same of what was read back."""
    return knobs["max_num_seqs"], knobs["max_num_batched_tokens"], knobs["max_model_len"]


def test_every_fact_is_stated(engine: Engine) -> None:
    """Facts without a default in the base are given, and the name is one that plan strings and files can carry."""
    facts = get_type_hints(Engine, include_extras=True)
    assert [name for name in facts if not hasattr(engine, name)] == []
    assert re.fullmatch(r"[a-z][a-z0-9]*", engine.name)
    assert engine.name not in ("any", *(n for n, e in ENGINES.items() if e is not engine))
    assert engine.title
    assert engine.startup_s > 0.0
    for generation in ("hopper", "blackwell"):
        serving = load_calibration(generation, engine.traits).serving
        assert serving["mixes"] == float(engine.traits.prompts_ride_on_decode_steps)


def test_rules_have_a_name_and_one_text(engine: Engine) -> None:
    """A rule stands once in an engine's list, and rules of one name say the same in all engines."""
    names = [rule.name for rule in engine.rules]
    assert len(set(names)) == len(names)
    texts = {rule.name: rule.text for rule in engine.rules}
    others = [rule for other in ENGINES.values() for rule in other.rules if rule.name in texts]
    assert [rule.name for rule in others if rule.text != texts[rule.name]] == []


@pytest.mark.parametrize(
    ("model", "degrees"),
    [
        ("llama-3.1-70b", {"pp": 81}),
        ("llama-3.1-70b", {"attn_tp": 7}),
        ("llama-3.1-70b", {"attn_dp": 2}),
        ("mixtral-8x7b", {"attn_tp": 3, "moe_tp": 3}),
        ("mixtral-8x7b", {"attn_tp": 16, "moe_ep": 16}),
        ("deepseek-v3", {"attn_tp": 4, "moe_tp": 4, "dcp": 3}),
        ("deepseek-v3", {"redundant_experts": 8}),
    ],
)
def test_what_no_engine_can_launch(engine: Engine, model: str, degrees: dict[str, int]) -> None:
    """Stages without layers, heads and experts that cannot be split: a rule of its own forbids it."""
    arch = load_model(model)
    neutral = {"replicas": 1, "pp": 1, "attn_tp": 1, "attn_dp": 1, "moe_tp": 1, "moe_ep": 1}
    layout = Layout(stage_layers=(arch.num_hidden_layers,), **{**neutral, **degrees})  # type: ignore[arg-type]  # mixed
    broken = violations(arch, engine.name, layout)
    assert {v.rule for v in broken} <= {rule.name for rule in engine.rules}
    assert broken


@pytest.mark.parametrize("model", MODELS)
def test_some_layouts_are_taken_and_some_are_not(engine: Engine, model: str) -> None:
    """Candidates that are counted valid break no rule, and the string of each means just that candidate."""
    arch = load_model(model)
    space = enumerate_space(arch, gpus=12, engine=engine.name)
    assert space.candidates
    assert space.rejected
    for candidate in space.candidates:
        assert not violations(arch, engine.name, candidate.layout)
        text = format_plan(candidate.layout, engine.name)
        assert resolve(parse_plan(text), arch=arch, gpus=12, engine="any").candidate == candidate


@pytest.mark.parametrize("layers", [1, 16, 61, 94])
def test_stages_sum_to_the_layers(engine: Engine, layers: int) -> None:
    """No stage is empty or has two layers more than another; more stages than layers are refused."""
    for pp in range(1, layers + 1):
        stages = engine.split_layers(layers, pp)
        assert (len(stages), sum(stages)) == (pp, layers)
        assert 1 <= min(stages) <= max(stages) <= min(stages) + 1
    with pytest.raises(ValueError, match="`pp` must lie between 1 and num_hidden_layers"):
        engine.split_layers(layers, layers + 1)


def test_ranks_lie_where_the_model_places_them(engine: Engine) -> None:
    """Launch files, the graph and the cost model order ranks alike: stages hold the same GPUs, over as many domains."""
    arch, seen = load_model("deepseek-v3"), 0
    for candidate in plans("deepseek-v3", engine.name, 32):
        layout = candidate.layout
        replica = launched(service(candidate, arch)).replicas[0]
        order = ReplicaRanks.of(layout, engine.traits).gpu
        assert all(order[r.pp, (r.attn_dp * layout.attn_cp + r.attn_cp) * layout.attn_tp + r.attn_tp] == r.rank
                   for r in replica.ranks)  # fmt: skip
        held = {(r.pp, r.moe_ep, r.moe_tp) for r in replica.ranks}
        assert len(held) == len(replica.ranks)
        machines = cluster(layout.gpus)
        placed = Placement.of(LayoutColumns.of([layout], [engine.traits]), ClusterColumns.of([machines]))
        domains = {int(g) // machines.gpus_per_node for g in order[0]}
        assert placed.stage_domains[0] == len(domains), layout
        seen += layout.pp > 1
    assert seen >= 3


def test_option_lists_say_where_they_are_from(engine: Engine) -> None:
    """At least one version, newest first, each with its source; older versions than all are refused."""
    known = engine.versions()
    assert known == tuple(sorted(known, key=lambda v: [int(n) for n in v.split(".")], reverse=True))
    for version in known:
        options = engine.options(version)
        assert (options.engine, options.version) == (engine.name, version)
        assert len(options.source) > 40
        assert all(options.find(flag) is o for o in options.options.values() for flag in (*o.flags, *o.off))
    with pytest.raises(InputError, match="or newer"):
        engine.choose_version("0.0.1")


def test_every_way_to_start_it_is_its_own(engine: Engine) -> None:
    """Each of its programs is found in a command, with what stands before and after it."""
    for program in engine.programs:
        words = ["exec", "/usr/bin/" + program[0], *program[1:], "model"]
        assert find_engine(words) == (engine, 1 + len(program))


@pytest.mark.parametrize("model", MODELS)
def test_every_valid_plan_reads_back_from_scripts(engine: Engine, model: str, tmp_path: Path) -> None:
    """Every valid plan of two nodes, written as scripts and parsed from their text, is the same layout and limits."""
    arch, count = load_model(model), 0
    for candidate in plans(model, engine.name, 16):
        plan = expressible(service(candidate, arch))
        if plan is not None:
            layout, knobs = read_back(plan, tmp_path, arch)
            assert layout == candidate.layout
            assert limits_of(knobs) == LIMITS_SAID
            count += 1
    assert count >= 5


@pytest.mark.parametrize("model", MODELS)
def test_every_valid_plan_reads_back_from_manifests(engine: Engine, model: str, tmp_path: Path) -> None:
    """The same from Kubernetes, whose objects keep to their schemas; what starts other nodes by itself is refused."""
    arch, count, checked = load_model(model), 0, set[str]()
    for candidate in plans(model, engine.name, 16):
        plan = expressible(service(candidate, arch))
        if plan is None:
            continue
        if not engine.process_per_node and len(plan.replicas[0].nodes) > 1:
            with pytest.raises(InputError, match="mpi_over_containers"):
                kubernetes.servers(plan)
            continue
        document = kubernetes.servers(plan)
        if document["kind"] not in checked:
            check(document)
        checked.add(document["kind"])
        layout, knobs = understood([document], plan, tmp_path, arch)
        assert layout == candidate.layout
        assert limits_of(knobs) == LIMITS_SAID
        count += 1
    assert count >= 3


@pytest.mark.parametrize("model", MODELS)
def test_every_valid_plan_of_a_node_reads_back_from_compose(engine: Engine, model: str, tmp_path: Path) -> None:
    """Every valid plan of one node of eight, as Compose services; each of its GPUs is given out once."""
    arch = load_model(model)
    found = plans(model, engine.name, 8)
    assert len(found) >= 3
    for candidate in found:
        plan = launched(service(candidate, arch))
        document = compose.document(plan)
        schema("compose").validate(document)
        layout, knobs = understood([document], plan, tmp_path, arch)
        assert layout == candidate.layout
        assert limits_of(knobs) == LIMITS_SAID
        devices = [
            device
            for container in document["services"].values()
            for device in container.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        ]
        assert sorted(int(g) for device in devices for g in device["device_ids"]) == list(range(8))


def test_no_valid_plan_of_128_gpus_is_refused(engine: Engine) -> None:
    """On nodes of eight, every valid plan of DeepSeek-V3 on 128 GPUs can be placed, and uses every GPU once."""
    arch = load_model("deepseek-v3")
    for candidate in plans("deepseek-v3", engine.name, 128):
        plan = launched(service(candidate, arch))
        used = sorted((r.node, r.gpu) for replica in plan.replicas for r in replica.ranks)
        assert used == [(n, g) for n in range(16) for g in range(8)]


def test_commands_know_only_options_of_their_version(engine: Engine) -> None:
    """Every option of every process stands in the list of its version, found by its own spelling."""
    arch = load_model("deepseek-v3")
    candidate = max(plans("deepseek-v3", engine.name, 32), key=lambda c: (c.layout.pp, c.layout.attn_dp))
    for version in engine.versions():
        options = engine.options(version)
        for replica in launched(service(candidate, arch, version=version)).replicas:
            for process in replica.processes:
                words = [a for a in process.argv if isinstance(a, str)]
                flags = [w for w in words[words.index(options.command.split()[-1]) :] if w.startswith("--")]
                assert flags
                assert [f for f in flags if options.find(f) is None] == []


def test_servers_of_one_node_have_ports_of_their_own(engine: Engine) -> None:
    """Four servers on a node of eight listen on different ports, each behind `--port`, which containers change."""
    candidate = next(c for c in plans("llama-3.1-70b", engine.name, 8) if c.layout.replicas == 4)
    heads = [replica.head for replica in launched(service(candidate, load_model("llama-3.1-70b"))).replicas]
    assert len({head.http_port for head in heads}) == 4
    assert heads[0].http_port == engine.http_port
    for head in heads:
        assert head.argv[head.argv.index("--port") + 1] == str(head.http_port)
        assert head.env["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, head.gpus))


def test_a_split_of_the_users_own_is_launched(engine: Engine, tmp_path: Path) -> None:
    """A partition that the engine would not choose is written out and read back."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", engine.name, 32) if c.layout.pp == 4)
    own = (17, 15, 15, 14)
    assert engine.split_layers(61, 4) != own
    layout = replace(base.layout, stage_layers=own)
    read, _ = read_back(launched(service(base, arch, layout=layout)), tmp_path, arch)
    assert read == layout


def test_cache_dtypes_come_back(engine: Engine, tmp_path: Path) -> None:
    """Every dtype that the engine can keep its cache in stands in its commands, and is read back as ours."""
    candidate, arch = plans("llama-3.1-70b", engine.name, 8)[0], load_model("llama-3.1-70b")
    made = service(candidate, arch)
    assert engine.kv_names
    assert engine.kv_dtype("auto") is None
    for ours in engine.kv_names:
        plan = launched(replace(made, knobs=replace(made.knobs, kv_dtype=ours)))
        assert read_back(plan, tmp_path, arch)[1]["kv_dtype"] == ours
    with pytest.raises(InputError, match=f"kv_dtype_support: {engine.name} keeps a KV cache in"):
        launched(replace(made, knobs=replace(made.knobs, kv_dtype="int3")))


@pytest.mark.parametrize("load", [LOAD, replace(LOAD, isl=(500, 1500), prefix_hit_frac=0.25, request_rate_per_s=4.0)])
def test_every_option_of_the_benchmark_is_its_clients(engine: Engine, load: object) -> None:
    """For every version, each option stands in the client's list of that version or the nearest older one."""
    candidate = next(c for c in plans("deepseek-v3", engine.name, 16) if c.layout.replicas == 2)
    for version in engine.versions():
        made = service(candidate, load_model("deepseek-v3"), version=version, load=load)
        flags = [a for a in script_command(launched(made)).argv if isinstance(a, str) and a.startswith("--")]
        options = engine.bench_options(version)
        assert len(flags) > 12
        assert [f for f in flags if options.find(f) is None] == []


def test_a_models_name_reaches_it_unchanged(engine: Engine, tmp_path: Path) -> None:
    """Run by a real shell, its script hands over a name with quotes and variables as one argument."""
    name = '/models/it\'s $(touch owned) "so"'
    candidate = next(c for c in plans("deepseek-v3", engine.name, 8) if c.layout.replicas == 1)
    plan = launched(service(candidate, load_model("deepseek-v3"), model=name))
    files = target_files(find_target(engine.name), plan, current=None)
    programs = (engine.options(engine.versions()[0]).command.split()[0],)
    assert name in run_script(files["replica0-node0.sh"].text, tmp_path, programs)


def test_every_target_that_takes_it_imports_as_the_same_plan(engine: Engine, tmp_path: Path) -> None:
    """Exported to a folder and imported from there: the plan, the version and nothing unknown."""
    candidate = plans("llama-3.1-70b", engine.name, 8)[0]
    taken = [t for t in targets().values() if t.takes(engine.name) and not t.pools_alone]
    assert len(taken) >= 3
    for target in taken:
        for version in engine.versions():
            plan = launched(service(candidate, load_model("llama-3.1-70b"), version=version))
            folder = tmp_path / target.name / version
            write_export(folder, target_files(target, plan, current=plan.service))
            read = import_plan(str(folder))
            assert (read.plan, read.engine_version, read.unknown) == (plan.service.plan, version, ())
            assert read.layout == candidate.layout


def test_it_runs_on_measured_gpus(engine: Engine) -> None:
    """On GPUs of the generations that were measured it can serve 16-bit weights, and says why where it cannot."""
    arch = load_model("llama-3.1-70b")
    assert [g for g in ("h100", "b200") if engine.cannot_run(arch, load_gpu(g), (None,)) is not None] == []
    for gpu in ("mi300x", "a100", "l40s"):
        reason = engine.cannot_run(arch, load_gpu(gpu), ("nvfp4",))
        assert reason is None or engine.title in reason


def test_lengths_are_one_where_the_study_says_so(engine: Engine) -> None:
    """Requests of one length are benchmarked as such, and ranges without a shared prefix are drawn."""
    assert engine.same_lengths((100, 100), (10, 10), 0.0)
    assert not engine.same_lengths((100, 200), (10, 10), 0.0)
    assert np.isfinite(engine.ready_s)
