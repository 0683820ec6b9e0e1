"""The table of what engines' classes of models can do, and how tokens reach experts when a plan is started."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotune.engines import ENGINES
from autotune.engines.low_latency import GIB, MOST_TOKENS, buffer_bytes, padded_hidden, refusal
from autotune.engines.model_classes import facts, has, lacks_class
from autotune.engines.options import version_key
from autotune.engines.service import Service
from autotune.space import enumerate_space
from costmodel.arch import load_model, with_dtypes
from costmodel.hardware import load_gpu
from tests.launch.helpers import LIMITS, launched, plans, service

DISPATCH = "SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK"
WHOLE = "SGLANG_SHARED_EXPERT_TP1"


def routed(engine: str, model: str, *, gpus: int = 32, **limits: float) -> Service:
    """A plan with attention-DP over the whole stage, scored with tokens sent to the ranks of their experts."""
    candidate = next(
        c for c in plans(model, engine, gpus) if c.layout.attn_dp == c.layout.moe_ep == gpus and c.layout.pp == 1
    )
    given = replace(LIMITS, kv_room_bytes=60e9, **limits)
    return service(candidate, load_model(model), exchange="routed", limits=given)


def words(made: Service) -> list[str]:
    """Arguments of the first process that are plain text."""
    return [a for a in launched(made).processes[0].argv if isinstance(a, str)]


def test_each_fact_says_where_it_was_read() -> None:
    """Of a known engine, with a source and a version that orders; no family twice under one feature."""
    seen = set[tuple[str, str, str]]()
    for fact in facts():
        assert fact.engine in ENGINES
        assert len(fact.source) > 40
        assert all(bound is None or version_key(bound) for bound in (fact.since, fact.until))
        keys = {(fact.engine, fact.feature, family) for family in fact.families}
        assert not keys & seen
        seen |= keys


def test_a_fact_begins_with_a_version() -> None:
    """Without a version the newest counts; a text model within another is of the other's family."""
    arch = load_model("deepseek-v3")
    feature = "refined_expert_blocks"
    assert [has("vllm", feature, arch, v) for v in (None, "0.29.0", "0.30.0", "0.33.0")] == [True, False, True, True]
    assert not has("sglang", feature, arch, None)
    assert has("vllm", "attention_tp_within_experts", load_model("Qwen/Qwen3.5-397B-A17B"), None)


@pytest.mark.parametrize(
    ("engine", "model", "served", "refused"),
    [
        ("trtllm", "jamba-mini", (), (None, "1.0.0", "1.2.1", "1.4.0")),
        ("trtllm", "kimi-linear", ("1.3.0rc20",), (None, "1.2.1")),
        ("trtllm", "deepseek-v3.2", (None, "1.2.1", "1.2.0rc6.post2", "nightly-dev"), ("1.0.0", "1.1.0")),
        ("trtllm", "qwen3.5-397b", ("1.3.0",), (None, "1.0.0", "1.2.1")),
        ("trtllm", "gpt-oss-120b", (None, "1.1.0rc2", "gpt-oss-dev"), ("1.0.0rc3",)),
        ("trtllm", "llama-3.1-70b", (None, "1.0.0"), ()),
        ("vllm", "gpt-oss-120b", (None, "0.10.2", "0.12.0"), ("0.9.0", "0.3.0")),
        ("vllm", "qwen3.5-397b", (None, "0.19.0"), ("0.6.0", "0.16.0")),
        ("vllm", "jamba-mini", (None, "0.6.0"), ()),
        ("sglang", "qwen3.5-397b", (None, "0.5.9", "nightly-dev-20260216-d3bae71e"), ("0.5.5.post2",)),
    ],
)
def test_what_versions_have_a_class_for(
    engine: str, model: str, served: tuple[str | None, ...], refused: tuple[str | None, ...]
) -> None:
    """Without a version the newest counts whose options are known, a build without a number as newer than all."""
    arch = load_model(model)
    assert [version for version in (*served, *refused) if lacks_class(engine, arch, version)] == list(refused)
    layouts = enumerate_space(arch, gpus=8, engine=engine, version=(*refused, *served)[0])
    assert ("model_class" in layouts.rejected) is bool(refused)
    assert bool(layouts.candidates) is not bool(refused)


@pytest.mark.parametrize(("model", "gib"), [("deepseek-v3", 227.5), ("kimi-k2", 341.25)])
def test_the_buffer_of_a_large_token_budget(model: str, gib: float) -> None:
    """What DeepEP's own hint says for 16,384 tokens: far more than any GPU has."""
    arch = load_model(model)
    size = buffer_bytes(experts=arch.num_experts, hidden_size=arch.hidden_size, tokens=16_384)
    assert size / GIB == pytest.approx(gib)


def test_hidden_sizes_are_padded_to_a_kernels() -> None:
    """gpt-oss's 2,880 to 3,072; nothing above 8,192."""
    assert [padded_hidden(size) for size in (2048, 2880, 7168, 8192, 8193)] == [2048, 3072, 7168, 8192, None]


def test_what_low_latency_kernels_do_not_take() -> None:
    """Each refusal by the name of its rule, and none for a plan that fits."""
    made = routed("vllm", "deepseek-v3")
    arch, layout, place = made.arch, made.layout, made.place

    def said(**changes: object) -> str | None:
        values = {"tokens": 256, "room_bytes": 20e9, "pads": True, **changes}
        asked = replace(place, arch=values.pop("arch", arch), gpu=load_gpu(str(values.pop("gpu", "h200_sxm"))))
        why = refusal(asked, values.pop("layout", layout), **values)  # type: ignore[arg-type]  # mixed
        return None if why is None else why.partition(":")[0]

    assert said() is None
    assert said(tokens=MOST_TOKENS) is None
    assert [said(gpu=gpu) for gpu in ("a100_sxm", "l40s", "b200_sxm", "mi300x")] == ["low_latency_gpu"] * 2 + [None] * 2
    assert said(tokens=MOST_TOKENS + 1) == "low_latency_tokens"
    assert said(room_bytes=3e9) == "low_latency_buffer"
    assert said(layout=replace(layout, moe_tp=2, moe_ep=16)) == "low_latency_whole_experts"
    assert said(layout=replace(layout, redundant_experts=1)) == "low_latency_even_experts"
    assert said(arch=replace(arch, hidden_size=2880), pads=False) == "low_latency_hidden_size"
    assert said(arch=replace(arch, hidden_size=2880)) is None
    assert said(arch=replace(arch, hidden_size=9216)) == "low_latency_hidden_size"


def test_vllm_takes_the_backend_that_the_token_budget_allows() -> None:
    """DeepEP up to 1,024 tokens with its buffer in the memory, otherwise the gather, and the reason is said."""
    small, large = (routed("vllm", "deepseek-v3", max_num_batched_tokens=n) for n in (512, 2048))
    assert ENGINES["vllm"].exchange_buffer_bytes(small) == 4 * 256 * 512 * 14_560
    assert ENGINES["vllm"].exchange_buffer_bytes(large) == 0
    for made, backend in ((small, "deepep_low_latency"), (large, "allgather_reducescatter")):
        argv = words(made)
        assert argv[argv.index("--all2all-backend") + 1] == backend
    assert any("low_latency_tokens" in a for a in launched(large).assumptions)


@pytest.mark.parametrize(
    ("dtype", "refused"),
    [
        ("bf16", False),
        ("fp8", False),
        ("fp8_block", False),
        ("int4_g32", True),
        ("int8", True),
        ("mxfp4", True),
        ("mxfp6", True),
        ("mxfp8", True),
    ],
)
def test_vllm_has_low_latency_kernels_for_few_dtypes_on_amd(dtype: str, refused: bool) -> None:
    """Of 16 bits and FP8 on AMD's GPUs, of all on NVIDIA's; else the gather is written, and why is said."""
    made = routed("vllm", "deepseek-v3", max_num_batched_tokens=512)
    stored = with_dtypes(made.arch, moe_dtype=dtype)
    for gpu, without in (("mi300x", refused), ("mi355x", refused), ("h200_sxm", False)):
        asked = replace(made, arch=stored, cluster=replace(made.cluster, gpu=load_gpu(gpu)))
        argv = words(asked)
        backend = "allgather_reducescatter" if without else "deepep_low_latency"
        assert argv[argv.index("--all2all-backend") + 1] == backend
        assert any("low_latency_expert_dtype" in a for a in launched(asked).assumptions) is without


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize(("tokens", "heap"), [(128, 7_524_589_824), (1024, 4 * 256 * 1024 * 14_560 + GIB)])
def test_deepep_on_amd_has_its_buffer_in_the_heap_of_rocshmem(engine: str, tokens: int, heap: int) -> None:
    """The heap that is known to do, or a larger one with 1 GiB beside the buffer; ROCm's own build is named."""
    made = routed(engine, "deepseek-v3", max_num_batched_tokens=tokens, max_num_seqs=tokens)
    asked = replace(made, cluster=replace(made.cluster, gpu=load_gpu("mi300x")))
    plan, other = launched(asked), launched(made)
    assert plan.processes[0].env["ROCSHMEM_HEAP_SIZE"] == str(heap)
    assert plan.processes[0].env["ROCSHMEM_MAX_NUM_CONTEXTS"] == "256"
    assert ENGINES[engine].exchange_buffer_bytes(asked) == heap
    assert not any(name.startswith("ROCSHMEM") for name in other.processes[0].env)
    assert [any("github.com/ROCm/DeepEP" in a for a in p.assumptions) for p in (plan, other)] == [True, False]


@pytest.mark.parametrize(("overlap", "named"), [(0, False), (1, True)])
def test_high_throughput_on_amd_has_a_heap_too(overlap: int, named: bool) -> None:
    """Two batches of more tokens than low latency takes go by high throughput, one by the gather without DeepEP."""
    made = routed("vllm", "deepseek-v3", max_num_batched_tokens=2048)
    layout = replace(made.layout, two_batch_overlap=overlap)
    plan = launched(replace(made, layout=layout, cluster=replace(made.cluster, gpu=load_gpu("mi300x"))))
    assert ("ROCSHMEM_HEAP_SIZE" in plan.processes[0].env) is named
    assert any("github.com/ROCm/DeepEP" in a for a in plan.assumptions) is named


def test_sglang_gives_deepep_room_for_the_sequences() -> None:
    """128 tokens a rank unless it is told, so that more sequences are told, and none above 1,024 are sent by it."""
    few, many, most = (routed("sglang", "deepseek-v3", max_num_seqs=n) for n in (37, 300, 1100))
    assert [launched(made).processes[0].env.get(DISPATCH) for made in (few, many, most)] == [None, "300", None]
    assert ["--moe-a2a-backend" in words(made) for made in (few, many, most)] == [True, True, False]
    assert not any(WHOLE in launched(made).processes[0].env for made in (few, many))
    assert launched(most).processes[0].env[WHOLE] == "1"


@pytest.mark.parametrize(
    ("model", "rule"), [("gpt-oss-120b", "low_latency_model_class"), ("qwen3-235b", "low_latency_expert_dtype")]
)
def test_sglang_has_no_deepep_for_some_experts(model: str, rule: str) -> None:
    """gpt-oss's class, and experts in 16 bits."""
    made = routed("sglang", model, gpus=8)
    assert "--moe-a2a-backend" not in words(made)
    assert any(rule in a for a in launched(made).assumptions)


def test_shared_experts_stay_whole_only_where_they_must() -> None:
    """DeepSeek-V3's 2,048 over 16 GPUs are whole blocks, over 32 half a block."""
    arch = load_model("deepseek-v3")
    for candidate in plans("deepseek-v3", "sglang", 32):
        env = launched(service(candidate, arch, cluster=service(candidate, arch, per_node=32).cluster)).processes[0].env
        assert (env.get(WHOLE) == "1") is (candidate.layout.width == 32)


@pytest.mark.parametrize("engine", ENGINES)
def test_code_of_the_models_own_is_allowed_where_it_is_needed(engine: str) -> None:
    """Kimi-K2's tokenizer is code of its own, DeepSeek-V3's is not; the benchmark's client reads it too."""
    for model, needed in (("kimi-k2", True), ("deepseek-v3", False)):
        candidate = next(c for c in plans(model, engine, 8) if c.layout.pp == 1)
        argv = words(service(candidate, load_model(model)))
        assert bool({"--trust-remote-code", "--trust_remote_code"} & set(argv)) is needed


def test_prompts_cut_over_ranks_need_more_than_their_option() -> None:
    """SGLang does nothing with the degree alone; vLLM's newer runner has it."""
    arch = load_model("deepseek-v3")
    for engine, sign in (("sglang", "--enable-prefill-cp"), ("vllm", "VLLM_USE_V2_MODEL_RUNNER")):
        base = next(c for c in plans("deepseek-v3", engine, 8) if c.layout.attn_tp == c.layout.moe_ep == 8)
        whole = launched(service(base, arch)).processes[0]
        cut = launched(service(base, arch, layout=replace(base.layout, attn_tp=4, attn_cp=2))).processes[0]
        assert sign not in (*whole.argv, *whole.env)
        assert sign in (*cut.argv, *cut.env)
