"""What commands mean: the layout and knobs of what they start, what else it is started with, what they leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autotune.engines import ENGINES, Engine
from autotune.engines.option_reader import Command, OptionReader
from autotune.engines.quantisations import is_priced
from autotune.launch.reading.roles import Process, servers_of
from costmodel.arch import Arch
from costmodel.errors import InputError
from costmodel.hardware import Gpu
from costmodel.plan.layout import Layout

QUANTIZATION = "quantization"
"""Option of vLLM and SGLang that names how weights are quantised."""
DEFAULT_GPU_GIB = 80.0
"""Where nobody says which GPU it is, an H100's: engines choose some defaults by it."""


def layout_of(options: OptionReader, arch: Arch | None, servers: int) -> Layout:
    """The layout of so many servers, its stages as the engine splits them where nothing else is said.

    `stage_layers` is empty where the model, and with it its layers, is not known.
    """
    engine = ENGINES[options.command.engine]
    layout = engine.layout(options, arch, servers)
    if layout.stage_layers or arch is None or layout.pp > arch.num_hidden_layers:
        return layout
    return replace(layout, stage_layers=engine.split_layers(arch.num_hidden_layers, layout.pp))


def knobs_of(options: OptionReader, layout: Layout) -> dict[str, Any]:
    """Token budget, sequences, lengths and dtypes, per attention-DP rank; None where the engine decides at start."""
    engine = ENGINES[options.command.engine]
    ranks = layout.attn_dp if engine.limits_over_ranks else 1
    seqs, tokens = options.limit(engine.sequences_option), options.limit(engine.tokens_option)
    if engine.sequences_within_tokens and options.text(engine.sequences_option) is None and seqs and tokens:
        seqs = min(seqs, tokens)
    kv, length = options.text(engine.cache_option), engine.length_option
    memory = [text for name in engine.memory_options if (text := options.text(name)) is not None]
    usual = options.default(engine.memory_options[-1])
    return {
        "concurrency": None,
        "max_num_batched_tokens": None if tokens is None else max(tokens // ranks, 1),
        "max_num_seqs": None if seqs is None else max(seqs // ranks, 1),
        "weight_dtype": options.text(QUANTIZATION),
        "kv_dtype": None if kv is None else engine.kv_dtype(kv),
        "max_model_len": options.number(length) if options.text(length) not in ("auto", "-1") else None,
        "memory_fraction": options.fraction(memory[0]) if memory else usual,
    }


def defaults_of(options: OptionReader) -> dict[str, Any]:
    """What the version takes for the options that were left out; None: it finds the value when it starts."""
    command = options.command
    given = {*command.values, *(name.rpartition(".")[2] for name in command.values)}
    return {
        name: options.default(name)
        for name in ENGINES[command.engine].shown_options
        if name in command.options.options and name not in given
    }


def same_servers(commands: Sequence[Command], unless: str | None = None) -> None:
    """Raises `InputError` where the servers differ in anything that decides about their plan.

    `unless`: what is to be said of servers that need not be alike; None: nothing.
    """
    first = commands[0]
    problems = []
    for other in commands[1:]:
        if other.engine != first.engine:
            problems.append(f"engines {first.engine} and {other.engine}")
            continue
        if other.model != first.model:
            problems.append(f"models {first.model!r} and {other.model!r}")
        problems += [
            f"{name} {first.values.get(name, 'default')!s:.60} and {other.values.get(name, 'default')!s:.60}"
            for name in ENGINES[first.engine].shown_options
            if name in first.values.keys() | other.values.keys() and first.values.get(name) != other.values.get(name)
        ]
    if problems:
        message = "servers must be copies of one plan, they differ in " + "; ".join(dict.fromkeys(problems))
        raise InputError.single("FILE", message if unless is None else f"{message}; {unless}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What the commands of a server say, of two pools those of decode."""

    max_num_seqs: int | None
    """Per attention-DP rank, the version's default included; None: the engine finds it."""
    memory_fraction: float | None
    """As the engine's option has it; None: it is not given."""
    cuda_graphs: bool
    """Whether decode steps are replayed as graphs."""
    drafts: str
    """How it is told to draft tokens, as it was written; empty: it drafts none."""
    not_priced: tuple[str, ...]
    """What no formula knows, as it was written."""

    def of_pools(self, prefill: Started, engine: Engine) -> Started:
        """Of two pools, this one's decode: what the other is started with besides is not priced."""
        own, memory = self.not_priced, engine.memory_options[-1]
        usual = (*self.not_priced, *(f"{name} True" for name in engine.start_options.of_prefill))
        if prefill.memory_fraction not in (None, self.memory_fraction):
            own = (*own, f"{memory} {prefill.memory_fraction:g} of the prefill pool")
        if self.cuda_graphs and not prefill.cuda_graphs:
            own = (*own, "no CUDA graphs of the prefill pool")
        own = (*own, *(f"{text} of the prefill pool" for text in prefill.not_priced if text not in usual))
        return replace(self, not_priced=own)


def started_of(
    options: OptionReader, knobs: Mapping[str, Any], arch: Arch | None, checkpoint_dtype: str | None
) -> Started:
    """What a command says, of which `knobs` were read (`knobs_of`).

    `checkpoint_dtype`: in which it stores its weights where that is not as `arch` has it.

    Raises:
        InputError: it starts a server that generates nothing.
    """
    engine, command = ENGINES[options.command.engine], options.command
    if nothing := engine.start_options.generates_nothing(command):
        message = f"must start a server that generates tokens: with {' and '.join(nothing)} it generates none"
        raise InputError.single("FILE|COMMAND", message)
    told, said = engine.start_options, any(options.text(name) is not None for name in engine.memory_options)
    return Started(
        max_num_seqs=knobs["max_num_seqs"],
        memory_fraction=knobs["memory_fraction"] if said else None,
        cuda_graphs=told.captures_graphs(command),
        drafts=told.drafts(command),
        not_priced=(*_weights(options, arch, checkpoint_dtype), *_cache(options, arch), *told.left_out(command)),
    )


def _cache(options: OptionReader, arch: Arch | None) -> tuple[str, ...]:
    """The cache's dtype that it is told, where the cache is then not the one that is priced."""
    engine, known = ENGINES[options.command.engine], options.command.options.options
    given = options.text(engine.cache_option)
    said = None if given is None else engine.unpriced_cache(given, arch)
    name = known[engine.cache_option].flags[0] if engine.cache_option in known else engine.cache_option
    return () if said is None else (f"{name} {said}",)


def _weights(options: OptionReader, arch: Arch | None, checkpoint_dtype: str | None) -> tuple[str, ...]:
    """The quantisation that it is told, where its weights are then not those that are priced."""
    method, made = options.text(QUANTIZATION), ENGINES[options.command.engine].weight_names.values()
    if method is None or arch is None or is_priced(method, made, arch, checkpoint_dtype):
        return ()
    return (f"{options.command.options.options[QUANTIZATION].flags[0]} {method}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What servers that are copies of one are."""

    options: OptionReader
    layout: Layout
    knobs: Mapping[str, Any]
    started: Started


def part_of(servers: list[Process], arch: Arch | None, gpu: Gpu | None, stored: str | None) -> Part:
    """Servers that are copies of one, which store their weights in `stored` where that is not as `arch` has it."""
    command = servers[0].command
    options = OptionReader(
        command=command,
        gpu_gib=DEFAULT_GPU_GIB if gpu is None else gpu.hbm_bytes / 2**30,
        gpu_name="" if gpu is None else gpu.name,
        backend=ENGINES[command.engine].exchange_backend(command),
    )
    one = layout_of(options, arch, 1)
    layout = layout_of(options, arch, sum(servers_of(p, one.gpus) for p in servers))
    knobs = knobs_of(options, layout)
    return Part(options=options, layout=layout, knobs=knobs, started=started_of(options, knobs, arch, stored))
