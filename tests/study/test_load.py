"""Study files: what is read, filled in, overridden, and refused."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from autotune.space import parse_plan, resolve
from autotune.study import IntRange, field_paths, load_study
from autotune.study.study_table import json_schema
from autotune.traffic.load import load_study as load_with_log
from costmodel.errors import InputError
from tests.studies import FOLDER
from tests.studies import STUDIES as SHIPPED

MINIMAL = """
engine = "vllm"
model = "mistralai/Mixtral-8x7B-v0.1"
[cluster]
gpus = 8
gpu = "h100_sxm"
[workload]
isl = 1000
osl = 100
"""

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture
def write(tmp_path):
    def _write(text: str = MINIMAL, name: str = "mine.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def problems(path: Path, *overrides: str) -> dict[str, str]:
    with pytest.raises(InputError, match=r".") as caught:
        load_study(path, overrides)
    return {p.path: p.message for p in caught.value.problems}


def test_minimal_study_fills_in_and_says_so(write):
    """A study of eight lines is complete, and each value filled in is a sentence with the value."""
    study = load_study(write())
    assert study.name == "mine"
    assert study.workload.isl == IntRange(min=1000, max=1000)
    assert study.workload.longest_prompt == 1000
    assert study.search.concurrency == IntRange(min=1, max=8 * 1024)
    assert study.cluster.gpus_per_node == 8
    assert "workload.expert_skew not given: 0 (balanced routing)" in study.assumptions
    assert "workload.longest_prompt not given: 1,000 tokens, the longest isl" in study.assumptions
    assert "objective not given: maximize total_tokens_per_s_per_gpu" in study.assumptions


def test_units_are_converted_once(write):
    """Milliseconds of the file are seconds in the value."""
    study = load_study(write(MINIMAL + "[constraints]\nttft_ms = 800\ntpot_ms = 25.5\n"))
    assert study.constraints.ttft_s == pytest.approx(0.8)
    assert study.constraints.tpot_s == pytest.approx(0.0255)
    assert study.constraints.memory_util_frac is None


def test_ranges(write):
    """Lengths may be uniform ranges; the TTFT limit is then checked at the longest prompt."""
    study = load_study(write(MINIMAL.replace("isl = 1000", "isl = {min = 100, max = 901}")))
    assert study.workload.isl.mean == 500.5
    assert study.workload.longest_prompt == 901


def test_memory_utilisation_follows_a_lower_limit(write):
    """Engines are not told to fill more memory than the study's own limit allows."""
    study = load_study(write(MINIMAL + "[constraints]\nmemory_util_frac = 0.85\n"))
    assert study.engine_options.gpu_memory_utilization == 0.85


def test_everything_wrong_is_said_at_once(write):
    """Schema, rules between fields, model table and GPU table report together, each with its path."""
    found = problems(
        write("""
engine = "vlm"
nmae = "x"
[model]
hidden_size = 2048
num_hidden_layers = "many"
num_attention_heads = 16
vocab_size = 1000
intermediate_size = 4096
[cluster]
gpus = 0
gpu = { name = "x", hbm_gib = -1, scaleup_gb_per_s = 1, scaleout_gb_per_s = 1, peak_tflops = { bf16 = 1 } }
[workload]
isl = 1000.5
osl = { min = 9, max = 3 }
concurrency = 4
request_rate_per_s = nan
[constraints]
ttft = 1
tpot_ms = inf
memory_util_frac = 1.5
[search]
max_num_batched_tokens = [8192, "x"]
""")
    )
    assert set(found) == {
        "$.engine",
        "$.nmae",
        "$.model.num_hidden_layers",
        "$.cluster.gpus",
        "$.cluster.gpu.hbm_gib",
        "$.cluster.gpu.hbm_tb_per_s",
        "$.workload.isl",
        "$.workload.osl",
        "$.workload",
        "$.workload.request_rate_per_s",
        "$.constraints.ttft",
        "$.constraints.tpot_ms",
        "$.constraints.memory_util_frac",
        "$.search.max_num_batched_tokens[1]",
    }
    assert found["$.nmae"] == "is not a field; the nearest is name, got 'x'"
    assert found["$.constraints.ttft"] == "is not a field; the nearest is ttft_ms, got 1"
    assert found["$.cluster.gpus"] == "must be at least 1, got 0"
    assert found["$.workload.isl"] == "must be a whole number, or {min = …, max = …} for a range, got 1000.5"
    assert found["$.workload.osl"] == "must have min <= max, got min=9, max=3"
    assert found["$.workload.request_rate_per_s"] == "must be a finite number, got nan"
    assert found["$.engine"].startswith("must be one of 'vllm', 'sglang', 'trtllm' or 'any', got 'vlm'")


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        ("gpus = 8", "gpus = 1_000_001", "$.cluster.gpus", r"at most 1,000,000, got 1000001"),
        ("gpus = 8", "gpus = true", "$.cluster.gpus", r"whole number, got True"),
        ("gpus = 8", "gpus = '8'", "$.cluster.gpus", r"whole number, got '8'"),
        ("gpus = 8", "", "$.cluster.gpus", r"is required"),
        ("gpus = 8", "gpus = " + "9" * 400, "$.cluster.gpus", r"…$"),
        ('"h100_sxm"', '"h1000"', "$.cluster.gpu", r"not in the catalog; the nearest"),
        ('"h100_sxm"', "7", "$.cluster.gpu", r"must be a string, got 7"),
        ('"mistralai/Mixtral-8x7B-v0.1"', '"mixtrl-8x7b"', "$.model", r"not in the catalog; the nearest"),
        (
            '"mistralai/Mixtral-8x7B-v0.1"',
            '"nowhere/config.json"',
            "$.model",
            r"cannot be read: No such file",
        ),
        ('"mistralai/Mixtral-8x7B-v0.1"', "2020-01-01", "$.model", r"must be a string"),
        ("isl = 1000", "isl = [1, 2]", "$.workload.isl", r"whole number, or .* for a range, got \[1, 2\]"),
        ("isl = 1000", "isl = {min = 1}", "$.workload.isl.max", r"is required"),
        ("isl = 1000", "isl = 0", "$.workload.isl", r"at least 1, got 0"),
        ("isl = 1000", "isl = 40000", "$.workload", r"max_position_embeddings, got 40,100 and 32,768"),
        (
            "osl = 100",
            "osl = 100\nlongest_prompt = 999",
            "$.workload.longest_prompt",
            r"at least the longest isl",
        ),
        (
            "osl = 100",
            "osl = 100\nprefix_cache_hit_frac = 1.1",
            "$.workload.prefix_cache_hit_frac",
            r"at most 1",
        ),
        ("osl = 100", "osl = 100\nexpert_skew = -1", "$.workload.expert_skew", r"at least 0, got -1"),
        (
            "osl = 100",
            "osl = 100\nconcurrency = 8\n[search]\nconcurrency = [1]",
            "$.search.concurrency",
            r"left out",
        ),
        ("osl = 100", "osl = 100\n[search]\nconcurrency = []", "$.search.concurrency", r"must not be empty"),
        (
            "osl = 100",
            "osl = 100\n[search]\nconcurrency = 5",
            "$.search.concurrency",
            r"must be a list, as \[5\], got 5",
        ),
        ("osl = 100", "osl = 100\n[search]\nkv_dtype = ['fp9']", "$.search.kv_dtype[0]", r"must be one of"),
        ("osl = 100", "osl = 100\n[search]\nmin_p_meets = 2", "$.search.min_p_meets", r"at most 1"),
        (
            "osl = 100",
            "osl = 100\n[objective]\nmaximize = 'ttft_s'",
            "$.objective.maximize",
            r"must be one of",
        ),
        (
            "osl = 100",
            "osl = 100\n[objective]\nminimize = 'ttft_s'\nmaximize = 'requests_per_s'",
            "$.objective",
            r"not both",
        ),
        ("osl = 100", "osl = 100\n[baseline]\nplan = ''", "$.baseline.plan", r"must not be empty"),
        ('engine = "vllm"', 'engine = "any"\nengine_version = "1"', "$.engine_version", r"several engines"),
        ('engine = "vllm"', 'engine = "vllm"\ncalibration = "no.toml"', "$.calibration", r"no file"),
        ('engine = "vllm"', 'engine = "vllm"\nname = "a/b"', "$.name", r"neither slashes"),
        ('engine = "vllm"', 'engine = "vllm"\n"odd key" = 1', "$.'odd key'", r"is not a field"),
    ],
)
def test_each_wrong_field_has_one_clear_message(write, old, new, path, message):
    """One wrong field is one problem, with its path and the value that was given."""
    assert old in MINIMAL
    found = problems(write(MINIMAL.replace(old, new)))
    assert list(found) == [path]
    assert re.search(message, found[path]), found[path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = 1\nb = = 2\n", r"is not TOML: .*line 2"),
        (b"a = 1\nb = '\xff'\n", r"must be UTF-8, got byte 0xff in line 2"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, r"nested too deeply|is not TOML"),
        (b"#" * 1_000_001, r"at most 1,000,000 bytes"),
        (b"", r"\$\.model: is required"),
        (b"a = " + b"9" * 5000, r"is not TOML|is not a field"),
    ],
)
def test_files_that_are_no_study(tmp_path, content, message):
    """What is not TOML, not text, or too large is one message with the file's name."""
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_study(path)


def test_unreadable_files(tmp_path):
    """A missing file, a directory and an impossible name are named, not raised as OSError."""
    with pytest.raises(InputError, match=r"none\.toml: cannot be read: No such file"):
        load_study(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read: it is a folder"):
        load_study(tmp_path)
    with pytest.raises(InputError, match="is not a file name"):
        load_study("a\0b")


def test_a_config_that_is_not_a_model(write, tmp_path):
    """A config.json without a model's fields is an error that names the file and the fields."""
    (tmp_path / "config.json").write_text('{"architectures": ["Foo"]}', encoding="utf-8")
    path = write(MINIMAL.replace("mistralai/Mixtral-8x7B-v0.1", "./config.json"))
    with pytest.raises(InputError, match=r"\$\.model: .*config\.json:\$\.num_hidden_layers: is required"):
        load_study(path)


def test_model_paths_are_relative_to_the_study(write, tmp_path, monkeypatch):
    """A config.json beside the study is found from anywhere, as a file or by its directory."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(
        '{"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 100,'
        '"intermediate_size": 128, "model_type": "llama"}',
        encoding="utf-8",
    )
    monkeypatch.chdir("/")
    for model in ("tiny/config.json", "./tiny"):
        study = load_study(write(MINIMAL.replace("mistralai/Mixtral-8x7B-v0.1", model)))
        assert study.arch.num_hidden_layers == 3


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("constraints.ttft_ms=800", lambda s: s.constraints.ttft_s == 0.8),
        ("$.constraints.ttft_ms = 800", lambda s: s.constraints.ttft_s == 0.8),
        ("model=meta-llama/Meta-Llama-3.1-8B", lambda s: not s.arch.is_moe),
        ("engine=any", lambda s: s.engine == "any"),
        ('engine="sglang"', lambda s: s.engine == "sglang"),
        ("cluster.gpu=h200", lambda s: s.cluster.gpu.name == "h200_sxm"),
        ("cluster.gpu.hbm_gib=96", lambda s: s.cluster.gpu.hbm_bytes == 96 * 2**30),
        ("cluster.gpu.peak_tflops.bf16=500", lambda s: s.cluster.gpu.peak_flops_per_s["bf16"] == 5e14),
        ("workload={isl = 7, osl = 5}", lambda s: s.workload.isl.max == 7),
        ("workload.isl={min = 3, max = 5}", lambda s: s.workload.isl.mean == 4),
        (
            "search.max_num_batched_tokens=[4096, 512, 512]",
            lambda s: s.search.max_num_batched_tokens == (512, 4096),
        ),
        ("baseline.plan=EP16/PP2/TP4/DP4", lambda s: s.baseline.plan == "EP16/PP2/TP4/DP4"),
    ],
)
def test_overrides(write, setting, read):
    """Any field can be set from outside: model, engine, whole tables, fields of a GPU given by name."""
    assert read(load_study(write(), [setting]))


def test_override_of_inline_tables_and_removal():
    """Fields of inline model and GPU tables can be set, and an empty VALUE takes a field out."""
    study = load_study(
        STUDIES / "reference-128.toml",
        [
            "model.num_experts=32",
            "cluster.gpu.hbm_tb_per_s=2.0",
            "workload.concurrency=",
            "constraints.ttft_ms=",
        ],
    )
    assert study.arch.num_experts == 32
    assert study.cluster.gpu.hbm_bytes_per_s == 2.0e12
    assert study.workload.concurrency is None
    assert study.constraints.ttft_s is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("ttft_ms=800", r"--set ttft_ms: is not a field of a study; the nearest is constraints\.ttft_ms"),
        ("constraints.ttft_mss=800", r"the nearest are constraints\.ttft_ms and "),
        ("constraints", r"must read path\.to\.field=VALUE"),
        ("=3", r"must read path\.to\.field=VALUE"),
        ("model.hidden_size=3", r"model is not a table, got 'mistralai/"),
        ("constraints.ttft_ms=fast", r"\$\.constraints\.ttft_ms: must be a number, got 'fast'"),
        ("cluster.gpus=8\nname='x'", r"must be a whole number, got"),
    ],
)
def test_overrides_that_name_nothing(write, setting, message):
    """An unknown path names the nearest fields; a wrong value is reported like one of the file."""
    with pytest.raises(InputError, match=message):
        load_study(write(), [setting])


@pytest.mark.parametrize(
    "setting", ["objective.minimize=tpot_s", "constraints.tpot_ms=20", "constraints.itl_p99_ms=20"]
)
@pytest.mark.parametrize(("osl", "wrong"), [("1", True), ("{min = 1, max = 1}", True), ("{min = 1, max = 2}", False)])
def test_tokens_after_the_first_are_asked_about_where_there_are_some(write, setting, osl, wrong):
    """With outputs of one token no limit and no objective is about those after the first."""
    settings = ("workload.concurrency=8", f"workload.osl={osl}", setting)
    if wrong:
        assert list(problems(write(MINIMAL), *settings)) == ["$.workload.osl"]
    else:
        load_study(write(MINIMAL), settings)


def test_a_setting_that_names_nothing_hides_no_other_problem(write):
    """What is wrong with a setting is said beside what is wrong with the others, and with the file."""
    settings, places = ("foo.bar=1", "cluster.gpus=x", "workload.isl=-1"), {"$.cluster.gpus", "$.workload.isl"}
    assert {"--set foo.bar", *places} <= set(problems(write(MINIMAL), *settings))
    with pytest.raises(InputError, match=r"foo\.bar") as caught:
        load_with_log(write(MINIMAL), settings)
    assert {"--set foo.bar", *places} <= {problem.path for problem in caught.value.problems}


def test_paths_are_relative_to_where_they_are_written(write, tmp_path, monkeypatch):
    """A model's path in the file is relative to it, one in `--set` to the working directory."""
    config = json.dumps(CONFIG)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "config.json").write_text(config)
    (tmp_path / "b" / "config.json").write_text(config.replace("4096", "8192"))
    monkeypatch.chdir(tmp_path / "b")
    path = write(MINIMAL.replace('"llama-3.1-8b"', '"./config.json"'), name="a/mine.toml")
    assert load_study(path).arch.hidden_size == 4096
    for spelling in ("./config.json", "config.json", str(tmp_path / "b" / "config.json"), str(tmp_path / "b")):
        assert load_study(path, [f"model={spelling}"]).arch.hidden_size == 8192
    assert load_study(path, ["model=qwen3-8b"]).arch.name == "Qwen/Qwen3-8B"


def test_prices_by_setting(write):
    """A price in `--set` is what it is in the file, by any of the GPU's names."""
    written = load_study(write(MINIMAL + "[prices]\nh100 = 3.0\n"))
    for name in ("h100", "h100_sxm"):
        assert load_study(write(), [f"prices.{name}=3"]).cluster == written.cluster
    assert written.cluster.gpu.price_per_hour == 3.0
    assert problems(write(), "prices.h101=3").keys() == {"$.prices.h101"}


def test_json_schema_describes_every_field():
    """Every field of the schema, of the GPU table too, has a description; nothing unknown is allowed."""
    schema = json_schema()
    assert schema["$schema"].endswith("2020-12/schema")
    models = schema["properties"]["models"]["items"]
    assert models["unevaluatedProperties"] is False
    for table in (schema, *schema["$defs"].values()):
        # what a model has beside its own keys stands beside the reference to its table
        assert table.get("additionalProperties") is (None if table["title"] == "ModelShare" else False)
        for name, field in table["properties"].items():
            assert field.get("description"), (table["title"], name)
    of_study = [set(way["required"]) for way in schema["anyOf"]]
    assert of_study == [{"model", "cluster", "workload"}, {"models", "cluster"}]
    ways = [set(way["required"]) for way in schema["$defs"]["WorkloadTable"]["anyOf"]]
    assert ways == [{"isl", "osl"}, {"traffic"}]


def test_schema_and_overrides_know_the_same_fields():
    """Every field of the JSON Schema's tables can be set by `--set`."""
    schema, paths = json_schema(), set(field_paths())
    for name, field in schema["properties"].items():
        if name in ("models", "division"):  # `--set` changes what stands in a file for all of its models
            continue
        assert name in paths
        if "$ref" in field:
            table = schema["$defs"][field["$ref"].rpartition("/")[2]]
            assert {f"{name}.{key}" for key in table["properties"]} <= paths


@pytest.mark.parametrize("path", [*SHIPPED, FOLDER / "clusters" / "four-models-256xh100.toml"], ids=lambda p: p.stem)
def test_shipped_files_keep_the_schema(path):
    """Every file that ships is valid by the JSON Schema, that of several models too, and a strange key is not."""
    valid = jsonschema.Draft202012Validator(json_schema())
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    valid.validate(document)
    strange = document["models"][0] if "models" in document else document
    assert not valid.is_valid(document | {"modles": []})
    strange["wieght"] = 1.0
    assert not valid.is_valid(document)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_studies_are_valid(path):
    """Every study that ships loads, and is called as its file."""
    assert load_study(path).name == path.stem


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_baselines_of_shipped_studies_are_plans(path):
    """Every baseline resolves to a valid layout of just the study's GPUs; the reference's to 4 x PP2 x 16."""
    study = load_study(path)
    baseline = study.baseline
    assert baseline is not None
    engine = baseline.engine or study.engine
    found = resolve(parse_plan(baseline.plan), arch=study.arch, gpus=study.cluster.gpus, engine=engine)
    layout = found.candidate.layout
    assert layout.gpus == study.cluster.gpus
    assert not found.violations
    if path.stem == "reference-128":
        assert (layout.replicas, layout.pp, layout.attn_tp, layout.attn_dp) == (4, 2, 4, 4)
        assert (layout.moe_tp, layout.moe_ep, layout.stage_layers) == (1, 16, (8, 8))


def test_reference_study_is_the_reports():
    """The reference model has 10.06B parameters in 20.1 GB, and its effective bandwidth is 1.44 TB/s."""
    from costmodel.arch import total_params, weight_bytes

    study = load_study(STUDIES / "reference-128.toml")
    gpu = study.cluster.gpu
    assert total_params(study.arch) == pytest.approx(10.06e9, rel=1e-3)
    assert weight_bytes(study.arch) == pytest.approx(20.1e9, rel=2e-3)
    assert gpu.hbm_bytes_per_s * (gpu.hbm_efficiency or 0) == pytest.approx(1.44e12)
    assert gpu.hbm_bytes == 64e9
    assert study.constraints.min_stage_tokens_per_s_per_gpu == 100_000


@pytest.mark.parametrize(("gpus", "numbers"), [(1, ["1", "8"]), (3, ["3", "8"]), (8, ["8"]), (16, ["8"])])
def test_gpus_of_a_node_that_are_not_given(gpus: int, numbers: list[str]) -> None:
    """Where a cluster is less than a server, what is assumed says how many GPUs such a server has."""
    study = load_study(FOLDER / "llama-70b-16xh100.toml", [f"cluster.gpus={gpus}", "cluster.gpu=l40s", "baseline="])
    (said,) = (text for text in study.assumptions if text.startswith("cluster.gpus_per_node not given"))
    assert study.cluster.gpus_per_node == int(numbers[0])
    assert re.findall(r"\b\d+\b", said) == numbers
