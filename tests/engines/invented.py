"""An engine that nobody makes, in the one file that an engine takes: what a fourth one would need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from autotune.engines import ENGINES, Engine, ReplicaNodes
from autotune.engines import layout_rules as shared
from autotune.engines.bench_serve import bench_serve
from autotune.engines.benchmark import BenchCommand, Drive
from autotune.engines.command_line import Arg, CommandLine, NodeHost, NodeRank
from autotune.engines.layout_rules import Rule
from autotune.engines.option_reader import OptionReader
from autotune.engines.options import OptionList
from autotune.engines.service import Service
from autotune.engines.vllm import VLLM
from costmodel.arch import Arch
from costmodel.engine import CacheDtype, EngineTraits
from costmodel.plan.layout import Layout


class Lantern(Engine):
    """Tensor and expert parallelism inside a stage, pipelines, and no attention data parallelism at all."""

    traits = EngineTraits(
        name="lantern",
        calibration="sglang",
        stages_strided=False,
        kv_fraction_is_of_free=False,
        reserves_whole_output=False,
        prompts_ride_on_decode_steps=True,
        captured_prompt_tokens=0,
        quantised_cache=CacheDtype.ACTIVATIONS,
    )
    title = "Lantern"
    rules = (
        shared.STAGES_HAVE_LAYERS,
        shared.DENSE_HAS_NO_EXPERTS,
        shared.ATTENTION_HEADS,
        shared.KV_HEADS,
        shared.LINEAR_ATTENTION_HEADS,
        Rule(
            name="no_attention_dp",
            text="Lantern splits attention by heads alone: attn_dp and attn_cp must be 1",
            fields=("attn_dp", "attn_cp"),
            broken=lambda _, c: (c.attn_dp > 1) | (c.attn_cp > 1),
        ),
        shared.ENOUGH_EXPERTS,
        shared.EXPERTS_DIVISIBLE,
        Rule(
            name="no_redundant_experts",
            text="Lantern keeps each expert once: redundant_experts must be 0",
            fields=("redundant_experts",),
            broken=lambda _, c: c.redundant_experts > 0,
        ),
        shared.EXPERT_SHARDS,
        shared.EXPERT_BLOCKS,
        shared.DENSE_SHARDS,
        shared.NO_DECODE_CONTEXT_PARALLEL,
    )
    tp_may_be_stage_width = True
    startup_s = 61.0
    package = "lantern"
    http_port = 7000
    kv_names: ClassVar[Mapping[str, tuple[str, ...]]] = {"bf16": ("half",), "fp8": ("quarter",)}
    weight_names: ClassVar[Mapping[str, str]] = {}
    speculative_option = "--draft"
    options_data = Path(__file__).with_name("options_data")
    programs = (("lantern", "up"),)
    later_node_options = ("rank",)
    length_option = "length"
    sequences_option = "sequences"
    tokens_option = "budget"
    cache_option = "cache"
    memory_options = ("memory",)
    memory_is_of_everything = True
    shown_options = ("tensor", "stages", "experts", "length", "sequences", "budget", "memory")
    image = "example.org/lantern/server:{version}"
    image_tags = "https://example.org/lantern/tags"
    image_name = "lantern/server"
    bench_client = VLLM.bench_client
    bench_result = VLLM.bench_result

    def longer_stages(self, pp: int, remainder: int) -> range:
        """Every other one would do; the last do."""
        return range(pp - remainder, pp)

    def command(
        self, service: Service, options: OptionList, place: ReplicaNodes, node_rank: int, port: int
    ) -> tuple[Arg, ...]:
        """`lantern up` on one node."""
        layout, limits = service.layout, service.limits
        line = CommandLine(options).positional(service.model).value("port", port)
        line.value("tensor", layout.width, meaning="stage_width").value("stages", layout.pp)
        line.value("experts", layout.moe_ep, meaning="expert_parallel")
        line.value("split", ",".join(map(str, layout.stage_layers)))
        line.value("length", limits.max_model_len).value("sequences", limits.max_num_seqs)
        line.value("budget", limits.max_num_batched_tokens)
        line.value("memory", limits.gpu_memory_utilization, meaning="of_total")
        self.write_dtypes(line, service)
        if len(place.nodes) > 1:
            line.value("rank", NodeRank(rank=node_rank)).value("head", NodeHost(node=place.nodes[0], port=7001))
        return line.done()

    def layout(self, options: OptionReader, arch: Arch | None, servers: int) -> Layout:
        """Every degree is an option, but for the experts' shards."""
        width, pp, ep = options.one("tensor"), options.one("stages"), options.one("experts")
        is_moe = options.guess_experts(ep > 1) if arch is None else arch.is_moe
        return Layout(
            replicas=servers,
            pp=pp,
            attn_tp=width,
            attn_dp=1,
            moe_tp=options.divided(width, ep, "--experts must divide --tensor") if is_moe else 1,
            moe_ep=ep if is_moe else 1,
            stage_layers=options.stages(options.text("split"), pp),
        )

    def benchmark(self, service: Service, options: OptionList, drive: Drive) -> BenchCommand:
        """vLLM's client, over OpenAI's API."""
        return bench_serve(self, service, options, drive, backend="openai")

    def bench_options(self, version: str) -> OptionList:  # noqa: ARG002  # another's client
        """Options of vLLM's newest client."""
        return VLLM.bench_options(VLLM.versions()[0])


@contextmanager
def registered(engine: Engine) -> Iterator[Engine]:
    """The engine among the others, for as long as the block runs."""
    ENGINES[engine.name] = engine
    try:
        yield engine
    finally:
        del ENGINES[engine.name]
