"""What commands mean: the layout and knobs of what they start, and what they leave open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.option_reader import Command, OptionReader
from autotune.launch.reading.started import QUANTIZATION
from costmodel.arch import Arch
from costmodel.errors import InputError
from costmodel.plan.layout import Layout


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
