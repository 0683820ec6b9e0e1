"""What servers are started with beside their plan, read from commands of every engine: priced, or said not to be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autotune.cli.current import Current, with_current
from autotune.cli.main import cli
from autotune.comparison import compare
from autotune.launch.reading.import_plan import import_plan
from autotune.study import OwnOptions, Study, load_study
from autotune.tuning.given_plan import score_baseline
from costmodel.arch.catalog import GUESSED
from costmodel.errors import InputError
from tests.launch.commands import NAME, SGLANG, VLLM, trtllm
from tests.studies import SMALL

DRAFTS = ("speculative={draft_tokens=3, accepted_per_step=2.2}",)
EAGLE = """--speculative-config '{"method":"eagle3","num_speculative_tokens":3}'"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A study's file."""
    found = tmp_path / "small.toml"
    found.write_text(SMALL, encoding="utf-8")
    return found


def question(path: Path, *settings: str) -> Study:
    """Of an 8B model on eight GPUs."""
    return load_study(path, settings)


def current(study: Study, text: str) -> tuple[Current, OwnOptions | None]:
    """What runs, and what of its engine's options is not as the study has it."""
    runs = with_current(study, text, {})
    assert runs.study.baseline is not None
    return runs, runs.study.baseline.engine_options


@pytest.mark.parametrize(
    ("options", "eager"),
    [
        ("", False),
        ("--enforce-eager", True),
        ("-O0", True),
        ("-O2", False),
        ("""--compilation-config '{"cudagraph_mode": "NONE"}'""", True),
        ("--compilation-config.cudagraph_mode NONE", True),
        ("""--compilation-config '{"cudagraph_mode": "FULL"}'""", False),
    ],
)
def test_vllm_without_graphs(options: str, eager: bool) -> None:
    """Every spelling with which vLLM captures no graphs, and none with which it does."""
    assert import_plan(f"{VLLM} {options}").started.cuda_graphs is not eager


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ("no-enable-prefix-caching: true", "--no-enable-prefix-caching"),
        ("compilation-config.cudagraph_mode: NONE", "--compilation-config.cudagraph_mode NONE"),
        ("compilation-config: { cudagraph_mode: NONE }", """--compilation-config '{"cudagraph_mode": "NONE"}'"""),
        ("enforce-eager: true", "--enforce-eager"),
        ("max-model-len: 25.6k", "--max-model-len 25600"),
        ("tensor-parallel: 8", "--tensor-parallel-size 8"),
        ("data_parallel_size: 2", "-dp 2"),
        ("cudagraph-capture-sizes: [1, 2, 4]", "--cudagraph-capture-sizes 1 2 4"),
        ("optimization-level: 0", "-O0"),
    ],
)
def test_fields_of_a_file_are_options(tmp_path: Path, fields: str, options: str) -> None:
    """vLLM's `--config` file is read as the same words on the command line are."""
    file = tmp_path / "options.yaml"
    file.write_text(f"model: {NAME}\nport: 9000\n{fields}\n", encoding="utf-8")
    read, told = import_plan(f"vllm serve --config {file}"), import_plan(f"{VLLM} {options}")
    assert (read.plan, read.started, dict(read.knobs)) == (told.plan, told.started, dict(told.knobs))
    assert read.unknown == told.unknown == ()
    assert import_plan(str(file)).started == told.started


def test_a_field_that_means_nothing_is_named(tmp_path: Path) -> None:
    """By the file and its name; what the command line says goes before the file."""
    file = tmp_path / "options.yaml"
    file.write_text("enable-prefix-caching: false\nno-such-thing: 1\nport: 1\n", encoding="utf-8")
    read = import_plan(f"{VLLM} --config {file}")
    assert read.unknown == ("options.yaml: no-such-thing",)
    assert read.started.not_priced == ("--enable-prefix-caching=false",)
    assert import_plan(f"{VLLM} --config {file} --enable-prefix-caching").started.not_priced == ()


@pytest.mark.parametrize(
    ("text", "tokens"), [("25.6k", 25_600), ("16.384k", 16_384), ("8K", 8192), ("0.001g", 10**6), ("4096", 4096)]
)
def test_numbers_with_suffixes(text: str, tokens: int) -> None:
    """As vLLM's `human_readable_int` reads them."""
    assert import_plan(f"{VLLM} --max-num-batched-tokens {text}").knobs["max_num_batched_tokens"] == tokens


@pytest.mark.parametrize("text", ["25.6K", "1.5", "k", "-3", "1e4", "2t"])
def test_numbers_that_are_none(text: str) -> None:
    """Capital suffixes take no fractions, and nothing above the most that is read counts."""
    with pytest.raises(InputError, match="must be a whole number"):
        import_plan(f"{VLLM} --max-num-batched-tokens {text}")


@pytest.mark.parametrize(
    ("options", "version", "eager"),
    [
        ("", None, False),
        ("--disable-cuda-graph", "0.5.9", True),
        ("--disable-cuda-graph", None, True),
        ("--disable-decode-cuda-graph", None, True),
        ("--cuda-graph-backend-decode disabled", None, True),
        ("--disable-prefill-cuda-graph", None, False),
    ],
)
def test_sglang_without_graphs(options: str, version: str | None, eager: bool) -> None:
    """The same of SGLang, whose graphs of prompts are others."""
    assert import_plan(f"{SGLANG} {options}", version=version).started.cuda_graphs is not eager


def test_trtllm_reads_its_file(tmp_path: Path) -> None:
    """An empty `cuda_graph_config` captures nothing; drafting and what is not priced stand in tables of their own."""
    file = """
cuda_graph_config: null
max_batch_size: 4
kv_cache_config: { free_gpu_memory_fraction: 0.4, host_cache_size: 1000, enable_block_reuse: true }
speculative_config: { decoding_type: MTP, num_nextn_predict_layers: 3 }
scheduler_config: { capacity_scheduler_policy: MAX_UTILIZATION }
"""
    started = trtllm(tmp_path, file).started
    assert (started.cuda_graphs, started.max_num_seqs, started.memory_fraction) == (False, 4, 0.4)
    assert "MTP" in started.drafts
    assert len(started.not_priced) == 2
    wide = trtllm(tmp_path, "dtype: float32\nforce_dynamic_quantization: true\n").started
    assert wide.not_priced == ("dtype float32", "force_dynamic_quantization True")
    assert trtllm(tmp_path, file).unknown == ()
    plain = trtllm(tmp_path, "cuda_graph_config: { enable_padding: true }\nkv_cache_config: { host_cache_size: 0 }\n")
    assert (plain.started.cuda_graphs, plain.started.drafts, plain.started.not_priced) == (True, "", ())


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (f"{VLLM} --runner pooling --convert embed", "--runner pooling and --convert embed"),
        (f"{VLLM} --convert classify", "--convert classify"),
        (f"{SGLANG} --is-embedding", "--is-embedding"),
    ],
)
def test_a_server_that_generates_nothing_is_refused(command: str, option: str) -> None:
    """Embeddings, classes and scores are not what a study is about; the option that asks for them is named."""
    with pytest.raises(InputError, match=f"with {option} it generates none"):
        import_plan(command)
    assert import_plan(f"{VLLM} --runner generate --convert none").started.not_priced == ()


def test_a_version_that_knows_the_options_is_assumed() -> None:
    """An option of older versions alone is one that they would start with: their defaults count, and it is named."""
    read = import_plan(f"{SGLANG} --cuda-graph-bs 128")
    assert (read.engine_version, read.unknown) == ("0.5.9", ())
    assert read.started.not_priced == ("--cuda-graph-bs 128",)
    assert any("0.5.9, the newest that knows --cuda-graph-bs, which 0.5.23 does not" in t for t in read.assumptions)
    assert import_plan(f"{SGLANG} --cuda-graph-bs 128", version="0.5.23").unknown == ("--cuda-graph-bs 128",)
    assert import_plan(f"{SGLANG} --no-such-thing").engine_version == import_plan(SGLANG).engine_version


def test_a_checkpoint_brings_its_cache_and_its_guesses(path: Path) -> None:
    """A checkpoint that is served in place of the study's has its own cache, and what is guessed of it is said."""
    question = load_study(path, ["model=qwen3-30b-a3b"])
    served = import_plan("vllm serve nvidia/Qwen3-30B-A3B-NVFP4 -tp 8", study=question)
    assert (served.baseline().weight_dtype, served.baseline().kv_dtype) == ("nvfp4", "fp8")
    assert not any(GUESSED in text for text in served.assumptions)
    other = import_plan("vllm serve someone/Qwen3-30B-A3B-AWQ -tp 8", study=question)
    assert (other.baseline().weight_dtype, other.baseline().kv_dtype) == ("int4", None)
    assert any(text.startswith(GUESSED) for text in other.assumptions)
    alone = import_plan("vllm serve someone/Qwen3-30B-A3B-AWQ -tp 8")
    assert any(text.startswith(GUESSED) for text in alone.assumptions)


def test_a_checkpoint_of_several_dtypes_is_taken_in_the_nearest(path: Path) -> None:
    """Attention in 16 bits beside experts in NVFP4 is no dtype of a plan: both sizes are said."""
    question = load_study(path, ["model=deepseek-v3"])
    served = import_plan("vllm serve nvidia/DeepSeek-V3-0324-NVFP4 -tp 8", study=question)
    assert served.baseline().weight_dtype == "nvfp4"
    assert any("380.3 GB where its own are 396.7 GB" in text for text in served.assumptions)


def test_an_export_says_that_graphs_are_switched_on(path: Path) -> None:
    """What differs from a server without graphs is in the README of the plan that replaces it."""
    words = ["export", str(path), "--target", "vllm", "--out", str(path.parent / "out")]
    runs = ["--from", f"{VLLM} -dp 8 --enforce-eager"]
    assert CliRunner().invoke(cli, [*words, *runs], catch_exceptions=False).exit_code == 0
    assert "cuda_graphs" in (path.parent / "out" / "README.md").read_text(encoding="utf-8")


def test_options_become_the_baseline_s(path: Path) -> None:
    """What differs from the study's is scored; what is the study's, or nobody said, is not there."""
    study = question(path)
    _, own = current(study, f"{VLLM} -dp 8 --max-num-seqs 4 --enforce-eager --gpu-memory-utilization 0.5")
    assert own == OwnOptions(max_num_seqs=4, cuda_graphs=False, gpu_memory_utilization=0.5)
    assert current(study, f"{VLLM} -dp 8")[1] is None
    assert current(study, f"{VLLM} -dp 8 --max-num-seqs 1024 --gpu-memory-utilization 0.9")[1] is None
    eager = question(path, "engine_options.cuda_graphs=false", "engine_options.max_num_seqs=4")
    assert current(eager, f"{VLLM} -dp 8 --max-num-seqs 4 --enforce-eager")[1] is None
    assert current(eager, f"{VLLM} -dp 8 --max-num-seqs 4")[1] == OwnOptions(cuda_graphs=True)


def test_speculation_is_scored_as_the_study_describes_it(path: Path) -> None:
    """With a table speculative a server may draft as it says, or not at all; without one it is said to be left out."""
    drafting = f"{VLLM} -dp 8 {EAGLE}"
    runs, own = current(question(path, *DRAFTS), drafting)
    assert own is None
    assert any("eagle3" in text for text in runs.study.assumptions)
    assert current(question(path, *DRAFTS), f"{VLLM} -dp 8")[1] == OwnOptions(speculative=False)
    runs, own = current(question(path), drafting)
    assert own is not None
    assert len(own.not_priced) == 1
    assert "eagle3" in own.not_priced[0]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.85])
def test_a_share_for_weights_and_cache_is_one_of_all_memory(path: Path, share: float) -> None:
    """SGLang's `mem_fraction_static` is what an export of the converted share writes."""
    budget = "search.max_num_batched_tokens=[8192]"
    study = question(path, "engine=sglang")
    _, own = current(study, f"{SGLANG} --dp-size 8 --chunked-prefill-size 8192 --mem-fraction-static {share}")
    assert own is not None
    filled = own.gpu_memory_utilization
    assert filled is not None
    assert share < filled < share + 0.1
    folder = path.parent / "out"
    words = ["--set", f"engine_options.gpu_memory_utilization={filled}", "--set", "engine=sglang", "--set", budget]
    export = ["export", str(path), "--plan", "R8", "--target", "sglang", "--out", str(folder), *words]
    assert CliRunner().invoke(cli, export, catch_exceptions=False).exit_code == 0
    assert import_plan(str(folder)).started.memory_fraction == pytest.approx(share, abs=0.002)


def test_a_share_of_what_is_free_is_taken_as_it_is(path: Path) -> None:
    """The cost model takes TensorRT-LLM's fraction as the engine does."""
    study = question(path, "engine=trtllm")
    command = f"trtllm-serve {NAME} --kv_cache_free_gpu_memory_fraction"
    assert current(study, f"{command} 0.4")[1] == OwnOptions(gpu_memory_utilization=0.4, max_num_seqs=2048)
    assert current(study, f"{command} 0.9 --max_batch_size 1024")[1] is None


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("workload.concurrency=9000", "engine_options.max_num_seqs=200"),
        ("engine_options.gpu_memory_utilization=0.4", "workload.concurrency=4000"),
        ("engine_options.cuda_graphs=false",),
    ],
)
def test_an_export_is_the_plan_that_it_was_exported_for(path: Path, engine: str, settings: tuple[str, ...]) -> None:
    """Read back as the current plan it is the candidate: fewer sequences and rounded shares are no other launch."""
    asked = [f"engine={engine}", *settings]
    folder = path.parent / "out"
    words = [word for setting in asked for word in ("--set", setting)]
    export = ["export", str(path), "--target", engine, "--out", str(folder), *words]
    assert CliRunner().invoke(cli, export, catch_exceptions=False).exit_code == 0
    runs = with_current(question(path, *asked), str(folder), {})
    assert compare(runs.study, scenarios=False).same_plan


def test_options_of_pools(path: Path) -> None:
    """Decode's graphs count; sequences are its slots; what the prefill pool has of its own is said."""
    command = "vllm serve {} -tp 4 --kv-transfer-config '{}' {}"
    role = '{{"kv_connector":"NixlConnector","kv_role":"{}"}}'
    parts: list[tuple[str, str]] = [("kv_producer", "--cpu-offload-gb 3"), ("kv_consumer", "--enforce-eager")]
    script = "\n".join(command.format(NAME, role.format(name), rest) + " &" for name, rest in parts)
    file = path.parent / "both.sh"
    file.write_text(script + "\n", encoding="utf-8")
    runs, own = current(question(path), str(file))
    assert own == OwnOptions(cuda_graphs=False, not_priced=("--cpu-offload-gb 3 of the prefill pool",))
    found: Any = score_baseline(runs.study)
    assert found.result.own_options == own
    file.write_text(
        script.replace("--enforce-eager", "").replace("--cpu-offload-gb 3", "--enforce-eager"), encoding="utf-8"
    )
    runs, own = current(question(path), str(file))
    assert own == OwnOptions(not_priced=("no CUDA graphs of the prefill pool",))


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_an_export_of_pools_has_nothing_of_its_own(path: Path, engine: str) -> None:
    """What exports write for the study's share of memory, and what pools need, is no difference from the plan."""
    asked = [f"engine={engine}", "search.disaggregated=only"]
    folder = path.parent / "out"
    words = [word for setting in asked for word in ("--set", setting)]
    export = ["export", str(path), "--target", engine, "--out", str(folder), *words]
    assert CliRunner().invoke(cli, export, catch_exceptions=False).exit_code == 0
    assert import_plan(str(folder)).started.not_priced == ()
    assert current(question(path, *asked), str(folder))[1] is None
    less = import_plan(str(folder), study=question(path, *asked, "engine_options.gpu_memory_utilization=0.5"))
    assert less.started.memory_fraction is not None
    share = r"((?:mem-fraction-static|gpu-memory-utilization|free_gpu_memory_fraction:) )[0-9.]+"
    for file in folder.glob("prefill-*"):
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub(share, r"\g<1>0.31", text), encoding="utf-8")
    assert any("0.31 of the prefill pool" in text for text in import_plan(str(folder)).started.not_priced)
